"""The boundary section as a person meets it, in a headless Chromium with the network off."""

import csv
import io

import numpy as np
import pytest

from tests.report import boundary_example as examples
from tests.report import browsing
from tests.report.browsing import spot, until
from theodolite.report import write_report
from theodolite.report.themes import DARK, LIGHT


@pytest.fixture(scope="module")
def surveys():
    return {
        "digits": examples.digits_example(),
        "table": examples.table_example(),
        "colours": examples.colours_example(),
    }


@pytest.fixture(scope="module")
def files(surveys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("boundaries")
    return {name: write_report(survey, folder / f"{name}.html") for name, survey in surveys.items()}


def opened(chromium, file, **options):
    return browsing.opened(chromium, file, ("[data-figure=trust] .main-svg", ".calls .card"), **options)


def colours(page, canvas, wanted=lambda found: True, side=28):
    """Red, green and blue of every pixel of a canvas, once they are as wanted: (rows * columns, 3)."""
    pixels = f"[...document.querySelector(`{canvas}`).getContext('2d').getImageData(0, 0, {side}, {side}).data]"
    shown = lambda found: np.array(found).reshape(-1, 4)  # noqa: E731
    return shown(until(page, pixels, lambda found: shown(found).any() and wanted(shown(found)[:, :3])))[:, :3]


def rgb(colour):
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])


TITLE = "document.querySelector('.call .readout h3').textContent"


@pytest.mark.parametrize("name", ["digits", "table", "colours"])
def test_pages_open_without_errors_network_or_sideways_scrolling(chromium, files, name):
    with opened(chromium, files[name]) as page:
        browsing.assert_calm_and_fitting(page, "trust")


def test_cards_rise_in_distance_with_bars_of_it_and_turn(chromium, files, surveys):
    distance, lower = (surveys["digits"][name].values for name in ("distance", "distance_lower_bound"))
    order = np.argsort(distance, kind="stable")
    with opened(chromium, files["digits"]) as page:
        words = page.eval_on_selector_all(".card", "all => all.map(one => one.getAttribute('aria-label'))")
        assert [int(text.split(":")[0].removeprefix("image ")) for text in words] == order[:12].tolist()
        shares = page.eval_on_selector_all(
            ".card .bracket",
            "all => all.map(one => [one.querySelector('.solid').style.width, one.querySelector('.tick').style.left])",
        )
        drawn = np.array([[float(text.rstrip("%")) for text in row] for row in shares])
        shown = np.stack([lower[order[:12]], distance[order[:12]]], axis=1)
        np.testing.assert_allclose(drawn, 100 * shown / distance[order[11]], rtol=1e-3)
        assert page.text_content(".turns .which") == "1 to 12 of 40"
        assert page.is_disabled(".back")
        page.click(".on")
        assert page.text_content(".turns .which") == "13 to 24 of 40"
        page.click(".on")
        page.click(".on")
        assert page.text_content(".turns .which") == "37 to 40 of 40"
        assert page.is_disabled(".on")


def test_pictures_are_the_input_the_flip_point_and_the_signed_change(chromium, files, surveys):
    data = surveys["digits"]
    image = int(np.argsort(data["distance"].values, kind="stable")[2])
    start, end = (data[name].values[image, 0].ravel() for name in ("input", "flip_point"))
    with opened(chromium, files["digits"]) as page:
        page.click(".card[data-call='2']")
        shot = ".shots .shot:nth-child({}) canvas"
        assert np.abs(colours(page, shot.format(1))[:, 0] - 255 * start).max() <= 0.51
        assert np.abs(colours(page, shot.format(2))[:, 0] - 255 * end).max() <= 1.01
        words = page.text_content(".shots .shot:nth-child(3) figcaption")
        value = np.clip(float(words.removeprefix("change ×")) * (end - start), -1, 1)
        assert 0.6 < np.abs(value).max() <= 1
        for scheme, theme in (("light", LIGHT), ("dark", DARK)):
            page.emulate_media(color_scheme=scheme)
            ground, less, more = (rgb(colour) for colour in (theme.paper, *theme.categories))
            wanted = ground + (np.where(value[:, None] < 0, less, more) - ground) * np.abs(value)[:, None]
            colours(page, shot.format(3), lambda found, wanted=wanted: np.abs(found - wanted).max() <= 2.6)


