"""What the page says and draws of a boundary, against its numbers worked out another way."""

import base64
import dataclasses
import json
import re

import numpy as np
import plotly.offline
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from tests.report import boundary_example as examples
from tests.report.test_report_images import decode
from theodolite import result
from theodolite.report import boundary, boundary_figures, boundary_script, boundary_tables
from theodolite.report.boundary_section import boundary_section
from theodolite.report.changes import bars, change_sheet, magnification
from theodolite.report.page import render
from theodolite.report.themes import DARK, LIGHT

ESSENTIAL = [row.name for row in result.SCHEMA if row.instrument == "boundary" and row.required]


@pytest.fixture(scope="module")
def digits():
    return result.validate(examples.digits_example())


@pytest.fixture(scope="module")
def table():
    return result.validate(examples.table_example())


@pytest.fixture(scope="module")
def colours():
    return result.validate(examples.colours_example())


@pytest.mark.parametrize("name", ["digits", "table", "colours"])
def test_examples_hold_the_invariants_of_a_boundary(name, request):
    data = request.getfixturevalue(name)
    found = np.isfinite(data["distance"].values)
    assert (data["distance_lower_bound"] <= data["distance"]).all()
    change = (data["flip_point"] - data["input"]).values[found].reshape(found.sum(), -1)
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), data["distance"].values[found])
    assert ((data["residual"].values[found] >= 0) & (data["residual"].values[found] <= 1e-9)).all()


def test_the_flips_of_the_example_are_the_nearest_of_a_linear_classifier():
    generator = np.random.default_rng(0)
    inputs, weight = generator.normal(size=(20, 6)), generator.normal(size=(6, 3))
    flips, reached = examples.nearest_flips(inputs, weight, np.zeros(3), -50.0, 50.0)
    output = inputs @ weight
    own = output.argmax(axis=1)
    for image, other in np.argwhere(reached):
        slope = weight[:, own[image]] - weight[:, other]
        away = (output[image, own[image]] - output[image, other]) / np.linalg.norm(slope)
        assert np.linalg.norm(flips[image, other] - inputs[image]) == pytest.approx(away)
    assert reached.sum() == 40


@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1e3))
def test_a_magnified_change_fills_the_range_without_leaving_it(spread, largest):
    factor = magnification(largest, spread)
    assert factor * largest <= spread * (1 + 1e-6)
    assert 1.6 * factor * largest > spread
    assert float(f"{factor:.2g}") == pytest.approx(factor)


def test_changes_are_read_back_from_their_tiles():
    changes = np.random.default_rng(1).normal(size=(40, 1, 9, 9)) * np.geomspace(1e-4, 10, 40).reshape(-1, 1, 1, 1)
    changes[3] = 0.0
    changes[5, 0, 2, 2] = np.nan
    drawn = change_sheet(changes, 1.0)
    pixels = decode(base64.b64decode(drawn.sheet.address.partition(",")[2])).astype(float)
    for index, change in enumerate(np.nan_to_num(changes[:, 0])):
        row, column = divmod(index, drawn.sheet.columns)
        tile = pixels[9 * row : 9 * row + 9, 9 * column : 9 * column + 9]
        value = (tile - 128) / 127 * drawn.scale[index]
        np.testing.assert_allclose(value, change, atol=drawn.scale[index] / 253)
        assert (tile[change == 0] == 128).all()


def test_bars_hold_the_largest_changes_and_what_they_changed():
    rows = bars(np.array([0.0, -2.0, 0.5, np.nan, 1.0]), np.arange(5.0), 3)
    assert rows == [
        [1, -2.0, "−2.00", "1.00 → −1.00"],
        [4, 1.0, "+1.00", "4.00 → 5.00"],
        [2, 0.5, "+0.500", "2.00 → 2.50"],
    ]
    assert bars(np.zeros(4), None, 3) == []


@given(st.floats(1e-7, 1e7))
def test_a_proven_bound_is_never_written_larger_than_it_is(value):
    text = boundary.proven(value).replace(",", "")
    mantissa, _, power = text.partition(" × 10")
    digits = power.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-"))
    written = float(mantissa) * 10.0 ** int(digits or 0)
    assert 0.99 * value <= written <= value * (1 + 1e-9)


def test_brackets_say_what_is_known():
    assert boundary.bracket(0.2, 0.3) == "between 0.200 and 0.300"
    assert boundary.bracket(0.0, 0.3) == "at most 0.300"
    assert boundary.bracket(0.3, 0.3) == "0.300 (proven)"
    assert boundary.bracket(0.2, np.inf) == "at least 0.200"
    assert boundary.bracket(np.inf, np.inf) == "no flip point exists (proven)"
    assert boundary.bracket(0.0, np.inf) == "nothing known"


