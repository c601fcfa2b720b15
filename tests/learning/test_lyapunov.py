"""Lyapunov exponents against those known exactly: quadratic energies, a double well on a line, a ring."""

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, GaussianEnergy, MLPEnergy, SumEnergy, by_autograd
from theodolite.learning.lyapunov import LyapunovSettings, lyapunov_exponents


class DoubleWell(Energy):
    """U = (x^2 - 1)^2: U'' = 12 x^2 - 4, 8 at the minima."""

    shape = (1,)

    def forward(self, x):
        return (x.square() - 1.0).square()[:, 0]

    def value_and_gradient(self, x):
        return self.forward(x), 4.0 * x * (x.square() - 1.0)

    def spec(self):
        return {}


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def measured(energy, start, seed=1, **settings):
    return lyapunov_exponents(energy, start, LyapunovSettings(**settings), torch.Generator().manual_seed(seed))


def test_quadratic_energies_have_their_least_curvature_at_every_noise():
    energy = GaussianEnergy((3,), 0.3, torch.tensor([1.0, 0.5, 0.7]))
    found = measured(energy, normal(6, 3), noise_scales=(0.0, 1.0, 3.0), time=10.0, settling=15.0)
    assert found.exponent == pytest.approx(-np.ones(3), abs=2e-3)
    assert found.outcome == ("measured",) * 3
    assert found.state.shape == (3, 6, 3)


@pytest.mark.parametrize(("slope", "outcome"), [(1.0, "measured"), (float("nan"), "diverged")])
def test_an_energy_without_curvature_or_without_numbers_is_an_outcome(slope, outcome):
    class Slope(Energy):
        """U = slope * x: pairs keep their distance."""

        shape = (2,)

        def forward(self, x):
            return slope * x.sum(1)

        def value_and_gradient(self, x):
            return self(x), torch.full_like(x, slope)

        def spec(self):
            return {}

    found = measured(Slope(), normal(4, 2), noise_scales=(0.0, 1.0), time=1.0, settling=0.1)
    assert found.outcome == (outcome,) * 2
    assert outcome == "diverged" or found.exponent == pytest.approx(np.zeros(2), abs=1e-6)


def test_long_run_states_have_the_temperature_of_their_noise():
    found = measured(
        GaussianEnergy((8,)), normal(150, 8), noise_scales=(0.0, 0.5, 2.0), time=1.0, settling=9.0, step=0.05
    )
    variance = found.state.square().mean((1, 2)).numpy()
    assert variance[0] < 1e-6
    # Euler steps of .025 add 1.25% to a variance of gamma^2.
    assert variance[1:] / np.array([0.25, 4.0]) == pytest.approx(np.ones(2), abs=5 * np.sqrt(2 / 1200) + 0.02)


def test_double_well_without_noise_and_with():
    scales = (0.0, 0.7, 1.5)
    found = measured(DoubleWell(), normal(48, 1), noise_scales=scales, time=20.0, settling=3.0, step=0.01)
    assert found.low[0] <= -8.0 <= found.high[0] and found.exponent[0] == pytest.approx(-8.0, rel=2e-3)
    x = np.linspace(-6.0, 6.0, 100_001)
    for place, scale in enumerate(scales[1:], 1):
        weight = np.exp(-((x**2 - 1.0) ** 2) / scale**2)
        exact = -float((weight * (12.0 * x**2 - 4.0)).sum() / weight.sum())
        half = found.high[place] - found.low[place]
        assert abs(found.exponent[place] - exact) <= half, (scale, exact, found)
        assert half < 0.1 * abs(exact)
    assert (found.high < 0).all()


def test_growth_away_from_a_maximum_is_seen_as_growth():
    class Hill(Energy):
        """U = -x^2 / 2: every pair parts as e^t."""

        shape = (2,)

        def forward(self, x):
            return -0.5 * x.square().sum(1)

        def value_and_gradient(self, x):
            return by_autograd(self, x)

        def spec(self):
            return {}

    found = measured(Hill(), normal(4, 2), noise_scales=(0.0, 1.0), time=3.0, settling=0.0, step=0.01)
    assert found.exponent == pytest.approx(np.ones(2), abs=1e-3)


def test_a_step_too_long_and_one_that_diverges_are_told():
    energy = GaussianEnergy((1,), 0.0, 0.5)
    longish = measured(energy, normal(4, 1), noise_scales=(1.0,), time=20.0, step=0.2, renormalised=1)
    assert longish.outcome == ("step too long",)
    diverged = measured(DoubleWell(), 50.0 + normal(4, 1), noise_scales=(0.0,), time=5.0, step=0.1)
    assert diverged.outcome == ("diverged",) and np.isnan(diverged.exponent[0])


def test_same_seed_same_numbers_and_the_energy_is_left_in_its_precision():
    energy = SumEnergy([GaussianEnergy((2,)), MLPEnergy((2,), (8, 8))])
    settings = {"noise_scales": (0.5, 1.0), "time": 2.0, "settling": 0.5}
    first, again = (measured(energy, normal(3, 2), **settings) for _ in range(2))
    assert (first.exponent == again.exponent).all() and torch.equal(first.state, again.state)
    assert next(energy.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LyapunovSettings(noise_scales=()),
        lambda: LyapunovSettings(noise_scales=(-1.0,)),
        lambda: LyapunovSettings(time=0.0),
        lambda: LyapunovSettings(step=float("nan")),
        lambda: LyapunovSettings(renormalised=0),
        lambda: measured(GaussianEnergy((2,)), normal(4, 3)),
        lambda: measured(GaussianEnergy((2,)), normal(1, 2)),
        lambda: measured(GaussianEnergy((2,)), normal(4, 2), time=0.01, step=0.1),
    ],
)
def test_wrong_input_is_told(wrong):
    with pytest.raises(UserError):
        wrong()
