import sys

from tests.adapters import models
from tests.documents import run

sys.modules["shop.models"] = models  # the guide's name of it
AccountAdapter = run("howto/adapters", "class AccountAdapter(")["AccountAdapter"]
