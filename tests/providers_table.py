"""The table of what each provider's backend can do: ``python -m tests.providers_table`` writes it.

It is made of the backends' own attributes, and a test compares it with the page.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import django
from django.test import override_settings

PAGE = Path(__file__).parent.parent / "docs/reference/providers.rst"
BEGIN, END = ".. the table begins", ".. the table ends"

#: Name, module, guide, and OPTIONS that are enough to make a backend.
PROVIDERS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("SMS-ka", "smska", "sms-ka", {"api_key": "x", "api_password": "x"}),
    ("SMSC.ru", "smsc", "smsc", {"login": "x", "password": "x"}),
    ("Kannel", "kannel", "kannel", {"username": "x", "password": "x", "url": "http://127.0.0.1/"}),
    ("Twilio", "twilio", "twilio", {"account_sid": f"AC{'0' * 32}", "auth_token": "x"}),
    ("Infobip", "infobip", "infobip", {"api_key": "x", "url": "https://x.api.infobip.com"}),
]
HEAD = ("Provider", "Reports come by", "Evidence", "Balance", "Replies", "At once")


def row(name: str, module: str, guide: str, options: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one provider, as it is with an address that it can push to."""
    backend = import_module(f"django_smska.backends.{module}").SmsBackend(alias="x", **options)
    return (
        f":doc:`{name} </howto/{guide}>`",
        {"push": "push", "polling": "polling", "both": "polling and push"}[backend.reports_by],
        str(backend.evidence).replace("told", "reported"),
        "yes" if backend.has_balance else "",
        "yes" if backend.takes_inbound else "",
        str(backend.most_at_once or ""),
    )


def table() -> str:
    """Return the table in reStructuredText."""
    with override_settings(SMSKA_PUBLIC_URL="https://shop.example"):
        cells = [HEAD, *(row(*one) for one in PROVIDERS)]
    widths = [max(len(one[column]) for one in cells) for column in range(len(HEAD))]
    line = "  ".join("=" * width for width in widths)
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(one, widths, strict=True)).rstrip()
        for one in cells
    ]
    return "\n".join([line, rows[0], line, *rows[1:], line])


def written(page: str) -> str:
    """Return the page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    django.setup()
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
