"""Amplified examples reach what is stated, entries are counted on what was right, intervals cover what they claim."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from theodolite.instruments.transfer import (
    AMPLIFIED,
    MINIMAL,
    NOISE,
    Examples,
    amplified,
    distortion,
    mean_interval,
    noisy,
    right,
    share_interval,
    transfer,
)
from theodolite.outputs import Outputs


def linear_outputs(weight, bias, low=0.0, high=1.0):
    n = weight.shape[1]
    edges = (torch.full((n,), low), torch.full((n,), high))
    return Outputs(lambda x: x @ weight.T + bias, (n,), *edges, len(weight), dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1.0), st.floats(1e-9, 10.0))
def test_amplified_examples_have_the_stated_distortion_inside_the_box(seed, stated, size):
    generator = torch.Generator().manual_seed(seed)
    origin = torch.rand((6, 9), generator=generator, dtype=torch.float64)
    change = size * torch.randn((6, 9), generator=generator, dtype=torch.float64)
    change[:, ::4] = 0.0
    low, high = torch.zeros(9, dtype=torch.float64), torch.ones(9, dtype=torch.float64)
    example = origin + change
    change = example - origin
    point, reached = amplified(origin, example, stated, low, high)
    corner = torch.where(change > 0, 1 - origin, torch.where(change < 0, origin, 0.0))
    # Rounding decides rows whose farthest corner lies at the stated distortion itself.
    clear = (distortion(corner) / stated - 1).abs() > 1e-9
    assert torch.equal(reached[clear], (distortion(corner) >= stated)[clear])
    assert torch.isnan(point[~reached]).all()
    if not reached.any():
        return
    point, origin, change = point[reached], origin[reached], change[reached]
    moved = point - origin
    torch.testing.assert_close(
        distortion(moved), torch.full((len(moved),), stated, dtype=torch.float64), rtol=1e-9, atol=0
    )
    assert (point >= 0).all() and (point <= 1).all()
    # Along the change, by one factor a row wherever the box does not cut it off.
    for row in range(len(moved)):
        free = (change[row] != 0) & (point[row] > 0) & (point[row] < 1)
        factor = moved[row] / change[row]
        if free.any():
            slack = 1e-15 / change[row][change[row] != 0].abs().min()
            assert factor[free].max() - factor[free].min() <= slack
            cut = (change[row] != 0) & ~free
            assert (factor[cut] <= factor[free].max() + slack).all()
    assert (moved[change == 0] == 0).all()


def test_what_cannot_be_amplified_is_said_so():
    origin = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.9], [0.5, 0.5]], dtype=torch.float64)
    example = torch.tensor([[0.5, 0.6], [0.5, 0.5], [0.95, 0.95], [torch.nan, 0.5]], dtype=torch.float64)
    low, high = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    _, reached = amplified(origin, example, 0.3, low, high)
    # One coordinate reaches 0.5 / sqrt(2) = 0.354; no change and NaN reach nothing; two from 0.9 reach 0.1.
    assert reached.tolist() == [True, False, False, False]
    assert not amplified(origin, example, 0.36, low, high)[1].any()


def test_amplified_without_an_edge():
    origin = torch.zeros((1, 4), dtype=torch.float64)
    edge = torch.full((4,), torch.inf, dtype=torch.float64)
    point, reached = amplified(origin, origin + 1e-3, 250.0, -edge, edge)
    assert reached.all() and point == pytest.approx(250.0)


def test_a_tie_is_wrong_and_a_lead_is_right():
    output = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0 - 1e-15], [1.0, 1 - 1e-9], [torch.nan, 0.0], [2.0, 1.0]])
    label = torch.tensor([0, 0, 0, 0, 0, -1])
    assert right(output.double(), label).tolist() == [True, False, False, False, False, False]
    precise = torch.tensor([[1.0, 1 - 1e-9]], dtype=torch.float64)
    assert right(precise, torch.tensor([0])).all()


def test_entries_by_brute_force():
    generator = torch.Generator().manual_seed(3)
    shape, n_images = (4, 3), 50
    networks = [
        linear_outputs(torch.randn((3, 5), generator=generator).double(), torch.randn(3, generator=generator).double())
        for _ in range(shape[1])
    ]
    x = torch.rand((n_images, 5), generator=generator, dtype=torch.float64)
    label = torch.randint(-1, 3, (n_images,), generator=generator)
    before = torch.stack([right(one.value(x), label) for one in networks])
    rows = []
    for kind in (MINIMAL, AMPLIFIED, NOISE, NOISE):
        known = torch.rand(n_images, generator=generator) < 0.7
        point = torch.rand((n_images, 5), generator=generator, dtype=torch.float64)
        rows.append(Examples(kind, 0, 0.1, torch.where(known[:, None], point, torch.nan), known))
    found = transfer(rows, networks, label, before)
    for i, j in itertools.product(range(shape[0]), range(shape[1])):
        output = networks[j].value(rows[i].point)
        counted = [
            m
            for m in range(n_images)
            if label[m] >= 0 and rows[i].known[m] and networks[j].value(x)[m].argmax() == label[m]
        ]
        wrong = sum(int(output[m].argmax() != label[m]) for m in counted)
        assert (found.count[i, j], found.fooled[i, j]) == (len(counted), wrong)
        assert found.share[i, j] == pytest.approx(wrong / len(counted))
        assert found.low[i, j] <= found.share[i, j] <= found.high[i, j]


def test_entries_counted_on_nothing_have_no_share():
    outputs = linear_outputs(torch.eye(2).double(), torch.zeros(2).double())
    nowhere = Examples(MINIMAL, 0, np.nan, torch.full((3, 2), torch.nan, dtype=torch.float64), torch.zeros(3).bool())
    found = transfer([nowhere], [outputs], torch.zeros(3, dtype=torch.int64), torch.ones((1, 3)).bool())
    assert found.count.item() == 0 and np.isnan(found.share).all() and np.isnan(found.low).all()


def test_noise_is_clipped_gaussian():
    origin = torch.full((400, 30), 0.5, dtype=torch.float64)
    low, high = torch.zeros(30, dtype=torch.float64), torch.ones(30, dtype=torch.float64)
    point = noisy(origin, 0.2, low, high, torch.Generator().manual_seed(0))
    assert point.min() >= 0 and point.max() <= 1
    # Within the box the variance of a Gaussian cut at 2.5 standard deviations, with its mass put on the edges.
    change = 0.2 * np.clip(np.random.default_rng(0).normal(size=10**6), -2.5, 2.5)
    assert float((point - origin).var()) == pytest.approx(change.var(), rel=0.03)
    again = noisy(origin, 0.2, low, high, torch.Generator().manual_seed(0))
    assert torch.equal(point, again)


@pytest.mark.parametrize(("share", "count"), [(0.0, 40), (0.01, 40), (0.1, 25), (0.5, 60), (0.97, 60), (1.0, 7)])
def test_intervals_of_shares_cover_exactly(share, count):
    """The probability, summed over every outcome, that the interval holds the truth."""
    from scipy.stats import binom

    covered = 0.0
    for successes in range(count + 1):
        interval = share_interval(successes, count)
        assert interval.low <= successes / count <= interval.high
        covered += binom.pmf(successes, count, share) * (interval.low <= share <= interval.high)
    assert covered >= 0.95 - 1e-12
    width = share_interval(0, count).high
    assert (1 - width) ** count == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize(("n", "spread"), [(5, 0.6), (12, 0.6), (60, 0.6), (60, 1.0)])
def test_intervals_of_means_cover(n, spread):
    """Lognormal distortions, 600 surveys: 95% but for their own scatter (0.9 points) and skewness."""
    generator = np.random.default_rng(n)
    truth = np.exp(spread**2 / 2)
    inside = 0
    for _ in range(600):
        values = np.exp(spread * generator.normal(size=n))
        interval = mean_interval(values, 300, generator)
        assert interval.low <= interval.value <= interval.high
        inside += interval.low <= truth <= interval.high
    assert inside / 600 >= 0.92


def test_intervals_of_few_values():
    generator = np.random.default_rng(0)
    assert np.isnan(mean_interval(np.array([]), 200, generator)).all()
    alone = mean_interval(np.array([2.0]), 200, generator)
    assert alone.value == 2.0 and np.isnan(alone.low)
    assert mean_interval(np.full(8, 0.1), 200, generator) == pytest.approx((0.1, 0.1, 0.1))
    values = np.random.default_rng(1).random(30)
    first, second = (mean_interval(values, 300, np.random.default_rng(7)) for _ in range(2))
    assert first == second