def test_choosing_a_card_shows_all_its_classes(chromium, files, surveys):
    data = surveys["digits"]
    image = int(np.argsort(data["distance"].values, kind="stable")[4])
    own, pairs = int(data["predicted_class"][image]), data["pair_distance"].values[image]
    with opened(chromium, files["digits"]) as page:
        page.click(".card[data-call='4']")
        assert page.evaluate(TITLE) == f"Image {image}: {own} → {int(data['target_class'][image])}"
        assert page.get_attribute(".card[data-call='4']", "aria-selected") == "true"
        names = page.eval_on_selector_all(".other .flip", "all => all.map(one => one.textContent)")
        rising = [str(k) for k in np.argsort(np.where(np.isnan(pairs), np.inf, pairs)) if np.isfinite(pairs[k])]
        assert names[: len(rising)] == rising and names[-1].endswith("meet")
        page.click(".other[data-other='2']")
        other = int(rising[2])
        assert page.evaluate(TITLE) == f"Image {image}: {own} → {other}"
        assert page.get_attribute(".other[data-other='2']", "aria-pressed") == "true"
        flip = 255 * data["pair_flip_point"].values[image, other, 0].ravel()
        close = lambda found: np.abs(found[:, 0] - flip).max() <= 1.01  # noqa: E731
        colours(page, ".shots .shot:nth-child(2) canvas", close)
        colours(page, ".other[data-other='2'] canvas", close)
        page.click(".other[data-other='2']")
        assert page.evaluate(TITLE) == f"Image {image}: {own} → {int(data['target_class'][image])}"
        assert page.trouble == []


def test_cards_can_be_reached_by_keyboard(chromium, files):
    with opened(chromium, files["digits"]) as page:
        assert page.locator(".card[tabindex='0']").count() == 1
        page.focus(".card[tabindex='0']")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        focused = "Number(document.activeElement.dataset.call)"
        across = page.evaluate(
            "getComputedStyle(document.querySelector('.calls')).gridTemplateColumns.split(' ').length"
        )
        assert page.evaluate(focused) == 1 + across
        page.keyboard.press("Enter")
        assert page.evaluate("document.querySelector('.card.chosen').dataset.call") == str(1 + across)
        page.keyboard.press("End")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == 12
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(focused) == 11
        assert page.locator(".card[tabindex='0']").count() == 1


def test_a_filter_leaves_the_mistakes_and_a_label_in_doubt_leads_to_its_card(chromium, files, surveys):
    data = surveys["digits"]
    wrong = np.flatnonzero((data["label"] != data["predicted_class"]).values)
    image = int(data["suspicious_image"].values[-1])
    with opened(chromium, files["digits"]) as page:
        page.select_option(".which-calls", label=f"mistakes ({len(wrong)})")
        words = page.eval_on_selector_all(".card", "all => all.map(one => one.getAttribute('aria-label'))")
        assert {int(text.split(":")[0].removeprefix("image ")) for text in words} == set(wrong[:12])
        assert all("a mistake: true class" in text for text in words)
        page.click(".suspect >> nth=-1")
        assert page.evaluate(TITLE).startswith(f"Image {image}:")
        chosen = page.get_attribute(".card.chosen", "aria-label")
        assert chosen.startswith(f"image {image}:") and "a mistake" in chosen


