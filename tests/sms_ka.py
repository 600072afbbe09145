"""A client of SMS-ka for the tests of the wire, which ask of results rather than of exceptions."""

from types import SimpleNamespace

from django_smska.backends.smska import SmsBackend
from django_smska.exceptions import SmsError


class Client:
    """One account; what it is asked is answered by a result or by an ``SmsError``.

    Any other exception is raised.
    """

    def __init__(self, api_key, api_password, *, url, **options):
        self.backend = SmsBackend(api_key=api_key, api_password=api_password, url=url, **options)
        self.backend.open()

    def send(self, msisdn, text, sender, before_first_byte=lambda: None, *, code=""):
        message = SimpleNamespace(
            to="+" + msisdn,
            body=text,
            sender=sender,
            code=code,
            before_first_byte=before_first_byte,
        )
        return result_of(lambda: self.backend.send_message(message))

    def balance(self):
        return result_of(self.backend.get_balance)

    def status(self, gateway_id, *, text="", msisdn=""):
        message = SimpleNamespace(gateway_id=gateway_id, body=text, to=msisdn)
        return result_of(lambda: self.backend.get_status(message))

    def close(self):
        self.backend.close()


def result_of(call):
    """Return what the call returns, or the error about the message that it raises."""
    try:
        return call()
    except SmsError as error:
        return error
