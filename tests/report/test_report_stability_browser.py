"""The stability section as a person meets it, in a headless Chromium with the network off."""

import csv
import io

import numpy as np
import pytest

from tests.report import browsing
from tests.report.browsing import until
from tests.report.stability_example import stability_example
from theodolite.report import write_report
from theodolite.report.themes import DARK, LIGHT


@pytest.fixture(scope="module")
def survey():
    return stability_example()


@pytest.fixture(scope="module")
def file(survey, tmp_path_factory):
    return write_report(survey, tmp_path_factory.mktemp("stability") / "stability.html")


def opened(chromium, file, **options):
    return browsing.opened(chromium, file, ("[data-figure=distortions] .main-svg", ".pairs canvas"), **options)


def pixels(page, canvas, wanted):
    script = (
        f"[...document.querySelectorAll(`{canvas[0]}`)[{canvas[1]}].getContext('2d').getImageData(0, 0, 12, 12).data]"
    )
    shown = lambda found: np.array(found).reshape(-1, 4)[:, :3]  # noqa: E731
    return shown(until(page, script, lambda found: np.array(found).any() and wanted(shown(found))))


def test_the_page_is_calm_and_fits(chromium, file):
    with opened(chromium, file) as page:
        browsing.assert_calm_and_fitting(page, "distortions")


def test_pictures_are_the_input_the_example_and_the_change(chromium, file, survey):
    with opened(chromium, file) as page:
        pair = page.evaluate("report.survey.stability.pairs[2]")
        spread = page.evaluate("report.survey.stability.spread")
        factor = page.evaluate(f"report.survey.stability.changes.factor[{pair['cells'][1]['change']}]")
        start = survey.input.values[pair["image"], 0].ravel()
        end = survey.example.values[1, pair["image"], 0].ravel()
        low = np.nanquantile(survey.input.values, 0.01)
        grey = lambda x: np.clip(255 * (x - low) / spread, 0, 255)  # noqa: E731
        pixels(page, ("tr[data-pair='2'] canvas", 0), lambda seen: np.abs(seen[:, 0] - grey(start)).max() <= 1.01)
        pixels(page, ("tr[data-pair='2'] canvas", 3), lambda seen: np.abs(seen[:, 0] - grey(end)).max() <= 2.5)
        value = np.clip(factor * (end - start) / spread, -1, 1)
        for scheme, theme in (("light", LIGHT), ("dark", DARK)):
            page.emulate_media(color_scheme=scheme)
            ground, less, more = (
                np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) for colour in (theme.paper, *theme.categories)
            )
            wanted = ground + (np.where(value[:, None] < 0, less, more) - ground) * np.abs(value)[:, None]
            pixels(
                page, ("tr[data-pair='2'] canvas", 4), lambda seen, wanted=wanted: np.abs(seen - wanted).max() <= 4.0
            )


def test_cells_can_be_read_in_both_themes(chromium, file):
    """WCAG's contrast of the words on the strongest tint is at least 4.5."""
    contrast = """(() => {
      const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
      const light = (colour) => {
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      return Math.min(...[...document.querySelectorAll('.heat .cell')].map((cell) => {
        const style = getComputedStyle(cell);
        const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
      }));
    })()"""
    with opened(chromium, file) as page:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(contrast) >= 4.5


def test_numbers_can_be_saved(chromium, file, survey):
    with opened(chromium, file, accept_downloads=True) as page:
        with page.expect_download() as saved:
            page.click("[data-for=noise] [data-save=csv]")
        rows = list(csv.DictReader(io.StringIO(saved.value.path().read_text())))
        assert [float(row["share_fooled"]) for row in rows] == survey.transfer.values.ravel().tolist()


def test_a_phone_scrolls_the_tables_alone(chromium, file):
    with opened(chromium, file, viewport={"width": 390, "height": 800}) as page:
        browsing.assert_calm_and_fitting(page, "distortions")
