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


def spot(page, figure, trace, number):
    """Where on the screen the first mark of a basin or image is."""
    return page.evaluate(
        """([figure, name, number]) => {
          const chart = document.querySelector(`[data-figure=${figure}]`);
          const box = chart.getBoundingClientRect();
          const { xaxis, yaxis } = chart._fullLayout;
          const trace = chart.data.find((one) => one.name === name);
          const i = trace.customdata.indexOf(number);
          return [box.x + xaxis._offset + xaxis.d2p(trace.x[i]), box.y + yaxis._offset + yaxis.d2p(trace.y[i])];
        }""",
        [figure, trace, number],
    )


def assert_calm_and_fitting(page, figure):
    """Every picture has words; no complaint, no request, and nothing wider than a desktop or a phone."""
    labels = page.eval_on_selector_all("[role=img]", "all => all.map(one => one.getAttribute('aria-label'))")
    assert labels and all(labels)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        svg = f"document.querySelector('[data-figure={figure}] .main-svg').clientWidth"
        until(page, svg, lambda found, width=width: found <= width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.trouble == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