@pytest.mark.parametrize("figure", ["trust", "brackets"])
def test_pointing_at_a_mark_shows_its_image_and_a_click_leads_to_it(chromium, files, surveys, figure):
    data = surveys["digits"]
    order = np.argsort(data["distance"].values, kind="stable").tolist()
    image = int(data["distance"].values.argmax())
    wrong = bool(data["label"][image] != data["predicted_class"][image])
    trace = {"trust": "mistakes" if wrong else "right answers", "brackets": "found"}[figure]
    with opened(chromium, files["digits"]) as page:
        page.locator(f"[data-figure={figure}]").scroll_into_view_if_needed()
        here = spot(page, figure, trace, image)
        page.mouse.move(*here)
        floating = "document.querySelector('.float').hidden ? '' : document.querySelector('.float').textContent"
        until(page, floating, lambda found: f"image {image}" in found)
        flip = 255 * data["flip_point"].values[image, 0].ravel()
        colours(page, ".float .shot:nth-child(2) canvas", lambda found: np.abs(found[:, 0] - flip).max() <= 1.01)
        page.mouse.click(*here)
        until(page, TITLE, lambda found: found.startswith(f"Image {image}:"))
        assert page.evaluate("document.querySelector('.card.chosen').dataset.call") == str(order.index(image))
        ring = f"document.querySelector('[data-figure={figure}]').data.find(one => one.name === 'here').y[0]"
        level = until(page, ring, lambda found: found is not None)
        if figure == "brackets":
            assert level == pytest.approx(data["distance"].values[image])


def test_lists_of_features_are_bars(chromium, files, surveys):
    data = surveys["table"]
    image = int(np.argsort(data["distance"].values, kind="stable")[0])
    change = (data["flip_point"] - data["input"]).values[image]
    largest = np.argsort(-np.abs(change), kind="stable")
    with opened(chromium, files["table"]) as page:
        assert page.locator(".calls canvas").count() == 0
        names = page.eval_on_selector_all(".shots .feature", "all => all.map(one => one.textContent)")
        assert names == [f"feature {k}" for k in largest[:10]]
        widths = page.eval_on_selector_all(".shots .bar", "all => all.map(one => parseFloat(one.style.width))")
        np.testing.assert_allclose(widths, 50 * np.abs(change[largest[:10]]) / np.abs(change).max(), rtol=2e-3)
        sides = page.eval_on_selector_all(".shots .bar", "all => all.map(one => one.classList.contains('less'))")
        assert sides == (change[largest[:10]] < 0).tolist()
        page.select_option(".which-calls", label="no flip point found (2)")
        assert page.text_content(".shots .empty") == "No flip point was found."
        assert "no point that keeps the fixed features flips the answer" in page.text_content(".call dl")


def test_coloured_changes_are_grey_where_nothing_changes(chromium, files, surveys):
    data = surveys["colours"]
    image = int(np.argsort(data["distance"].values, kind="stable")[0])
    change = np.moveaxis((data["flip_point"] - data["input"]).values[image], 0, -1).reshape(-1, 3)
    with opened(chromium, files["colours"]) as page:
        drawn = colours(page, ".shots .shot:nth-child(3) canvas", side=16)
        factor = float(page.text_content(".shots .shot:nth-child(3) figcaption").removeprefix("change ×"))
        spread = page.evaluate("report.survey.boundary.spread")
        wanted = 128 + 127 * np.clip(factor * change / spread, -1, 1)
        assert np.abs(drawn - wanted).max() <= 2.6


def test_a_phone_shows_the_chosen_image(chromium, files):
    with opened(chromium, files["digits"], viewport={"width": 390, "height": 800}) as page:
        assert page.locator(".card").count() == 6
        page.click(".card[data-call='3']")
        inside = "document.querySelector('.call .readout h3').getBoundingClientRect().top"
        until(page, inside, lambda found: 0 <= found < 800)
        page.set_viewport_size({"width": 1280, "height": 900})
        until(page, "document.querySelectorAll('.card').length", lambda found: found == 12)


def test_numbers_and_pictures_can_be_saved(chromium, files, surveys):
    with opened(chromium, files["digits"], accept_downloads=True) as page:
        for figure, kind, opening in (("trust", "svg", b"<svg"), ("brackets", "csv", b"image,label,answer")):
            with page.expect_download() as saved:
                page.click(f"[data-for={figure}] [data-save={kind}]")
            data = saved.value.path().read_bytes()
            assert saved.value.suggested_filename == f"boundary-{figure}.{kind}"
            assert data.startswith(opening)
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        assert [float(row["distance"]) for row in rows] == sorted(surveys["digits"]["distance"].values)
