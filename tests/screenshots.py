"""The pictures of the documentation: ``python -m tests.screenshots`` writes docs/screenshots/*.png.

The data, the clock and the browser are the same each time, and so are the pictures.
``--every FOLDER`` takes one of every page, in both languages and themes.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import product
from pathlib import Path
from unittest import mock

from playwright.sync_api import Page, sync_playwright

from tests.chromium import QUIET, find_chromium

DOCS = Path(__file__).parents[1] / "docs/screenshots"
LIST = "/admin/django_smska/smsmessage/"
NOW = datetime(2026, 11, 24, 11, 37, tzinfo=timezone.utc)  # a Tuesday
DAYS = 40
WIDTH = 1280
ROWS = 14  # of the list, so that the picture shows all of its page

#: The pages of the documentation: address, with the keys of messages by their status.
PICTURES = {
    "list": LIST,
    "message": f"{LIST}{{unknown}}/change/",
    "compose": f"{LIST}compose/",
    "confirm": f"{LIST}send/?pks={{draft}},{{queued}},{{sent}}",
    "statistics": f"{LIST}statistics/",
}
PAGES = {
    **PICTURES,
    "needs-attention": f"{LIST}?needs=attention",
    "delivered": f"{LIST}{{delivered}}/change/",
    "failed": f"{LIST}{{failed}}/change/",
    "draft": f"{LIST}{{draft}}/change/",
    "add": f"{LIST}add/",
    "export": f"{LIST}export/",
    "providers": "/admin/django_smska/providerstate/",
}

TEXTS = (
    "Ваш заказ № {number} готов. Ждём вас до 21:00 на ул. Ленина, 5.",
    "Мария, напоминаем: завтра в 14:30 вас ждёт доктор Соколова.",
    "Your order {number} is ready. We are open until 9 p.m.",
    "Скидка 15 % на всё до воскресенья. Магазин «Ромашка».",
    "Курьер приедет сегодня с 18:00 до 20:00. Заказ № {number}.",
    "Anna, your appointment is tomorrow at 2:30 p.m.",
)
NUMBERS = "8 904 176-49-95\n8 (921) 555-03-17\n+7 911 240 88 60\n79046014412"
#: How messages end, and how many of a thousand.
ENDS = {"delivered": 951, "rejected": 14, "expired": 17, "unconfirmed": 9, "failed": 9}
#: The newest messages, the oldest of them first.
NEWEST = (
    *("delivered",) * 4,
    *("unknown", "delivered", "delivered", "failed", "delivered", "rejected", "delivered"),
    *("draft", "delivered", "sent", "delivered", "sent", "sent", "sending", "queued", "queued"),
)


@contextmanager
def site(folder: str):
    """A site with a shop's forty days, in this process: its address, a session and keys."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.theme_settings"
    os.environ["DATABASE_URL"] = f"sqlite:///{folder}/pictures.sqlite3"
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright's loop runs in this thread
    import django

    django.setup()
    from django.core.management import call_command

    from django_smska.admin import SmsMessageAdmin
    from tests.theme_site import listen

    with (
        mock.patch("django.utils.timezone.now", lambda: NOW),
        mock.patch("django_smska.clock.now", lambda: NOW),
        mock.patch.object(SmsMessageAdmin, "list_per_page", ROWS),
        open(os.devnull, "w") as nowhere,
    ):
        call_command("migrate", verbosity=0)
        session, keys = fill()
        call_command("sms_prune", stdout=nowhere)  # it counts the days for the statistics
        yield listen(), session, keys


def fill() -> tuple[str, dict[str, int]]:
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import Client

    from django_smska.models import ProviderState, SmsMessage

    settings.SMS_PROVIDERS["bulk"] = settings.SMS_PROVIDERS["default"]
    anna = User.objects.create_superuser("anna")
    client = Client()
    client.force_login(anna)
    for alias, balance in (("default", 7464), ("bulk", 1250)):
        ProviderState.objects.create(
            alias=alias,
            balance=Decimal(balance),
            balance_at=NOW - timedelta(minutes=2),
            worker_seen_at=NOW,
        )
    dice = random.Random(1)
    messages = [*past(dice), *newest(dice)]
    for message in messages:
        message.created_by = anna
    SmsMessage.objects.bulk_create(messages, batch_size=500)
    keys = SmsMessage.objects.order_by("pk").values_list("status", "pk")
    return client.cookies["sessionid"].value, dict(keys)


