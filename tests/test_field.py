"""`field`: what a field counts, splits and differentiates, and what it refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from theodolite.errors import FieldError, MissingCapability, UserError
from theodolite.field import Field, LevelDifferences
from theodolite.space import Box, Grid, Latent, Spins

BOX = Box((3,), -1.0, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def field(function: Callable[[Tensor], Tensor], **options: object) -> Field:
    return Field(BOX, function, **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- values


def test_values_are_double_and_counted_by_row() -> None:
    found = field(lambda x: x.sum(1), batch_size=4)
    x = BOX.draw(10, seeded())
    value = found.value(x)
    assert value.dtype == torch.float64
    assert torch.equal(value, x.sum(1).double())
    assert found.evaluations == 10
    found.value_and_gradient(x[:3])
    assert found.evaluations == 13


def test_no_rows_make_no_values() -> None:
    assert field(lambda x: x.sum(1)).value(torch.zeros(0, 3)).shape == (0,)


def test_batches_are_no_larger_than_asked() -> None:
    seen: list[int] = []

    def function(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.sum(1)

    field(function, batch_size=4).value(BOX.draw(10, seeded()))
    assert seen == [4, 4, 2]


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried to allocate"), MemoryError()])
def test_the_batch_is_halved_until_it_fits(error: Exception) -> None:
    def function(x: Tensor) -> Tensor:
        if len(x) > 3:
            raise error
        return x.square().sum(1)

    found = field(function, batch_size=4096)
    x = BOX.draw(20, seeded())
    assert torch.equal(found.value(x), x.square().sum(1).double())
    assert found.batch_size == 2
    assert found.evaluations == 20
    value, gradient = found.value_and_gradient(x)
    assert torch.equal(gradient, 2 * x)
    assert torch.equal(value, x.square().sum(1).double())


def test_memory_for_not_even_one_row() -> None:
    def function(x: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        field(function).value(BOX.draw(5, seeded()))


def test_another_error_passes_at_once() -> None:
    calls: list[int] = []

    def function(x: Tensor) -> Tensor:
        calls.append(len(x))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        field(function).value(BOX.draw(5, seeded()))
    assert calls == [5]


# ---------------------------------------------------------------------- gradients


def test_the_gradient_of_each_row_is_its_own() -> None:
    found = field(lambda x: (x**3).sum(1), batch_size=2)
    x = BOX.draw(5, seeded())
    value, gradient = found.value_and_gradient(x)
    assert torch.allclose(gradient, 3 * x**2)
    assert torch.allclose(value, (x**3).sum(1).double())
    assert not value.requires_grad and not gradient.requires_grad and not x.requires_grad


def test_the_gradient_on_a_grid_is_that_of_the_input_relaxed_to_reals() -> None:
    found = Field(Grid((2,), 5), lambda x: x.square().sum(1))
    x = torch.tensor([[1, 4]])
    assert found.value_and_gradient(x)[1].tolist() == [[2.0, 8.0]]


def test_gradients_inside_no_grad() -> None:
    with torch.no_grad():
        assert field(lambda x: x.sum(1)).value_and_gradient(BOX.draw(2, seeded()))[1].tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.argmax(1).float(),
        lambda x: x.detach().sum(1),
        lambda x: torch.from_numpy(x.numpy().sum(1)),
        lambda x: torch.tensor([sum(row) for row in x.tolist()]) + 0 * x.detach()[:, 0],
    ],
)
def test_a_function_without_a_graph(function: Callable[[Tensor], Tensor]) -> None:
    found = field(function)
    found.value(BOX.draw(2, seeded()))
    with pytest.raises(MissingCapability, match="differentiate"):
        found.value_and_gradient(BOX.draw(2, seeded()))
    with pytest.warns(UserWarning, match="gradient-free"):
        assert found.has_gradient(seeded()) is False


@pytest.mark.parametrize("function", [lambda x: x.round().sum(1), lambda x: (x * 0).sum(1)])
def test_a_gradient_that_is_zero_everywhere(function: Callable[[Tensor], Tensor]) -> None:
    found = field(function)
    with pytest.warns(UserWarning, match="zero everywhere on 4 random points"):
        assert found.has_gradient(seeded()) is False
    assert found.evaluations == 0


def test_a_gradient_through_a_parameter_only_is_zero() -> None:
    weight = torch.ones((), requires_grad=True)
    found = field(lambda x: weight * x.detach().sum(1))
    with pytest.warns(UserWarning):
        assert found.has_gradient(seeded()) is False


def test_a_field_with_a_gradient_says_so_without_a_warning() -> None:
    found = field(lambda x: x.sum(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found.has_gradient(seeded()) is True
        assert Field(Spins(3), lambda x: x.double().sum(1)).has_gradient(seeded()) is False
    assert found.evaluations == 0


def test_level_gradient_with_zero_gradient() -> None:
    flat = LevelDifferences(torch.eye(2), lambda embedded: embedded.round().flatten(1).sum(1))
    found = Field(Spins(3), lambda x: x.double().sum(1), level_differences=flat)
    with pytest.warns(UserWarning, match="zero everywhere"):
        assert found.has_gradient(seeded()) is False


def test_levels_may_be_small_integers() -> None:
    table = torch.tensor([[0.0], [1.0], [4.0]])
    found = Field(
        Grid((2,), 3),
        lambda x: x.double().square().sum(1),
        level_differences=LevelDifferences(table, lambda e: e.flatten(1).sum(1)),
    )
    value, gradient = found.level_gradient(torch.tensor([[2, 1]], dtype=torch.uint8))
    assert value.tolist() == [5.0]
    assert gradient.shape == (1, 2, 1)


@pytest.mark.parametrize("capability", ["level_differences", "terms", "single_site", "table"])
def test_a_missing_capability_is_named(capability: str) -> None:
    with pytest.raises(MissingCapability, match=capability):
        field(lambda x: x.sum(1), name="plain").require(capability)
    with pytest.raises(MissingCapability, match="plain"):
        field(lambda x: x.sum(1), name="plain").level_gradient(torch.zeros(1, 3, dtype=torch.int64))


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda x: x[:, :1], r"shape \(5, 1\)"),
        (lambda x: x[:, :2], r"shape \(5, 2\)"),
        (lambda x: x.sum(), r"shape \(\)"),
        (lambda x: x[:3, 0], r"shape \(3,\)"),
        (lambda x: (x[:, 0], x[:, 1]), "tuple"),
        (lambda x: None, "NoneType"),
        (lambda x: x.detach().numpy()[:, 0], "ndarray"),
    ],
)
def test_not_one_number_a_point(function: Callable, got: str) -> None:
    for evaluate in ("value", "value_and_gradient"):
        with pytest.raises(FieldError, match=r"one number a point: shape \(5,\), got " + got):
            getattr(field(function), evaluate)(BOX.draw(5, seeded()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(bad: float) -> None:
    def function(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0.5, bad, x.sum(1))

    x = torch.zeros(9, 3)
    x[6, 0] = x[8, 0] = 0.75
    with pytest.raises(FieldError, match="2 non-finite of 9, the first at index 6") as caught:
        field(function).value(x)
    torch.testing.assert_close(caught.value.example, x[6])
    with pytest.raises(FieldError, match="1 non-finite of 2, the first at index 6"):
        field(function, batch_size=2).value(x)
    with pytest.raises(FieldError, match="non-finite"):
        field(function).value_and_gradient(x)


def test_points_outside_the_space() -> None:
    x = torch.zeros(4, 3)
    x[2, 1] = 255.0
    calls: list[int] = []
    found = field(lambda part: calls.append(1) or part.sum(1))
    with pytest.raises(FieldError, match=r"1 of 4 outside, the first at index 2 \(values 0 to 255\)") as caught:
        found.value(x)
    torch.testing.assert_close(caught.value.example, x[2])
    assert not calls and found.evaluations == 0
    with pytest.raises(FieldError, match="outside"):
        Field(Grid((2,), 256), lambda part: part.sum(1)).value_and_gradient(torch.tensor([[0, 256]]))
    with pytest.raises(UserError, match="shape"):
        found.value(torch.zeros(4, 2))


def test_a_module_in_train_mode() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1)

    module = Sum()
    with pytest.raises(FieldError, match="train mode"):
        field(module)
    found = field(module.eval())
    found.check(seeded())
    module.train()
    with pytest.raises(FieldError, match=r"module\.eval"):
        found.check(seeded())


def test_a_layer_left_in_train_mode() -> None:
    module = nn.Sequential(nn.Linear(3, 1), nn.Dropout(), nn.Flatten(0)).eval()
    module[1].train()
    with pytest.raises(FieldError, match="train mode"):
        field(module)


def influencing() -> list[Callable[[Tensor], Tensor]]:
    normalisation = nn.BatchNorm1d(3).train()
    return [
        lambda x: x.softmax(0).sum(1),
        lambda x: nn.functional.batch_norm(x, None, None, training=True)[:, 0],
        lambda x: normalisation(x)[:, 1],
        lambda x: (x - x.mean(0))[:, 0],
        lambda x: ((x - x.mean(0)) / x.std(0))[:, 0],
        lambda x: x.sum(1) + len(x),
        lambda x: x[:, 0].sort().values,
    ]


@pytest.mark.parametrize("index", range(7))
def test_rows_that_influence_each_other(index: int) -> None:
    found = field(influencing()[index])
    with pytest.raises(FieldError, match="do not influence each other") as caught:
        found.check(seeded())
    assert caught.value.example.shape == (3,)  # type: ignore[union-attr]


def test_a_function_that_rolls_the_dice() -> None:
    with pytest.raises(FieldError, match="fix random layers"):
        field(lambda x: nn.functional.dropout(x, training=True).sum(1)).check(seeded())


def test_a_function_that_fails_for_a_single_row() -> None:
    with pytest.raises(FieldError, match=r"shape \(1,\), got shape \(\)"):
        field(lambda x: (x @ torch.ones(3, 1)).squeeze()).check(seeded())


def test_a_good_field_passes_its_check_uncounted() -> None:
    linear = nn.Linear(3, 1).eval()
    for space in (BOX, Latent(3)):
        found = Field(space, lambda x: linear(x)[:, 0])
        assert found.check(seeded(), n=6).shape == (6,)
        assert found.evaluations == 0
    assert Field(Grid((3,), 9), lambda x: x.double().sum(1)).check(seeded()).dtype == torch.float64


def test_a_field_of_numpy() -> None:
    found = field(lambda x: torch.from_numpy(np.square(x.numpy()).sum(1)))
    x = BOX.draw(4, seeded())
    assert torch.allclose(found.value(x), x.double().square().sum(1))
