"""Sends through Acme, an imaginary provider with a JSON API. Copy this file and change it."""

from django_smska import exceptions as sms
from django_smska.backends.over_http import HttpBackend
from django_smska.exchange import json_body
from django_smska.json_answers import answered_object, number_of, text_of
from django_smska.receipts import Receipt, Report

#: What the provider documents as "not accepted". Every other answer is a doubt.
REFUSALS = {
    401: sms.AuthenticationFailed,
    402: sms.InsufficientCredits,
    422: sms.InvalidRecipient,
    429: sms.GatewayBusy,
}
#: The provider's words for the end of a message.
STATES = {"delivered": "delivered", "undeliverable": "rejected", "too_late": "expired"}


class SmsBackend(HttpBackend):
    """OPTIONS: ``token``, ``url``, and those of every backend over HTTP."""

    balance_unit = "credits"

    def __init__(self, *, token="", url="https://api.acme.example", **rest):
        super().__init__(login={"token": token}, url=url, **rest)

    def send_request(self, message):
        sender = message.sender or self.sender_id
        fields = {"to": message.to, "from": sender, "text": message.body, "ref": message.reference}
        return self.api("send", "POST", "/messages", message, body=json_body(fields))

    def read_send_answer(self, answer):
        if refusal := REFUSALS.get(answer.status):
            login_works = refusal is not sms.AuthenticationFailed
            return refusal(code=f"http-{answer.status}", answered=login_works)
        found = answered_object(answer)
        if answer.status != 201 or not found.get("id"):
            return sms.SmsOutcomeUnknown(code=f"http-{answer.status}")
        return Receipt(text_of(found["id"]), balance=number_of(found.get("credits")))

    def get_status(self, message):
        path = f"/messages/{message.gateway_id}"
        state = text_of(self.ask("query", path, message).get("state"))
        return Report(STATES.get(state, "sent"), raw=state)

    def get_balance(self):
        return number_of(self.ask("balance", "/account").get("credits"))

    def ask(self, name, path, message=None):
        return self.query(lambda: self.api(name, "GET", path, message), read_found)

    def api(self, name, method, path, message=None, **parts):
        url, headers = self.url + path, {"Authorization": f"Bearer {self.login.token}"}
        return self.request(name, message, method=method, url=url, headers=headers, **parts)


def read_found(answer):
    found = answered_object(answer) if answer.status == 200 else {}
    return found or sms.QueryFailed(code=f"http-{answer.status}")
