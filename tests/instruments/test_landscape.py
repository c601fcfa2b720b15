"""The instrument `Landscape`: maps against brute force, intervals and paths that keep their promises, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import theodolite as th
from theodolite.errors import FieldError, UserError
from theodolite.field import Field
from theodolite.instruments import landscape
from theodolite.instruments.barriers import pair_barriers
from theodolite.instruments.certified_landscape import CertifiedLandscape
from theodolite.instruments.proposals import from_generator
from theodolite.result import open_survey, validate
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.systems import ising, parse_system, random_table, spin_glass
from theodolite.systems.mixtures import gaussian_mixture
from theodolite.systems.surfaces import mueller_brown


def brute_barriers(field: Field) -> dict[tuple[float, float], float]:
    """Barriers between all minima of a small spin field by flooding the sorted states; keys are pairs of states."""
    n = field.space.n_coordinates
    states = torch.tensor(list(itertools.product((-1, 1), repeat=n)))
    energy = field.value(states).numpy()
    weights = 1 << np.arange(n)[::-1]
    flooded: dict[int, int] = {}
    minima: dict[int, list[int]] = {}
    barriers = {}

    def root(i: int) -> int:
        while flooded[i] != i:
            i = flooded[i]
        return i

    for i in np.argsort(energy, kind="stable"):
        i = int(i)
        around = sorted({root(i ^ int(w)) for w in weights if i ^ int(w) in flooded}, key=lambda r: energy[r])
        if not around:
            flooded[i], minima[i] = i, [i]
            continue
        flooded[i] = around[0]
        for other in around[1:]:
            for a, b in itertools.product(minima[around[0]], minima[other]):
                barriers[frozenset((a, b))] = energy[i]
            minima[around[0]] += minima.pop(other)
            flooded[other] = around[0]
    return {tuple(sorted(pair)): level for pair, level in barriers.items()}


def number(point: np.ndarray) -> int:
    return int(((point > 0) * (1 << np.arange(point.size)[::-1])).sum())


def assert_keeps_its_promises(survey, field: Field) -> None:
    """The invariants of docs/architecture.md."""
    validate(survey)
    energy = survey.energy.values
    upper, lower = survey.barrier_upper_bound.values, survey.barrier_lower_bound.values
    points = torch.as_tensor(survey.minimum_point.values).to(field.space.dtype)
    assert np.allclose(field.value(points).numpy(), energy, atol=1e-9)
    assert np.all(np.diff(energy) >= 0)
    assert np.array_equal(upper, upper.T) and np.array_equal(lower, lower.T)
    assert np.all(lower <= upper) and np.all(lower >= np.maximum(energy[:, None], energy[None]) - 1e-12)
    for k in range(len(energy)):
        detour = np.maximum(upper[:, k : k + 1], upper[k : k + 1])
        np.fill_diagonal(detour, np.inf)
        assert np.all(upper <= detour)
    for p in range(survey.sizes.get("path", 0)):
        first, second = survey.path_minimum.values[p]
        length = int(survey.path_length[p])
        path, along = survey.path_point.values[p, :length], survey.path_energy.values[p, :length]
        assert np.array_equal(path[0], survey.minimum_point.values[first])
        assert np.array_equal(path[-1], survey.minimum_point.values[second])
        assert np.allclose(field.value(torch.as_tensor(path).to(field.space.dtype)).numpy(), along, atol=1e-9)
        assert along.max() <= upper[first, second] + 1e-9
        if field.space.dtype == torch.int64:
            changed = (path[1:] != path[:-1]).reshape(length - 1, -1).sum(1)
            assert np.all(changed == 1)


@pytest.mark.parametrize("seed", range(3))
def test_exact_is_brute_force(seed):
    field = spin_glass(10, seed=seed)
    survey = th.Landscape(method="exact").measure(field, progress=False)
    truth = brute_barriers(field)
    names = [number(point) for point in survey.minimum_point.values]
    assert str(survey.verdict.values) == "exact"
    assert len(truth) == len(names) * (len(names) - 1) // 2
    for a, b in itertools.combinations(range(len(names)), 2):
        assert survey.barrier_upper_bound.values[a, b] == pytest.approx(
            truth[tuple(sorted((names[a], names[b])))], abs=1e-12
        )
    assert np.array_equal(survey.barrier_lower_bound, survey.barrier_upper_bound)
    assert_keeps_its_promises(survey, field)
    assert int(survey.member_count.sum()) == 2**10


def test_plateaus_of_the_ising_model_are_single_minima():
    survey = th.Landscape(method="exact").measure(ising(3), progress=False)
    assert survey.energy.values.tolist() == [-18.0, -18.0]
    # turning a 3 x 3 lattice over: the least highest energy, one spin at a time
    assert survey.barrier_upper_bound.values[0, 1] == max(
        level for level in brute_barriers(ising(3)).values() if np.isfinite(level)
    )


@pytest.mark.parametrize("field", [spin_glass(12, seed=4), random_table(3)], ids=["glass", "table"])
def test_the_network_of_paths_is_never_below_the_truth(field):
    exact = th.Landscape(method="exact").measure(field, progress=False)
    found = th.Landscape(method="network", proposals=600).measure(field, progress=False)
    assert_keeps_its_promises(found, field)
    assert_keeps_its_promises(exact, field)
    places = [
        int(np.flatnonzero((exact.minimum_point.values == point).reshape(exact.sizes["minimum"], -1).all(1))[0])
        for point in found.minimum_point.values
    ]
    truth = exact.barrier_upper_bound.values[np.ix_(places, places)]
    assert np.all(found.barrier_upper_bound.values >= truth - 1e-9)
    assert np.all(found.barrier_lower_bound.values <= truth + 1e-9)
    assert str(found.verdict.values) != "exact"


def test_a_field_that_only_gives_values_is_mapped_exactly():
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    field = Field(
        th.Grid((3,), 4), lambda x: 3 * torch.sin(x.double() @ slope) + 0.3 * (x.double() - 1.5).square().sum(1)
    )
    survey = th.Landscape().measure(field, progress=False)
    assert str(survey.verdict.values) == "exact" and survey.attrs["method"] == "exact (watershed)"
    assert_keeps_its_promises(survey, field)
    nearby = th.Landscape(neighbourhood="adjacent").measure(field, progress=False)
    assert nearby.sizes["minimum"] >= survey.sizes["minimum"]


def test_only_the_lowest_minima_are_listed_and_barriers_still_cross_all():
    field = spin_glass(12, seed=4)
    whole = th.Landscape(method="exact").measure(field, progress=False)
    few = th.Landscape(method="exact", n_minima=5).measure(field, progress=False)
    assert few.sizes["minimum"] == 5 and "5 lowest of" in str(few.verdict_sentence.values)
    assert np.array_equal(few.barrier_upper_bound, whole.barrier_upper_bound[:5, :5])
    assert_keeps_its_promises(few, field)


def test_labels_name_minima():
    survey = th.Landscape().measure(
        spin_glass(8), label=lambda x: ["up" if v > 0 else "down" for v in x.sum(1)], progress=False
    )
    assert set(survey.minimum_label.values) <= {"up", "down"} and len(survey.minimum_label) == survey.sizes["minimum"]


def test_a_map_is_saved_and_a_finished_one_is_returned_as_it_is(tmp_path):
    field = spin_glass(10)
    first = th.Landscape(method="network", proposals=50).measure(field, directory=tmp_path, progress=False)
    saved = open_survey(tmp_path)["landscape"].to_dataset()
    assert np.array_equal(saved.barrier_upper_bound, first.barrier_upper_bound)
    again = th.Landscape(method="network", proposals=50).measure(field, directory=tmp_path, resume=True, progress=False)
    assert np.array_equal(again.minimum_point, first.minimum_point)
    with pytest.raises(UserError, match="directory"):
        th.Landscape().measure(field, directory=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"method": "guess"}, "method"),
        ({"budget": "0 s"}, "budget"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"temperature": 0.0}, "temperature"),
        ({"norm": "L3"}, "norm"),
        ({"resolution": -1.0}, "resolution"),
        ({"n_minima": 1}, "n_minima"),
        ({"memory": 0.0}, "memory"),
        ({"neighbourhood": "far"}, "neighbourhood"),
        ({"variant": "slow"}, "variant"),
    ],
)
def test_settings_out_of_range_are_refused(settings, argument):
    with pytest.raises(UserError, match=argument):
        th.Landscape(**settings)


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="shape"):
        th.Landscape().measure(spin_glass(8), torch.ones(3, 9, dtype=torch.int64))
    with pytest.raises(UserError, match="outside"):
        th.Landscape().measure(spin_glass(8), torch.zeros(3, 8, dtype=torch.int64))


def test_a_non_finite_energy_is_refused():
    field = Field(th.Spins(6), lambda x: x.double().sum(1).log())
    with pytest.raises(FieldError, match="finite"):
        th.Landscape().measure(field, progress=False)


def test_memory_over_the_cap_is_refused_with_what_it_takes():
    with pytest.raises(UserError, match="GiB"):
        th.Landscape(method="exact", memory=0.001).measure(spin_glass(20), progress=False)


def test_exact_on_a_large_field_without_couplings_is_refused():
    field = Field(th.Grid((30,), 3), lambda x: x.double().sum(1))
    with pytest.raises(UserError, match="network"):
        th.Landscape(method="exact").measure(field, progress=False)


# -------- real spaces --------


def test_the_network_of_a_surface_is_its_known_one():
    known = mueller_brown()
    survey = th.Landscape(method="network", proposals=100).measure(known.field, progress=False)
    assert_keeps_its_promises(survey, known.field)
    assert np.allclose(survey.energy, known.known_minima().energy, atol=1e-8)
    assert survey.disconnectivity.values[:, 2] == pytest.approx([-72.248940, -40.664844], abs=1e-6)
    assert str(survey.verdict.values) == "bracketed"
    assert int(survey.member_count.sum()) == 100


def test_a_flood_agrees_with_the_network():
    field = parse_system("mixture:2:1")
    flood = th.Landscape(method="flood").measure(field, progress=False)
    network = th.Landscape(method="network").measure(field, progress=False)
    assert_keeps_its_promises(flood, field)
    assert flood.sizes["minimum"] == network.sizes["minimum"]
    assert np.allclose(flood.barrier_upper_bound, network.barrier_upper_bound, atol=1e-3)
    with pytest.raises(UserError, match="two coordinates"):
        th.Landscape(method="flood").measure(parse_system("mixture:3"), progress=False)


def test_metastable_basins_of_a_mixture_are_its_wells():
    known = gaussian_mixture(2, 1)
    survey = th.Landscape(method="adelm", temperature=0.05, alpha=40.0, proposals=30, improvement_limit=60).measure(
        known.field, progress=False
    )
    assert_keeps_its_promises(survey, known.field)
    assert survey.sizes["member"] == 30 and int(survey.member_count.sum()) == 30
    assert survey.basin.values.max() == survey.sizes["minimum"] - 1
    lowest = survey.member_energy.groupby(survey.basin).min()
    assert np.allclose(lowest, survey.energy, atol=1e-9)
    assert int(survey.basins_before_consolidation) >= int(survey.basins_after_consolidation) == survey.sizes["minimum"]


def test_basins_of_a_glass_are_some_of_its_minima_and_their_barriers_bounds():
    field = spin_glass(14, seed=2)
    exact = th.Landscape(method="exact").measure(field, progress=False)
    basins = th.Landscape(method="adelm", temperature=0.1, alpha=1.0, proposals=60).measure(field, progress=False)
    assert_keeps_its_promises(basins, field)
    states = [point.tobytes() for point in exact.minimum_point.values]
    places = [states.index(point.tobytes()) for point in basins.minimum_point.values]
    truth = exact.barrier_upper_bound.values[np.ix_(places, places)]
    assert np.all(basins.barrier_upper_bound.values >= truth - 1e-9)
    assert {"discovered", "leakage"} <= set(basins.data_vars)


def test_tuning_is_part_of_the_result():
    survey = th.Landscape(method="adelm", proposals=20).measure(spin_glass(16), progress=False)
    assert survey.sizes["tune_temperature"] > 3 and survey.sizes["tune_alpha"] > 3
    assert np.all(np.diff(survey.tune_temperature) > 0)
    assert "climb" in survey.attrs["method"]


def test_cold_chains_stand_where_minima_are_not_typical():
    field = parse_system("mixture:2:1")
    survey = th.Landscape(
        method="adelm", minima="sampling", temperature=0.1, alpha=20.0, proposals=12, improvement_limit=40
    ).measure(field, progress=False)
    assert_keeps_its_promises(survey, field)
    assert not np.isclose(
        survey.member_energy.min(), th.Landscape().measure(field, progress=False).energy[0], atol=1e-6
    )
    with pytest.raises(UserError, match="temperature"):
        th.Landscape(method="adelm", minima="sampling")


def test_proposals_may_come_from_a_generator():
    field = parse_system("mixture:2:1")
    propose = from_generator(field, lambda z: 0.5 * z[:, :2], 3)
    survey = th.Landscape(method="adelm", temperature=0.05, alpha=40.0, proposals=16, improvement_limit=40).measure(
        field, propose=propose, progress=False
    )
    assert survey.member_latent.shape == (16, 2)
    with pytest.raises(UserError, match="shape"):
        from_generator(field, lambda z: z, 3)(4, torch.Generator())


# -------- proof beyond enumeration --------


def test_a_glass_too_large_to_enumerate_is_certified():
    field = spin_glass(30, seed=1)
    survey = th.Landscape(n_minima=20, budget="60 s").measure(field, progress=False)
    assert survey.attrs["method"] == "exact (reverse search)"
    assert str(survey.verdict.values) == "exact"
    assert_keeps_its_promises(survey, field)
    mirrored = {point.tobytes() for point in -survey.minimum_point.values}
    assert mirrored == {point.tobytes() for point in survey.minimum_point.values}


def test_a_certificate_agrees_with_the_watershed():
    field = spin_glass(16, seed=3)
    exact = th.Landscape(method="exact", n_minima=20).measure(field, progress=False)
    sampler = CertifiedLandscape(th.Landscape(n_minima=20), field)
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(generator)
    for _ in range(200):
        state, info = sampler.step(state, generator)
        if sampler.stop(state, info):
            break
    found = sampler.findings(state, generator)
    assert found.judgement.word == "exact"
    # mirror images have one energy, so the lists may differ in their order
    names = [point.tobytes() for point in exact.minimum_point.values]
    places = [names.index(point.astype(np.int8).tobytes()) for point in found.point]
    truth = exact.barrier_upper_bound.values[np.ix_(places, places)]
    assert np.allclose(found.barriers.upper, truth, atol=1e-9) and np.allclose(found.barriers.lower, truth, atol=1e-9)


@pytest.mark.parametrize("method", ["greedy", "beam", "attraction"])
def test_every_discrete_method_bounds_the_truth(method):
    field = spin_glass(12, seed=4)
    exact = th.Landscape(method="exact", n_minima=8).measure(field, progress=False)
    minima = torch.as_tensor(exact.minimum_point.values).long()
    found = pair_barriers(
        field, minima, method, torch.Generator().manual_seed(0), temperature=0.1, diffusion=AttractionDiffusion(field)
    )
    truth = exact.barrier_upper_bound.values
    assert np.all(found.direct >= truth - 1e-9) and np.all(found.closed.upper >= truth - 1e-9)
    assert np.all(found.closed.upper <= found.direct + 1e-12)


@pytest.mark.parametrize("method", ["linear", "neb", "dneb", "string", "attraction", "attraction+string"])
def test_every_real_method_bounds_the_truth(method):
    known = mueller_brown()
    minima = torch.as_tensor(known.known_minima().point)
    diffusion = AttractionDiffusion(known.field, resolution=0.1, step=0.02, improvement_limit=50)
    found = pair_barriers(
        known.field, minima, method, torch.Generator().manual_seed(0), temperature=5.0, diffusion=diffusion
    )
    truth = np.array([-72.248940, -40.664844])
    merges = np.unique(found.closed.upper[~np.eye(3, dtype=bool)].round(9))
    assert np.all(merges >= truth - 1e-5)
    if method in ("string", "attraction+string"):
        assert merges == pytest.approx(truth, abs=1e-3)
    with pytest.raises(UserError, match="method"):
        pair_barriers(known.field, minima, "beam", torch.Generator())


# -------- interrupted and resumed --------


@pytest.mark.parametrize(
    ("system", "settings", "stops_after"),
    [
        ("spin_glass:12:1", {"method": "network", "proposals": 96}, 2),
        ("spin_glass:12:1", {"method": "adelm", "temperature": 0.1, "alpha": 1.0, "proposals": 80}, 2),
        (
            "mixture:2:1",
            {"method": "adelm", "temperature": 0.05, "alpha": 40.0, "proposals": 16, "improvement_limit": 20},
            2,
        ),
        ("mixture:2:1", {"method": "network", "proposals": 40}, 3),
        ("surface:mueller-brown", {"method": "flood"}, 4),
        ("spin_glass:28:1", {"method": "exact", "n_minima": 12}, 1),
    ],
)
def test_an_interrupted_map_goes_on_as_if_it_had_not_been(system, settings, stops_after, tmp_path, monkeypatch):
    whole = th.Landscape(**settings).measure(parse_system(system), progress=False)
    make, steps = landscape.make_sampler, []

    def interrupted(*arguments):
        sampler = make(*arguments)

        class Interrupted:
            init, stop, findings = sampler.init, sampler.stop, sampler.findings

            @staticmethod
            def step(state, generator):
                steps.append(1)
                if len(steps) > stops_after:
                    raise KeyboardInterrupt
                return sampler.step(state, generator)

        return Interrupted()

    with monkeypatch.context() as patched:
        patched.setattr(landscape, "make_sampler", interrupted)
        half = th.Landscape(**settings).measure(parse_system(system), directory=tmp_path, progress=False)
    validate(half)
    assert str(half.verdict.values) != "exact"
    again = th.Landscape(**settings).measure(parse_system(system), directory=tmp_path, resume=True, progress=False)
    assert set(again.data_vars) == set(whole.data_vars)
    for name in whole.data_vars:
        np.testing.assert_array_equal(again[name].values, whole[name].values, err_msg=str(name))


def test_the_plane_and_the_phase_diagram_are_part_of_a_map_of_basins():
    survey = th.Landscape(
        method="adelm", temperature=0.05, alpha=40.0, proposals=24, improvement_limit=40, phase_temperatures=3
    ).measure(parse_system("mixture:2:1"), progress=False)
    assert survey.member_embedding.shape == (24, 2) and np.isfinite(survey.member_embedding).all()
    assert survey.phase_alpha.dims == ("phase_role", "phase_temperature") and survey.sizes["phase_temperature"] == 3
    assert np.all(np.diff(survey.phase_temperature) > 0)
    assert np.all(survey.phase_barrier >= survey.energy.values[:2].max() - 1e-9)
