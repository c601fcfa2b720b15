"""A report open in a headless Chromium with the network off, and what it complained of."""

import contextlib

import pytest


@contextlib.contextmanager
def opened(chromium, file, wanted, **options):
    """The page once every selector of ``wanted`` is there; ``page.trouble`` and ``page.asked`` hold complaints and
    requests."""
    context = chromium.new_context(offline=True, **{"viewport": {"width": 1280, "height": 1000}, **options})
    page = context.new_page()
    page.trouble, page.asked = [], []
    page.on("console", lambda message: page.trouble.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(file.as_uri())
    for selector in wanted:
        page.wait_for_selector(selector, state="attached")
    yield page
    context.close()


def until(page, expression, holds):
    """The value of an expression once it holds; a page that forbids eval has no waiting of the driver's own."""
    found = None
    for _ in range(200):
        found = page.evaluate(expression)
        if holds(found):
            return found
        page.wait_for_timeout(25)
    return pytest.fail(f"{expression} stays {found}")
