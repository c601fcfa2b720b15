"""The short-run generator where descent is known exactly, and its inverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, GaussianEnergy, MLPEnergy, SumEnergy
from theodolite.learning.short_run import (
    ReconstructionSettings,
    ShortRun,
    hessian_product,
    interpolation,
    reconstruct,
    temperature_sweep,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _gaussian() -> GaussianEnergy:
    return GaussianEnergy((3,), torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 1.0, 2.0])).double()


def _rough() -> Energy:
    torch.manual_seed(0)
    return SumEnergy([GaussianEnergy((3,), 0.0, 1.5), MLPEnergy((3,), (16, 16))]).double()


def _draw(n: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, generator=_generator(seed), dtype=torch.float64)


def test_descent_of_a_gaussian_shrinks_each_coordinate_by_its_own_factor() -> None:
    energy, z = _gaussian(), _draw()
    made = ShortRun(energy, 0.3, 40).generate(z)
    factor = (1 - 0.3**2 / 2 * energy.precision) ** 40
    assert torch.allclose(made, energy.mean + factor * (z - energy.mean), atol=1e-12)


def test_without_noise_a_sample_is_what_is_generated() -> None:
    short_run, z = ShortRun(_rough(), 0.2, 10), _draw()
    assert torch.allclose(short_run.sample(z, _generator(), noise=0.0), short_run.generate(z), atol=1e-12)
    assert not torch.allclose(short_run.sample(z, _generator()), short_run.generate(z), atol=1e-3)


def test_the_pulled_back_vector_is_that_of_the_jacobian() -> None:
    short_run, z = ShortRun(_rough(), 0.3, 15), _draw(4)
    cotangent = _draw(4, seed=1)
    pulled = short_run.pulled_back(short_run.path(z), cotangent)
    for row in range(4):
        for axis in range(3):
            shift = torch.zeros(1, 3, dtype=torch.float64)
            shift[0, axis] = 1e-5
            at = z[row : row + 1]
            rise = (short_run.generate(at + shift) - short_run.generate(at - shift)) / 2e-5
            assert float(pulled[row, axis]) == pytest.approx(float((rise[0] * cotangent[row]).sum()), abs=1e-7)


def test_the_hessian_of_a_gaussian_is_its_precision_and_of_a_plane_nothing() -> None:
    energy, direction = _gaussian(), _draw(seed=2)
    assert torch.allclose(hessian_product(energy, _draw(), direction), energy.precision * direction)
    plane = MLPEnergy((3,), ()).double()
    assert bool((hessian_product(plane, _draw(), direction) == 0).all())


def test_interpolation_begins_and_ends_where_it_is_told() -> None:
    first, second = _draw(2)
    line = interpolation(first, second, 5)
    assert torch.equal(line[0], first)
    assert torch.equal(line[-1], second)
    assert torch.allclose(line[2], (first + second) / 2)
    with pytest.raises(UserError):
        interpolation(first, second, 1)
    with pytest.raises(UserError):
        interpolation(first, second[:2], 5)


def test_what_was_generated_is_recovered() -> None:
    short_run = ShortRun(_rough(), 0.4, 8)
    truth = _draw(6, seed=3)
    points = short_run.generate(truth)
    settings = ReconstructionSettings(updates=150, schedule="adam:0.2:0.001")
    found = reconstruct(short_run, points, settings, _generator())
    assert found.latent.shape == found.point.shape == points.shape
    assert torch.allclose(short_run.generate(found.latent), found.point, atol=1e-12)
    assert torch.allclose(found.error, (found.point - points).square().mean(1))
    assert float(found.error.max()) < 2e-3 * float(points.var())


def test_a_point_that_descent_cannot_reach_keeps_its_misfit() -> None:
    """A short run of a Gaussian over a step that lands on the mean makes one point only."""
    energy = GaussianEnergy((2,), 1.0, 1.0).double()
    short_run = ShortRun(energy, math.sqrt(2.0), 1)
    points = torch.tensor([[1.0, 1.0], [4.0, 1.0]], dtype=torch.float64)
    found = reconstruct(short_run, points, ReconstructionSettings(updates=5), _generator())
    assert torch.allclose(found.error, torch.tensor([0.0, 4.5], dtype=torch.float64), atol=1e-12)


def test_rows_are_reconstructed_by_themselves() -> None:
    short_run, points = ShortRun(_rough(), 0.3, 5), _draw(3, seed=4)
    settings = ReconstructionSettings(updates=20)
    together = reconstruct(short_run, points, settings, _generator())
    other = points.clone()
    other[1:] += 1
    changed = reconstruct(short_run, other, settings, _generator())
    assert torch.allclose(together.latent[0], changed.latent[0], atol=1e-10)
    assert not torch.allclose(together.latent[1], changed.latent[1], atol=1e-3)


def test_each_noise_scale_has_the_exact_stationary_width() -> None:
    """x' = (1 - a) x + step gamma Z is an AR(1) chain: its variance is step^2 gamma^2 / (1 - (1 - a)^2)."""
    energy = GaussianEnergy((1,), 0.0, 1.0)
    n, step_size = 4000, 0.8
    scales = (0.0, 0.5, 1.0, 2.0)
    states = temperature_sweep(energy, torch.zeros(n, 1), scales, step_size, 40, _generator())
    assert states.shape == (4, n, 1)
    drift = step_size**2 / 2
    for scale, state in zip(scales, states, strict=True):
        variance = step_size**2 * scale**2 / (1 - (1 - drift) ** 2)
        assert float(state.double().var()) == pytest.approx(variance, rel=6 * math.sqrt(2 / n), abs=1e-12)


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("steps", lambda: ShortRun(_gaussian(), 0.1, 0)),
        ("step_size", lambda: ShortRun(_gaussian(), 0.0, 5)),
        ("updates, restarts", lambda: ReconstructionSettings(updates=0)),
        ("deviation", lambda: ReconstructionSettings(deviation=0.0)),
        ("schedule", lambda: ReconstructionSettings(schedule="fast")),
        (
            "points",
            lambda: reconstruct(
                ShortRun(_gaussian(), 0.1, 2), torch.zeros(2, 4), ReconstructionSettings(), _generator()
            ),
        ),
        (
            "points",
            lambda: reconstruct(
                ShortRun(_gaussian(), 0.1, 2), torch.full((2, 3), math.nan), ReconstructionSettings(), _generator()
            ),
        ),
        ("noise", lambda: temperature_sweep(_gaussian(), _draw(), (-1.0,), 0.1, 2, _generator())),
    ],
)
def test_what_makes_no_short_run_is_refused_by_name(argument: str, make: object) -> None:
    with pytest.raises(UserError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.argument == argument


def test_chains_that_overflow_leave_an_infinite_error_not_an_exception() -> None:
    energy = GaussianEnergy((2,), 0.0, 1e-3)
    short_run = ShortRun(energy, 1.0, 60)
    found = reconstruct(short_run, torch.ones(2, 2), ReconstructionSettings(updates=2), _generator())
    assert bool(found.error.isinf().all())
