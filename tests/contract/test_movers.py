"""Every mover leaves its ensemble invariant: walkers drawn from the exact distribution still follow it after steps.

The walkers are independent of each other, so that counts over walkers at one time pass a plain chi-square test.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest, norm
from torch import Tensor, nn

from theodolite import systems
from theodolite.embedding import OneHot, Scale
from theodolite.field import Field
from theodolite.network import Network
from theodolite.sampling.continuous import LangevinMover, RandomWalkMover
from theodolite.sampling.ensembles import Canonical, Ensemble, Tabulated
from theodolite.sampling.metropolis import Mover, RandomMaskMover, TileMover, Tuning, Walkers, choose_mover
from theodolite.sampling.proposals import draw_tiling
from theodolite.space import Box, DiscreteSpace, Grid, Latent
from theodolite.zoo.networks import initialised

WALKERS = 6_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def convolutional(shape: tuple[int, ...], levels: int = 2, one_hot: bool = True) -> Field:
    """A sum of terms of radius 1 that is far from linear; its standard deviation over all inputs is about 1."""
    channels = math.prod(shape[:-2]) * (levels if one_hot else 1)

    def build() -> nn.Module:
        layers = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1)
        )
        with torch.no_grad():
            dict(layers.named_parameters())["0.weight"].mul_(4.0)
            dict(layers.named_parameters())["4.weight"].mul_(25.0)
        return layers

    embedding = OneHot() if one_hot else Scale(1.0, -0.5)
    field = Network(initialised(build, 5), Grid(shape, levels), embedding).logit(0)
    assert field.require("terms").radius == 1
    return field


def perceptron() -> Field:
    module = initialised(lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)), 3)
    with torch.no_grad():
        dict(module.named_parameters())["2.weight"].mul_(6.0)
    return Network(module, Grid((5,), 3), Scale(1.0, -1.0)).logit(0)


def all_levels(space: DiscreteSpace) -> Tensor:
    """Every point's levels, ``(point, coordinate)``, by index."""
    index = torch.arange(space.levels**space.n_coordinates)
    return index[:, None] // space.levels ** torch.arange(space.n_coordinates) % space.levels


def everything(field: Field) -> tuple[Tensor, Tensor]:
    space = field.space
    assert isinstance(space, DiscreteSpace)
    level = all_levels(space)
    return level, field.value(space.from_levels(level))


def canonical(rung_lambda: float) -> Canonical:
    return Canonical(torch.full((), rung_lambda, dtype=torch.float64).expand(WALKERS))


def tabulated(value: Tensor) -> Tabulated:
    low, high = float(value.min()), float(value.max())
    place = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64)
    return Tabulated(low + 0.1 * (high - low), 0.1 * (high - low), -3.0 * place.square() + place)


def probabilities(ensemble: Ensemble, value: Tensor) -> Tensor:
    weight = Canonical(ensemble.rung_lambda[0]) if isinstance(ensemble, Canonical) else ensemble
    return weight.log_weight(value).softmax(0)


def surprise(level: Tensor, value: Tensor, probability: Tensor, index: Tensor) -> float:
    """Largest chi-square, in units of its 1e-7 limit, over groupings of points by value and by patterns."""
    n_coordinates = level.shape[1]
    order = probability[value.argsort()].cumsum(0)
    groupings = [torch.empty(len(value), dtype=torch.int64).index_copy(0, value.argsort(), (order * 39.999).long())]
    width = int(level.max()) + 1
    chooser = seeded(11)
    for _ in range(12):
        chosen = torch.randperm(n_coordinates, generator=chooser)[: min(4, n_coordinates)]
        groupings.append((level[:, chosen] * width ** torch.arange(len(chosen))).sum(1))
    worst = 0.0
    for group in groupings:
        expected = torch.bincount(group, weights=probability) * len(index)
        observed = torch.bincount(group[index], minlength=len(expected)).double()
        rare = expected < 10
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
        observed = torch.cat([observed[~rare], observed[rare].sum()[None]])
        keep = expected > 0
        statistic = float(((observed - expected)[keep].square() / expected[keep]).sum())
        worst = max(worst, statistic / float(chi2.ppf(1 - 1e-7, max(1, int(keep.sum()) - 1))))
    return worst