def test_log_odds_are_those_of_the_softmax(digits):
    found = boundary.boundary(digits)
    own = digits["predicted_class"].values
    log_share = log_softmax(digits["output"].values, axis=1)[np.arange(len(own)), own]
    np.testing.assert_allclose(found.log_odds, log_share - np.log(-np.expm1(log_share)), rtol=1e-9)
    without = boundary.boundary(digits.drop_vars("output"))
    np.testing.assert_allclose(without.log_odds, found.log_odds, rtol=1e-6)
    assert boundary.boundary(digits.drop_vars(["output", "probability"])).log_odds is None


def test_one_output_is_the_log_odds_of_two_classes(table):
    z = np.linspace(-2, 3, table.sizes["image"])
    one = table.drop_dims("class").assign(
        output=(("image", "class"), z[:, None]), predicted_class=("image", (z > 0).astype(int))
    )
    np.testing.assert_allclose(boundary.boundary(one).log_odds, np.abs(z))


def test_flat_lists_are_pictures_where_neighbours_vary_together(digits, table, colours):
    pixels = digits["input"].values.reshape(-1, 784)
    assert boundary.point_kind(pixels) == "picture"
    assert boundary.point_kind(pixels[:1]) == "picture"
    assert boundary.point_kind(pixels[:, np.random.default_rng(0).permutation(784)]) == "vector"
    assert boundary.point_kind(np.random.default_rng(0).normal(size=(30, 100))) == "vector"
    assert boundary.point_kind(np.zeros((30, 100))) == "vector"
    assert [boundary.boundary(data).noun for data in (digits, table, colours)] == ["pixel", "feature", "colour value"]


def test_the_headline_and_the_lines_hold_the_numbers(digits):
    found = boundary.boundary(digits)
    said = boundary.findings(digits, found)
    distance = digits["distance"].values
    middle, nearest = (boundary.words.number(float(value)) for value in (np.median(distance), distance.min()))
    assert said.headline == f"Half of the 40 answers flip within {middle} of their input, the closest call at {nearest}"
    wrong = (digits["label"] != digits["predicted_class"]).values
    assert f"{wrong.sum()} of 40 answers are mistakes" in " ".join(said.lines)
    share = np.median(digits["distance_lower_bound"].values / distance)
    percent = float(re.search(r"nearer than ([\d.]+)%", said.proof)[1])
    assert share - 0.001 <= percent / 100 <= share
    within = int((distance <= 0.1).sum())
    safe = int((digits["distance_lower_bound"] > 0.1).sum())
    assert f"{within} of 40 answers flip within the stated uncertainty of 0.1; {safe} are proven not to." in said.lines


def test_the_verdict_heading_counts_the_checks(digits):
    for passed, said in (
        ([1, 1, -1], "Converged: all 2 checks that could be made hold"),
        ([1, 0, 0], "Converged, with 2 of 3"),
    ):
        data = digits.assign(verdict=((), "converged"), check_passed=("check", passed))
        assert boundary.findings(data, boundary.boundary(data)).verdict_heading.startswith(said)


def test_what_is_proven_is_said_as_it_is(digits):
    exact = digits.assign(distance_lower_bound=digits["distance"], verdict=((), "exact"))
    said = boundary.findings(exact, boundary.boundary(exact))
    assert said.proof == "Every distance is proven: no flip point lies nearer"
    bare = digits.assign(distance_lower_bound=0 * digits["distance"], verdict=((), "not converged"))
    said = boundary.findings(bare, boundary.boundary(bare))
    assert "nothing is proven" in said.proof
    some = digits.assign(distance_lower_bound=digits["distance"] * (np.arange(40) < 10) / 2)
    said_of_some = boundary.findings(some, boundary.boundary(some))
    assert said_of_some.proof == "For 30 of 40 inputs nothing is proven: their distances are the shortest found"
    assert said_of_some.lines[1] == "Proven from below for 10 of 40: 50% of the distance found (median of these)."
    assert said.verdict_heading == "Not converged"


