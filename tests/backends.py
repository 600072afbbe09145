"""Backends as a third party might write them."""

from django_smska.backends.base import BaseSmsBackend
from django_smska.exceptions import SmsNotSent
from django_smska.receipts import Receipt


class Minimal(BaseSmsBackend):
    """All that a backend must define."""

    def send_message(self, message):
        return Receipt(gateway_id="minimal-1")


class Talkative(BaseSmsBackend):
    """Takes an option and refuses what it is told to refuse."""

    def __init__(self, *, refuse: str = "", **kwargs):
        super().__init__(**kwargs)
        self.refuse = refuse

    def send_message(self, message):
        if message.body == self.refuse:
            raise SmsNotSent("told to refuse")
        return Receipt()


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
