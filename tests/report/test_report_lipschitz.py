"""What the page says and draws of slopes: proven numbers stay proven as they are written."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import theodolite as th
from tests.report import browsing
from theodolite.report import lipschitz as told
from theodolite.report import write_report
from theodolite.report.lipschitz_section import lipschitz_section
from theodolite.report.page import render


def survey(module, **settings) -> xr.Dataset:
    network = th.Network(module, th.Box((1, 4, 4), 0, 1), name="slopes")
    inputs = torch.rand((4, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    return th.Lipschitz(budget="1e9 evaluations", **settings).measure(network, inputs, progress=False)


@pytest.fixture(scope="module")
def known():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 3)
    return survey(nn.Sequential(*layers), radius=(0.1, 0.5))


@pytest.fixture(scope="module")
def unknown():
    torch.manual_seed(0)
    return survey(nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.LayerNorm(5), nn.Linear(5, 3)))


def written(text):
    mantissa, _, power = text.replace(",", "").replace("\N{MINUS SIGN}", "-").partition(" × 10")
    digits = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
    return float(mantissa) * 10.0 ** int(power.translate(digits) or 0)


@given(st.floats(1e-9, 1e9))
def test_what_is_written_of_a_bound_is_proven_too(value):
    assert value * (1 - 1e-11) <= written(told.above(value)) <= value * (1 + 2e-3)
    assert value * (1 - 2e-3) <= written(told.below(value)) <= value * (1 + 1e-11)


def test_rows_hold_the_numbers_of_every_layer_and_the_whole(known):
    heads, rows = told.layer_rows(known)
    assert [row[0] for row in rows] == [*known.layer.values, "whole network"]
    place = {head: column for column, head in enumerate(heads)}
    for row, bound, slope in zip(rows, known.lipschitz_upper_bound.values, known.measured_slope.values, strict=False):
        assert written(row[place["bound above"]]) == pytest.approx(bound, rel=1e-3)
        assert np.isnan(slope) or written(row[place["slope found"]]) == pytest.approx(slope, rel=2e-3)
    assert rows[0][2] == "1x3x3x4"
    assert written(rows[-1][place["bound above"]]) >= float(known.network_upper_bound) * (1 - 1e-11)
    assert dict((reason, names) for reason, names in told.lost(known))["flat somewhere"].count(" and ") == 1


def test_headings_are_findings(known, unknown):
    page = render(known)
    assert told.above(float(known.network_upper_bound)) in told.findings(known).headline
    for words in ("How steep it can be", "Every layer and the whole are proven", "Komati 2022", "1x3x3x4", "Rump"):
        assert words in page
    assert [row[0] for row in told.local_rows(known)] == ["0.1", "0.5"]
    doubtful = render(unknown)
    assert "Nothing bounds the whole network" in doubtful and "LayerNorm" in doubtful and "∞" in doubtful
    assert "◐" in doubtful and not told.local_rows(unknown)


def test_the_figure_puts_every_slope_below_its_bound(known, unknown):
    figure = told.slope_figure(known)
    marks = {trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in figure.data if trace.mode == "markers"}
    high, low = marks["proven: at most"], marks["found: at least"]
    assert len(high) == known.sizes["layer"] + 1 and set(low) <= set(high)
    assert all(low[k] <= high[k] for k in low)
    assert figure.layout.yaxis.type == "log"
    drawn = lipschitz_section(unknown, "lipschitz")["drawn"]["slopes"]["columns"]
    assert None in drawn["lipschitz_upper_bound"] and len(drawn["layer"]) == unknown.sizes["layer"]
    assert all(value is None or math.isfinite(value) for value in drawn["lipschitz_upper_bound"])


def test_the_page_opens_without_errors_network_or_sideways_scrolling(chromium, known, tmp_path):
    file = write_report(known, tmp_path / "slopes.html")
    with browsing.opened(chromium, file, ("[data-figure=slopes] .main-svg", "table.slopes")) as page:
        browsing.assert_calm_and_fitting(page, "slopes")
