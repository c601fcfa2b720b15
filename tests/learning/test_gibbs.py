"""Gibbs sampling over grey levels against laws that can be listed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import GaussianEnergy, MLPEnergy, SumEnergy, build, by_autograd
from theodolite.learning.frame import build_frame
from theodolite.learning.gibbs import LevelEnergy, LevelFrame, gibbs_sweep


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


def test_the_first_layer_kept_up_to_date_is_the_whole_network() -> None:
    energy = small_energy(1, (1, 3, 3), 4)
    # The same network inside a sum is evaluated whole.
    whole = LevelEnergy(SumEnergy([energy.inner, GaussianEnergy((1, 3, 3), 0.0, 1e6)]), 4)
    level = torch.randint(0, 4, (50, 1, 3, 3), generator=torch.Generator().manual_seed(2))
    fast, _ = gibbs_sweep(energy, level, torch.Generator().manual_seed(3))
    slow, _ = gibbs_sweep(whole, level, torch.Generator().manual_seed(3))
    # Rounding may tip a draw, rarely.
    assert float((fast == slow).double().mean()) > 0.99


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
