"""The providers for which the documentation has ready settings, made from their descriptions."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from django_smska.testing.faults import frame

from .standin import Received, Standin, Taking, reply


class Described(Standin):
    """A provider; ``refusal`` is what it answers next instead of accepting: any of its codes."""

    #: What the login must be, by the names in ``secrets``.
    login: dict[str, str]
    refusal: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.word: Any = None  # of the next report

    def sends(self, request: Received) -> bool:
        return request.path == self.path

    def take(self, the_id: str, number: str, body: str, sender: str, **more: str) -> None:
        self.accepted.append(Taking(the_id, number, body, sender, **more))


class SmsRu(Described):
    path = "/sms/send"
    login = {"api_id": "id-of-sms-ru"}

    def answer(self, request: Received) -> bytes:
        form = request.form
        if form["json"] != "1" or form["api_id"] != self.login["api_id"]:
            return self.whole(200)
        if request.path == "/my/balance":
            return reply({"status": "OK", "status_code": 100, "balance": 90.5})
        if request.path == "/sms/status":
            one = {"status": "OK", "status_code": self.word, "status_text": "text"}
            return reply({"status": "OK", "status_code": 100, "sms": {form["sms_id"]: one}})
        where, code = self.refusal or ("", 100)
        if where == "request":
            return self.whole(code)
        one = {"status": "ERROR", "status_code": code, "status_text": "text"}
        if code == 100:
            self.take("000000-10000000", form["to"], form["msg"], form.get("from", ""))
            one = {"status": "OK", "status_code": 100, "sms_id": self.accepted[-1].id}
        whole = {"status": "OK", "status_code": 100, "sms": {form["to"]: one}, "balance": 90.5}
        return reply(whole)

    def whole(self, code: int) -> bytes:
        return reply({"status": "ERROR", "status_code": code, "status_text": "text"})


class SmsAero(Described):
    path = "/v2/sms/send"
    login = {"email": "me@shop.example", "key": "key-of-sms-aero"}

    def answer(self, request: Received) -> bytes:
        kind, _, login = request.headers.get("authorization", "").partition(" ")
        if kind != "Basic" or b64decode(login).decode() != ":".join(self.login.values()):
            return reply({"success": False, "message": "login"}, 401)
        if not request.headers["content-type"].startswith("application/json"):
            return reply({"success": False, "message": "JSON is wanted"}, 400)
        if request.path == "/v2/balance":
            return reply({"success": True, "data": {"balance": 337.03}})
        if request.path == "/v2/sms/status":
            data = {"id": int(request.json["id"]), "status": 8, "extendStatus": self.word}
            return reply({"success": True, "data": data})
        if self.refusal is not None:
            status, body = self.refusal
            return reply(body, status)
        asked = request.json
        self.take("1", asked["number"], asked["text"], asked["sign"])
        data = {"id": 1, "status": 0, "extendStatus": "queue", "cost": 2.49}
        return reply({"success": True, "data": data})


class Exolve(Described):
    path = "/messaging/v1/SendSMS"
    login = {"key": "key-of-exolve"}
    the_id: Any = 439166556416706151  # beyond 2 ** 53

    def answer(self, request: Received) -> bytes:
        if request.headers.get("authorization") != f"Bearer {self.login['key']}":
            return reply({"error": "unauthorized"}, 401)
        if request.path == "/finance/v1/GetBalance":
            return reply({"balance": "120.5"})
        if self.refusal is not None:
            return reply({"error": "text"}, self.refusal)
        asked = request.json
        self.take(str(self.the_id), asked["destination"], asked["text"], asked["number"])
        return reply({"message_id": self.the_id})


class Jasmin(Described):
    path = "/send"
    login = {"username": "user-of-jasmin", "password": "password-of-jasmin"}

    def answer(self, request: Received) -> bytes:
        form = request.form
        if {name: form[name] for name in self.login} != self.login:
            return frame(b'Error "Authentication failure for username:x"', 403)
        if self.refusal is not None:
            status, words = self.refusal
            return frame(f'Error "{words}"'.encode(), status)
        assert form["coding"] == "8" and (form["dlr"], form["dlr-level"]) == ("yes", "3")
        body = bytes.fromhex(form["hex-content"]).decode("utf-16-be")
        callback = form.get("dlr-url", "")
        the_id = "07033084-5cfd-4812-90a4-e4d24ffb6e3d"
        self.take(the_id, form["to"], body, form.get("from", ""), callback=callback)
        return frame(f'Success "{the_id}"'.encode())
