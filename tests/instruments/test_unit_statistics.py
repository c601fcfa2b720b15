"""Sizes, powers and coverages of what is said of units, on made-up activations whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from theodolite.instruments import unit_statistics as said


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def statistic(activation, label, k):
    """Mean purity and mean entropy of the columns of ``activation (image, unit)``."""
    found = said.alike(label[said.top_inputs(activation.T, k)], [k])
    return torch.stack((found.purity.mean(), found.entropy.mean()))


def judged(activation, label, k, n_bases, source):
    bases = [said.random_basis(activation.shape[1], source) for _ in range(n_bases)]
    rotated = torch.stack([statistic(activation @ basis, label, k) for basis in bases])
    return said.rotation_p_value(statistic(activation, label, k), rotated)


# -------- top sets --------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10**6))
def test_top_inputs_against_sorting(k, seed):
    projection = torch.randn((5, 40), generator=generator(seed), dtype=torch.float64)
    expected = np.argsort(-projection.numpy(), axis=1)[:, :k]
    assert np.array_equal(said.top_inputs(projection, k).numpy(), expected)
    shifted = projection + torch.arange(5)[:, None]
    assert torch.equal(said.top_inputs(shifted, k), said.top_inputs(projection, k))


def test_purity_and_entropy_by_hand():
    label = torch.tensor([[0, 0, 0, 1, 2, 2], [1, 1, 1, 1, 1, 1]])
    found = said.alike(label, [4, 6])
    assert found.purity.tolist() == [[0.75, 0.5], [1.0, 1.0]]
    assert found.label.tolist() == [[0, 0], [1, 1]]
    at_four = -0.75 * math.log(0.75) - 0.25 * math.log(0.25) + 1 / 8
    at_six = math.log(2) / 2 + math.log(3) / 3 + math.log(6) / 6 + 2 / 12
    assert found.entropy.numpy() == pytest.approx(np.array([[at_four, at_six], [0.0, 0.0]]), abs=1e-12)


def test_the_correction_of_the_entropy_takes_most_of_the_bias_away():
    label = torch.randint(5, (4000, 30), generator=generator())
    corrected = float(said.alike(label, [30]).entropy.mean())
    plain = np.mean([stats.entropy(np.bincount(row, minlength=5)) for row in label.numpy()])
    assert abs(corrected - math.log(5)) < 0.15 * (math.log(5) - plain)


def test_ties_leave_no_set():
    projection = torch.tensor([[0.0, 0, 0, 2, 1], [5.0, 4, 3, 2, 1], [1.0, 1, 1, 0, 0]])
    assert said.resolved(projection, 2).tolist() == [True, True, False]
    assert said.resolved(projection, 3).tolist() == [False, True, True]


# -------- random bases --------


def test_random_bases_are_orthonormal_and_their_columns_uniform():
    source = generator(3)
    bases = torch.stack([said.random_basis(3, source) for _ in range(3000)])
    assert torch.allclose(bases @ bases.mT, torch.eye(3, dtype=torch.float64).expand(3000, 3, 3), atol=1e-12)
    # On the sphere in three dimensions every coordinate is uniform from -1 to 1 (Archimedes).
    for row in range(3):
        for column in range(3):
            assert stats.kstest(bases[:, row, column].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert 0.4 < float((torch.linalg.det(bases) > 0).double().mean()) < 0.6


def test_random_directions_are_uniform():
    drawn = said.random_directions(4000, 3, generator(1))
    assert torch.allclose(drawn.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    for column in range(3):
        assert stats.kstest(drawn[:, column].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-4


# -------- the test: size and power --------


def test_size_under_rotations_p_is_uniform():
    """Activations of a rotationally symmetric law that depends on the label: the null holds, p is uniform."""
    n_tests, n_bases, p_purity, p_entropy = 400, 39, [], []
    for seed in range(n_tests):
        source = generator(seed)
        label = torch.randint(3, (60,), generator=source)
        centre = 1.5 * said.random_directions(3, 5, source)  # the means too turn at random
        activation = centre[label] + torch.randn((60, 5), generator=source, dtype=torch.float64)
        found = judged(activation, label, 7, n_bases, source)
        p_purity.append((found.more[0], found.less[0], found.either[0]))
        p_entropy.append(found.less[1])
    # Entropies are hardly ever equal, so that their p is uniform on 1/40, ..., 1.
    rank = (40 * np.array(p_entropy)).round().astype(int)
    assert stats.chisquare(np.bincount((rank - 1) // 4, minlength=10)).pvalue > 1e-3
    # Purities often are, which counts against either answer: never more rejections than the level says.
    for level in (0.05, 0.1, 0.25, 0.5):
        slack = 3 * math.sqrt(level * (1 - level) / n_tests)
        assert ((np.array(p_purity) <= level + 1e-9).mean(0) <= level + slack).all()
    assert ((np.array(p_purity) <= 0.2).mean(0)[:2] >= 0.08).all()


def test_power_where_units_are_classes():
    source = generator(5)
    label = torch.arange(120) % 6
    activation = torch.eye(6, dtype=torch.float64)[label] + 0.2 * torch.randn((120, 6), generator=source)
    found = judged(activation, label, 10, 199, source)
    assert float(found.more[0]) == float(found.either[0]) / 2 == float(found.less[1]) == 1 / 200


def test_power_where_units_are_mixtures_and_other_directions_are_not():
    """Each unit answers to half of the classes alike: turned by Hadamard's matrix from units that are classes."""
    source = generator(6)
    label = torch.arange(160) % 4
    quarter = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double() / 2
    activation = torch.eye(4, dtype=torch.float64)[label] + 0.05 * torch.randn((160, 4), generator=source)
    found = judged(activation @ quarter, label, 10, 199, source)
    assert float(found.less[0]) <= 0.02 and float(found.more[1]) <= 0.02


