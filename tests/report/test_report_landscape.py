"""What the page says and draws of a landscape, against trees worked out by hand and by brute force."""

import json
import re

import numpy as np
import pytest
import xarray as xr

from tests.random_trees import random_tree
from theodolite import disconnectivity, result
from theodolite.report import films, landscape
from theodolite.report.disconnectivity_figure import disconnectivity_figure
from theodolite.report.landscape_section import landscape_section
from theodolite.report.overlay_figure import matching, overlay_figure
from theodolite.report.page import render
from theodolite.report.themes import DARK, LIGHT
from theodolite.report.tree_layout import trunks


@pytest.fixture(scope="module")
def digits(landscapes):
    return result.validate(landscapes.digits_example())


@pytest.fixture(scope="module")
def glass(landscapes):
    return result.validate(landscapes.glass_example(60, 80))


@pytest.fixture(scope="module")
def surface(landscapes):
    return result.validate(landscapes.surface_example())


@pytest.mark.parametrize("name", ["digits", "glass", "surface"])
def test_examples_hold_the_invariants_of_a_landscape(name, request):
    data = request.getfixturevalue(name)
    energy, upper, lower = (data[key].values for key in ("energy", "barrier_upper_bound", "barrier_lower_bound"))
    assert (np.diff(energy) >= 0).all()
    assert (lower <= upper + 1e-12).all()
    assert (np.maximum(energy[:, None], energy) <= lower + 1e-12).all()
    np.testing.assert_array_equal(
        disconnectivity.barriers(data["disconnectivity"].values, energy), np.where(np.eye(len(energy)), energy, upper)
    )
    for (one, other), along, length in zip(
        data["path_minimum"].values, data["path_energy"].values, data["path_length"].values, strict=True
    ):
        assert np.isclose(np.nanmax(along), upper[one, other])
        assert np.allclose([along[0], along[length - 1]], energy[[one, other]])


@pytest.mark.parametrize("seed", range(6))
def test_a_trunk_ends_where_its_minimum_first_meets_a_lower_one(seed):
    energy, tree = random_tree(seed, 40, missing=0.9 if seed % 2 else 0.0)
    barrier = disconnectivity.barriers(tree, energy)
    laid = trunks(tree, energy)
    for minimum in range(40):
        lower = np.flatnonzero(energy < energy[minimum])
        assert laid.upper[minimum] == barrier[minimum, lower].min(initial=np.inf)
        if laid.joins[minimum] >= 0:
            assert energy[laid.joins[minimum]] < energy[minimum]
            assert barrier[minimum, laid.joins[minimum]] == laid.upper[minimum]
    assert sorted(laid.order) == list(range(40))


@pytest.mark.parametrize("seed", range(6))
def test_no_crossbar_crosses_a_trunk(seed):
    energy, tree = random_tree(seed, 60)
    laid = trunks(tree, energy)
    place = np.argsort(laid.order)
    for minimum in np.flatnonzero(laid.joins >= 0):
        ends = sorted((place[minimum], place[laid.joins[minimum]]))
        between = laid.order[ends[0] + 1 : ends[1]]
        assert (laid.upper[between] <= laid.upper[minimum]).all()


def test_a_funnel_has_its_deepest_minimum_in_the_middle():
    energy = np.arange(9.0)
    upper = 10.0 + np.maximum(energy[:, None], energy)
    laid = trunks(disconnectivity.tree(energy, upper, upper), energy)
    assert laid.order[4] == 0


@pytest.mark.parametrize("seed", range(4))
def test_pruning_trunks_is_pruning_the_tree(seed):
    energy, tree = random_tree(seed, 50)
    laid = trunks(tree, energy)
    pruned = disconnectivity.prune(tree, energy, 1.1)
    kept = np.flatnonzero(laid.depth >= 1.1)
    assert np.array_equal(kept, pruned.kept)
    smaller = trunks(pruned.tree, energy[kept])
    joins = np.where(smaller.joins >= 0, kept[smaller.joins], -1)
    assert np.array_equal(joins, laid.joins[kept])
    assert np.array_equal(smaller.upper, laid.upper[kept])


