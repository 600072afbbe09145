from tests.documents import run

Phone = run("howto/adapters", "class Phone(", __name__=__name__)["Phone"]
