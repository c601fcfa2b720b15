"""The fast normal numbers against the normal law, and against themselves further on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from theodolite.learning.normal_numbers import Normals

N = 1 << 20


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    out = torch.empty(N)
    Normals(torch.Generator().manual_seed(5), torch.float32).fill(out)
    return out.double().numpy()


def test_they_follow_the_normal_law(numbers: np.ndarray) -> None:
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    counts, _ = np.histogram(stats.norm.cdf(numbers), bins=1000, range=(0, 1))
    assert stats.chisquare(counts).pvalue > 1e-3
    for power in (1, 2, 3, 4, 6):
        even = [math.prod(range(1, k, 2)) if k % 2 == 0 else 0 for k in (power, 2 * power)]
        error = math.sqrt((even[1] - even[0] ** 2) / N)
        assert abs((numbers**power).mean() - even[0]) < 4 * error


@pytest.mark.parametrize("threshold", [3.0, 4.0, 4.5])
def test_their_tails_are_full(numbers: np.ndarray, threshold: float) -> None:
    for tail in (numbers > threshold, numbers < -threshold):
        expected = N * stats.norm.sf(threshold)
        assert abs(tail.sum() - expected) < 4 * math.sqrt(expected) + 1


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 127, 128, 129, 256, 512, 1024])
def test_they_are_not_correlated(numbers: np.ndarray, lag: int) -> None:
    """Nor are their squares: pairs share a radius, whose two coordinates are independent all the same."""
    ahead, behind = numbers[lag:], numbers[:-lag]
    n = len(ahead)
    assert abs((ahead * behind).mean()) < 4 / math.sqrt(n)
    assert abs(((ahead**2 - 1) * (behind**2 - 1)).mean()) < 4 * 2 / math.sqrt(n)
    assert abs((np.sign(ahead) * np.sign(behind)).mean()) < 4 / math.sqrt(n)


@pytest.mark.parametrize("shape", [(1,), (255,), (256,), (257,), (3, 5, 7)])
def test_every_number_is_written(shape: tuple[int, ...]) -> None:
    normals, out = Normals(torch.Generator().manual_seed(1), torch.float32), torch.full(shape, math.nan)
    normals.fill(out)
    assert bool(out.isfinite().all())
    before = out.clone()
    normals.fill(out)
    assert bool((out != before).all())


def test_a_seed_decides() -> None:
    found = []
    for seed in (1, 1, 2):
        found.append(torch.empty(1000))
        Normals(torch.Generator().manual_seed(seed), torch.float32).fill(found[-1])
    assert torch.equal(found[0], found[1])
    assert abs(float((found[0] * found[2]).mean())) < 4 / math.sqrt(1000)


def test_double_precision_is_the_generators_own() -> None:
    out = torch.empty(4, 5, dtype=torch.float64)
    Normals(torch.Generator().manual_seed(3), torch.float64).fill(out)
    wanted = torch.empty(4, 5, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(3))
    assert torch.equal(out, wanted)