def test_the_headline_says_kinds_deepest_and_lowest_pass(digits, glass, surface):
    said = landscape.findings(digits, landscape.basins(digits))
    assert said.headline.replace("\N{NO-BREAK SPACE}", " ") == (
        "Four kinds of image, the deepest a 1; the lowest pass lies 4.80 above it"
    )
    assert "6 basins before trials between all of them, 4 after; 2.1% of the proposals" in " ".join(said.lines)
    assert landscape.findings(surface, landscape.basins(surface)).headline.startswith(
        "Four basins; the lowest pass out"
    )
    twins = landscape.findings(glass, landscape.basins(glass))
    assert "two deepest basins lie equally low" in twins.lines[1]
    assert twins.verdict_heading.startswith("Bracketed: ")


def test_doubt_is_said(landscapes, digits):
    hasty = digits.assign(verdict=((), "not converged"), check_passed=("check", [0, -1, 1]))
    said = landscape.findings(hasty, landscape.basins(hasty))
    assert said.headline.startswith("At least four kinds of image")
    assert said.verdict_heading == "Not converged: 1 of 2 checks failed"


def test_barriers_without_a_proof_are_called_the_lowest_found(digits):
    energy, upper = digits["energy"].values, digits["barrier_upper_bound"].values
    floor = np.maximum(energy[:, None], energy)
    open_below = digits.assign(
        barrier_lower_bound=(("minimum", "other_minimum"), floor),
        disconnectivity=(("merge", "merge_part"), disconnectivity.tree(energy, upper, floor)),
    )
    found = landscape.basins(open_below)
    assert not found.proven.any() and not found.exact.any()
    assert "the lowest pass found lies 4.80 above it" in landscape.findings(open_below, found).headline
    assert found.level(0, 2) == "at most −9.40"
    drawn = {trace.name: trace for trace in disconnectivity_figure(open_below).data}
    assert len(drawn["limits"].x) == 3 and not len(drawn["bands"].x)


def test_unconnected_basins_say_that_no_path_is_known(digits):
    energy = digits["energy"].values
    upper = np.where(np.eye(4, dtype=bool), energy, np.inf)
    floor = np.maximum(energy[:, None], energy)
    alone = digits.drop_dims("path").assign(
        barrier_upper_bound=(("minimum", "other_minimum"), upper),
        barrier_lower_bound=(("minimum", "other_minimum"), floor),
        disconnectivity=(("merge", "merge_part"), disconnectivity.tree(energy, upper, floor)),
    )
    page = render(alone)
    assert "no way out of the deepest is known" in page
    assert "Dotted trunks end where no path is known" in page
    assert 'class="player"' not in page


def test_one_basin_is_still_a_page(digits):
    one = digits.isel(minimum=[0], other_minimum=[0], member=digits["basin"].values == 0).drop_dims(["path", "merge"])
    one = one.assign(disconnectivity=(("merge", "merge_part"), np.empty((0, 5))))
    assert "One kind of image: every descent" in render(one)


def test_a_survey_that_found_no_basin_says_so(digits):
    none = digits.isel(minimum=slice(0), other_minimum=slice(0)).drop_dims(["path", "merge", "member"])
    none = none.assign(disconnectivity=(("merge", "merge_part"), np.empty((0, 5))), verdict=((), "not converged"))
    page = render(none)
    assert "No basin was found" in page
    assert 'data-figure="tree"' not in page


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_the_figure_shows_the_numbers_of_the_survey(digits, theme):
    drawn = {trace.name: trace for trace in disconnectivity_figure(digits, theme).data}
    assert np.array_equal(drawn["minima"].y, digits["energy"])
    assert [value for value in drawn["bands"].y if value is not None] == [-8.0, -8.0, -7.3, -7.3, -8.0]
    # A trunk: up from its energy, across at the level of its merge; a colour a label.
    lines = [trace for name, trace in drawn.items() if name.startswith("lines")]
    assert len(lines) == 4
    levels = sorted(trace.y[1] for trace in lines)
    assert levels == [-9.4, -8.1, -7.3, -7.3]
    area = np.array(drawn["minima"].marker.size) ** 2
    assert np.allclose(area / area.max(), digits["member_count"] / digits["member_count"].max(), atol=1e-9)


def test_paths_are_thinned_but_keep_their_ends_and_their_top(glass):
    kept, frames = films.films(glass, most_frames=5 * glass.sizes["path"])
    assert sum(len(np.unique(film.frame)) for film in kept) == len(frames) <= 6 * glass.sizes["path"]
    for film, along, length, points in zip(
        kept, glass["path_energy"].values, glass["path_length"].values, glass["path_point"].values, strict=True
    ):
        assert film.step[0] == 0 and film.step[-1] == length - 1
        assert film.energy.max() == np.nanmax(along)
        top = int(np.nanargmax(along))
        assert np.array_equal(frames[film.frame[list(film.step).index(top)]], points[top])
        assert np.array_equal(film.energy, along[film.step])


