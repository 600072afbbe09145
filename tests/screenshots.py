"""Pictures of every page, in both languages and themes: ``python -m tests.screenshots FOLDER``.

They are named ``PAGE-LANGUAGE-THEME.png``; with ``--width 360`` they are those of a phone.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.chromium import QUIET, find_chromium
from tests.theme_site import site

LIST = "/admin/django_smska/smsmessage/"

#: Each page: its address, with the keys of messages by their status.
PAGES = {
    "list": LIST,
    "needs-a-person": f"{LIST}?needs=attention",
    "delivered": f"{LIST}{{delivered}}/change/",
    "failed": f"{LIST}{{failed}}/change/",
    "unknown": f"{LIST}{{unknown}}/change/",
    "draft": f"{LIST}{{draft}}/change/",
    "add": f"{LIST}add/",
    "compose": f"{LIST}compose/",
    "confirm": f"{LIST}send/?pks={{draft}},{{queued}},{{sent}}",
    "statistics": f"{LIST}statistics/",
    "export": f"{LIST}export/",
    "providers": "/admin/django_smska/providerstate/",
}


def take(folder: Path, width: int) -> None:
    with (
        tempfile.TemporaryDirectory() as own,
        site(own) as opened,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=find_chromium(), args=QUIET) as browser,
    ):
        for language, theme in product(("en", "ru"), ("light", "dark")):
            context = browser.new_context(
                base_url=opened.url,
                viewport={"width": width, "height": 800},
                locale=language,
                color_scheme=theme,
                timezone_id="Europe/Moscow",
            )
            context.add_cookies([{"name": "sessionid", "value": opened.session, "url": opened.url}])
            page = context.new_page()
            for name, address in PAGES.items():
                answer = page.goto(address.format(**opened.keys))
                if answer is None or not answer.ok:
                    raise SystemExit(f"{name}: no page at {address}")
                page.screenshot(path=folder / f"{name}-{language}-{theme}.png", full_page=True)
            context.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a picture of each page of the admin.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=1200, help="in pixels (default: 1200)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    take(given.folder, given.width)
