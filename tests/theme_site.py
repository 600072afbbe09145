"""A site in a process of its own, with messages to look at: ``with site(theme=…) as opened``.

A theme is an installed app, so that each needs a process. ``python -m tests.theme_site`` prints as
JSON where the site is, and ends with its input.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

SHOP = (
    "Ваш заказ № 1042 готов. Ждём вас до 21:00 на ул. Ленина, 5.",
    "Мария, напоминаем: завтра в 14:30 вас ждёт доктор Соколова.",
    "Your order 1043 is ready. We are open until 9 p.m.",
    "Код для входа: 503918. Никому его не говорите.",
    "Скидка 15 % на всё до воскресенья. Магазин «Ромашка».",
    "Anna, your appointment is tomorrow at 2:30 p.m.",
    "Курьер приедет сегодня с 18:00 до 20:00.",
    "Your parcel waits for you at 12 Lenina St.",
)


@contextmanager
def site(folder, *, theme="django", gateway_url=""):
    """Serve it; ``url``, ``session`` (the cookie of a superuser) and ``keys`` by status."""
    mine = {
        "DJANGO_SETTINGS_MODULE": "tests.theme_settings",
        "DATABASE_URL": f"sqlite:///{folder}/{theme}.sqlite3",
        "SMSKA_THEME": theme,
        "SMSKA_URL": gateway_url,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.theme_site"],
        env=os.environ | mine,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield SimpleNamespace(**json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()


def serve():
    """Fill the database and serve it until the input ends."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    filled = fill()
    print(json.dumps({"url": listen(), **filled}), flush=True)
    sys.stdin.read()


def listen():
    """Serve the site in threads of this process; return its address."""
    import threading

    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(StaticFilesHandler(get_wsgi_application()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def fill():
    """A shop's day: some messages of each status, and what the provider said last."""
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import Client
    from django.utils import timezone

    from django_smska.models import ProviderState, SmsMailing, SmsMessage
    from django_smska.states import Status

    from .rows import ACCEPTED, message

    if url := os.environ["SMSKA_URL"]:
        settings.SMS_PROVIDERS["default"]["OPTIONS"]["url"] = url
    anna = User.objects.create_superuser("anna")
    client = Client()
    client.force_login(anna)
    now = timezone.now()
    old = now - timedelta(hours=2)
    ProviderState.objects.create(
        alias="default", balance=Decimal(7464), balance_at=old, worker_seen_at=now
    )
    statuses = [*Status.values, *["delivered"] * 12, "queued", "sent", "sent", "draft"]
    every = [
        message(
            f"+7904176{4000 + 37 * number}",
            SHOP[number % len(SHOP)],
            status,
            now - timedelta(minutes=11 * (len(statuses) - number)),
            created_by=anna,
            gateway_id=f"{58114 + number}" if status in ACCEPTED else "",
        )
        for number, status in enumerate(reversed(statuses))
    ]
    SmsMessage.objects.bulk_create(every)
    mailing = SmsMailing.objects.create(name="Осенняя распродажа", body=SHOP[4], created_at=old)
    SmsMessage.objects.exclude(status="draft").update(mailing=mailing)
    keys = {str(status): pk for status, pk in SmsMessage.objects.values_list("status", "pk")}
    keys["mailing"] = mailing.pk
    return {"session": client.cookies["sessionid"].value, "keys": keys}


if __name__ == "__main__":
    serve()
