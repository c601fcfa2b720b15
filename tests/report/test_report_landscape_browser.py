"""The landscape section as a person meets it, in a headless Chromium with the network off."""

import numpy as np
import pytest

from tests.report import browsing
from tests.report.browsing import spot, until
from theodolite.report import write_report
from theodolite.report.disconnectivity_figure import disconnectivity_figure


def opened(chromium, file, **options):
    return browsing.opened(chromium, file, ("[data-figure=tree] .main-svg", ".leaves button"), **options)


@pytest.fixture(scope="module")
def surveys(landscapes):
    return {
        "digits": landscapes.digits_example(),
        "glass": landscapes.glass_example(100, 500),
        "vectors": landscapes.glass_example(21, 12, 2),
        "surface": landscapes.surface_example(),
    }


@pytest.fixture(scope="module")
def files(surveys, landscapes, converged, tmp_path_factory):
    folder = tmp_path_factory.mktemp("landscapes")
    files = {name: write_report(survey, folder / f"{name}.html") for name, survey in surveys.items()}
    pair = [landscapes.glass_example(60, 30), landscapes.glass_example(60, 40, search=1, n_near=2), converged]
    return files | {"several": write_report(pair, folder / "several.html")}


TITLE = "document.querySelector('.landscape .readout h3').textContent"
NOW = "document.querySelector('.player .now').textContent"


def traces(page, figure):
    """What a figure shows: the x and y of each of its traces."""
    chart = f"document.querySelector('[data-figure={figure}]')"
    return page.evaluate(f"Object.fromEntries({chart}.data.map(one => [one.name, [one.x, one.y]]))")


def red(canvas, width, height):
    """The script that reads the red of a canvas, top left part."""
    pixels = f"document.querySelector('{canvas}').getContext('2d').getImageData(0, 0, {width}, {height}).data"
    return f"[...{pixels}].filter((value, i) => i % 4 === 0)"


def title(page):
    return page.text_content(".landscape .readout h3")


@pytest.mark.parametrize("name", ["digits", "glass", "vectors", "surface", "several"])
def test_pages_open_without_errors_network_or_sideways_scrolling(chromium, files, name):
    with opened(chromium, files[name]) as page:
        browsing.assert_calm_and_fitting(page, "tree")


@pytest.mark.parametrize("name", ["digits", "glass"])
def test_the_script_draws_the_tree_that_the_library_draws(chromium, files, surveys, name):
    with opened(chromium, files[name]) as page:
        drawn = traces(page, "tree")
    for trace in disconnectivity_figure(surveys[name]).data:
        if trace.name.split()[0] in ("lines", "bands", "limits", "stubs"):
            ours, theirs = split(*drawn[trace.name]), split(trace.x, trace.y)
            assert [len(line) for line in ours] == [len(line) for line in theirs]
            assert np.allclose([point for line in ours for point in line], [point for line in theirs for point in line])


def split(x, y):
    """The separate lines of a trace, in order of their points."""
    lines, points = [], []
    for here, level in zip(x, y, strict=True):
        if here is None:
            lines.append(points)
            points = []
        else:
            points.append((float(here), float(level)))
    return sorted(lines + ([points] if points else []))


def test_choosing_a_leaf_shows_its_members(chromium, files, surveys):
    with opened(chromium, files["digits"]) as page:
        page.click(".leaves [data-basin='2']")
        page.mouse.move(5, 5)
        assert title(page) == "Basin 3 (“7”)"
        assert f"members{int(surveys['digits']['member_count'][2])}" in page.text_content(".readout dl")
        assert page.locator(".thumbs .thumb").count() == 12
        assert page.get_attribute(".leaves [data-basin='2']", "aria-selected") == "true"
        energies = page.eval_on_selector_all(".thumb .value", "all => all.map(one => one.textContent)")
        values = [float(text.split()[0].replace("−", "-")) for text in energies]
        assert values == sorted(values)
        # The picture is drawn: not a blank canvas.
        until(page, red(".thumb canvas", 28, 28), lambda found: sum(value > 150 for value in found) > 10)
        page.click(".more")
        assert page.text_content(".which").startswith("members 13 to 24")