@pytest.mark.parametrize(
    ("distance", "softmax", "lead", "said"),
    [
        (
            (0.9, 0.85, 0.95),
            (0.8, 0.7, 0.87),
            (0.1, 0.02, 0.18),
            "Distance tells mistakes better than softmax: AUROC 0.900 against 0.800",
        ),
        (
            (0.8, 0.7, 0.87),
            (0.9, 0.85, 0.95),
            (-0.1, -0.18, -0.02),
            "Softmax tells mistakes better than distance: AUROC 0.900 against 0.800",
        ),
        (
            (0.9, 0.85, 0.95),
            (0.8, 0.7, 0.87),
            (0.1, -0.01, 0.2),
            "Distance is not shown to tell mistakes better than softmax",
        ),
        (
            (0.7, 0.45, 0.85),
            (0.6, 0.4, 0.8),
            (0.1, -0.2, 0.4),
            "Distance is not shown to tell mistakes better than softmax",
        ),
        ((0.9, 0.88, 0.95), (0.8, 0.7, 0.87), (np.nan, np.nan, np.nan), "Mistakes against right answers"),
    ],
)
def test_trust_says_only_what_the_interval_of_the_difference_shows(digits, distance, softmax, lead, said):
    names = ("auroc", "auroc_low", "auroc_high", "auroc_lead", "auroc_lead_low", "auroc_lead_high")
    rows = np.array([(*distance, 0, 0, 0), (*softmax, *lead), (0.5, 0.4, 0.6, 0.3, 0.2, 0.4)]).T
    data = digits.assign({name: ("score", row) for name, row in zip(names, rows, strict=True)})
    found = boundary_tables.trust(data, boundary.boundary(data))
    assert found.heading.startswith(said)
    assert [row["lead_interval"] == "" for row in found.rows] == [True, np.isnan(lead[0]), False]
    assert ("is not shown to tell mistakes at all" in found.words) == (distance[1] <= 0.5)


def test_trust_counts_sure_and_near_mistakes(digits):
    found = boundary.boundary(digits)
    wrong = (digits["label"] != digits["predicted_class"]).values
    share = np.exp(log_softmax(digits["output"].values, axis=1)).max(axis=1)
    middle = np.median(digits["distance"].values[~wrong])
    said = boundary_tables.trust(digits, found).words
    assert f"{(digits['distance'].values[wrong] < middle).sum()} of {wrong.sum()} mistakes" in said
    assert f"{(share[wrong] >= 0.8).sum()} of {wrong.sum()} have a softmax of 80% or more" in said
    nearest = (digits["target_class"] == digits["label"]).values & wrong
    assert f"For {nearest.sum()} of {wrong.sum()} mistakes the nearest other class is the true one" in said


def test_without_labels_or_mistakes_nothing_is_claimed(digits):
    unknown = digits.assign(label=("image", np.full(40, -1)))
    said = boundary_tables.trust(unknown, boundary.boundary(unknown))
    assert "No true classes were given" in said.words and "mistake" not in said.heading
    right = digits.assign(label=digits["predicted_class"])
    assert boundary_tables.trust(right, boundary.boundary(right)).heading == "No mistake among these answers"
    assert boundary.findings(right, boundary.boundary(right)).lines[2] == "0 of 40 answers are mistakes."


def test_the_class_table_holds_medians_and_counts(digits):
    found = boundary.boundary(digits)
    doors = boundary_tables.next_door(digits, found)
    own, target = digits["predicted_class"].values, digits["target_class"].values
    for name, count, cells in doors.rows:
        rows = own == int(name)
        assert count == str(rows.sum())
        for other, cell in enumerate(cells):
            assert cell["own"] == (other == int(name))
            assert cell["count"] == (str(hits) if (hits := (rows & (target == other)).sum()) else "")
            if not cell["own"]:
                median = np.median(digits["pair_distance"].values[rows, other])
                assert float(cell["text"]) == pytest.approx(median, abs=0.006)
    tints = {cell["text"]: cell["tint"] for *_, cells in doors.rows for cell in cells if not cell["own"]}
    assert tints[min(tints, key=float)] == max(tints.values())
    assert sum(doors.columns["nearest_flips"]) == 40
    nearest = boundary_tables.next_door(digits.drop_vars("pair_distance"), found)
    assert nearest.columns["median_distance"][0] == np.median(
        digits["distance"].values[(own == int(nearest.columns["from"][0])) & (target == int(nearest.columns["to"][0]))]
    )


