"""Convolutional energies: the papers' networks as data, and the non-local layer.

Sources: Hill, Nijkamp and Zhu 2019, appendix A (table of networks); Hill 2020 (PhD thesis, UCLA), section 3.1.3;
Wang, Girshick, Gupta and He 2018, "Non-local Neural Networks", eqs. 1 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.learning.energy import ACTIVATIONS, Energy, Evaluator, Spec, by_autograd, register
from theodolite.learning.stack import Stack

FULLY = "fully"
NONLOCAL = "nonlocal"
Layer = tuple[int, int, int] | tuple[int, str] | tuple[str]

# (channels, kernel, stride), (units, "fully") or ("nonlocal",); padding is half the kernel, rounded down; what every
# network ends with, one number from all that is left, is not written
HILL_16: tuple[Layer, ...] = ((50, 5, 2), (100, FULLY))
HILL_32: tuple[Layer, ...] = ((100, 5, 2), (200, 5, 2))


DEEPFRAME: tuple[Layer, ...] = ((32, 3, 1), (64, 4, 2), (128, 4, 2), (256, 4, 2))


def by_name(kind: str, shape: Sequence[int], widths: Sequence[int] | None, activation: str) -> ConvEnergy:
    """The network ``kind`` over images ``(channels, rows, columns)``: "conv" (Hill et al. 2019; their larger one above
    16 pixels), "deepframe" (thesis, 3.1.3), or "nonlocal" (the same with a non-local layer after its second
    convolution).

    ``widths``: channels or units of every layer but the last; None: as published. Raises UserError for another kind,
    another number of widths or points that are no images.
    """
    if kind not in ("conv", "deepframe", "nonlocal"):
        raise UserError("energy", "conv, deepframe or nonlocal", repr(kind), "choose one")
    layers = DEEPFRAME if kind != "conv" else HILL_16 if max(shape[-2:]) <= 16 else HILL_32
    if widths is not None:
        if len(widths) != len(layers):
            raise UserError("widths", f"{len(layers)} numbers for this network", str(tuple(widths)), "give as many")
        layers = tuple((int(width), *layer[1:]) for width, layer in zip(widths, layers, strict=True))
    if kind == "nonlocal":
        layers = (*layers[:2], (NONLOCAL,), *layers[2:])
    return ConvEnergy(shape, layers, activation)


@final
class ConvEnergy(Energy):
    """A convolutional network of one output over images ``shape`` (channels, rows, columns).

    ``layers``: (channels, kernel, stride), (units, "fully") or ("nonlocal",), each but the last kind followed by
    ``activation``; then one linear output. Raises UserError for layers that do not fit the image or each other.
    """

    def __init__(self, shape: Sequence[int], layers: Sequence[Sequence[Any]], activation: str = "relu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError("activation", f"one of {', '.join(ACTIVATIONS)}", repr(activation), "choose one")
        self.shape = tuple(int(n) for n in shape)
        if len(self.shape) != 3:
            raise UserError("shape", "(channels, rows, columns)", str(self.shape), 'use energy="mlp" for other points')
        self.activation = activation
        self.description = tuple(tuple(layer) for layer in layers)
        self.layers = nn.ModuleList()
        inside: tuple[int, ...] = self.shape
        for layer in self.description:
            module, inside = _module(layer, inside)
            self.layers.append(module)
        self.layers.append(nn.Linear(_size(inside), 1))

    def forward(self, x: Tensor) -> Tensor:
        activate, _ = ACTIVATIONS[self.activation]
        *inner, last = self.layers
        hidden = x
        for layer in inner:
            if isinstance(layer, NonLocal):
                hidden = layer(hidden)
            else:
                hidden = activate(layer(hidden.flatten(1) if isinstance(layer, nn.Linear) else hidden))
        return last(hidden.flatten(1))[:, 0]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return by_autograd(self, x)

    def evaluator(self, n: int, dtype: torch.dtype) -> Evaluator:
        if dtype != torch.float32 or len(self.layers) == 1 or any(isinstance(part, NonLocal) for part in self.layers):
            return self.value_and_gradient
        return Stack(n, self.shape, list(self.layers), self.activation)

    def spec(self) -> Spec:
        layers = [list(layer) for layer in self.description]
        return {"kind": "conv", "shape": list(self.shape), "layers": layers, "activation": self.activation}


@final
class NonLocal(nn.Module):
    """x + W sum_j softmax_j(theta(x_i) . phi(x_j)) g(x_j): every place sees every other (Wang et al. 2018, eqs. 1, 6).

    The embedded Gaussian form with half the channels; W begins at 0, so that the layer begins as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = max(channels // 2, 1)
        self.embed = nn.Conv2d(channels, 3 * self.inner, 1)
        self.back = nn.Conv2d(self.inner, channels, 1)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, rows, columns)`` to the same shape."""
        theta, phi, g = self.embed(x).flatten(2).transpose(1, 2).split(self.inner, dim=2)
        attention = torch.softmax(theta @ phi.transpose(1, 2), dim=2)
        summed = (attention @ g).transpose(1, 2).reshape(len(x), self.inner, *x.shape[2:])
        return x + self.back(summed)


def _module(layer: Sequence[Any], inside: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """The layer for an input of shape ``inside``, and the shape of its output."""
    if any(isinstance(number, int) and number < 1 for number in layer):
        raise UserError("layers", "numbers of 1 or more", str(tuple(layer)), "give positive sizes")
    if len(layer) == 2 and layer[1] == FULLY:
        return nn.Linear(_size(inside), int(layer[0])), (int(layer[0]),)
    if len(inside) != 3:
        raise UserError("layers", "convolutions before fully connected layers", str(tuple(layer)), "change their order")
    channels, *sides = inside
    if len(layer) == 1 and layer[0] == NONLOCAL:
        return NonLocal(channels), inside
    if len(layer) != 3:
        expected = '(channels, kernel, stride), (units, "fully") or ("nonlocal",)'
        raise UserError("layers", expected, str(tuple(layer)), "write each layer so")
    made, kernel, stride = (int(number) for number in layer)
    padding = kernel // 2
    sides = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
    return nn.Conv2d(channels, made, kernel, stride, padding), (made, *sides)


def _size(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


register("conv", ConvEnergy)
