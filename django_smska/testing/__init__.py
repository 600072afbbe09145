"""The test kit for projects that send SMS. Its names can be imported from here.

Each is loaded when it is first used, so that importing this package needs neither pytest nor
Django's settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assertions import assert_no_sms_sent, assert_sms_queued, assert_sms_sent
    from .cases import SmsTestMixin
    from .factory import make_inbound, make_sms
    from .faults import FAULTS, Fault, answer
    from .gateway import StandInGateway, closed_port
    from .stand_in import use_stand_in_gateway
    from .worker import run_sms_worker

__all__ = [
    "FAULTS",
    "Fault",
    "SmsTestMixin",
    "StandInGateway",
    "answer",
    "assert_no_sms_sent",
    "assert_sms_queued",
    "assert_sms_sent",
    "closed_port",
    "make_inbound",
    "make_sms",
    "run_sms_worker",
    "use_stand_in_gateway",
]


def __getattr__(name: str) -> Any:
    home: Any
    if name.startswith("assert_") and name in __all__:
        from . import assertions as home
    elif name == "SmsTestMixin":
        from . import cases as home
    elif name in ("make_inbound", "make_sms"):
        from . import factory as home
    elif name in ("FAULTS", "Fault", "answer"):
        from . import faults as home
    elif name in ("StandInGateway", "closed_port"):
        from . import gateway as home
    elif name == "run_sms_worker":
        from . import worker as home
    elif name == "use_stand_in_gateway":
        from . import stand_in as home
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
