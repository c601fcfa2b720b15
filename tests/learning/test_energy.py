"""Energies: slopes written by hand against automatic ones in double precision, sums, and what is saved of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.learning.energy import (
    ACTIVATIONS,
    Energy,
    GaussianEnergy,
    MLPEnergy,
    SumEnergy,
    build,
    by_autograd,
)
from theodolite.learning.wrapped import ModuleEnergy, ScaledEnergy


def mlp(activation: str = "silu") -> MLPEnergy:
    torch.manual_seed(1)
    energy = MLPEnergy((2, 3), (17, 9), activation, torch.randn(2, 3), torch.rand(2, 3) + 0.5)
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.mul_(3.0)  # so that activations are not nearly linear
    return energy


def plain() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))


ENERGIES: dict[str, Callable[[], Energy]] = {
    **{f"mlp {name}": lambda name=name: mlp(name) for name in ACTIVATIONS},
    "mlp without hidden layers": lambda: MLPEnergy((2, 3), ()),
    "gaussian": lambda: GaussianEnergy((2, 3), torch.arange(6.0).reshape(2, 3), torch.rand(2, 3) + 0.1),
    "sum": lambda: SumEnergy([mlp(), GaussianEnergy((2, 3), 1.0, 2.0), mlp("tanh")]),
    "sum of one": lambda: SumEnergy([GaussianEnergy((2, 3))]),
    "scaled": lambda: ScaledEnergy(mlp("leaky_relu"), 0.5),
    "module": lambda: ModuleEnergy(plain(), (2, 3)),
}


@pytest.fixture(params=list(ENERGIES))
def energy(request: pytest.FixtureRequest) -> Energy:
    return ENERGIES[request.param]()


@pytest.fixture
def points() -> Tensor:
    return 2 * torch.randn(13, 2, 3, generator=torch.Generator().manual_seed(0))


def assert_close(found: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(found, truth, strict=True):
        assert one.shape == other.shape
        assert float((one.double() - other).abs().max()) < 1e-5 * max(1.0, float(other.abs().max()))


def truth_of(energy: Energy, points: Tensor) -> tuple[Tensor, Tensor]:
    found = by_autograd(energy.double(), points.double())
    energy.float()
    return found


def test_slopes_are_those_of_double_precision(energy: Energy, points: Tensor) -> None:
    truth = truth_of(energy, points)
    assert_close(energy.value_and_gradient(points), truth)
    evaluate = energy.evaluator(len(points), torch.float32)
    for _ in range(2):  # buffers that are used again must not remember
        evaluate(torch.randn_like(points))
        assert_close(evaluate(points), truth)
    assert_close((energy(points).detach(), truth[1].float()), truth)
    exact = energy.double().evaluator(len(points), torch.float64)(points.double())
    assert torch.allclose(exact[1], truth[1], rtol=1e-12, atol=1e-12)


def test_slopes_far_out_stay_exact(points: Tensor) -> None:
    """Where exponentials overflow."""
    for name in ACTIVATIONS:
        energy = mlp(name)
        truth = truth_of(energy, 1000 * points)
        assert_close(energy.evaluator(len(points), torch.float32)(1000 * points), truth)


def test_what_is_not_a_number_stays_so(points: Tensor) -> None:
    for name in ACTIVATIONS:
        energy = mlp(name)
        broken = points.clone()
        broken[3] = math.nan
        value, slope = energy.evaluator(len(points), torch.float32)(broken)
        assert bool(value[3].isnan()), name
        others = torch.arange(len(points)) != 3
        whole = energy.value_and_gradient(points)
        assert torch.allclose(value[others], whole[0][others], atol=1e-4)
        assert torch.allclose(slope[others], whole[1][others], atol=1e-4)


def test_rows_do_not_influence_each_other(energy: Energy, points: Tensor) -> None:
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(1))
    for evaluate_all in (energy.value_and_gradient, energy.evaluator(len(points), torch.float32)):
        value, slope = (tensor.clone() for tensor in evaluate_all(points))
        moved = evaluate_all(points[order])
        assert torch.allclose(moved[0], value[order], atol=1e-5) and torch.allclose(moved[1], slope[order], atol=1e-5)
    few = energy.evaluator(4, torch.float32)(points[5:9].clone())
    assert torch.allclose(few[0], value[5:9], atol=1e-5) and torch.allclose(few[1], slope[5:9], atol=1e-5)


def test_sampling_leaves_no_graph_and_no_gradients(energy: Energy, points: Tensor) -> None:
    for evaluate in (energy.value_and_gradient, energy.evaluator(len(points), torch.float32)):
        value, slope = evaluate(points)
        assert not value.requires_grad and not slope.requires_grad and not points.requires_grad
    assert all(parameter.grad is None for parameter in energy.parameters())
    if any(True for _ in energy.parameters()):
        energy(points).sum().backward()
        assert any(parameter.grad is not None for parameter in energy.parameters())


def test_an_evaluator_has_the_weights_of_when_it_was_made(points: Tensor) -> None:
    energy = mlp()
    before = energy.value_and_gradient(points)[0]
    with torch.no_grad():
        for parameter in energy.parameters():
            parameter.add_(0.1)
    value, _ = energy.evaluator(len(points), torch.float32)(points)
    assert torch.allclose(value, energy.value_and_gradient(points)[0], atol=1e-5)
    assert float((value - before).abs().max()) > 0.1


@pytest.mark.parametrize("name", [name for name in ENERGIES if name != "module"])  # of that, test_wrapped.py
def test_a_description_makes_the_same_energy(name: str, points: Tensor) -> None:
    energy = ENERGIES[name]()
    again = build(energy.spec())
    again.load_state_dict(energy.state_dict())
    assert again.spec() == energy.spec()
    assert torch.equal(again(points), energy(points))


def test_a_gaussian_is_minus_the_logarithm_of_its_density(points: Tensor) -> None:
    mean, deviation = torch.arange(6.0).reshape(2, 3), torch.tensor([[0.5], [2.0]])
    energy = GaussianEnergy((2, 3), mean, deviation)
    truth = -torch.tensor(stats.norm.logpdf(points.numpy(), mean.numpy(), deviation.numpy())).sum((1, 2))
    found = energy(points).double()
    assert torch.allclose(found - found[0], truth - truth[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("deviation", lambda: GaussianEnergy((2,), 0.0, 0.0)),
        ("deviation", lambda: GaussianEnergy((2,), 0.0, [1.0, math.nan])),
        ("activation", lambda: MLPEnergy((2,), (3,), "sine")),
        ("parts", lambda: SumEnergy([GaussianEnergy((2,)), GaussianEnergy((3,))])),
        ("energy", lambda: build({"kind": "dense"})),
        ("energy", lambda: build({})),
    ],
)
def test_wrong_energies_are_refused(argument: str, make: Callable[[], Energy]) -> None:
    with pytest.raises(UserError) as refused:
        make()
    assert refused.value.argument == argument
