"""What every space promises: members, uniform draws, levels and volume."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.stats import chi2, kstest, norm, uniform

from theodolite.space import Box, DiscreteSpace, Grid, Latent, Space, Spins, parse_space

DISCRETE = [Grid((3,), 4), Grid((1, 2, 2), 3), Grid((2, 3), 2), Spins(4)]
CONTINUOUS = [Box((3,), -1.0, 2.5), Box((1, 2, 2), 0.0, 1.0), Latent(3)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("space", DISCRETE + CONTINUOUS, ids=repr)
def test_draws_are_members(space: Space) -> None:
    x = space.draw(500, seeded())
    assert x.shape == (500, *space.shape)
    assert x.dtype == space.dtype
    assert space.n_coordinates == math.prod(space.shape)
    assert space.contains(x).dtype == torch.bool and bool(space.contains(x).all())
    assert space.log_reference(x).shape == (500,)
    assert torch.equal(space.draw(500, seeded()), x)
    assert not torch.equal(space.draw(500, seeded(1)), x)
    assert space.draw(0, seeded()).shape == (0, *space.shape)
    assert space.contains(space.draw(0, seeded())).shape == (0,)


@pytest.mark.parametrize("space", DISCRETE + CONTINUOUS, ids=repr)
def test_text(space: Space) -> None:
    assert parse_space(space.spec()) == space
    assert hash(parse_space(space.spec())) == hash(space)
    assert space.describe()


@pytest.mark.parametrize("space", DISCRETE, ids=repr)
def test_log_volume_counts_the_points(space: DiscreteSpace) -> None:
    level = torch.tensor(list(itertools.product(range(space.levels), repeat=space.n_coordinates)))
    x = space.from_levels(level)
    assert bool(space.contains(x).all())
    assert len(torch.unique(x.flatten(1), dim=0)) == len(x)
    assert math.log(len(x)) == pytest.approx(space.log_volume, rel=1e-12)
    assert torch.equal(space.to_levels(x), level)
    assert space.to_levels(x).dtype == torch.int64


@pytest.mark.parametrize("space", DISCRETE, ids=repr)
def test_discrete_draws_are_uniform(space: DiscreteSpace) -> None:
    power = space.levels ** torch.arange(space.n_coordinates)
    count = torch.bincount((space.to_levels(space.draw(40_000, seeded(3))) * power).sum(1))
    n_points = round(math.exp(space.log_volume))
    expected = 40_000 / n_points
    assert float(((count - expected) ** 2 / expected).sum()) < chi2.ppf(1 - 1e-6, n_points - 1)


@pytest.mark.parametrize("space", CONTINUOUS, ids=repr)
def test_continuous_draws_follow_the_reference(space: Space) -> None:
    x = space.draw(5000, seeded(4)).flatten(1)
    law = norm() if isinstance(space, Latent) else uniform(space.low, space.high - space.low)  # type: ignore[attr-defined]
    for column in x.T:
        assert kstest(column.numpy(), law.cdf).pvalue > 1e-5
    assert float(torch.corrcoef(x.T).fill_diagonal_(0.0).abs().max()) < 6 / math.sqrt(5000)
