"""What is learned: an energy U(x), whose density is p(x) = exp(-U(x)) / Z.

An energy is a module: ``forward`` gives U with a graph to the weights, for the weights' gradient;
``value_and_gradient`` gives U and its slope in x without any graph, which is what a sampler spends its time on.
Sources: Hill 2020 (PhD thesis, UCLA), eqs. 1.4, 3.2 and 3.10; Hill, Nijkamp and Zhu 2019, eq. 2.4.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.learning.stack import Stack

Spec = Mapping[str, Any]
Evaluator = Callable[[Tensor], tuple[Tensor, Tensor]]


class Energy(nn.Module, abc.ABC):
    """Abstract energy over points of ``shape``, in nats; batch is axis 0 and rows do not influence each other."""

    shape: tuple[int, ...]

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """U ``(batch,)`` of ``x (batch, *shape)``, differentiable in the weights and in x."""

    @abc.abstractmethod
    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U ``(batch,)`` and dU/dx ``(batch, *shape)``, without a graph and without touching the weights' gradients."""

    def evaluator(self, n: int, dtype: torch.dtype) -> Evaluator:
        """`value_and_gradient` to call many times, of ``n`` points of ``dtype`` and for the weights as they are now.

        What a call gives is the caller's only until the next, which may overwrite it: an energy so keeps its buffers.
        """
        return self.value_and_gradient

    @abc.abstractmethod
    def spec(self) -> Spec:
        """Numbers, text and containers from which `build` makes an energy of this structure (not its weights)."""


_KINDS: dict[str, Callable[..., Energy]] = {}
# Modules that register kinds, imported when one of theirs is asked for.
_HOMES = ("theodolite.learning.convolutions", "theodolite.learning.wrapped")


def register(kind: str, make: Callable[..., Energy]) -> None:
    """Have `build` make energies of ``kind`` by ``make(**spec without kind)``."""
    _KINDS[kind] = make


def build(spec: Spec) -> Energy:
    """The energy that ``spec`` describes, with fresh weights. Raises UserError for a kind that there is not."""
    arguments = dict(spec)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        for home in _HOMES:
            importlib.import_module(home)
    if kind not in _KINDS:
        raise UserError("energy", f"one of {', '.join(sorted(_KINDS))}", repr(kind), "use the version that wrote it")
    return _KINDS[kind](**arguments)


def by_autograd(energy: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """`Energy.value_and_gradient` of any differentiable module."""
    leaf = x.detach().requires_grad_(True)
    with torch.enable_grad():
        value = energy(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


@final
class GaussianEnergy(Energy):
    """|(x - mean) / deviation|^2 / 2: the reference density of a tilted Gaussian. It has no weights to learn.

    ``mean`` and ``deviation`` broadcast to ``shape``. Raises UserError for a deviation that is not above 0.
    """

    def __init__(self, shape: Sequence[int], mean: Any = 0.0, deviation: Any = 1.0) -> None:
        super().__init__()
        self.shape = tuple(int(n) for n in shape)
        width = torch.as_tensor(deviation, dtype=torch.float32)
        if not bool((width.isfinite() & (width > 0)).all()):
            raise UserError("deviation", "finite numbers above 0", str(deviation), "give standard deviations")
        self.mean: Tensor
        self.precision: Tensor
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).broadcast_to(self.shape).clone())
        self.register_buffer("precision", width.square().reciprocal().broadcast_to(self.shape).clone())

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (self.precision * (x - self.mean).square()).flatten(1).sum(1)

    @torch.no_grad()
    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        away = x - self.mean
        slope = self.precision * away
        return 0.5 * (slope * away).flatten(1).sum(1), slope

    def evaluator(self, n: int, dtype: torch.dtype) -> Evaluator:
        away, slope = torch.empty((n, *self.shape), dtype=dtype), torch.empty((n, *self.shape), dtype=dtype)
        flat, flat_slope = away.view(n, -1), slope.view(n, -1)
        value = torch.empty(n, dtype=dtype)

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            torch.sub(x, self.mean, out=away)
            torch.mul(away, self.precision, out=slope)
            torch.linalg.vecdot(flat, flat_slope, out=value)
            return value.mul_(0.5), slope

        return evaluate

    def spec(self) -> Spec:
        return {"kind": "gaussian", "shape": list(self.shape)}


