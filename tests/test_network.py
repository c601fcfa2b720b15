"""`network`: what each observable is, and that the caller's module stays as it was."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from theodolite.embedding import OneHot, Scale
from theodolite.errors import FieldError, MissingCapability, UserError
from theodolite.field import Field
from theodolite.network import Network, model_hash
from theodolite.space import Box, Grid, Latent, Space, Spins
from theodolite.zoo.networks import initialised


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perceptron(outputs: int, inputs: int = 4) -> nn.Module:
    return initialised(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(inputs, 6), nn.ReLU(inplace=True), nn.Linear(6, outputs)), 1
    ).eval()


def network(outputs: int, classes: list[str] | None = None, space: Space | None = None) -> Network:
    return Network(perceptron(outputs), space or Box((2, 2), -2.0, 2.0), classes=classes)


def points(found: Network, n: int = 16) -> Tensor:
    return found.space.draw(n, seeded(5))


# ---------------------------------------------------------------------- observables


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_outputs_and_logits(outputs: int) -> None:
    found = network(outputs)
    x = points(found)
    expected = perceptron(outputs)(x)
    assert found.n_outputs == outputs
    assert torch.allclose(found.outputs(x), expected, atol=1e-6)
    for k in range(outputs):
        assert torch.allclose(found.logit(k).value(x), expected[:, k].double(), atol=1e-6)
        assert found.logit(k).name == f"logit:{k}"


def test_one_output_with_two_classes() -> None:
    found = network(1, ["zero", "one"])
    x = points(found)
    z = perceptron(1)(x)[:, 0].double()
    assert torch.allclose(found.logit(1).value(x), z, atol=1e-6)
    assert torch.allclose(found.logit(0).value(x), -z, atol=1e-6)
    assert torch.allclose(found.log_sum_exp().value(x), F.softplus(z), atol=1e-6)
    label, probability = found.predictions(x)
    assert torch.equal(label, (z > 0).long())
    assert torch.allclose(probability, torch.maximum(z.sigmoid(), 1 - z.sigmoid()), atol=1e-6)
    assert found.logit(0).probability == found.logit(1).probability == "sigmoid"


def test_one_output_without_classes() -> None:
    found = network(1)
    x = points(found)
    z = perceptron(1)(x)[:, 0].double()
    assert torch.allclose(found.logit(0).value(x), z, atol=1e-6)
    assert torch.allclose(found.log_sum_exp().value(x), z, atol=1e-6)
    with pytest.raises(UserError, match="classes"):
        found.logit(1)


@pytest.mark.parametrize("outputs", [1, 2, 3, 10])
def test_log_odds_are_those_of_the_softmax(outputs: int) -> None:
    found = network(outputs)
    x = points(found)
    z = found.outputs(x).double()
    logits = torch.cat([torch.zeros_like(z), z], 1) if outputs == 1 else z
    for k in range(max(2, outputs)):
        field = found.log_odds(k)
        assert torch.allclose(field.value(x).sigmoid(), logits.softmax(1)[:, k], atol=1e-6)
        assert field.probability == "sigmoid"


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_margins_energy_and_predictions(outputs: int) -> None:
    found = network(outputs, [str(k) for k in range(max(2, outputs))])
    x = points(found)
    z = found.outputs(x).double()
    logits = torch.cat([torch.zeros_like(z), z], 1) if outputs == 1 else z
    for i, j in ((0, 1), (1, 0), (outputs - 1, 0)):
        if i != j:
            assert torch.allclose(found.margin(i, j).value(x), logits[:, i] - logits[:, j], atol=1e-6)
    assert torch.allclose(found.energy().value(x), -logits.logsumexp(1), atol=1e-6)
    assert torch.allclose(found.log_sum_exp().value(x), logits.logsumexp(1), atol=1e-6)
    label, probability = found.predictions(x)
    assert torch.equal(label, logits.argmax(1))
    assert torch.allclose(probability, logits.softmax(1).amax(1), atol=1e-6)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20, 5), nn.Tanh())
        self.output = nn.Linear(5, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.body(self.activation(self.convolution(x))))[:, 0]


@pytest.mark.parametrize("space", [Grid((1, 4, 5), 6), Box((1, 4, 5), 0.0, 5.0)], ids=["grid", "box"])
def test_units_of_convolutions_and_linear_layers(space: Space) -> None:
    module = initialised(Convolutional, 0).eval()
    found = Network(module, space, Scale(0.4, -1.0))
    x = space.draw(7, seeded(2))
    before = module.convolution(x.float() * 0.4 - 1.0)
    hidden = module.body(before.clamp(min=0))
    assert torch.allclose(found.unit("convolution", 2).value(x), before[:, 2].mean((1, 2)).double(), atol=1e-6)
    assert torch.allclose(
        found.unit("activation", 0).value(x), before[:, 0].clamp(min=0).mean((1, 2)).double(), atol=1e-6
    )
    assert torch.allclose(found.unit("body.2", 4).value(x), hidden[:, 4].double(), atol=1e-6)
    assert torch.allclose(found.unit("output", 0).value(x), found.logit(0).value(x), atol=1e-6)
    assert found.unit("body.2", 4).has_gradient(seeded())
    assert found.observable("unit:body.2:4").name == "unit:body.2:4"


def test_units_of_a_folded_network() -> None:
    module = initialised(
        lambda: nn.Sequential(nn.Conv2d(4, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(40, 1)), 0
    )
    found = Network(module.eval(), Grid((1, 4, 5), 4), OneHot())
    x = found.space.draw(6, seeded(1))
    planes = F.one_hot(x[:, 0], 4).permute(0, 3, 1, 2).float()
    field = found.unit("0", 1)
    assert torch.allclose(field.value(x), module[0](planes)[:, 1].mean((1, 2)).double(), atol=1e-6)
    value, gradient = field.level_gradient(found.space.to_levels(x))  # type: ignore[attr-defined]
    assert torch.allclose(value, field.value(x), atol=1e-6)
    assert gradient.shape == (6, 20, 4)


# ---------------------------------------------------------------------- flags and what they refuse


@pytest.mark.parametrize(
    "text", ["logit:2", "log_odds:0", "margin:2:1", "log_sum_exp", "energy", "unit:1:3"]
)  # fmt: skip
def test_an_observable_keeps_its_text_as_its_name(text: str) -> None:
    assert network(3).observable(text).name == text


@pytest.mark.parametrize(
    "text",
    ["", "logit", "logit:x", "logit:1.5", "logit:", "logit:3", "logit:-1", "logit:1:2", "log_odds:9", "margin:1",
     "margin:1:1", "margin:0:7", "energy:0", "unit:1", "unit:1:x", "unit:1:6", "unit::0", "softmax:1"],
)  # fmt: skip
def test_other_observables_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        network(3).observable(text)


def test_refusals_say_what_there_is() -> None:
    ten = network(10)
    with pytest.raises(UserError, match=r"0\.\.9, got 10"):
        ten.logit(10)
    with pytest.raises(UserError, match=r"0\.\.9, got True"):
        ten.logit(True)
    with pytest.raises(UserError, match="logit:K, log_odds:K.*'logit:x'.*10 output"):
        ten.observable("logit:x")
    with pytest.raises(UserError, match="one of 0, 1, 2, 3, got 'fc1'"):
        ten.unit("fc1", 0)
    with pytest.raises(UserError, match=r"0\.\.5, got 6"):
        ten.unit("1", 6)
    module = initialised(Convolutional, 0)
    with pytest.raises(UserError, match="a layer whose output is a tensor, got 'unused'"):
        Network(module, Grid((1, 4, 5), 6)).unit("unused", 0)


@pytest.mark.parametrize(("outputs", "names"), [(1, 1), (1, 3), (2, 1), (10, 9)])
def test_the_wrong_number_of_classes(outputs: int, names: int) -> None:
    with pytest.raises(UserError, match=f"classes.*{outputs} output.*got {names}"):
        network(outputs, [str(k) for k in range(names)])


@pytest.mark.parametrize("space", [Box((2, 2), 0.0, 1.0), Latent(4)])
def test_one_hot_needs_levels(space: Space) -> None:
    with pytest.raises(MissingCapability, match=r"OneHot.*Scale"):
        Network(perceptron(1), space, OneHot())


def test_one_hot_levels_cannot_be_relaxed() -> None:
    found = Network(perceptron(1, 12), Grid((4,), 3), OneHot())
    with pytest.raises(MissingCapability, match="OneHot"):
        found.logit(0).value_and_gradient(found.space.draw(2, seeded()))


class Returns(nn.Module):
    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda x: x.sum(), r"shape \(\)"),
        (lambda x: x[:1], r"shape \(1, 4\)"),
        (lambda x: x.reshape(-1, 2, 2), r"shape \(2, 2, 2\)"),
        (lambda x: (x, x), "tuple"),
        (lambda x: {"logits": x}, "dict"),
    ],
)
def test_outputs_that_are_no_vector_a_point(function: Callable, got: str) -> None:
    with pytest.raises(FieldError, match=rf"\(batch, K\), got {got}"):
        Network(Returns(function), Box((4,), 0.0, 1.0))


def test_a_module_of_other_inputs() -> None:
    with pytest.raises(UserError, match=r"reads inputs of shape \(2, 5\), got RuntimeError"):
        Network(nn.Linear(4, 2), Box((5,), 0.0, 1.0))
    with pytest.raises(UserError, match=r"torch\.nn\.Module, got function"):
        Network(lambda x: x, Box((5,), 0.0, 1.0))  # type: ignore[arg-type]


def test_outputs_that_are_not_finite_are_found() -> None:
    found = Network(Returns(lambda x: (x - 0.5).log()[:, :1]), Box((2,), 0.0, 1.0))
    with pytest.raises(FieldError, match="non-finite"):
        found.logit(0).check(seeded(), n=64)


def test_batch_statistics_in_eval_mode_are_found() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 2))
    with pytest.raises(FieldError, match="influence each other"):
        Network(module, Box((4,), 0.0, 1.0)).logit(0).check(seeded())


# ---------------------------------------------------------------------- the caller's module


def test_the_callers_module_stays_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(40, 2)).train()
    module[3].bias.requires_grad_(False)
    calls: list[int] = []
    module[0].register_forward_hook(lambda *_: calls.append(1) and None)
    hooks = copy.copy(module[0]._forward_hooks)
    weights = copy.deepcopy(module.state_dict())
    gradients = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    strides = {name: parameter.stride() for name, parameter in module.named_parameters()}

    found = Network(module, Grid((1, 4, 5), 6))
    x = found.space.draw(4, seeded())
    found.logit(0).value(x)
    found.logit(0).level_gradient(found.space.to_levels(x))  # type: ignore[attr-defined]
    found.unit("0", 1).value(x)
    found.predictions(x)

    assert all(layer.training for layer in module.modules())
    assert {name: parameter.requires_grad for name, parameter in module.named_parameters()} == gradients
    assert {name: parameter.stride() for name, parameter in module.named_parameters()} == strides
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module[0]._forward_hooks == hooks and not module[1]._forward_hooks
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_later_training_does_not_reach_the_network() -> None:
    module = perceptron(2)
    found = Network(module, Box((2, 2), -2.0, 2.0))
    x = points(found)
    before = found.logit(0).value(x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    assert torch.equal(found.logit(0).value(x), before)


def test_dropout_and_normalisation_are_in_eval_mode() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)).train()
    found = Network(module, Box((4,), 0.0, 1.0))
    assert not any(layer.training for layer in found.module.modules())
    assert not any(parameter.requires_grad for parameter in found.module.parameters())
    found.logit(1).check(seeded())


def test_the_hash_is_of_weights_and_structure() -> None:
    module = perceptron(2)
    assert model_hash(module) == model_hash(copy.deepcopy(module)) == network(2).hash
    assert len({model_hash(m) for m in (module, perceptron(3), nn.Sequential(module, nn.Tanh()))}) == 3
    with torch.no_grad():
        next(module.parameters())[0, 0] += 1e-6
    assert model_hash(module) != network(2).hash
    assert network(2).logit(0).model_hash == network(2).hash


# ---------------------------------------------------------------------- spaces, embeddings, preprocessing


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 2, 2)])
def test_one_hot_scale_and_preprocessing_of_the_same_points(shape: tuple[int, ...]) -> None:
    """The same affine map of a level written as a scale, as a one-hot product and as preprocessing."""
    space = Grid(shape, 5)
    x = space.draw(12, seeded(3))
    module = perceptron(2)
    mean = torch.tensor(0.75)
    scaled = Network(module, space, Scale(0.5, -0.75))
    prepared = Network(module, space, Scale(0.5), preprocess=lambda v: v - mean)

    class FromPlanes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, planes: Tensor) -> Tensor:
            axis = 2 if len(shape) == 1 else 1
            value = planes.movedim(axis, -1) @ torch.arange(5.0)
            return self.module(value * 0.5 - 0.75)

    one_hot = Network(FromPlanes(), space, OneHot())
    expected = module(x.float() * 0.5 - 0.75)
    for found in (scaled, prepared, one_hot):
        assert torch.allclose(found.outputs(x), expected, atol=1e-6)
        value, gradient = found.logit(1).level_gradient(space.to_levels(x))
        assert torch.allclose(value, expected[:, 1].double(), atol=1e-6)
        assert torch.allclose(linearised(found.logit(1), x), linearised(scaled.logit(1), x), atol=1e-5)
        assert gradient.shape[:2] == (12, 4)


def linearised(field: Field, x: Tensor) -> Tensor:
    """What setting each coordinate to level 3 does by the gradient, ``(batch, n_coordinates)``."""
    level = field.space.to_levels(x)  # type: ignore[attr-defined]
    table = field.require("level_differences").table
    gradient = field.level_gradient(level)[1]
    return (gradient * (table[3] - table[level])).sum(-1)


def test_preprocessing_may_change_the_shape() -> None:
    module = initialised(lambda: nn.Conv2d(3, 2, 2), 0).eval()
    whole = nn.Sequential(module, nn.Flatten()).eval()
    found = Network(whole, Grid((2, 2), 7), Scale(1 / 6), preprocess=lambda v: v[:, None].expand(-1, 3, -1, -1))
    x = found.space.draw(3, seeded())
    assert torch.allclose(found.outputs(x), whole((x / 6)[:, None].expand(-1, 3, -1, -1)), atol=1e-6)
    assert found.logit(0).terms is None


@pytest.mark.parametrize("output", [lambda z: z[:, 0], lambda z: z, lambda z: torch.cat([z, -z, 2 * z], 1)])
def test_modules_of_one_number_one_column_and_many_columns(output: Callable[[Tensor], Tensor]) -> None:
    linear = initialised(lambda: nn.Linear(3, 1), 0)

    class Shaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, x: Tensor) -> Tensor:
            return output(self.linear(x))

    found = Network(Shaped(), Spins(3))
    x = found.space.draw(5, seeded())
    expected = linear(x.float())[:, 0].double()
    assert found.outputs(x).shape == (5, found.n_outputs)
    assert torch.allclose(found.logit(0).value(x), expected, atol=1e-6)
    assert found.logit(0).value(x[:1]).shape == (1,)
    assert torch.allclose(found.logit(0).value_and_gradient(x)[1], linear.weight.detach().expand(5, 3), atol=1e-6)


@pytest.mark.parametrize("embedding", [Scale(1 / 255), OneHot()])
def test_bytes_are_read_as_levels(embedding: Scale | OneHot) -> None:
    found = Network(perceptron(2, 4 if isinstance(embedding, Scale) else 4 * 256), Grid((1, 2, 2), 256), embedding)
    x = torch.tensor([[[[0, 255], [1, 7]]]], dtype=torch.uint8)
    for field in (found.logit(1), found.unit("1", 0)):
        assert torch.equal(field.value(x), field.value(x.long()))
    assert found.predictions(x)[0].shape == (1,)


def test_real_points_in_double_precision() -> None:
    found = network(2)
    x = points(found)
    for field in (found.logit(0), found.unit("1", 0)):
        assert torch.equal(field.value(x.double()), field.value(x))
        assert torch.allclose(field.value_and_gradient(x.double())[1], field.value_and_gradient(x)[1].double())


def test_a_colour_image_is_not_folded_from_one_hot_planes() -> None:
    module = nn.Sequential(nn.Conv2d(12, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = Network(module, Grid((3, 4, 5), 4), OneHot())
    x = found.space.draw(4, seeded())
    planes = F.one_hot(x, 4).permute(0, 1, 4, 2, 3).reshape(4, 12, 4, 5).float()
    assert torch.allclose(found.outputs(x), module(planes), atol=1e-6)
    assert found.logit(0).require("level_differences").table.shape == (4, 4)


def test_an_extreme_output_keeps_its_log_odds() -> None:
    found = Network(Returns(lambda x: torch.cat([60 * x, -60 * x, 0 * x], 1)), Box((1,), -1.0, 1.0))
    value = found.log_odds(0).value(torch.tensor([[1.0], [-1.0]]))
    assert value.tolist() == pytest.approx([60.0 - math.log1p(math.exp(-60.0)), -120.0], rel=1e-6)
