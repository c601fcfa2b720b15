"""Runs against data: exact values where laws differ in a known way, chance where they do not, coverage of intervals."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import binomtest, ks_2samp

from theodolite.learning.agreement import (
    CLASSES,
    DEVIATION,
    ENERGY,
    FRECHET,
    KOLMOGOROV,
    STATISTICS,
    agreement,
    energies,
    frechet_distance,
    share_interval,
)
from theodolite.learning.energy import GaussianEnergy
from theodolite.learning.mixture import MixtureEnergy
from theodolite.learning.reference import Reference

NOISE = 0.3
MEANS = torch.tensor([[3.0, 0, 0, 0, 0], [0, 3.0, 0, 0, 0], [0, 0, 3.0, 0, 0]])
COVARIANCES = np.stack([np.diag([0.5, 0.4, 0.6, 1.0, 0.3])] * 3)
TRUTH = MixtureEnergy([0.5, 0.3, 0.2], MEANS, COVARIANCES)


def a_reference(labelled: bool = True, held_out: bool = True) -> Reference:
    generator = torch.Generator().manual_seed(0)
    points, labels = TRUTH.sample(2000, generator, less_noise=NOISE)
    kept, _ = TRUTH.sample(2000, generator, less_noise=NOISE)
    return Reference.of(
        points, NOISE, generator, labels=labels if labelled else None, held_out=kept if held_out else None, n_clusters=3
    )


REFERENCE = a_reference()


def exact_states(law: MixtureEnergy, chains: int, times: int, seed: int) -> torch.Tensor:
    drawn, _ = law.sample(chains * times, torch.Generator().manual_seed(seed))
    return drawn.reshape(chains, times, -1)


@pytest.mark.parametrize(("labelled", "held_out"), [(True, True), (False, False)])
def test_one_law(labelled: bool, held_out: bool) -> None:
    reference = a_reference(labelled, held_out)
    found = agreement(TRUTH, reference, exact_states(TRUTH, 400, 5, 1), torch.Generator().manual_seed(0)).statistics
    assert tuple(found) == STATISTICS
    assert abs(found[ENERGY].value) < 0.1
    assert found[ENERGY].low < 0.05
    assert found[ENERGY].high > -0.05
    assert found[DEVIATION].value == pytest.approx(1, abs=0.08)
    assert found[CLASSES].value < 0.03
    assert found[CLASSES].low == 0
    assert found[CLASSES].p > 0.01
    assert found[KOLMOGOROV].value < 0.06
    assert found[KOLMOGOROV].p > 0.005
    assert 0.4 < found[FRECHET].value < 1.8
    for statistic in found.values():
        assert statistic.low <= statistic.value <= statistic.high


def test_chance_explains_a_distance_of_few_points() -> None:
    """Exact draws of the data's law: what is expected by chance is what is seen, and p is uniform, near enough."""
    p_values, seen, expected = [], [], []
    for seed in range(25):
        states = exact_states(TRUTH, 60, 1, 100 + seed)
        found = agreement(TRUTH, REFERENCE, states, torch.Generator().manual_seed(seed))
        p_values.append(found.statistics[CLASSES].p)
        seen.append(0.5 * np.abs(found.class_share - found.reference_share).sum())
        expected.append(found.statistics[CLASSES].expected)
    assert np.mean(seen) == pytest.approx(np.mean(expected), rel=0.25)
    assert sum(p < 0.05 for p in p_values) <= 6
    assert 0.3 < np.mean(p_values) < 0.7


def test_chains_that_never_move_are_not_counted_twice() -> None:
    """Ten times of one point each: as uncertain as the points, not as ten times as many."""
    states = exact_states(TRUTH, 100, 1, 3)
    once = agreement(TRUTH, REFERENCE, states, torch.Generator().manual_seed(0)).statistics
    often = agreement(TRUTH, REFERENCE, states.repeat(1, 10, 1), torch.Generator().manual_seed(0)).statistics
    for name in (ENERGY, DEVIATION, CLASSES, KOLMOGOROV):
        assert often[name].value == pytest.approx(once[name].value, abs=1e-6)
        assert often[name].high - often[name].low == pytest.approx(once[name].high - once[name].low, abs=1e-6)