def test_p_values_count_ties_against_and_are_never_zero():
    found = said.rotation_p_value(torch.tensor(1.0), torch.tensor([1.0, 0.0, 0.0]))
    assert (float(found.more), float(found.less), float(found.either)) == (0.5, 1.0, 1.0)
    assert float(said.rotation_p_value(torch.tensor(2.0), torch.zeros(9)).either) == 0.2


def test_exchange_against_every_arrangement():
    first, second = torch.tensor([3.0, 5, 9]), torch.tensor([1.0, 2, 4, 0])
    found = said.exchange_p_value(first[:, None], second[:, None], 4000, generator(2))
    exact = stats.permutation_test(
        (first.numpy(), second.numpy()), lambda a, b: a.mean() - b.mean(), alternative="greater", n_resamples=np.inf
    )
    assert float(found.more) == pytest.approx(exact.pvalue, abs=0.012)
    uniform = [
        float(said.exchange_p_value(drawn[:8, None], drawn[8:, None], 39, generator(seed)).more)
        for seed, drawn in enumerate(torch.randn((300, 20), generator=generator(1)))
    ]
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p_value):
    adjusted, n = said.holm(p_value), len(p_value)
    order = np.argsort(p_value, kind="stable")
    for rank, place in enumerate(order):
        expected = max(min(1.0, (n - earlier) * p_value[order[earlier]]) for earlier in range(rank + 1))
        assert adjusted[place] == pytest.approx(expected)


# -------- effects and intervals --------


def test_exceeding_against_pairs():
    value, other = torch.tensor([0.2, 0.5, 0.9]).double(), torch.tensor([0.1, 0.5, 0.5, 1.0]).double()
    pairs = (value[:, None] > other).double() + 0.5 * (value[:, None] == other).double()
    assert said.exceeding(value, other, torch.ones(4)).numpy() == pytest.approx(pairs.mean(1).numpy())
    weighted = said.exceeding(value, torch.tensor([0.1, 0.5, 1.0]), torch.tensor([1, 2, 1]))
    assert weighted.numpy() == pytest.approx(pairs.mean(1).numpy())


@pytest.mark.parametrize("n", [12, 50])
def test_coverage_of_mean_intervals(n):
    """Standardised purities of units drawn from a known law: a Beta law cut to whole numbers of ten inputs."""
    size = stats.betabinom(10, 3, 2)
    truth, covered = size.mean() / 10, 0
    drawn = size.rvs((400, n), random_state=np.random.default_rng(0)) / 10
    for seed, row in enumerate(drawn):
        found = said.mean_estimate(torch.tensor(row)[:, None], generator(seed))
        covered += bool(found.low[0] <= truth <= found.high[0])
    assert 0.92 <= covered / 400 <= 0.985


def test_intervals_of_too_few_are_unknown():
    found = said.mean_estimate(torch.tensor([[1.0, 2.0]]), generator())
    assert found.value.tolist() == [1, 2] and bool(found.low.isnan().all() and found.high.isnan().all())
    assert bool(said.mean_estimate(torch.zeros((0, 3)), generator()).value.isnan().all())


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_coverage_of_shares(share):
    hits = torch.arange(11)
    found = said.share_estimate(hits, torch.full((11,), 10))
    inside = ((found.low <= share) & (share <= found.high)).numpy()
    assert stats.binom(10, share).pmf(hits.numpy())[inside].sum() > 0.91
    expected = stats.binomtest(3, 10).proportion_ci(method="wilson")
    assert (float(found.low[3]), float(found.high[3])) == pytest.approx((expected.low, expected.high), abs=1e-4)
    none = said.share_estimate(torch.tensor([0]), torch.tensor([0]))
    assert math.isnan(none.value[0]) and (float(none.low[0]), float(none.high[0])) == (0.0, 1.0)
