"""What the page says and draws of units, against its numbers worked out another way, and once in a browser."""

import base64
import json
import re

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from tests.report.browsing import assert_calm_and_fitting, opened
from tests.report.test_report_images import decode
from theodolite import Box, Latent, Network, Units
from theodolite.report import units, units_figures, write_report
from theodolite.report.page import render
from theodolite.report.units_section import galleries, unit_columns, units_section


def survey(module, space, inputs, labels, layer, **settings):
    chosen = {"permutations": 99, "top": (10, 20), "n_random": 12, "flips": 12, **settings}
    network = Network(module, space, name="a <made-up> network")
    return Units(layer=layer, **chosen).measure(network, inputs, labels, progress=False)


@pytest.fixture(scope="module")
def pictures():
    """Blurred spots in one of four corners, under a convolution whose channels look for nothing in particular."""
    source = torch.Generator().manual_seed(0)
    label = torch.arange(120) % 4
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    centre = torch.tensor([[3.0, 3], [3, 8], [8, 3], [8, 8]])[label] + torch.randn((120, 2), generator=source)
    away = (rows - centre[:, 0, None, None]) ** 2 + (columns - centre[:, 1, None, None]) ** 2
    inputs = torch.exp(-away / 6)[:, None]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(144, 24), nn.ReLU(), nn.Linear(24, 4))
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(inputs), label).backward()
        optimiser.step()
    return survey(module, Box((1, 12, 12), 0, 1), inputs, label, "2")


@pytest.fixture(scope="module")
def features():
    """A list of features, a class an axis, so that units are classes; no flip points, labels of the network."""
    source = torch.Generator().manual_seed(1)
    inputs = 0.2 * torch.randn((160, 8), generator=source) + torch.eye(8)[torch.arange(160) % 8]
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    for layer in module:
        layer.weight.data, layer.bias.data = torch.eye(8), torch.zeros(8)
    return survey(module, Latent(8), inputs, None, "0", flips=0)


def cut(data, **values):
    return data.copy(deep=True).assign(**values)


# -------- words --------


def test_findings_follow_the_numbers(pictures, features):
    said = units.findings(features)
    assert said.headline.startswith("Single units mean more than random directions: their top inputs are")
    assert said.steadiness == ""
    assert said.test.count("None of 99 random bases is at least as pure") == 1 and "p = 0.020" in said.test
    own = 100 * np.nanmean(features.unit_purity.values[:, 0])
    assert f"{own:.1f}%" in said.headline and said.lines[0] == f"{said.headline}."
    said = units.findings(pictures)
    as_pure = int((pictures.basis_mean[:, 0, 0, 0] >= np.nanmean(pictures.unit_purity[:, 0]) - 1e-12).sum())
    assert said.test.startswith(f"{as_pure} of 99" if as_pure else "None of 99")
    tried = int(pictures.unit_leaving_count.sum())
    assert f"of {tried} top inputs leave" in said.steadiness and "closest flip of 12 inputs" in said.steadiness


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ("units mean less", "mean less than random"),
        ("no difference seen", "mean no more than random"),
        ("undecided", "stays open"),
    ],
)
def test_every_claim_has_its_headline(features, claim, words):
    assert words in units.findings(cut(features, claim=((), claim))).headline


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.6, 0.8, "A unit is purer"), (0.1, 0.4, "A principal direction is purer"), (0.4, 0.6, "not told")],
)
def test_principal_directions_in_words(features, low, high, words):
    changed = cut(features)
    changed["exceeds"][2, 0], changed["exceeds_low"][2, 0], changed["exceeds_high"][2, 0] = (low + high) / 2, low, high
    assert words in units.findings(changed).principal


def test_nothing_drawn_nothing_claimed(features):
    none = cut(features.isel(basis=slice(0, 0)), claim=((), "undecided"))
    none["difference"][:] = np.nan
    none["p_value"][:] = np.nan
    section = units_section(none, "units")
    assert "nothing is tested" in section["findings"].test and not section["drawn"]
    assert "stays open" in section["findings"].headline and "–" in section["comparisons"][0]["others"]


def test_where_classes_and_positions_come_from(features, pictures):
    assert "network's own predictions" in units.labels_sentence(features)
    assert units.labels_sentence(pictures) == "Classes are the labels given with the inputs."
    assert units.positions_sentence(pictures) == ""
    for positions in ("maximum", "mean"):
        assert f"is its {positions} over" in units.positions_sentence(pictures.assign_attrs(positions=positions))
    assert "unit of its own" in units.positions_sentence(pictures.assign_attrs(positions="each"))


# -------- galleries and tables --------