def past(dice: random.Random):
    """Messages of the days before today, fewer on Sundays, with a mailing now and then."""
    for day in range(DAYS, 0, -1):
        morning = NOW.replace(hour=6, minute=0) - timedelta(days=day)
        number = dice.randint(35, 60) * (1 if morning.weekday() < 6 else 0.4)
        for _ in range(int(number)):
            at = morning + timedelta(seconds=dice.randrange(12 * 3600))
            yield message(dice, at, dice.choices([*ENDS], [*ENDS.values()])[0])
        for _ in range(90 if day % 11 == 4 else 0):
            at = morning + timedelta(hours=4, seconds=dice.randrange(600))
            yield message(dice, at, dice.choices([*ENDS], [*ENDS.values()])[0], using="bulk")


def newest(dice: random.Random):
    for number, status in enumerate(NEWEST):
        left = len(NEWEST) - number
        yield message(dice, NOW - timedelta(seconds=left * 10 + left**2 * 11), status)


def message(dice: random.Random, at: datetime, status: str, using: str = "default"):
    from tests import rows

    body = TEXTS[3] if using == "bulk" else dice.choice(TEXTS)
    accepted = status in rows.ACCEPTED
    return rows.message(
        f"+79{dice.randint(10**8, 10**9 - 1)}",
        body.format(number=dice.randint(1000, 9999)),
        status,
        at,
        ended_after=dice.choice((8, 11, 14, 19, 25, 40, 75)) if accepted else 3,
        using=using,
        sender="Romashka" if using == "bulk" else "",
        gateway_id=f"{dice.randrange(16**17):017x}" if accepted else "",
    )


# --- the browser ----------------------------------------------------------------------------------


#: What of the page is wider than its place, so that a picture would show only a part.
CUT = """() => [...document.querySelectorAll("*")]
    .filter(one => one.scrollWidth > one.clientWidth && one.clientWidth > 300
        && getComputedStyle(one).overflowX !== "visible")
    .map(one => `${one.tagName}#${one.id}.${one.className}`).join(", ")"""


def compose(page: Page) -> None:
    """Fill in the form: the segments are counted while one types."""
    page.locator("[name=numbers]").fill(NUMBERS)
    page.locator("[name=body]").fill(TEXTS[1])


#: One picture: title of the page, language, theme, and the picture's name.
Shot = tuple[str, str, str, str]


def of_the_docs() -> Iterator[Shot]:
    for title in PICTURES:
        yield title, "en", "light", f"{title}.png"
    for title in ("list", "message"):  # of the administrator's guide, which is in Russian
        yield title, "ru", "light", f"{title}-ru.png"


def every() -> Iterator[Shot]:
    for language, theme, title in product(("en", "ru"), ("light", "dark"), PAGES):
        yield title, language, theme, f"{title}-{language}-{theme}.png"


def take(shots: Iterable[Shot], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as own,
        site(own) as (url, session, keys),
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=find_chromium(), args=QUIET) as browser,
    ):
        for title, language, theme, name in shots:
            context = browser.new_context(
                base_url=url,
                viewport={"width": WIDTH, "height": 600},
                locale=language,
                color_scheme=theme,
                timezone_id="Europe/Moscow",
            )
            context.add_cookies([{"name": "sessionid", "value": session, "url": url}])
            # The sidebar is closed, as on a small screen: the list has room for all columns.
            context.add_init_script("localStorage['django.admin.navSidebarIsOpen'] = 'false'")
            page = context.new_page()
            page.clock.set_fixed_time(NOW)
            answer = page.goto(PAGES[title].format(**keys))
            if answer is None or not answer.ok:
                raise SystemExit(f"{title}: no page at {PAGES[title]}")
            if title == "compose":
                compose(page)
            if cut := page.evaluate(CUT):
                raise SystemExit(f"{name}: {cut} does not fit into {WIDTH} pixels")
            page.screenshot(path=folder / name, full_page=True)
            context.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the pictures of the documentation.")
    parser.add_argument(
        "--every",
        type=Path,
        metavar="FOLDER",
        help="instead, a picture of every page, in both languages and themes",
    )
    given = parser.parse_args()
    take(every(), given.every) if given.every else take(of_the_docs(), DOCS)
