"""A ReLU network as matrices: what exact answers on small networks are computed from.

Everything between two ReLUs is affine and becomes one matrix and one vector, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.bounds.layer_graph import layer_graph
from theodolite.instruments.bounds.layer_nodes import Activation, Affine
from theodolite.instruments.bounds.operator_norms import matrix_of
from theodolite.network import Network
from theodolite.search.flips import FLIP_TOLERANCE

_NUDGES = (1.0, 1 + 1e-12, 1 + 1e-10, 1 + 1e-8, 1 + 1e-6, 1 + 1e-4, 1.01, 1.1, 1.5)
_BISECTIONS = 60
_SURE = 2.0**-46  # of the sums of absolute values that outputs are made of
_LARGEST = 2**24  # entries of a matrix that is still called small


@final
@dataclass(frozen=True)
class DenseLayers:
    """z = W_L relu(... relu(W_1 x + b_1) ...) + b_L with ``weight[t] (n_t, n_(t-1))`` and ``bias[t] (n_t,)``, float64.

    ``x (batch, n)`` are flat points in input units; ``low`` and ``high`` ``(n,)`` bound the hull of the space (infinite
    where it has no edge).
    """

    weight: tuple[Tensor, ...]
    bias: tuple[Tensor, ...]
    low: Tensor
    high: Tensor

    @property
    def n_classes(self) -> int:
        return len(self.bias[-1])

    @property
    def n_hidden(self) -> int:
        """ReLUs in all."""
        return sum(len(bias) for bias in self.bias[:-1])

    def hidden(self, x: Tensor) -> list[Tensor]:
        """Numbers ``(batch, n_t)`` before each layer of ReLUs."""
        before = [x @ self.weight[0].T + self.bias[0]]
        for weight, bias in zip(self.weight[1:-1], self.bias[1:-1], strict=True):
            before.append(before[-1].relu() @ weight.T + bias)
        return before if len(self.weight) > 1 else []

    def value(self, x: Tensor) -> Tensor:
        """Outputs ``(batch, n_classes)``; a network of one output has the two classes (0, z)."""
        before = self.hidden(x)
        return (before[-1].relu() if before else x) @ self.weight[-1].T + self.bias[-1]

    def magnitude(self, x: Tensor) -> Tensor:
        """``(batch, n_classes)``: the sums of absolute values that outputs are made of."""
        found, activation = x, x
        for weight, bias in zip(self.weight, self.bias, strict=True):
            found, activation = activation.abs() @ weight.abs().T + bias.abs(), (activation @ weight.T + bias).relu()
        return found

    def gradient(self, x: Tensor, direction: Tensor) -> Tensor:
        """``(batch, n)``: gradients of direction . z for ``direction (batch, n_classes)``."""
        back = direction @ self.weight[-1]
        for before, weight in zip(reversed(self.hidden(x)), reversed(self.weight[:-1]), strict=True):
            back = (back * (before > 0)) @ weight
        return back

    def rounding(self) -> float:
        """Relative size of what rounding may add to an output: an affine layer of k terms is off by less than k u times
        the sum of their absolute values (u = 2^-53), layer after layer; doubled for the order of the sums."""
        return 4 * 2.0**-53 * (sum(weight.shape[1] for weight in self.weight) + 8 * len(self.weight))


@final
@dataclass(frozen=True)
class Rays:
    """From one input ``x0 (n,)`` of class ``own`` to where one of ``targets`` is no longer below it, within the box
    ``low``, ``high`` ``(n,)``."""

    layers: DenseLayers
    x0: Tensor
    own: int
    targets: tuple[int, ...]
    low: Tensor
    high: Tensor

    def margins(self, x: Tensor) -> Tensor:
        """``(batch, target)``: own output minus that of each target."""
        output = self.layers.value(x)
        return output[:, self.own, None] - output[:, self.targets]

    def far_side(self, x: Tensor, nearer: float) -> Tensor:
        """Flip points ``(at most batch, n)`` on the rays through points ``(batch, n)`` near or behind the boundary.

        Each ray is followed to the far side, a little further every time, then bisected back to as far over as makes
        the sign certain, however the outputs are summed. Rays that lead only past the L2 distance ``nearer`` are left
        out.
        """
        over = min(_SURE * float(self.layers.magnitude(self.x0[None]).max()), 0.5 * FLIP_TOLERANCE)
        change = x - self.x0
        before = torch.zeros(len(x), dtype=torch.float64)
        after = torch.full((len(x),), torch.inf, dtype=torch.float64)
        for nudge in _NUDGES:
            there = self.margins(self._along(change, torch.full_like(before, nudge))).amin(1) <= -over
            after = torch.where(there & after.isinf(), nudge, after)
            before = torch.where(after.isinf(), nudge, before)
        hopeful = (after.isfinite() & (before * change.norm(dim=1) < nearer)).nonzero()[:, 0]
        change, before, after = change[hopeful], before[hopeful], after[hopeful]
        for _ in range(_BISECTIONS if len(hopeful) else 0):
            middle = 0.5 * (before + after)
            there = self.margins(self._along(change, middle)).amin(1) <= -over
            before, after = torch.where(there, before, middle), torch.where(there, middle, after)
        point = self._along(change, after)
        return point[(point != self.x0).any(1)]

    def _along(self, change: Tensor, factor: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(self.x0 + factor[:, None] * change, self.low), self.high)


def dense_layers(network: Network) -> DenseLayers:
    """The matrices of a network of affine layers (convolutions, pools of averages, normalisation) and ReLUs in a row.

    Raises:
        UserError: another activation, a residual connection or a maximum pool, a layer too large to be a matrix.
        UnsupportedLayer: an operation that no graph is known for.
    """
    graph = layer_graph(network)
    low, high = network.space.bounds()
    n = network.space.n_coordinates
    weights, biases = [], []
    weight, bias = torch.eye(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for index, node in enumerate(graph.nodes, 1):
        if node.inputs != (index - 1,):
            raise _refused(node.name, "a residual connection or a maximum pool")
        if isinstance(node, Activation):
            if node.kind != "piecewise" or bool(node.slope.any()):
                raise _refused(node.name, node.kind)
            weights.append(weight)
            biases.append(bias)
            weight, bias = torch.eye(node.size, dtype=torch.float64), torch.zeros(node.size, dtype=torch.float64)
            continue
        if node.size * weight.shape[1] > _LARGEST:
            raise _refused(node.name, f"{node.size} x {weight.shape[1]} numbers")
        bias = node.apply([bias.reshape(1, *node.input_shapes[0])]).reshape(-1)
        weight = _times(node, weight)
    return DenseLayers(
        (*weights, weight),
        (*biases, bias),
        torch.full((n,), low, dtype=torch.float64),
        torch.full((n,), high, dtype=torch.float64),
    )


def _times(node: Affine, weight: Tensor) -> Tensor:
    identity = weight.shape[0] == weight.shape[1] and torch.equal(weight, torch.eye(len(weight), dtype=weight.dtype))
    matrix = matrix_of(node)
    return matrix if identity else matrix @ weight


def _refused(name: str, got: str) -> UserError:
    return UserError(
        "network",
        "affine layers and ReLUs in a row, small",
        f"{name}: {got}",
        "use the certificates instead",
    )