def test_energy_statistics_are_what_they_say() -> None:
    states = exact_states(TRUTH, 300, 1, 4) * 1.2
    found = agreement(TRUTH, REFERENCE, states, torch.Generator().manual_seed(0))
    mine, data = energies(TRUTH, states[:, 0]), energies(TRUTH, REFERENCE.noisy)
    values = found.statistics
    assert values[ENERGY].value == pytest.approx((mine.mean() - data.mean()) / data.std(), rel=1e-5)
    assert values[DEVIATION].value == pytest.approx(mine.std() / data.std(), rel=1e-5)
    # The distance is looked for at 200 levels of the data, which misses little of it.
    exact = float(ks_2samp(mine, data).statistic)  # type: ignore[attr-defined]
    assert exact - 0.02 < values[KOLMOGOROV].value <= exact + 1e-9
    assert found.energies == pytest.approx(mine)


def test_weights_that_are_wrong_are_measured() -> None:
    """.5, .3, .2 turned into .8, .1, .1: total variation .3, and the interval holds it, labelled or not."""
    other = MixtureEnergy([0.8, 0.1, 0.1], MEANS, COVARIANCES)
    for labelled in (True, False):
        reference = REFERENCE if labelled else a_reference(labelled=False)
        found = agreement(TRUTH, reference, exact_states(other, 400, 5, 5), torch.Generator().manual_seed(0))
        statistic = found.statistics[CLASSES]
        assert statistic.low < 0.3 < statistic.high + 0.03
        assert statistic.value == pytest.approx(0.3, abs=0.04)
        assert statistic.p == 0
        order = found.reference_share.argsort()
        assert found.reference_share[order] == pytest.approx([0.2, 0.3, 0.5], abs=0.03)
        assert found.class_share[order] == pytest.approx([0.1, 0.1, 0.8], abs=0.03)


def test_intervals_cover() -> None:
    """Of the energy difference and the deviations' ratio, whose true values are those of exact draws without end."""
    hot = MixtureEnergy([0.5, 0.3, 0.2], MEANS, COVARIANCES * 1.2)
    many = energies(TRUTH, exact_states(hot, 200_000, 1, 6)[:, 0])
    data = energies(TRUTH, REFERENCE.noisy)
    truth = {ENERGY: (many.mean() - data.mean()) / data.std(), DEVIATION: many.std() / data.std()}
    covered = dict.fromkeys(truth, 0)
    runs = 30
    for seed in range(runs):
        found = agreement(TRUTH, REFERENCE, exact_states(hot, 200, 1, 200 + seed), torch.Generator().manual_seed(seed))
        for name, value in truth.items():
            covered[name] += found.statistics[name].low <= value <= found.statistics[name].high
    for name, count in covered.items():
        assert binomtest(count, runs, 0.93).pvalue > 0.001, (name, count)


def test_run_against_run() -> None:
    first, other = exact_states(TRUTH, 300, 2, 7), exact_states(TRUTH, 300, 2, 8)
    same = agreement(TRUTH, REFERENCE, first, torch.Generator().manual_seed(0), against=other).statistics
    assert same[ENERGY].low < 0 < same[ENERGY].high
    assert same[CLASSES].p > 0.01
    shifted = agreement(TRUTH, REFERENCE, first, torch.Generator().manual_seed(0), against=other + 1).statistics
    assert shifted[ENERGY].high < -0.5


def test_frechet_distance_is_exact() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(300, 6)), generator.normal(size=(200, 6)) @ generator.normal(size=(6, 6)) + 1
    root = np.real(sqrtm(np.cov(one.T) @ np.cov(other.T)))
    exact = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(np.cov(one.T) + np.cov(other.T) - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(exact, rel=1e-6)


def test_frechet_ratio_grows_with_a_shift() -> None:
    states = exact_states(TRUTH, 400, 3, 9)
    away = states + torch.tensor([0.0, 0.0, 0.0, 0.8, 0.0])
    found = agreement(TRUTH, REFERENCE, away, torch.Generator().manual_seed(0)).statistics[FRECHET]
    assert found.low > 2


def test_share_interval_is_clopper_pearson() -> None:
    for count, n in ((0, 20), (3, 20), (20, 20)):
        exact = binomtest(count, n).proportion_ci(0.95, method="exact")
        assert share_interval(count, n) == pytest.approx((exact.low, exact.high))


def test_few_chains_give_no_frechet_ratio() -> None:
    states = exact_states(TRUTH, 3, 2, 1)
    found = agreement(TRUTH, REFERENCE, states, torch.Generator().manual_seed(0)).statistics[FRECHET]
    assert np.isnan(found.value)


def test_one_coordinate() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(500, 1, generator=generator)
    energy = GaussianEnergy((1,), deviation=(1 + 0.1**2) ** 0.5)
    reference = Reference.of(points, 0.1, generator)
    states = torch.randn(200, 2, 1, generator=generator)
    found = agreement(energy, reference, states, generator).statistics
    assert all(np.isfinite(statistic.value) for statistic in found.values())
