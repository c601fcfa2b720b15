"""Intervals of means over seeds and images: coverage by simulation, one case by tables, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from theodolite.errors import UserError
from theodolite.zoo.crossed_intervals import Interval, crossed_interval


@pytest.mark.parametrize(
    "spread", [(0.0, 0.0, 1.0), (0.05, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 1.0, 0.3), (0.2, 0.2, 1.0)]
)
@pytest.mark.parametrize(("n_seeds", "n_images"), [(3, 200), (5, 400)])
def test_intervals_cover_the_mean_over_seeds_and_images(spread, n_seeds, n_images):
    generator = np.random.default_rng(int(100 * sum(spread)) + n_seeds)
    of_seed, of_image, of_both = spread
    n_trials = 600
    hits = 0
    for _ in range(n_trials):
        values = of_seed * generator.normal(size=(n_seeds, 1)) + of_image * generator.normal(size=(1, n_images))
        values = 0.3 + values + of_both * generator.normal(size=(n_seeds, n_images))
        hits += crossed_interval(values).holds(0.3)
    # Four standard errors below the bar of 0.92: seldom too short, never by much; wide where one source is nothing.
    assert hits / n_trials > 0.92 - 4 * 0.011


def test_an_interval_of_images_alone_is_that_of_the_t_distribution():
    """Seeds that agree leave the images' own interval: mean +- t * standard error."""
    row = np.random.default_rng(0).normal(size=50)
    found = crossed_interval(np.stack([row, row, row]))
    half = 2.0095752 * row.std(ddof=1) / np.sqrt(50)  # 97.5% of t with 49 degrees, from tables
    assert (found.low, found.high) == pytest.approx((row.mean() - half, row.mean() + half), rel=1e-6)


def test_the_sign_of_an_interval_and_what_it_refuses():
    assert [Interval(m, m - 1, m + 1).sign for m in (-2.0, 0.5, 2.0)] == [-1, 0, 1]
    assert crossed_interval(np.zeros((3, 5))) == Interval(0.0, 0.0, 0.0)
    for values in (np.zeros((2, 5)), np.zeros(5), np.full((3, 5), np.nan)):
        with pytest.raises(UserError, match="values"):
            crossed_interval(values)
    with pytest.raises(UserError, match="level"):
        crossed_interval(np.zeros((3, 5)), level=1.0)
