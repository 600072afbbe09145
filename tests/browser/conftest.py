"""A real browser against the live server: headless Chromium, through Playwright.

Without Chromium or Playwright these tests skip and say so; ``SMSKA_REQUIRE_BROWSER`` forbids that.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from tests.chromium import QUIET, find_chromium


def pytest_collection_modifyitems(items):
    """Mark all tests of this folder as slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slow")


def missing(what):
    if os.environ.get("SMSKA_REQUIRE_BROWSER"):
        pytest.fail(f"{what}, and SMSKA_REQUIRE_BROWSER is set")
    pytest.skip(f"{what}: the browser tests are left out")


@pytest.fixture(scope="package")
def chromium():
    """Start the browser for these tests only, because Playwright's loop, which runs in this thread,
    would disturb others."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed")
    path = find_chromium()
    if path is None:
        missing("there is no Chromium")
    with sync_playwright() as playwright:
        # Playwright's loop runs in this thread, and Django takes that for async code.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def complaints():
    """Return the list of what the browser complained of."""
    return []


@pytest.fixture
def look(chromium, live_server, complaints):
    """Return a page of the live server; ``user`` is logged in, if given.

    At the test's end: no word on the console, and no request to another host. The answers forbid
    inline scripts and styles (see ``tests.middleware``), and the console would say so.
    """
    contexts = []

    def open_page(user=None, *, width=1200, locale="en", theme="light", script=True):
        context = chromium.new_context(
            base_url=live_server.url,
            viewport={"width": width, "height": 800},
            locale=locale,
            color_scheme=theme,
            java_script_enabled=script,
        )
        context.set_default_timeout(20_000)
        context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        contexts.append(context)
        if user is not None:
            client = Client()
            client.force_login(user)
            value = client.cookies["sessionid"].value
            context.add_cookies([{"name": "sessionid", "value": value, "url": live_server.url}])
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _check_host(request.url, live_server.url, complaints))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _check_host(url, home, complaints):
    if not url.startswith((home, "data:", "blob:")):
        complaints.append(f"a request left: {url}")


@pytest.fixture
def superuser(transactional_db):
    return User.objects.create_superuser("boss", password="boss")


@pytest.fixture
def staff(transactional_db):
    """Make a staff user with these permissions: ``staff("view", "send")``."""

    def make(*names):
        user = User.objects.create_user("clerk", is_staff=True)
        codenames = [f"{name}_smsmessage" for name in names]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        return user

    return make


@pytest.fixture
def accessible(chromium, complaints):
    """Check a page with axe-core: no violation, whatever its weight."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page):
        before = len(complaints)
        results = Axe().run(page)
        del complaints[
            before:
        ]  # axe's own styles, which it cannot add, and which it can do without
        assert results.violations_count == 0, results.generate_report()

    return check