def test_two_leaves_play_the_path_between_them(chromium, files, surveys):
    barrier = surveys["digits"]["barrier_upper_bound"].values
    with opened(chromium, files["digits"]) as page:
        page.click(".leaves [data-basin='1']")
        page.click(".leaves [data-basin='3']")
        assert (
            page.text_content(".way")
            == "From basin 2 (“0”) to basin 4 (“4”) the lowest pass lies between −8.00 and −7.30"
        )
        x, y = traces(page, "path")["energy"]
        energy = surveys["digits"]["energy"].values
        assert (y[0], y[-1]) == pytest.approx((energy[1], energy[3]))
        assert max(y) == pytest.approx(barrier[1, 3])
        # Three stored paths of 60 steps, two of them run backwards: 2 to 1, 1 to 3, 3 to 4.
        assert x == sorted(x) and x[-1] == 180
        assert traces(page, "path")["minima"][0] == [0, 60, 120, 180]
        before = "document.querySelector('.screen canvas').toDataURL()"
        page.focus(".step")
        page.keyboard.press("Home")
        assert page.evaluate(NOW).startswith("step 0 of 180")
        first = until(page, before, lambda found: len(found) > 500)
        page.click(".play")
        until(page, NOW, lambda found: not found.startswith("step 0 of"))
        until(page, before, lambda found: found != first)
        page.click(".play")
        stopped = page.evaluate(NOW)
        page.wait_for_timeout(250)
        assert page.evaluate(NOW) == stopped
        assert page.text_content(".play") == "▶ Play"
        page.focus(".step")
        page.keyboard.press("End")
        assert page.evaluate(NOW).startswith("step 180 of 180")
        x, y = traces(page, "path")["here"]
        assert (x, y) == ([180], [pytest.approx(energy[3])])
        assert page.trouble == []


def test_leaves_can_be_chosen_by_keyboard(chromium, files):
    with opened(chromium, files["digits"]) as page:
        assert page.locator(".leaves button[tabindex='0']").count() == 1
        page.focus(".leaves button[tabindex='0']")
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        first = title(page)
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        last = title(page)
        assert first != last
        assert page.text_content(".way").startswith(f"From {first.replace('B', 'b')} to {last.replace('B', 'b')}")


def test_a_click_on_the_graph_chooses_a_basin(chromium, files):
    with opened(chromium, files["digits"]) as page:
        here = spot(page, "tree", "minima", 3)
        page.mouse.move(*here)
        page.mouse.click(*here)
        page.mouse.move(5, 5)
        until(
            page, "document.querySelector('.landscape .readout h3').textContent", lambda found: found == "Basin 4 (“4”)"
        )


def test_sliders_prune_and_emphasise(chromium, files, surveys):
    data = surveys["glass"]
    with opened(chromium, files["glass"]) as page:
        assert page.locator(".leaves button").count() == 500
        assert page.locator(".leaves canvas").count() == 0
        page.focus("[data-knob=shown]")
        page.keyboard.press("Home")
        for _ in range(11):
            page.keyboard.press("ArrowRight")
        shown = page.eval_on_selector_all(".leaves button", "all => all.map(one => Number(one.dataset.basin))")
        energy, upper = data["energy"].values, data["barrier_upper_bound"].values
        lower = np.tril(np.ones((500, 500), bool), -1)
        depth = np.where(lower, upper, np.inf).min(axis=1) - energy
        assert sorted(shown) == sorted(np.argsort(-depth, kind="stable")[:12])
        assert page.locator(".leaves canvas").count() >= 12
        sizes = "document.querySelector('[data-figure=tree]').data.find(one => one.name === 'minima').marker"
        until(page, f"{sizes}.size.length", lambda found: found == 12)
        page.focus("[data-knob=upto]")
        for _ in range(60):
            page.keyboard.press("ArrowLeft")
        written = page.locator("[data-knob=upto]").evaluate("one => one.labels[0].querySelector('b').textContent")
        limit = float(written.replace("−", "-"))
        faded = until(page, f"{sizes}.opacity", lambda found: min(found) < 0.5)
        assert [value > 0.5 for value in faded] == [energy[k] <= limit + 1e-3 for k in shown]


