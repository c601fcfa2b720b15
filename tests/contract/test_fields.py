"""What every field promises, put to the exact systems and to small networks alike."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from theodolite import systems
from theodolite.embedding import OneHot, Scale
from theodolite.field import Field
from theodolite.network import Network
from theodolite.space import Box, DiscreteSpace, Grid, Latent, Spins
from theodolite.zoo.networks import ToyCNN, initialised


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perceptron(inputs: int, outputs: int = 3) -> nn.Module:
    return initialised(lambda: nn.Sequential(nn.Flatten(), nn.Linear(inputs, 7), nn.Tanh(), nn.Linear(7, outputs)), 2)


def toy() -> Network:
    return Network(initialised(ToyCNN, 0), Grid((1, 3, 3), 2), OneHot(), classes=["0", "1"])


FIELDS: dict[str, Callable[[], Field]] = {
    "ising 2": lambda: systems.ising(2),
    "ising 3": lambda: systems.ising(3),
    "ising 6": lambda: systems.ising(6),
    "linear": lambda: systems.linear(np.array([3, -6, 9, 0]), levels=5, shape=(2, 2), scale=0.25),
    "linear logit": lambda: systems.linear_logit(1, (4, 4)),
    "smooth chains": lambda: systems.smooth_chains(2, 3, 9),
    "rough chains": lambda: systems.rough_chains(3, 4, 20),
    "table": lambda: systems.table_field(np.random.default_rng(0).normal(size=2**6), (2, 3)),
    "random table": lambda: systems.random_table(2, 9),
    "box": lambda: systems.box_linear(4),
    "latent": lambda: systems.latent_linear(3, -2.0),
    "toy logit": lambda: toy().logit(1),
    "toy log-odds": lambda: toy().log_odds(0),
    "toy energy": lambda: toy().energy(),
    "toy unit": lambda: toy().unit("convolution_1", 3),
    "perceptron on a grid": lambda: Network(perceptron(4), Grid((2, 2), 5), Scale(0.3, -0.6)).logit(2),
    "perceptron on one-hot levels": lambda: Network(perceptron(12), Grid((4,), 3), OneHot()).margin(0, 1),
    "perceptron on spins": lambda: Network(perceptron(5), Spins(5)).log_odds(1),
    "perceptron on a box": lambda: Network(perceptron(4), Box((1, 2, 2), -1.0, 1.0)).log_sum_exp(),
    "perceptron on a latent space": lambda: Network(perceptron(3), Latent(3)).unit("1", 2),
}
DISCRETE = [name for name, build in FIELDS.items() if isinstance(build().space, DiscreteSpace)]


def discrete(name: str) -> tuple[Field, DiscreteSpace]:
    field = FIELDS[name]()
    assert isinstance(field.space, DiscreteSpace)
    return field, field.space


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FIELDS)
def test_rows_are_independent_and_counted(name: str) -> None:
    field = FIELDS[name]()
    x = field.space.draw(23, seeded())
    kept = x.clone()
    value = field.value(x)
    assert value.shape == (23,) and value.dtype == torch.float64
    assert field.evaluations == 23
    order = torch.randperm(23, generator=seeded(1))
    assert_close(field.value(x[order]), value[order])
    field.batch_size = 4
    assert_close(field.value(x), value)
    assert field.evaluations == 69
    field.check(seeded())
    assert field.evaluations == 69
    assert torch.equal(x, kept), "a field never changes the points it is given"
    assert field.value(x[:0]).shape == (0,)


@pytest.mark.parametrize("name", FIELDS)
def test_the_gradient_is_the_finite_difference(name: str) -> None:
    field = FIELDS[name]()
    if field.table is not None or (field.model_hash and isinstance(field.space, DiscreteSpace)):
        return  # a table has no relaxation to reals; level gradients are tested below
    x = field.space.draw(5, seeded(2))
    value, gradient = field.value_and_gradient(x)
    assert_close(value, field.value(x))
    assert gradient.shape == x.shape and value.dtype == torch.float64
    function = field._function
    step = 1e-3
    base = x.double() if not field.model_hash else x.float()
    for p in range(field.space.n_coordinates):
        shift = torch.zeros(field.space.n_coordinates, dtype=base.dtype)
        shift[p] = step
        shift = shift.reshape(field.space.shape)
        with torch.no_grad():
            slope = (function(base + shift) - function(base - shift)).double() / (2 * step)
        scale = gradient.abs().max().double().clamp(min=1.0)
        assert (gradient.flatten(1)[:, p] - slope).abs().max() < 5e-3 * scale


@pytest.mark.parametrize("name", DISCRETE)
def test_level_spacing_divides_the_differences(name: str) -> None:
    field, space = discrete(name)
    if field.level_spacing is None:
        return
    value = field.value(space.draw(300, seeded(3)))
    steps = (value - value[0]) / field.level_spacing
    assert torch.equal(steps, steps.round())
    assert float(steps.abs().max()) > 0


@pytest.mark.parametrize("name", DISCRETE)
def test_the_level_gradient_is_the_derivative_along_the_embedding(name: str) -> None:
    field, space = discrete(name)
    if field.level_differences is None:
        assert field.has_gradient(seeded()) is False
        return
    capability = field.level_differences
    level = space.to_levels(space.draw(4, seeded(4)))
    value, gradient = field.level_gradient(level)
    m = capability.table.shape[1]
    assert capability.table.shape[0] == space.levels
    assert gradient.shape == (4, space.n_coordinates, m)
    assert_close(value, field.value(space.from_levels(level)))
    # Along the chord to another level, in double precision where the field allows it.
    step = 1e-2
    embedded = capability.table[level]
    scale = float((gradient.abs().max() * capability.table.abs().max()).clamp(min=1.0))
    for p in range(min(space.n_coordinates, 6)):
        for v in {0, space.levels // 2, space.levels - 1}:
            chord = torch.zeros_like(embedded)
            chord[:, p] = capability.table[v] - embedded[:, p]
            with torch.no_grad():
                slope = (
                    capability.function(embedded + step * chord) - capability.function(embedded - step * chord)
                ) / (2 * step)
            assert (slope - (gradient * chord).sum((1, 2))).abs().max() < 1e-2 * scale


@pytest.mark.parametrize("name", ["linear", "linear logit", "ising 3", "ising 6"])
def test_the_linearised_change_is_exact_for_fields_linear_in_each_coordinate(name: str) -> None:
    field, space = discrete(name)
    table = field.require("level_differences").table
    level = space.to_levels(space.draw(3, seeded(5)))
    value, gradient = field.level_gradient(level)
    for p, v in itertools.product(range(space.n_coordinates), (0, space.levels - 1)):
        changed = level.clone()
        changed[:, p] = v
        predicted = (gradient[:, p] * (table[v] - table[level[:, p]])).sum(1)
        assert_close(field.value(space.from_levels(changed)) - value, predicted)


@pytest.mark.parametrize("name", DISCRETE)
def test_terms_add_up_and_stay_near(name: str) -> None:
    field, space = discrete(name)
    if field.terms is None:
        return
    rows, columns = field.terms.grid
    level = space.to_levels(space.draw(5, seeded(6)))
    terms, gradient = field.term_gradient(level)
    assert terms.shape == (5, rows * columns) and terms.dtype == torch.float64
    assert_close(terms.sum(1) + field.terms.constant, field.value(space.from_levels(level)))
    assert_close(gradient, field.level_gradient(level)[1])
    place = torch.arange(rows * columns)
    for p, v in itertools.product(range(space.n_coordinates), range(min(space.levels, 4))):
        changed = level.clone()
        changed[:, p] = v
        q = p % (rows * columns)
        far = torch.maximum((place // columns - q // columns).abs(), (place % columns - q % columns).abs())
        difference = (field.term_gradient(changed)[0] - terms).abs()[:, far > field.terms.radius]
        assert difference.numel() == 0 or float(difference.max()) < 1e-6


@pytest.mark.parametrize("name", DISCRETE)
def test_a_single_site_change_is_exact(name: str) -> None:
    field, space = discrete(name)
    if field.single_site is None:
        return
    generator = np.random.default_rng(7)
    level = space.to_levels(space.draw(40, seeded(7)))
    sites = generator.integers(space.n_coordinates, size=40)
    new = generator.integers(space.levels, size=40)
    changed = level.clone()
    changed[torch.arange(40), torch.from_numpy(sites)] = torch.from_numpy(new)
    expected = field.value(space.from_levels(changed)) - field.value(space.from_levels(level))
    for dtype in (np.int64, np.uint8):
        found = [
            field.single_site.change(row.numpy().astype(dtype), int(site), int(v), field.single_site.data)
            for row, site, v in zip(level, sites, new, strict=True)
        ]
        assert_close(torch.tensor(found, dtype=torch.float64), expected)


@pytest.mark.parametrize("name", DISCRETE)
def test_the_volume_and_the_table_by_brute_force(name: str) -> None:
    field, space = discrete(name)
    if space.log_volume > math.log(5000):
        return
    digits = torch.tensor(list(itertools.product(range(space.levels), repeat=space.n_coordinates))).flip(1)
    assert math.log(len(digits)) == pytest.approx(space.log_volume, rel=1e-12)
    value = field.value(space.from_levels(digits))
    if field.table is not None:
        assert torch.equal(field.table.double(), value)
    if field.level_differences is not None:
        assert_close(field.level_gradient(digits)[0], value)