def test_the_page_is_small_offline_and_carries_every_number(glass, digits):
    page = render(glass)
    assert len(page.encode()) < 10_000_000
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", ours)
    columns = landscape_section(digits, "landscape")["drawn"]["tree"]["columns"]
    assert columns["energy"] == digits["energy"].values.tolist()
    assert columns["joins_at_lower_bound"][1] == -8.0 and columns["joins_at_upper_bound"][1] == -7.3
    assert all(len(column) == 4 for column in columns.values())
    json.dumps(landscape_section(glass, "landscape")["script"], allow_nan=False)


def test_density_comes_before_landscape_and_both_are_in_the_title_block(digits, converged):
    page = render(xr.DataTree.from_dict({"landscape": digits, "density": converged}))
    header = page[page.index("<header") : page.index("</header>")]
    assert header.index("How many inputs give which answer") < header.index("What it remembers")
    assert page.index('id="density"') < page.index('id="landscape"')
    assert "density: 61,440 evaluations in 4 min 47 s; landscape: 1,250,000 evaluations" in header
    assert 'id="overlay"' not in page


def test_two_landscapes_are_laid_over_each_other(landscapes):
    one, other = landscapes.glass_example(60, 30), landscapes.glass_example(60, 40, search=1, n_near=2)
    pairs = matching(one, other)
    for first, second in pairs:
        assert np.array_equal(one["minimum_point"][first], other["minimum_point"][second])
    shared = {point.tobytes() for point in one["minimum_point"].values} & {
        point.tobytes() for point in other["minimum_point"].values
    }
    assert len(pairs) == len(shared) > 5
    drawn = {trace.name: trace for trace in overlay_figure(one, other).data}
    agree = disconnectivity.compare(one["disconnectivity"].values, other["disconnectivity"].values, pairs)
    assert sum(value is None for value in drawn["both join the same basins"].x) == (agree == 1).sum()
    assert sum(value is None for value in drawn["they join in another order"].x) == (agree == 0).sum()
    page = render([one, other])
    assert 'id="landscape-2"' in page and 'id="overlay"' in page
    assert f"{len(pairs)} of {one.sizes['minimum']} basins of “landscape”" in page


def test_minima_of_a_continuous_space_match_their_nearest(surface):
    nudged = surface.assign(minimum_point=surface["minimum_point"][::-1] + 1e-3)
    n = surface.sizes["minimum"]
    assert matching(surface, nudged).tolist() == [[k, n - 1 - k] for k in range(n)]
    far = surface.assign(minimum_point=surface["minimum_point"] + 5.0)
    assert len(matching(surface, far)) == 0


def test_words_of_a_survey_cannot_become_markup(digits):
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    labelled = digits.assign(minimum_label=("minimum", [nasty] * 4)).assign_attrs(observable_sentence=nasty)
    page = render(labelled)
    assert "<img src=x" not in page
    assert "<script>alert(1)" not in page


def test_pictures_stand_for_points_that_are_none(digits):
    """A latent landscape whose pictures are the digits draws what a landscape of the digits draws."""
    axes = {"point_0": "picture_0", "point_1": "picture_1", "point_2": "picture_2"}
    names = {f"{kind}_point": f"{kind}_picture" for kind in ("minimum", "member", "path")}
    points = digits[list(names)]
    latent = digits.drop_vars(list(names)).assign(
        {
            new: (tuple(axes.get(dim, dim) for dim in points[old].dims), points[old].values.astype(np.float32))
            for old, new in names.items()
        }
    )
    generator = np.random.default_rng(0)
    for old in names:
        leading = [dim for dim in points[old].dims if dim not in axes]
        values = generator.normal(size=(*(digits.sizes[dim] for dim in leading), 2))
        latent[old] = ((*leading, "point_0"), values)
    latent = result.validate(latent)
    section, expected = (landscape_section(data, "landscape") for data in (latent, digits))
    assert section["kind"] == "picture" and section["findings"].headline == expected["findings"].headline
    for name in ("minima", "frames", "members"):
        assert section["script"][name] is not None
        assert section["script"][name].keys() == expected["script"][name].keys()
    assert section["script"]["paths"] == expected["script"]["paths"]
    assert section["script"]["minima"]["tile"] == expected["script"]["minima"]["tile"]
    assert render(latent)
