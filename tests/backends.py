"""Backends as a third party might write them."""

import threading
from collections import Counter
from decimal import Decimal

from django_smska.backends.base import BaseSmsBackend
from django_smska.exceptions import SmsNotSent, SmsOutcomeUnknown
from django_smska.receipts import Receipt, Report


class Minimal(BaseSmsBackend):
    """All that a backend must define."""

    def send_message(self, message):
        return Receipt(gateway_id="minimal-1")


class Talkative(BaseSmsBackend):
    """Refuses the numbers that its option names."""

    def __init__(self, *, refuse: str = "", **kwargs):
        super().__init__(**kwargs)
        self.refuse = refuse

    def send_message(self, message):
        if message.body == self.refuse:
            raise SmsNotSent("refused by its option")
        return Receipt()


class Quoting(BaseSmsBackend):
    """Refuses every message, and quotes its request in the error, as an HTTP library may."""

    def __init__(self, *, token: str = "", error=SmsNotSent, **kwargs):
        super().__init__(**kwargs)
        self.token, self.error = token, error

    def send_message(self, message):
        request = f"to={message.to}&text={message.body}&token={self.token}"
        raise self.error(f"POST {request}", code=message.to, gateway_text=f"bad: {request}")


class Aborting(BaseSmsBackend):
    """Is stopped by a web server while its request is in a local variable."""

    def __init__(self, *, token: str = "", **kwargs):
        super().__init__(**kwargs)
        self.token = token

    def send_message(self, message):
        request = {"to": message.to, "text": message.body, "token": self.token}
        raise SystemExit(len(request))

    def get_balance(self):
        request = {"token": self.token}
        raise SystemExit(len(request))


class Broken(BaseSmsBackend):
    """Raises what no backend should, with a secret in its text."""

    def send_message(self, message):
        raise ZeroDivisionError(f"secret {message.body}")


class BrokenBeforeItsFirstByte(Broken):
    announces_first_byte = True


class Forgetful(BaseSmsBackend):
    """Promises to announce its first byte, and does not."""

    announces_first_byte = True

    def send_message(self, message):
        return Receipt(gateway_id="forgetful-1")


class Careless(BaseSmsBackend):
    """Returns no receipt."""

    def send_message(self, message):
        return True


class Empty(BaseSmsBackend):
    """Defines nothing."""


class Hostile(BaseSmsBackend):
    """Raises and returns what its OPTIONS say, wherever it is called.

    ``raises`` and ``returns``: by the name of a method or attribute. ``calls`` counts, over all
    instances.
    """

    calls = Counter()

    def __init__(self, *, raises=None, returns=None, **kwargs):
        self.raises, self.returns = raises or {}, returns or {}
        self.act("__init__", None)
        super().__init__(**kwargs)

    def act(self, name, usual):
        self.calls[name] += 1
        if name in self.raises:
            raise self.raises[name]
        return self.returns.get(name, usual)

    def open(self):
        return self.act("open", True)

    def close(self):
        return self.act("close", None)

    def send_message(self, message):
        return self.act("send_message", Receipt(gateway_id="hostile-1"))

    def get_status(self, message):
        return self.act("get_status", Report("delivered", "4|DELIVRD"))

    def get_balance(self):
        return self.act("get_balance", Decimal(10))

    def check(self):
        return self.act("check", [])

    uses_network = property(lambda self: self.act("uses_network", True))
    announces_first_byte = property(lambda self: self.act("announces_first_byte", False))
    deadline = property(lambda self: self.act("deadline", 30))
    rate = property(lambda self: self.act("rate", None))
    gives_reports = property(lambda self: self.act("gives_reports", True))
    has_balance = property(lambda self: self.act("has_balance", True))


class Limited(BaseSmsBackend):
    """Allows three requests at once, and answers when three have come.

    ``most``: how many were in flight together, of sends and of queries. The first of each kind is
    alone, because the engine lets one go first.
    """

    most_at_once = 3

    def __init__(self, *, shared, **kwargs):
        super().__init__(**kwargs)
        self.shared = shared

    def send_message(self, message):
        self.shared.pass_through("sends")
        return Receipt(gateway_id=f"limited-{message.pk}")

    def get_status(self, message):
        self.shared.pass_through("queries")
        return Report("delivered", "4|DELIVRD")


class Passage:
    """What the instances of ``Limited`` in several threads share."""

    def __init__(self):
        self.lock = threading.Lock()
        self.three, self.fourth = threading.Barrier(3, timeout=30), threading.Event()
        self.inside, self.seen, self.most = 0, set(), Counter()

    def pass_through(self, kind):
        with self.lock:
            first = kind not in self.seen
            self.seen.add(kind)
            self.inside += 1
            self.most[kind] = max(self.most[kind], self.inside)
            if self.inside > 3:
                self.fourth.set()
        try:
            if not first:
                self.three.wait()
                self.fourth.wait(timeout=0.2)  # it must not come
        finally:
            with self.lock:
                self.inside -= 1


class Stranger:
    """Inherits nothing of ours, and has no more than it must."""

    def __init__(self, alias):
        self.name = alias

    def send_message(self, message):
        return Receipt(gateway_id="stranger-1")


class Scribbler(Hostile):
    """Writes on the message whatever it likes."""

    def send_message(self, message):
        vars(message).clear()
        vars(message).update(pk=None, id=None, token="", using=None, status="on its way")
        return super().send_message(message)


class Unformed(SmsNotSent):
    """An error whose class does not call ours, and so lacks what all of ours have."""

    def __init__(self, request):
        Exception.__init__(self)


class OfNoKind(SmsNotSent):
    kind = ["banana"]


class Denied(SmsOutcomeUnknown):
    """Says "it may have been accepted" and "it was refused" at once."""

    kind = "message"


class Sealed(SmsNotSent):
    """What the engine writes on an error cannot be written on this one."""

    sms = property(lambda self: None)
    refused = "nothing to be iterated over"

    def __init__(self):
        Exception.__init__(self, "sealed")


class Locked(SmsNotSent):
    """Python's own marks cannot be written on it either."""

    def __setattr__(self, name, value):
        if name.startswith("__"):
            raise ValueError("locked")
        super().__setattr__(name, value)

    def with_traceback(self, traceback):
        raise ValueError("locked")