def test_many_classes_are_a_list_of_the_commonest_flips(digits):
    n = 40
    generator = np.random.default_rng(0)
    own = generator.integers(0, 60, n)
    many = digits.drop_dims("class").assign(predicted_class=("image", own), target_class=("image", (own + 1) % 61))
    doors = boundary_tables.next_door(many, boundary.boundary(many))
    assert not doors.rows and 0 < len(doors.flips) <= 20
    counts = [int(count) for _, count, _ in doors.flips]
    assert counts == sorted(counts, reverse=True)
    assert "Median distance" in render(many)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_figures_show_the_numbers_of_the_survey(digits, theme):
    order = np.argsort(digits["distance"].values, kind="stable")
    drawn = {trace.name: trace for trace in boundary_figures.bracket_figure(digits, theme).data}
    np.testing.assert_array_equal(drawn["found"].y, digits["distance"].values[order])
    np.testing.assert_array_equal(drawn["found"].customdata, order)
    lower = digits["distance_lower_bound"].values[order]
    np.testing.assert_array_equal(drawn["proven: no flip point lies nearer"].y, lower[lower > 0])
    bar = np.array(drawn["between proven and found"].y, float).reshape(-1, 3)
    np.testing.assert_array_equal(bar[:, :2], np.stack([lower, digits["distance"].values[order]], axis=1))
    drawn = {trace.name: trace for trace in boundary_figures.trust_figure(digits, theme).data}
    wrong = np.flatnonzero((digits["label"] != digits["predicted_class"]).values)
    assert sorted(drawn["mistakes"].customdata) == wrong.tolist()
    for name in ("mistakes", "right answers"):
        rows = list(drawn[name].customdata)
        np.testing.assert_array_equal(drawn[name].x, digits["distance"].values[rows])
        np.testing.assert_allclose(1 / (1 + np.exp(-np.array(drawn[name].y))), digits["probability"].values[rows])


def test_the_softmax_axis_has_ticks_however_alike_the_answers_are(digits):
    sure = digits.drop_vars("output").assign(probability=("image", np.full(40, 0.9876)))
    axis = boundary_figures.trust_figure(sure).layout.yaxis
    assert len(axis.tickvals) >= 3
    for value, text in zip(axis.tickvals, axis.ticktext, strict=True):
        if text.endswith("%"):
            assert 100 / (1 + np.exp(-value)) == pytest.approx(float(text[:-1]))


def test_thousands_of_images_are_thinned_but_mistakes_stay(digits):
    n = 9000
    generator = np.random.default_rng(0)
    found = dataclasses.replace(
        boundary.boundary(digits),
        distance=generator.exponential(size=n),
        lower=np.zeros(n),
        own=np.zeros(n, int),
        target=np.ones(n, int),
        label=(generator.random(n) < 0.1).astype(int),
        log_odds=generator.normal(size=n),
    )
    rows = boundary_figures.drawn_images(found)
    assert len(rows) <= 4000 and len(np.unique(rows)) == len(rows)
    assert set(np.flatnonzero(found.mistake)) <= set(rows)
    assert (np.diff(found.distance[rows]) >= 0).all()
    assert rows[0] == found.order[0] and rows[-1] == found.order[-1]
    carried = boundary_script.carried_images(xr.Dataset({"suspicious_image": ("suspect", [17, 4])}), found, 60)
    assert len(carried) == 60 and {17, 4, *found.order[:30]} <= set(map(int, carried))
    assert (np.diff(found.distance[carried]) >= 0).all()


def test_images_without_a_flip_point_are_told_with_their_outcome(table):
    found = boundary.boundary(table)
    rows = boundary_tables.not_found(table, found)
    assert [row["image"] for row in rows] == ["2", "9"]
    assert rows[0]["violation"] == "0.210"
    page = render(table)
    assert "No flip point was found for 2 of 24 images" in page
    assert page.count("no point that keeps the fixed features flips the answer") >= 2
    drawn = {trace.name: trace for trace in boundary_figures.bracket_figure(table).data}
    assert sorted(drawn["none found"].customdata) == [2, 9]
    assert "20% of the features never change" in page


def test_nothing_found_at_all_is_a_page_too(table):
    n = table.sizes["image"]
    lost = table.assign(
        distance=("image", np.full(n, np.inf)),
        distance_lower_bound=("image", np.full(n, np.inf)),
        flip_point=table["flip_point"] * np.nan,
        target_class=("image", np.full(n, -1)),
    )
    page = render(lost)
    assert "No flip point was found for any of 24 inputs" in page
    assert "no flip point exists (proven)" in page
    assert 'data-figure="brackets"' not in page and 'data-figure="trust"' not in page


def test_the_required_variables_make_a_page(digits):
    bare = digits[ESSENTIAL]
    section = boundary_section(result.validate(bare), "boundary")
    assert list(section["drawn"]) == ["brackets"]
    assert not any(call["others"] for call in section["script"]["calls"])
    assert "All its classes" not in render(bare)