def test_a_basin_left_out_comes_back_when_it_is_named(chromium, files):
    with opened(chromium, files["glass"]) as page:
        page.focus("[data-knob=shown]")
        page.keyboard.press("Home")
        page.select_option("select[data-end='1']", "77")
        assert page.locator(".leaves [data-basin='77']").count() == 1
        assert page.text_content(".way").startswith("From basin 1 to basin 78")
        x, y = traces(page, "path")["energy"]
        assert len(x) == len(y) > 3


@pytest.mark.parametrize("name", ["vectors", "surface"])
def test_points_that_are_no_pictures_have_a_path_too(chromium, files, surveys, name):
    with opened(chromium, files[name]) as page:
        page.focus(".step")
        page.keyboard.press("Home")
        if name == "vectors":
            wanted = [255 if spin > 0 else 0 for spin in surveys[name]["minimum_point"].values[0]]
            until(page, red(".heat", 1, 21), lambda found: found == wanted)
        else:
            x, y = traces(page, "plane")["here"]
            assert [x[0], y[0]] == pytest.approx(surveys[name]["minimum_point"].values[0].tolist())
        assert page.evaluate(NOW).startswith("step 0 of")
        assert page.trouble == []


def test_a_member_on_the_map_leads_to_its_basin(chromium, files, surveys):
    with opened(chromium, files["digits"]) as page:
        page.locator("[data-figure=member_embedding]").scroll_into_view_if_needed()
        here = spot(page, "member_embedding", "members", 2)
        page.mouse.move(*here)
        page.mouse.click(*here)
        until(page, TITLE, lambda found: found == "Basin 3 (“7”)")


def test_folded_figures_are_drawn_when_they_are_unfolded(chromium, files):
    with opened(chromium, files["digits"]) as page:
        assert not page.locator("[data-figure=phase]").is_visible()
        page.click("summary:has-text('Phase diagram')")
        page.wait_for_selector("[data-figure=phase] .main-svg")
        assert page.locator("[data-figure=phase]").is_visible()
        assert page.trouble == []


def test_numbers_and_pictures_can_be_saved(chromium, files, surveys):
    with opened(chromium, files["digits"], accept_downloads=True) as page:
        for figure, kind, opening in (
            ("tree", "csv", b"basin,energy"),
            ("tree", "svg", b"<svg"),
            ("path", "csv", b"step,energy"),
        ):
            with page.expect_download() as saved:
                page.click(f"[data-for={figure}] [data-save={kind}]")
            data = saved.value.path().read_bytes()
            assert saved.value.suggested_filename == f"landscape-{figure}.{kind}"
            assert data.startswith(opening)
            if (figure, kind) == ("path", "csv"):
                rows = [line.split(",") for line in data.decode().strip().splitlines()[1:]]
                assert [row[2] for row in rows if row[2]] == ["1", "2"]
                assert max(float(row[1]) for row in rows) == pytest.approx(-7.3)


def test_dark_mode_recolours_the_graph(chromium, files):
    colour = "getComputedStyle(document.querySelector('[data-figure=tree] .main-svg')).backgroundColor"
    with opened(chromium, files["digits"], color_scheme="dark") as page:
        assert page.evaluate(colour) == "rgb(23, 27, 32)"
        assert traces(page, "tree")["chosen"][0] != []
