"""Gibbs sampling over grey levels against laws that can be listed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, GaussianEnergy, MLPEnergy, Spec, SumEnergy, build, by_autograd
from theodolite.learning.frame import build_frame
from theodolite.learning.gibbs import GibbsDynamics, LevelEnergy, LevelFrame, gibbs_sweep


def small_energy(seed: int = 0, shape: tuple[int, ...] = (1, 2, 2), levels: int = 3) -> LevelEnergy:
    torch.manual_seed(seed)
    network = MLPEnergy(shape, (16, 16))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)
    return LevelEnergy(network, levels)


def all_levels(energy: LevelEnergy) -> Tensor:
    n = int(np.prod(energy.shape))
    return torch.cartesian_prod(*[torch.arange(energy.levels)] * n).reshape(-1, *energy.shape)


def swept(energy: LevelEnergy, n_chains: int, sweeps: int, seed: int, temperature: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    level = torch.zeros(n_chains, *energy.shape, dtype=torch.int64)
    for _ in range(sweeps):
        level, _ = gibbs_sweep(energy, level, generator, temperature)
    return level


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_long_chains_have_the_law_of_the_energy(temperature: float) -> None:
    energy = small_energy()
    points = all_levels(energy)
    with torch.no_grad():
        law = torch.softmax(-energy(points).double() / temperature, 0)
    assert float(law.max()) > 2 / len(points)  # a flat law would pass any sampler
    states = swept(energy, 4000, 200, seed=1, temperature=temperature)  # at .4 chains leave a pit slowly
    index = (states.reshape(len(states), -1) * 3 ** torch.arange(3, -1, -1)).sum(1)
    seen = torch.bincount(index, minlength=len(points)).double()
    likely = law * len(states) > 5
    expected = torch.cat([law[likely], law[~likely].sum()[None]]) * len(states)
    counts = torch.cat([seen[likely], seen[~likely].sum()[None]])
    keep = expected > 0
    assert chisquare(counts[keep].numpy(), expected[keep].numpy()).pvalue > 1e-3


def test_one_sweep_leaves_the_law_as_it_is() -> None:
    energy = small_energy(3)
    points = all_levels(energy)
    with torch.no_grad():
        law = torch.softmax(-energy(points).double(), 0)
    generator = torch.Generator().manual_seed(0)
    start = points[torch.multinomial(law, 20000, replacement=True, generator=generator)]
    after, changed = gibbs_sweep(energy, start, generator)
    index = (after.reshape(len(after), -1) * 3 ** torch.arange(3, -1, -1)).sum(1)
    seen = torch.bincount(index, minlength=len(points)).double() / len(after)
    assert 0.2 < changed < 0.9
    assert float((seen - law).abs().max()) < 5 * float((law / len(after)).sqrt().max())


@pytest.mark.parametrize("n_gaussians", [0, 1, 2])
@pytest.mark.parametrize("network_first", [True, False])
def test_the_first_layer_kept_up_to_date_is_the_whole_network(n_gaussians: int, network_first: bool) -> None:
    network = small_energy(1, (1, 3, 3), 4).inner
    generator = torch.Generator().manual_seed(4)
    mean = torch.randn(n_gaussians, 1, 3, 3, generator=generator) / 2
    gaussians = [GaussianEnergy((1, 3, 3), one, 0.4 + torch.rand(1, 3, 3, generator=generator)) for one in mean]
    parts = [network, *gaussians] if network_first else [*gaussians, network]
    energy = LevelEnergy(SumEnergy(parts) if n_gaussians else network, 4)
    # A sum inside a sum is evaluated whole.
    whole = LevelEnergy(SumEnergy([energy.inner]), 4) if n_gaussians else LevelEnergy(_Whole(network), 4)
    level = torch.randint(0, 4, (200, 1, 3, 3), generator=torch.Generator().manual_seed(2))
    fast, _ = gibbs_sweep(energy, level, torch.Generator().manual_seed(3))
    slow, _ = gibbs_sweep(whole, level, torch.Generator().manual_seed(3))
    # Rounding may tip a draw, rarely.
    assert float((fast == slow).double().mean()) > 0.99
    if n_gaussians:
        bare, _ = gibbs_sweep(LevelEnergy(network, 4), level, torch.Generator().manual_seed(3))
        assert float((fast == bare).double().mean()) < 0.9


class _Whole(Energy):
    """A network of which nothing is known but what it gives."""

    def __init__(self, network: Energy) -> None:
        super().__init__()
        self.network, self.shape = network, network.shape

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.value_and_gradient(x)

    def spec(self) -> Spec:
        return self.network.spec()


def test_chains_of_learning_are_swept() -> None:
    energy = small_energy(5)
    dynamics = GibbsDynamics(3, energy.rows_a_sweep)
    assert dynamics.rows == 3 * 4 * 3 + 1 and not dynamics.adapts
    point = torch.randint(0, 3, (50, 1, 2, 2), generator=torch.Generator().manual_seed(1)).float()
    after, moves = dynamics.moved(energy, point, float("nan"), torch.Generator().manual_seed(2))
    level, generator = point.long(), torch.Generator().manual_seed(2)
    for _ in range(3):
        level, _ = gibbs_sweep(energy, level, generator)
    assert after.dtype == point.dtype and torch.equal(after.long(), level)
    # The slope is in grey values, of which a level is one here.
    _, slope = energy.inner.value_and_gradient(after - 1)
    assert moves.gradient_norm == pytest.approx(float(slope.flatten(1).norm(dim=1).mean()), rel=1e-5)
    assert np.isnan(moves.acceptance)
    with pytest.raises(UserError, match="levels"):
        dynamics.moved(GaussianEnergy((1, 2, 2)), point, 1.0, generator)


def test_slopes_are_with_respect_to_levels() -> None:
    energy = small_energy(2)
    x = torch.rand(5, 1, 2, 2) * 2
    value, slope = energy.value_and_gradient(x)
    true_value, true_slope = by_autograd(energy, x)
    torch.testing.assert_close(value, true_value)
    torch.testing.assert_close(slope, true_slope)


def test_frames_round_to_the_nearest_level_and_back() -> None:
    frame = LevelFrame((1, 4, 4), 8)
    level = torch.randint(0, 8, (10, 1, 4, 4))
    assert torch.equal(frame.coordinates(frame.images(level)), level)
    images = torch.rand(10, 1, 4, 4) * 2 - 1
    assert float((frame.images(frame.coordinates(images)) - images).abs().max()) <= 1 / 7 + 1e-6
    assert float(frame.images(torch.tensor(7.0))) == pytest.approx(1.0)


def test_structure_survives_saving() -> None:
    energy = small_energy()
    other = build(energy.spec())
    other.load_state_dict(energy.state_dict())
    level = all_levels(energy)
    assert torch.equal(other(level), energy(level))
    frame = build_frame(LevelFrame((1, 2, 2), 3).spec())
    assert torch.equal(frame.images(level), LevelFrame((1, 2, 2), 3).images(level))


def test_one_level_is_refused() -> None:
    with pytest.raises(UserError, match="levels"):
        LevelFrame((1, 2, 2), 1)
    with pytest.raises(UserError, match="low < high"):
        LevelEnergy(MLPEnergy((1, 2, 2), (4,)), 4, low=1.0, high=1.0)
