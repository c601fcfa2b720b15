"""The learning section as a person meets it, in a headless Chromium with the network off."""

import csv
import io

import pytest

from tests.report import browsing
from tests.report.browsing import until
from tests.report.learning_example import learning_example
from theodolite.report import write_report


@pytest.fixture(scope="module")
def survey():
    return learning_example(drift=3.1, verdict="non-convergent", lyapunov=True)


@pytest.fixture(scope="module")
def file(survey, tmp_path_factory):
    return write_report(survey, tmp_path_factory.mktemp("learning") / "learning.html")


def opened(chromium, file, **options):
    return browsing.opened(chromium, file, ("[data-figure=energies] .main-svg", ".learned-row img"), **options)


def test_the_page_is_calm_and_fits(chromium, file):
    with opened(chromium, file) as page:
        browsing.assert_calm_and_fitting(page, "energies")


def test_pictures_have_words_and_stay_in_proportion(chromium, file):
    with opened(chromium, file) as page:
        shown = page.eval_on_selector_all(
            ".learned-row img", "all => all.map(i => [i.alt, i.clientWidth / i.clientHeight, i.width, i.naturalWidth])"
        )
        assert len(shown) == 10 and all(alt for alt, *_ in shown)
        assert shown[3][0].startswith("24 pictures, long run from data")
        for row in shown[:5]:
            assert row[1] == pytest.approx(107 / 17, rel=0.02) and row[3] == 107


def test_bars_and_badge_can_be_read_in_the_dark(chromium, file):
    contrast = """((selector) => {
      const light = (colour) => {
        const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      const style = getComputedStyle(document.querySelector(selector));
      const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    })"""
    with opened(chromium, file) as page:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for selector in (".badge", ".class-bar > span > span"):
                assert page.evaluate(f"{contrast}('{selector}')") >= 4.5
            paper = page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor")
            drawn = "getComputedStyle(document.querySelector('[data-figure=traces] .main-svg')).backgroundColor"
            until(page, drawn, lambda found, paper=paper: found == paper)


def test_numbers_can_be_saved(chromium, file, survey):
    with opened(chromium, file, accept_downloads=True) as page:
        with page.expect_download() as saved:
            page.click("[data-for=energies] [data-save=csv]")
        rows = list(csv.DictReader(io.StringIO(saved.value.path().read_text())))
        column = [float(row["long run from data (nats)"]) for row in rows]
        assert column == survey.run_energy.values[3].tolist()
