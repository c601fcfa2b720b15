"""The page as a person meets it, in a headless Chromium with the network off."""

import pytest

from tests.report import browsing
from tests.report.browsing import until
from theodolite.report import write_report


def opened(chromium, file, **options):
    return browsing.opened(chromium, file, (".chart .main-svg", ".readout dd"), **options)


@pytest.fixture(scope="module")
def files(converged, doubtful, example, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    surveys = {"converged": converged, "doubtful": doubtful, "ising": example.ising_example()}
    return {name: write_report(survey, folder / f"{name}.html") for name, survey in surveys.items()}


def title(page):
    return page.text_content(".readout h3")


def test_figures_render_without_errors_or_network(chromium, files):
    for file in files.values():
        with opened(chromium, file) as page:
            assert page.eval_on_selector_all(".chart .scatterlayer path.js-line", "lines => lines.length") >= 2
            assert page.trouble == []
            assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_every_picture_has_words(chromium, files):
    with opened(chromium, files["converged"]) as page:
        labels = page.eval_on_selector_all("[role=img]", "all => all.map(one => one.getAttribute('aria-label'))")
        assert len(labels) == 2 + 12
        assert all(labels)
        assert "peaks near output" in labels[0]
        assert page.get_attribute("input[type=range]", "aria-valuetext").startswith(title(page))


def test_the_slider_moves_by_keyboard_and_changes_the_gallery(chromium, files):
    with opened(chromium, files["converged"]) as page:
        before, image = title(page), page.get_attribute(".thumb .picture", "style")
        page.focus("input[type=range]")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert title(page) != before
        assert page.get_attribute(".thumb .picture", "style") != image
        page.keyboard.press("End")
        assert title(page) == "output 18.5 to 20.0"
        assert page.locator(".thumb").count() == 12
        page.click(".more")
        assert page.text_content(".which") == "13 to 24 of 24"


def test_pointing_previews_a_level_and_clicking_keeps_it(chromium, files):
    with opened(chromium, files["converged"]) as page:
        start = title(page)
        box = page.locator(".pick").bounding_box()
        # The cursor must lie where the axis says: two thirds along is output -34 of [-144, 22].
        page.mouse.move(box["x"] + box["width"] * 2 / 3, box["y"] + 40)
        pointed = title(page)
        low, high = (float(word.replace("−", "-")) for word in pointed.split()[1::2])
        assert low - 1.5 <= -144.4 + (22.4 + 144.4) * 2 / 3 <= high + 1.5
        page.mouse.move(5, 5)
        assert title(page) == start
        page.mouse.click(box["x"] + box["width"] * 2 / 3, box["y"] + 40)
        page.mouse.move(5, 5)
        assert title(page) == pointed
        assert "data:image/png" in page.get_attribute(".thumb .picture", "style")


def test_the_slider_lies_under_the_axis(chromium, files):
    with opened(chromium, files["converged"]) as page:
        page.focus("input[type=range]")
        page.keyboard.press("End")
        cursor = page.locator(".cursor").bounding_box()["x"]
        slider = page.locator("input[type=range]").bounding_box()
        assert slider["x"] + slider["width"] - 9 == pytest.approx(cursor, abs=2)


def test_dark_mode_recolours_the_page_and_the_figures(chromium, files):
    colour = "getComputedStyle(document.querySelector('.chart .main-svg')).backgroundColor"
    with opened(chromium, files["converged"]) as page:
        assert page.evaluate(colour) == "rgb(255, 255, 255)"
        page.emulate_media(color_scheme="dark")
        until(page, colour, lambda found: found == "rgb(23, 27, 32)")
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(230, 233, 236)"


@pytest.mark.parametrize("name", ["doubtful", "ising"])
def test_a_phone_needs_no_sideways_scrolling(chromium, files, name):
    with opened(chromium, files[name], viewport={"width": 390, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        thumbs = page.locator(".thumb .picture").first.bounding_box()
        assert thumbs["width"] >= 60
        assert page.locator(".gallery").bounding_box()["y"] > page.locator(".chart").first.bounding_box()["y"] + 300


def test_figures_and_numbers_can_be_saved(chromium, files, converged):
    with opened(chromium, files["converged"], accept_downloads=True) as page:
        for kind, opening in (("csv", b"level,level_low"), ("svg", b"<svg"), ("png", b"\x89PNG")):
            with page.expect_download() as saved:
                page.click(f"[data-for=density] [data-save={kind}]")
            assert saved.value.suggested_filename == f"density-density.{kind}"
            data = saved.value.path().read_bytes()
            assert data.startswith(opening)
            if kind == "csv":
                rows = data.decode().strip().splitlines()
                assert len(rows) == 1 + converged.sizes["level"]
                assert float(rows[5].split(",")[3]) == float(converged["log_density_of_states"][4])
        assert page.trouble == []


def test_the_command_can_be_copied_or_is_selected(chromium, files):
    with opened(chromium, files["converged"]) as page:
        page.click("[data-copy=command]")
        until(page, "document.querySelector('[data-copy=command]').textContent === 'Copy'", lambda found: not found)


def test_print_uses_light_figures_on_paper(chromium, files):
    with opened(chromium, files["converged"], color_scheme="dark") as page:
        assert page.pdf(format="A4").startswith(b"%PDF")
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator(".slide").is_hidden()
