"""Where the browser is, and how it is started."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Without these, Chromium looks for its maker's hosts at every start.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def find_chromium():
    """Its path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)