def test_one_image_and_no_image_are_pages(digits):
    one = digits.isel(image=[3]).drop_dims("suspect")
    assert "The answer flips" in render(one)
    alike = one.assign(input=0 * one["input"])
    assert boundary_section(alike, "boundary")["script"]["spread"] == 1.0
    none = digits.isel(image=slice(0)).drop_dims("suspect")
    assert "No input was given" in render(none)


def test_a_broken_network_leaves_the_other_images_unharmed(digits):
    broken = digits.copy(deep=True)
    broken["output"].values[4] = np.nan
    broken["probability"].values[4] = np.nan
    broken["distance"].values[4] = np.inf
    broken["distance_lower_bound"].values[4] = np.nan
    broken["flip_point"].values[4] = np.nan
    broken["pair_distance"].values[4] = np.nan
    broken["pair_lower_bound"].values[4] = np.nan
    broken["predicted_class"].values[4] = -1
    broken["target_class"].values[4] = -1
    broken["outcome"].values[4] = "the outputs are not finite"
    page = render(broken)
    assert "the outputs are not finite" in page
    assert "For 1 of 40 inputs no flip point was found." in page


def test_the_page_is_small_offline_and_carries_every_number(digits):
    hundred = examples.digits_example(100)
    page = render(hundred)
    assert len(page.encode()) - len(plotly.offline.get_plotlyjs().encode()) < 3_000_000
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", ours)
    section = boundary_section(digits, "boundary")
    columns = section["drawn"]["brackets"]["columns"]
    order = np.argsort(digits["distance"].values, kind="stable")
    assert columns["image"] == order.tolist()
    assert columns["distance"] == digits["distance"].values[order].tolist()
    assert columns["distance_lower_bound"] == digits["distance_lower_bound"].values[order].tolist()
    assert columns["flips_to"] == [str(k) for k in digits["target_class"].values[order]]
    assert len(section["rows"]) == 40 and all(len(row) == len(section["row_heads"]) for row in section["rows"])
    json.dumps(section["script"], allow_nan=False)


def test_every_class_is_listed_with_its_distance_nearest_first(digits):
    script = boundary_section(digits, "boundary")["script"]
    order = np.argsort(digits["distance"].values, kind="stable")
    assert [call["image"] for call in script["calls"]] == order.tolist()
    used = []
    for call in script["calls"]:
        pairs = digits["pair_distance"].values[call["image"]]
        shown = [row["distance"] for row in call["others"] if not row["name"].endswith("meet")]
        assert shown == sorted(pairs[np.isfinite(pairs)])
        used += [row["change"] for row in call["others"] if row["change"] is not None]
    assert used == list(range(len(used))) and len(script["others"]["scale"]) == len(used)


def test_filters_hold_the_images_they_name(digits):
    script = boundary_section(digits, "boundary")["script"]
    filters = {one["name"]: one["calls"] for one in script["filters"]}
    wrong = (digits["label"] != digits["predicted_class"]).values
    calls = script["calls"]
    assert {calls[k]["image"] for k in filters[f"mistakes ({wrong.sum()})"]} == set(np.flatnonzero(wrong))
    assert [calls[k]["image"] for k in script["suspects"]] == digits["suspicious_image"].values.tolist()


def test_directions_of_a_class_follow_its_mean_change(digits):
    rows = boundary_script.direction_rows(digits, boundary.boundary(digits))
    counts = np.bincount(digits["predicted_class"].values, minlength=10)
    assert [row["class"] for row in rows] == [k for k in range(10) if counts[k] >= 3]
    assert all(row["count"] == str(counts[row["class"]]) for row in rows)
    tiles = boundary_section(digits, "boundary")["script"]["directions"]
    assert len(tiles["scale"]) == sum(1 + len(row["explained"]) for row in rows)


def test_boundary_comes_after_the_other_instruments(digits, converged):
    page = render(xr.DataTree.from_dict({"boundary": digits, "density": converged}))
    header = page[page.index("<header") : page.index("</header>")]
    assert header.index("How many inputs give which answer") < header.index("How close the answer is to changing")
    assert "bracketed" in header


def test_words_of_a_survey_cannot_become_markup(table):
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    labelled = table.assign_coords(class_name=("class", [nasty] * 3)).assign_attrs(constraints=nasty)
    labelled["outcome"].values[2] = nasty[:120]
    page = render(labelled)
    assert "<img src=x" not in page
    assert "<script>alert(1)" not in page