def run_from_exact(
    mover: Mover, ensemble: Ensemble, tuning: Tuning, steps: int, substeps: int
) -> tuple[float, Walkers, Tensor]:
    """Steps from exact draws: the surprise after them, the walkers, and the accepted share of each step."""
    field = mover.field  # type: ignore[attr-defined]
    level, value = everything(field)
    probability = probabilities(ensemble, value)
    generator = seeded(1)
    start = torch.multinomial(probability, WALKERS, replacement=True, generator=generator)
    walkers = mover.start(level[start])
    accepted = []
    for _ in range(steps):
        walkers, share = mover.step(walkers, ensemble, tuning, substeps, generator)
        accepted.append(share)
    power = (int(level.max()) + 1) ** torch.arange(level.shape[1])
    return surprise(level, value, probability, (walkers.point * power).sum(1)), walkers, torch.stack(accepted)


def assert_consistent(mover: Mover, walkers: Walkers) -> None:
    fresh = mover.start(walkers.point)
    for name in ("value", "terms", "gradient"):
        kept, found = getattr(walkers, name), getattr(fresh, name)
        torch.testing.assert_close(kept, found, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def tuning(reach: float, share: float) -> Tuning:
    return Tuning(torch.full((WALKERS,), reach), torch.full((WALKERS,), share))


# ---------------------------------------------------------------------- tiles

TILES: dict[str, tuple[Callable[[], Field], float, float, float]] = {
    "one pixel tiles": (lambda: convolutional((1, 4, 4)), 1.0, 1.0, 1.5),
    "tiles of side 2": (lambda: convolutional((1, 4, 4)), 2.0, 0.7, -1.5),
    "tiles of a wide image": (lambda: convolutional((1, 2, 8)), 2.0, 1.0, 1.5),
    "tiles of two channels": (lambda: convolutional((2, 2, 4), one_hot=False), 1.0, 0.8, 1.0),
    "tiles of three levels": (lambda: convolutional((2, 5), 3), 1.0, 1.0, 1.5),
    "one tile": (lambda: convolutional((1, 4, 4)), 4.0, 0.3, 1.5),
    "no terms": (perceptron, 5.0, 0.4, 1.0),
    "no terms, everything redrawn": (perceptron, 5.0, 1.0, -1.0),
    "chains": (lambda: systems.smooth_chains(2, 3, 5, scale=1.0), 1.0, 1.0, 1.5),
    "ising": (lambda: systems.ising(3), 9.0, 0.3, -0.3),
}


@pytest.mark.parametrize("substeps", [1, 3])
@pytest.mark.parametrize("case", TILES)
def test_tiles_leave_the_canonical_distribution(case: str, substeps: int) -> None:
    build, side, share, rung_lambda = TILES[case]
    mover = TileMover(build())
    found, walkers, accepted = run_from_exact(
        mover, canonical(rung_lambda), tuning(side, share), steps=6 // substeps, substeps=substeps
    )
    assert found < 1
    assert_consistent(mover, walkers)
    assert 0.02 < float(accepted.mean()) < 0.999


@pytest.mark.parametrize("case", ["one pixel tiles", "no terms", "ising"])
@pytest.mark.parametrize("ensemble", ["free", "tabulated"])
def test_tiles_in_other_ensembles(case: str, ensemble: str) -> None:
    build, side, share, _ = TILES[case]
    mover = TileMover(build())
    weight = canonical(0.0) if ensemble == "free" else tabulated(everything(mover.field)[1])
    found, walkers, accepted = run_from_exact(mover, weight, tuning(side, share), steps=4, substeps=1)
    assert found < 1
    assert_consistent(mover, walkers)
    if ensemble == "free":
        assert float(accepted[accepted > 0].mean()) == pytest.approx(1.0, abs=1e-3)


def test_several_tiles_are_active_at_once_and_decide_apart() -> None:
    field = convolutional((1, 6, 6), 3)
    mover = TileMover(field)
    n = 400
    tiling = draw_tiling(torch.full((n,), 2), 1, (6, 6), seeded())
    active = [len(torch.unique(label[on])) for label, on in zip(tiling.label, tiling.active, strict=True)]
    assert max(active) == 4 and float(np.mean(active)) > 1.5
    walkers = mover.start(torch.randint(0, 3, (n, 36), generator=seeded(2)))
    ensemble = Canonical(torch.full((n,), 3.0, dtype=torch.float64))
    walkers, accepted = mover.step(walkers, ensemble, Tuning(torch.full((n,), 2.0), torch.ones(n)), 1, seeded(3))
    assert bool(((accepted > 0) & (accepted < 1)).any()), "some walkers accept a part of their tiles"
    assert_consistent(mover, walkers)
    for _ in range(3):
        walkers, _ = mover.step(walkers, ensemble, Tuning(torch.full((n,), 2.0), torch.ones(n)), 4, seeded(4))
        assert_consistent(mover, walkers)


def test_tiles_of_a_large_image_from_exact_rows() -> None:
    """Chains of 6 rows and 6 sites: a row is drawn exactly among its 5^6 states, and rows do not interact."""
    rung_lambda = 1.2
    row = systems.smooth_chains(1, 6, 5, scale=1.0)
    settings = systems.smooth_settings(6, 6, 5, scale=1.0)
    field = settings.field()
    level = all_levels(Grid((6,), 5))
    unit = settings.unit / systems.smooth_settings(1, 6, 5, scale=1.0).unit
    value = unit * row.value(level.reshape(-1, 1, 1, 6))
    probability = (rung_lambda * value).softmax(0)
    generator = seeded(5)
    n = 4000
    drawn = torch.multinomial(probability, n * 6, replacement=True, generator=generator)
    mover = TileMover(field)
    walkers = mover.start(level[drawn].reshape(n, 36))
    ensemble = Canonical(torch.full((n,), rung_lambda, dtype=torch.float64))
    for _ in range(4):
        walkers, _ = mover.step(walkers, ensemble, Tuning(torch.full((n,), 2.0), torch.ones(n)), 2, generator)
    index = (walkers.point.reshape(-1, 6) * 5 ** torch.arange(6)).sum(1)
    assert float((index != drawn).double().mean()) > 0.5
    assert surprise(level, value, probability, index) < 1
    assert_consistent(mover, walkers)


def test_the_test_notices_a_radius_that_is_too_small() -> None:
    field = convolutional((1, 4, 4))
    field.terms = dataclasses.replace(field.require("terms"), radius=0)
    found, _, _ = run_from_exact(TileMover(field), canonical(1.5), tuning(1.0, 1.0), steps=6, substeps=1)
    assert found > 1


# ---------------------------------------------------------------------- without a gradient


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
@pytest.mark.parametrize("ensemble", ["canonical", "tabulated"])
@pytest.mark.parametrize("build", [lambda: systems.random_table(1, 8), perceptron], ids=["table", "perceptron"])
def test_random_masks(build: Callable[[], Field], ensemble: str, share: float) -> None:
    mover = RandomMaskMover(build())
    weight = canonical(0.9) if ensemble == "canonical" else tabulated(everything(mover.field)[1])
    found, walkers, _ = run_from_exact(mover, weight, tuning(1.0, share), steps=3, substeps=2)
    assert found < 1
    assert_consistent(mover, walkers)


@pytest.mark.parametrize("kind", [TileMover, RandomMaskMover])
def test_walkers_from_one_point_reach_the_canonical_distribution(kind: type) -> None:
    mover = kind(perceptron())
    level, value = everything(mover.field)
    ensemble = canonical(0.7)
    walkers = mover.start(torch.zeros(WALKERS, 5, dtype=torch.int64))
    walkers, _ = mover.step(walkers, ensemble, tuning(5.0, 0.4), 60, seeded(6))
    index = (walkers.point * 3 ** torch.arange(5)).sum(1)
    assert surprise(level, value, probabilities(ensemble, value), index) < 1


# ---------------------------------------------------------------------- real spaces


def box_quantiles(rung_lambda: float, power: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of [-1, 2] and the probability below them under exp(lambda x^power)."""
    place = np.linspace(-1.0, 2.0, 20_001)
    density = np.exp(rung_lambda * (place**power - 2.0**power if rung_lambda > 0 else place**power))
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return place, below / below[-1]


@pytest.mark.parametrize("reach", [0.1, 0.8, 3.0])
@pytest.mark.parametrize(("rung_lambda", "power"), [(0.0, 1), (2.0, 1), (-4.0, 2), (1.5, 2), (1.0, 3)])
@pytest.mark.parametrize("kind", [RandomWalkMover, LangevinMover])
def test_movers_of_a_box(kind: type, rung_lambda: float, power: int, reach: float) -> None:
    mover = kind(Field(Box((2,), -1.0, 2.0), lambda x: (x**power).sum(1)))
    place, below = box_quantiles(rung_lambda, power)
    uniform = np.random.default_rng(7).random((WALKERS, 2))
    walkers = mover.start(torch.from_numpy(np.interp(uniform, below, place)).float())
    walkers, accepted = mover.step(walkers, canonical(rung_lambda), tuning(reach, 1.0), 4, seeded(7))
    assert float(accepted.mean()) > 1e-4
    assert_consistent(mover, walkers)
    for column in walkers.point.double().numpy().T:
        assert kstest(np.interp(column, place, below), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("reach", [0.2, 1.0, 2.5])
@pytest.mark.parametrize(("rung_lambda", "power"), [(0.0, 1), (3.0, 1), (0.5, 2), (-4.0, 2)])
@pytest.mark.parametrize("kind", [RandomWalkMover, LangevinMover])
def test_movers_of_a_latent_space(kind: type, rung_lambda: float, power: int, reach: float) -> None:
    """exp(lambda sum x) shifts the normal by lambda; exp(lambda |x|^2 / 2) makes its variance 1 / (1 - lambda)."""
    mover = kind(Field(Latent(2), lambda x: (x**power / power).sum(1)))
    mean, deviation = (rung_lambda, 1.0) if power == 1 else (0.0, (1 - rung_lambda) ** -0.5)
    walkers = mover.start(mean + deviation * torch.randn((WALKERS, 2), generator=seeded(8)))
    walkers, accepted = mover.step(walkers, canonical(rung_lambda), tuning(reach, 1.0), 4, seeded(9))
    assert float(accepted.mean()) > 1e-4
    assert_consistent(mover, walkers)
    total = walkers.point.double().sum(1).numpy()
    for column, law in (
        *((c, norm(mean, deviation)) for c in walkers.point.double().numpy().T),
        (total, norm(2 * mean, math.sqrt(2) * deviation)),
    ):
        assert kstest(column, law.cdf).pvalue > 1e-6


# ---------------------------------------------------------------------- choice and tuning

MOVERS: dict[str, tuple[Callable[[], Field], type]] = {
    "terms": (lambda: convolutional((1, 4, 4)), TileMover),
    "level differences": (perceptron, TileMover),
    "neither": (lambda: systems.random_table(1, 8), RandomMaskMover),
    "box": (lambda: systems.box_linear(3), LangevinMover),
    "latent": (lambda: systems.latent_linear(3), LangevinMover),
    "no gradient": (lambda: Field(Box((2,), 0.0, 1.0), lambda x: x.detach().sum(1)), RandomWalkMover),
    "flat": (lambda: Field(Latent(2), lambda x: x.round().sum(1)), RandomWalkMover),
}


@pytest.mark.filterwarnings("ignore:the gradient of")
@pytest.mark.parametrize("case", MOVERS)
def test_the_mover_fits_the_field_and_tunes_each_walker(case: str) -> None:
    build, kind = MOVERS[case]
    field = build()
    mover = choose_mover(field, seeded())
    assert type(mover) is kind
    now = mover.initial_tuning(3)
    x = field.space.draw(3, seeded())
    point = field.space.to_levels(x) if isinstance(field.space, DiscreteSpace) else x
    walkers, accepted = mover.step(
        mover.start(point), Canonical(torch.zeros(3, dtype=torch.float64)), now, 2, seeded(1)
    )
    assert accepted.shape == (3,) and bool(((accepted >= 0) & (accepted <= 1)).all())
    assert walkers.point.shape == point.shape
    for _ in range(200):
        now = mover.adapt(now, torch.tensor([0.0, 0.4, 1.0]), 0.2)
    assert mover.small(now).tolist()[::2] == [True, False]
    size = now.reach * now.share
    assert float(size[0]) < float(size[2])
    renewal = mover.renewal(now, torch.full((3,), 0.5))
    assert renewal.shape == (3,) and bool(((renewal > 0) & (renewal <= 1)).all())
