"""Langevin chains against densities that are known: moments, masses, exact biases, detailed balance."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, GaussianEnergy, MLPEnergy, SumEnergy, by_autograd
from theodolite.learning.langevin import Chains, LangevinSettings, adapted, langevin, start

DTYPES = (torch.float32, torch.float64)


class Given(Energy):
    """An energy written as a formula."""

    def __init__(self, n: int, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shape, self.formula = (n,), formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return by_autograd(self, x)

    def spec(self) -> dict:
        return {}


def tilted_well(x: Tensor) -> Tensor:
    return 2.0 * (x[:, 0].square() - 1.0).square() + 0.5 * x[:, 0]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_corrected_chains_have_the_gaussians_moments(
    dtype: torch.dtype, temperature: float, generator: torch.Generator
) -> None:
    covariance = torch.tensor([[1.0, 0.9, 0.2], [0.9, 2.0, -0.3], [0.2, -0.3, 0.5]], dtype=torch.float64)
    precision, centre = torch.linalg.inv(covariance).to(dtype), torch.tensor([1.0, -2.0, 0.5], dtype=dtype)
    energy = Given(3, lambda x: 0.5 * ((x - centre) @ precision * (x - centre)).sum(1))
    n = 4000
    chains = start(energy, torch.zeros(n, 3, dtype=dtype))
    settings = LangevinSettings(0.8 * math.sqrt(temperature), temperature=temperature)
    chains, moves = langevin(energy, chains, settings, 120, generator)
    assert 0.3 < moves.acceptance < 0.8  # so large a step that without correction the covariance is far off
    away = chains.point.double() - centre.double()
    wanted = covariance * temperature
    error = (wanted.diag() / n).sqrt()
    assert (away.mean(0).abs() < 4 * error).all()
    found = away.T @ away / n
    deviation = ((wanted.diag()[:, None] * wanted.diag() + wanted.square()) / n).sqrt()
    assert ((found - wanted).abs() < 4 * deviation).all()
    value, gradient = energy.value_and_gradient(chains.point)
    assert torch.allclose(value, chains.value, atol=1e-4) and torch.allclose(gradient, chains.gradient, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_corrected_chains_weigh_two_wells_rightly(dtype: torch.dtype, generator: torch.Generator) -> None:
    energy = Given(1, tilted_well)

    def density(x: float) -> float:
        return math.exp(-2 * (x * x - 1) ** 2 - 0.5 * x)

    left, right = quad(density, -4, 0)[0], quad(density, 0, 4)[0]
    share, n = left / (left + right), 5000
    chains = start(energy, torch.ones(n, 1, dtype=dtype))  # all in the smaller well
    chains, _ = langevin(energy, chains, LangevinSettings(0.5), 300, generator)
    found = float((chains.point < 0).double().mean())
    assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / n)


def test_a_corrected_step_is_in_detailed_balance(generator: torch.Generator) -> None:
    """From exact draws, E f(x) g(x') = E g(x) f(x') for one step, however long."""
    energy = GaussianEnergy((1,))
    n = 400_000
    first = start(energy, torch.randn(n, 1, generator=generator))
    for step_size in (0.5, 1.6):
        then, _ = langevin(energy, first, LangevinSettings(step_size), 1, generator)
        x, y = first.point[:, 0].double(), then.point[:, 0].double()
        for difference in (x * y**2 - x**2 * y, x**3 * y - x * y**3, x.square() - y.square()):
            assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_uncorrected_chains_have_the_discretised_variance(dtype: torch.dtype, generator: torch.Generator) -> None:
    """Of U = k x^2 / 2 exactly tau^2 T / (k (1 - k step^2 / (4 T)))."""
    k, size, n = 2.0, 0.8, 40_000
    energy = GaussianEnergy((1,), 0.0, k**-0.5)
    for temperature, noise in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.3)):
        settings = LangevinSettings(size, metropolis=False, noise=noise, temperature=temperature)
        chains, moves = langevin(energy, start(energy, torch.zeros(n, 1, dtype=dtype)), settings, 60, generator)
        assert math.isnan(moves.acceptance)
        wanted = noise**2 * temperature / (k * (1 - k * size**2 / (4 * temperature)))
        found = float(chains.point.double().square().mean())
        assert abs(found / wanted - 1) < 4 * math.sqrt(2 / n)
        assert abs(found / (noise**2 * temperature / k) - 1) > 10 * math.sqrt(2 / n)


def test_without_noise_it_is_gradient_descent(generator: torch.Generator) -> None:
    energy = MLPEnergy((4,), (8, 8))
    begin = torch.randn(5, 4, generator=generator)
    point = begin.clone()
    for _ in range(7):
        point = point - 0.3**2 / 2 * energy.value_and_gradient(point)[1]
    before = generator.get_state()
    settings = LangevinSettings(0.3, metropolis=False, noise=0.0)
    for seed in (0, 1):
        found, _ = langevin(energy, start(energy, begin), settings, 7, torch.Generator().manual_seed(seed))
        assert torch.allclose(found.point, point, atol=1e-6)
        assert torch.allclose(found.value, energy.value_and_gradient(point)[0], atol=1e-6)
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("metropolis", [True, False])
def test_a_chain_depends_on_no_other(metropolis: bool, generator: torch.Generator) -> None:
    energy = SumEnergy([GaussianEnergy((6,)), MLPEnergy((6,), (16, 16))])
    begin = torch.randn(12, 6, generator=generator)
    other = begin.clone()
    other[::2] = 100 * torch.randn(6, 6, generator=generator)
    settings = LangevinSettings(0.4, metropolis=metropolis)
    found = [
        langevin(energy, start(energy, point), settings, 20, torch.Generator().manual_seed(3))[0]
        for point in (begin, other)
    ]
    for first, second in zip(*found, strict=True):
        assert torch.equal(first[1::2], second[1::2])
        assert not torch.equal(first[::2], second[::2])


@pytest.mark.parametrize("metropolis", [True, False])
def test_what_is_given_stays_as_it_was_and_a_seed_decides(metropolis: bool) -> None:
    energy = MLPEnergy((3,), (8,))
    begin = torch.randn(10, 3).T.contiguous().T  # rows that are not one run of memory
    chains = start(energy, begin)
    kept = [tensor.clone() for tensor in chains]
    settings = LangevinSettings(0.5, metropolis=metropolis)
    found = [langevin(energy, chains, settings, 9, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(chains, kept, strict=True))
    assert torch.equal(found[0].point, found[1].point)
    assert not torch.equal(found[0].point, found[2].point)
    # the first results are not overwritten by later calls
    assert torch.allclose(found[0].value, energy.value_and_gradient(found[0].point)[0], atol=1e-6)


@pytest.mark.parametrize("broken", ["value", "infinite", "slope"])
def test_what_is_not_finite_is_refused(broken: str, generator: torch.Generator) -> None:
    class Walled(Energy):
        shape = (2,)

        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x.square().sum(1)

        def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
            value, slope, out = self(x), x.clone(), x.abs().amax(1) > 1
            if broken == "slope":
                slope[out] = math.nan
            else:
                value[out] = math.nan if broken == "value" else math.inf
            return value, slope

        def spec(self) -> dict:
            return {}

    chains = start(Walled(), torch.zeros(500, 2))
    chains, moves = langevin(Walled(), chains, LangevinSettings(0.7), 50, generator)
    assert 0.2 < moves.acceptance < 0.99
    assert all(bool(tensor.isfinite().all()) for tensor in chains)
    assert float(chains.point.abs().max()) <= 1
    # the density is the Gaussian's within the walls: its variance there is known
    inside = quad(lambda t: t * t * math.exp(-t * t / 2), -1, 1)[0] / quad(lambda t: math.exp(-t * t / 2), -1, 1)[0]
    fourth = quad(lambda t: t**4 * math.exp(-t * t / 2), -1, 1)[0] / quad(lambda t: math.exp(-t * t / 2), -1, 1)[0]
    error = math.sqrt((fourth - inside**2) / chains.point.numel())
    assert abs(float(chains.point.square().mean()) - inside) < 4 * error


def test_a_run_that_overflows_is_left_to_see(generator: torch.Generator) -> None:
    energy = Given(1, lambda x: -(x[:, 0] ** 4))
    settings = LangevinSettings(1.0, metropolis=False)
    chains, _ = langevin(energy, start(energy, torch.ones(4, 1)), settings, 30, generator)
    assert not bool(chains.point.isfinite().any())


def test_moves_are_means_over_steps_and_chains(generator: torch.Generator) -> None:
    energy = GaussianEnergy((3,))
    chains = start(energy, torch.randn(7, 3, generator=generator))
    for metropolis in (True, False):
        then, moves = langevin(energy, chains, LangevinSettings(0.8, metropolis), 1, generator)
        assert moves.gradient_norm == pytest.approx(float(chains.gradient.norm(dim=1).mean()), rel=1e-5)
    then, moves = langevin(energy, chains, LangevinSettings(1.2), 1, generator)
    moved = (then.point != chains.point).any(1)
    assert moves.acceptance == pytest.approx(float(moved.double().mean()))
    descent = LangevinSettings(0.8, metropolis=False, noise=0.0)
    first, _ = langevin(energy, chains, descent, 1, generator)
    _, moves = langevin(energy, chains, descent, 2, generator)
    both = (chains.gradient.norm(dim=1).mean() + first.gradient.norm(dim=1).mean()) / 2
    assert moves.gradient_norm == pytest.approx(float(both), rel=1e-5)


def test_the_step_adapts_to_the_wanted_acceptance(generator: torch.Generator) -> None:
    energy = GaussianEnergy((20,), 0.0, torch.linspace(0.5, 2.0, 20))
    chains, size, found = start(energy, torch.zeros(200, 20)), 0.01, []
    for _ in range(300):
        chains, moves = langevin(energy, chains, LangevinSettings(size), 2, generator)
        size = adapted(size, moves.acceptance, 0.2)
        found.append(moves.acceptance)
    assert sum(found[-100:]) / 100 == pytest.approx(0.6, abs=0.02)
    assert adapted(0.5, 0.6, 0.1) == 0.5 and adapted(0.5, 0.7, 0.1) > 0.5 > adapted(0.5, 0.5, 0.1)


@pytest.mark.parametrize(
    ("argument", "settings"),
    [
        ("step_size", {"step_size": 0.0}),
        ("step_size", {"step_size": math.nan}),
        ("temperature", {"step_size": 0.1, "temperature": -1.0}),
        ("temperature", {"step_size": 0.1, "temperature": math.inf}),
        ("noise", {"step_size": 0.1, "noise": 0.0}),
        ("noise", {"step_size": 0.1, "metropolis": False, "noise": -1.0}),
        ("noise", {"step_size": 0.1, "metropolis": False, "noise": math.nan}),
    ],
)
def test_settings_that_make_no_step_are_refused(argument: str, settings: dict) -> None:
    with pytest.raises(UserError) as refused:
        LangevinSettings(**settings)
    assert refused.value.argument == argument


def test_wrong_chains_are_refused(generator: torch.Generator) -> None:
    energy = GaussianEnergy((3,))
    with pytest.raises(UserError) as refused:
        start(energy, torch.zeros(5, 4))
    assert refused.value.argument == "point"
    chains: Chains = start(energy, torch.zeros(5, 3))
    with pytest.raises(UserError) as refused:
        langevin(energy, chains, LangevinSettings(0.1), 0, generator)
    assert refused.value.argument == "steps"
