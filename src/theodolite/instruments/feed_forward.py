"""A feed-forward network of tunable activations as the flip-point paper writes it: matrices, biases and tunings.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", equations 7 to 9
(erf), 17 (PReLU), 11 to 15 (Jacobian and Lipschitz bound). Outputs are logits: the softmax of equation 10 keeps their
order and ties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from theodolite.errors import UserError
from theodolite.instruments.bounds.layer_graph import layer_graph
from theodolite.instruments.bounds.layer_nodes import Activation, Affine
from theodolite.instruments.softening import within
from theodolite.network import Network

Kind = Literal["erf", "prelu"]
STEEPEST = 2 / math.sqrt(math.pi)  # slope of erf at 0
_LARGEST = 2**25  # entries of a matrix that is still kept whole


@final
@dataclass(frozen=True)
class FeedForward:
    """y = erf((y W + b) / sigma), or PReLU(y W + b, alpha), layer after layer; the last one is linear.

    ``weight[k] (n_k, n_(k-1))`` and ``bias[k] (n_k,)`` of every layer, ``tuning[k] (n_k,)``: sigma or alpha of every
    neuron of the hidden layers; all float64.
    """

    kind: Kind
    weight: tuple[Tensor, ...]
    bias: tuple[Tensor, ...]
    tuning: tuple[Tensor, ...]

    @property
    def n_outputs(self) -> int:
        return len(self.bias[-1])

    def value(self, x: Tensor) -> Tensor:
        """Logits ``(batch, K)`` of points ``(batch, n)``; differentiable."""
        y = x
        for weight, bias, tuning in zip(self.weight, self.bias, self.tuning, strict=False):
            y = self.activation(y @ weight.T + bias, tuning)
        return y @ self.weight[-1].T + self.bias[-1]

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(K,)`` and their Jacobian ``(K, n)`` at one point ``(n,)``; equations 11 and 12."""
        y, slopes = x, []
        for weight, bias, tuning in zip(self.weight, self.bias, self.tuning, strict=False):
            c = weight @ y + bias
            slopes.append(self.slope(c, tuning))
            y = self.activation(c, tuning)
        jacobian = self.weight[-1]
        for weight, slope in zip(reversed(self.weight[:-1]), reversed(slopes), strict=True):
            jacobian = (jacobian * slope) @ weight
        return self.weight[-1] @ y + self.bias[-1], jacobian

    def activation(self, c: Tensor, tuning: Tensor) -> Tensor:
        """Equation 7 or 17, elementwise."""
        return torch.erf(c / tuning) if self.kind == "erf" else torch.where(c < 0, tuning * c, c)

    def slope(self, c: Tensor, tuning: Tensor) -> Tensor:
        """Derivative of `activation` in c."""
        if self.kind == "erf":
            return STEEPEST / tuning * torch.exp(-((c / tuning) ** 2))
        return torch.where(c < 0, tuning, torch.ones_like(c))

    def log_lipschitz(self) -> float:
        """ln of an upper bound on the Lipschitz constant in the maximum norm: equation 15, with the widths of single
        neurons kept with their rows."""
        total = math.log(_row_sum(self.weight[-1]))
        for weight, tuning in zip(self.weight, self.tuning, strict=False):
            steepest = STEEPEST / tuning if self.kind == "erf" else tuning.abs().clamp(min=1.0)
            total += math.log(_row_sum(weight * steepest[:, None]))
        return total

    def towards(self, other: FeedForward, share: float) -> FeedForward:
        """Tunings and last bias moved by ``share`` of the way to those of ``other``; exactly its own at 1."""
        if share >= 1:
            return other
        tuning = tuple(a + share * (b - a) for a, b in zip(self.tuning, other.tuning, strict=True))
        last = self.bias[-1] + share * (other.bias[-1] - self.bias[-1])
        return replace(self, tuning=tuning, bias=(*self.bias[:-1], last))


def feed_forward(network: Network) -> FeedForward:
    """The matrices of ``network``, its embedding included; whatever is affine between two activations is one layer.

    A network of one output z has the two classes (0, z). Raises UserError for one that is not a chain of affine layers
    and error functions, or of affine layers and ReLU, LeakyReLU or PReLU, or has a layer too large for a matrix;
    MissingCapability for operations that cannot be traced.
    """
    graph = layer_graph(network)
    if any(node.inputs != (k,) for k, node in enumerate(graph.nodes)):
        raise _refusal("branches", "a chain of layers")
    kinds: set[Kind] = {_kind(node) for node in graph.nodes if isinstance(node, Activation)}
    if len(kinds) != 1:
        raise _refusal(" and ".join(sorted(kinds)) or "no activations", "activations of one kind")
    kind = kinds.pop()
    widths = _widths(network) if kind == "erf" else []
    weights, biases, tunings = [], [], []
    nodes: list[Affine] = []
    shape = graph.shape
    for node in graph.nodes:
        if isinstance(node, Affine):
            nodes.append(node)
            continue
        weight, bias = _matrix(nodes, shape)
        if kind == "erf":
            # The graph holds W / sigma: the paper bounds sigma in the units of W.
            width = widths[len(tunings)]
            weight, bias = weight * width, bias * width
            tunings.append(torch.full_like(bias, width))
        else:
            tunings.append(node.slope.double().reshape(-1).expand(len(bias)).clone())
        weights.append(weight)
        biases.append(bias)
        nodes, shape = [], node.shape
    weight, bias = _matrix(nodes, shape)
    return FeedForward(kind, (*weights, weight), (*biases, bias), tuple(tunings))


def _kind(node: Activation) -> Kind:
    if node.kind == "erf":
        return "erf"
    if node.kind == "piecewise":
        return "prelu"
    raise _refusal(node.kind, "error functions, ReLU, LeakyReLU or PReLU")


class _Divisions(TorchFunctionMode):
    """Notes by what number the argument of each error function was divided just before."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[float] = []
        self._last: tuple[object, float] = (None, 1.0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").partition(".")[0].strip("_")
        if name == "erf":
            self.widths.append(self._last[1] if args and args[0] is self._last[0] else 1.0)
        result = func(*args, **(kwargs or {}))
        if name in ("truediv", "div") and len(args) == 2:
            divisor = torch.as_tensor(args[1])
            if divisor.numel() == 1 and float(divisor) > 0:
                self._last = (result, float(divisor))
        return result


def _widths(network: Network) -> list[float]:
    divisions = _Divisions()
    point = network.space.draw(1, torch.Generator().manual_seed(0)).flatten(1).double()
    network.all_outputs(torch.float64).changed(lambda function: within(divisions, function)).value(point)
    return divisions.widths


def _matrix(nodes: list[Affine], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    n_in = math.prod(shape)
    n_out = nodes[-1].size if nodes else n_in
    if n_in * n_out > _LARGEST:
        raise _refusal(f"a layer of {n_in} x {n_out}", f"layers of up to {_LARGEST} weights as matrices")
    basis = torch.cat([torch.zeros(1, n_in, dtype=torch.float64), torch.eye(n_in, dtype=torch.float64)])
    value = basis.reshape(-1, *shape)
    for node in nodes:
        value = node.apply([value])
    value = value.reshape(n_in + 1, -1)
    return (value[1:] - value[0]).T.contiguous(), value[0].clone()


def _row_sum(matrix: Tensor) -> float:
    return float(matrix.abs().sum(1).max())


def _refusal(got: str, expected: str) -> UserError:
    return UserError("network", expected, got, "instruments.homotopy works for any activation")
