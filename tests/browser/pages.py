"""What the tests of pages ask of each of them."""


def fits(page):
    """Nothing but a table in its own box is wider than the window, once the styles are there."""
    page.wait_for_load_state()
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
