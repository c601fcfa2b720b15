"""Scaled energies against their equations, and modules that are no energies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.learning import wrapped
from theodolite.learning.energy import MLPEnergy, build
from theodolite.learning.langevin import LangevinSettings, langevin, start
from theodolite.learning.wrapped import ModuleEnergy, ScaledEnergy, allow_factory


def small_network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


NAME = f"{__name__}:small_network"


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).square().sum(1)


def test_a_scaled_energys_step_follows_the_slope_of_the_network() -> None:
    """Eq. 3.3: one step of length epsilon moves by dF/dx, whatever epsilon is."""
    torch.manual_seed(0)
    network, x = MLPEnergy((3,), (8,)), torch.randn(5, 3)
    slope = network.value_and_gradient(x)[1]
    for size in (0.01, 0.3):
        energy = ScaledEnergy(network, size)
        settings = LangevinSettings(size, metropolis=False, noise=0.0)
        moved, _ = langevin(energy, start(energy, x), settings, 1, torch.Generator())
        assert torch.allclose(moved.point, x - slope, atol=1e-6)
        assert torch.allclose(energy(x), network(x) / (size**2 / 2))
        assert torch.equal(build(energy.spec()).value_and_gradient(x)[0] * 0, torch.zeros(5))


def test_a_module_is_copied_and_stays_in_eval_mode() -> None:
    module = small_network().train()
    energy = ModuleEnergy(module, (3,)).train()
    x = torch.randn(6, 3)
    assert torch.equal(energy(x), energy(x)) and energy(x).shape == (6,)
    assert module.training and energy.training and not energy.module.training
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.zero_()
    assert float(module[0].weight.detach().abs().sum()) > 0  # type: ignore[operator,union-attr]


def test_a_module_is_saved_by_its_factory_and_read_only_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wrapped, "_FACTORIES", {})
    with pytest.raises(UserError, match="factory"):
        ModuleEnergy(small_network(), (3,)).spec()
    energy = ModuleEnergy(small_network(), (3,), NAME)
    with pytest.raises(UserError, match="allow"):
        build(energy.spec())
    allow_factory(NAME)
    again = build(energy.spec())
    again.load_state_dict(energy.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(again(x), energy(x))
    for wrong in ("nowhere.at.all:make", f"{__name__}:absent", "nonsense", ":make"):
        with pytest.raises(UserError):
            allow_factory(wrong)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(3, 2), "one number"),
        (nn.Linear(5, 1), "a module of points"),
        (Mixing(), "rows that do not influence"),
        (nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), None),
    ],
)
def test_modules_that_are_no_energies_are_refused(module: nn.Module, expected: str | None) -> None:
    if expected is None:
        assert ModuleEnergy(module, (3,))(torch.zeros(2, 3)).shape == (2,)
        return
    with pytest.raises(UserError) as refused:
        ModuleEnergy(module, (3,))
    assert refused.value.expected.startswith(expected)


def test_numbers_that_are_none_are_refused() -> None:
    module = nn.Linear(3, 1)
    with torch.no_grad():
        module.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="finite"):
        ModuleEnergy(module, (3,))


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_that_is_none_is_refused(size: float) -> None:
    with pytest.raises(UserError) as refused:
        ScaledEnergy(MLPEnergy((3,), (8,)), size)
    assert refused.value.argument == "step_size"