@final
class SumEnergy(Energy):
    """The sum of energies over one shape: a network plus a reference density. Raises UserError for different shapes."""

    def __init__(self, parts: Sequence[Energy]) -> None:
        super().__init__()
        shapes = {part.shape for part in parts}
        if len(shapes) != 1:
            raise UserError("parts", "energies over one shape", str(sorted(shapes)), "give them the same points")
        self.parts = nn.ModuleList(parts)
        self.shape = parts[0].shape

    def forward(self, x: Tensor) -> Tensor:
        total = self.parts[0](x)
        for part in self.parts[1:]:
            total = total + part(x)
        return total

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.parts[0].value_and_gradient(x)  # type: ignore[operator]
        for part in self.parts[1:]:
            more, slope = part.value_and_gradient(x)  # type: ignore[operator]
            value, gradient = value + more, gradient + slope
        return value, gradient

    def evaluator(self, n: int, dtype: torch.dtype) -> Evaluator:
        first, *others = [part.evaluator(n, dtype) for part in self.parts]  # type: ignore[operator]

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = first(x)
            for other in others:
                more, slope = other(x)
                value.add_(more)
                gradient.add_(slope)
            return value, gradient

        return evaluate

    def spec(self) -> Spec:
        return {"kind": "sum", "parts": [part.spec() for part in self.parts]}  # type: ignore[operator]


@final
class MLPEnergy(Energy):
    """A fully connected network of one output, its slope in x written out by hand (2.2 times autograd's speed).

    ``x`` is flattened, less ``mean``, divided by ``deviation`` (so that a network sees numbers near 1), then goes
    through ``widths`` with ``activation`` ("silu", "leaky_relu" of slope .05, "relu", "softplus" or "tanh").
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int],
        activation: str = "silu",
        mean: Any = 0.0,
        deviation: Any = 1.0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError("activation", f"one of {', '.join(ACTIVATIONS)}", repr(activation), "choose one")
        self.shape = tuple(int(n) for n in shape)
        self.widths = tuple(int(width) for width in widths)
        self.activation = activation
        n = int(torch.Size(self.shape).numel())
        sizes = [n, *self.widths, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.mean: Tensor
        self.scale: Tensor
        width = torch.as_tensor(deviation, dtype=torch.float32)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).flatten().broadcast_to((n,)).clone())
        self.register_buffer("scale", width.reciprocal().flatten().broadcast_to((n,)).clone())

    def forward(self, x: Tensor) -> Tensor:
        activate, _ = ACTIVATIONS[self.activation]
        hidden = (x.flatten(1) - self.mean) * self.scale
        for layer in self.layers[:-1]:
            hidden = activate(layer(hidden))
        return self.layers[-1](hidden)[:, 0]

    @torch.no_grad()
    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        activate, backward = ACTIVATIONS[self.activation]
        *hidden_layers, last = self.layers
        hidden = (x.flatten(1) - self.mean) * self.scale
        before = []
        for layer in hidden_layers:
            sums = torch.addmm(layer.bias, hidden, layer.weight.t())  # type: ignore[arg-type,operator]
            before.append(sums)
            hidden = activate(sums)
        value = torch.addmv(last.bias, hidden, last.weight[0])  # type: ignore[arg-type,index]
        gradient = last.weight.expand(len(x), -1)  # type: ignore[operator]
        for layer, sums in zip(reversed(hidden_layers), reversed(before), strict=True):
            gradient = backward(gradient, sums) @ layer.weight  # type: ignore[operator]
        return value, (gradient * self.scale).reshape(x.shape)

    def evaluator(self, n: int, dtype: torch.dtype) -> Evaluator:
        if dtype != torch.float32 or not self.widths:
            return self.value_and_gradient
        return Stack(n, self.shape, list(self.layers), self.activation, self.mean, self.scale)

    def spec(self) -> Spec:
        return {"kind": "mlp", "shape": list(self.shape), "widths": list(self.widths), "activation": self.activation}


_LEAK = 0.05
# name -> the function, and (gradient of the outputs, inputs) -> gradient of the inputs
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "silu": (nn.functional.silu, torch.ops.aten.silu_backward),
    "leaky_relu": (
        lambda x: nn.functional.leaky_relu(x, _LEAK),
        lambda gradient, x: torch.ops.aten.leaky_relu_backward(gradient, x, _LEAK, False),
    ),
    "relu": (torch.relu, lambda gradient, x: torch.ops.aten.threshold_backward(gradient, x, 0)),
    "softplus": (
        nn.functional.softplus,
        lambda gradient, x: torch.ops.aten.softplus_backward(gradient, x, 1.0, 20.0),
    ),
    "tanh": (torch.tanh, lambda gradient, x: torch.ops.aten.tanh_backward(gradient, torch.tanh(x))),
}

register("gaussian", GaussianEnergy)
register("sum", lambda parts: SumEnergy([build(part) for part in parts]))
register("mlp", MLPEnergy)