def test_galleries_show_the_inputs_from_the_purest_down(pictures):
    shown = {gallery["kind"]: gallery for gallery in galleries(pictures, "picture")}
    assert list(shown) == ["unit", "random", "principal"]
    purity = pictures.unit_purity.values[:, 0]
    rows = shown["unit"]["rows"]
    order = [int(row["name"].removeprefix("unit ")) for row in rows]
    assert len(order) == 10 and (np.diff(purity[order]) <= 0).all()
    assert purity[order[0]] == np.nanmax(purity) and purity[order[-1]] == np.nanmin(purity)
    first = rows[0]
    assert first["purity"] == f"{round(100 * purity[order[0]])}%"
    image = pictures.unit_image.values[order[0]][:10]
    assert first["answers"] == [str(pictures.class_name.values[pictures.label.values[one]]) for one in image]
    pixels = decode(base64.b64decode(first["picture"].removeprefix("data:image/png;base64,")))
    assert pixels.shape[:2] == (first["height"], first["width"]) == (12, 10 * 13 - 1)
    place = list(pictures.shown_image.values).index(image[3])
    wanted = pictures.shown_input.values[place, 0]
    drawn = pixels[:, 3 * 13 : 3 * 13 + 12].reshape(12, 12).astype(float)
    assert np.corrcoef(drawn.ravel(), wanted.ravel())[0, 1] > 0.99


def test_lists_of_features_have_classes_in_place_of_pictures(features):
    for gallery in galleries(features, "vector"):
        assert all("picture" not in row and len(row["answers"]) == 10 for row in gallery["rows"])
    page = render(features)
    assert 'class="answers"' in page and "The classes of its inputs" in page


def test_units_without_a_set_are_left_out_of_galleries_and_dashes_in_tables(features):
    changed = cut(features)
    changed["unit_purity"][2], changed["unit_entropy"][2], changed["unit_class"][2] = np.nan, np.nan, -1
    names = [row["name"] for row in galleries(changed, "vector")[0]["rows"]]
    assert len(names) == 7 and "unit 2" not in names
    section = units_section(changed, "units")
    assert section["unit_rows"][2][1] == "–" and unit_columns(changed)["purity of 10"][2] is None
    assert section["drawn"].keys() == {"purity", "bases"}


def test_the_table_of_comparisons(pictures):
    rows = units_section(pictures, "units")["comparisons"]
    assert len(rows) == 4 * 2 and rows[0]["other"] == "random directions, raw units"
    assert rows[0]["others"] == f"{100 * float(pictures.basis_mean[:, 0, 0, 0].mean()):.1f}%"
    assert [row["k"] for row in rows] == ["10"] * 4 + ["20"] * 4


# -------- figures --------


def test_figures_hold_the_numbers(pictures):
    bars = units_figures.purity_figure(pictures)
    own, random = bars.data
    assert sum(own.y) == pytest.approx(100) and sum(random.y) == pytest.approx(100)
    purity = pictures.unit_purity.values[:, 0]
    at_full = dict(zip(own.x, own.y, strict=True))[100.0]
    assert at_full == pytest.approx(100 * (purity[np.isfinite(purity)] == 1).mean())
    bases = units_figures.basis_figure(pictures)
    assert [sum(trace.y) for trace in bases.data] == [99, 99]
    assert bases.layout.shapes[0].x0 == pytest.approx(100 * np.nanmean(purity))
    steady = units_figures.steadiness_figure(pictures)
    change = pictures.unit_change.values
    assert list(steady.data[0].y) == sorted(change[np.isfinite(change)])
    for number, low in zip(steady.data[0].customdata, steady.data[0].error_y.arrayminus, strict=True):
        assert change[number] - low == pytest.approx(float(pictures.unit_change_low[number]))


def test_the_page_is_whole_and_safe(pictures):
    page = render(pictures)
    assert "&lt;made-up&gt;" in page and "<made-up>" not in page
    data = json.loads(re.search(r'id="survey-data">(.*?)</script>', page, re.DOTALL).group(1))
    assert set(data["units"]["figures"]) == {"purity", "bases", "steadiness"}
    assert page.count('alt="Units, unit ') == 10
    tree = xr.DataTree.from_dict({"units": pictures})
    assert "What units mean (layer 2)" in render(tree)


def test_a_person_meets_it(chromium, pictures, tmp_path):
    file = write_report(pictures, tmp_path / "units.html")
    with opened(chromium, file, ["[data-figure=purity] .main-svg", "[data-figure=steadiness] .main-svg"]) as page:
        assert page.locator(".galleries .column").count() == 3
        assert page.locator(".direction-row img").count() == 30
        sizes = page.eval_on_selector_all(".direction-row img", "all => all.map(one => one.naturalWidth)")
        assert set(sizes) == {129}
        assert "✓ complete" in page.text_content(".badge")
        with page.expect_download() as saved:
            page.click("[data-for=steadiness] [data-save=csv]")
        assert saved.value.path().read_text().startswith("unit,purity of 10")
        assert_calm_and_fitting(page, "bases")
