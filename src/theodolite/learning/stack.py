"""A feed-forward network of one output and its slope in x, evaluated again and again in buffers of its own.

Convolutions of few channels are products of gathered patches with one matrix (Chellapilla, Puri and Simard 2006, "High
performance convolutional neural networks for document processing"); wide ones are left to torch. Measured in
benchmarks/langevin_torchebm.py.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from theodolite.learning import network_kernels as kernels

_WIDE = 32  # channels from which torch's own convolutions are as fast as products of patches
_PATCH_NUMBERS = 1 << 20  # gathered at once: they should stay in the cache


class _Layer(abc.ABC):
    """One hidden layer of a stack: ``sums (n, rows, columns, units)`` from the images in ``inputs``, which have
    ``padding`` zeros around them, and back: the slope in its inputs, in their place, from that in ``sums``."""

    inputs: Tensor
    sums: Tensor
    bias: Tensor
    padding: int

    @abc.abstractmethod
    def forward(self) -> None: ...

    @abc.abstractmethod
    def backward(self) -> None: ...

    def take(self, x: Tensor) -> None:
        """Forward from x ``(n, channels, rows, columns)`` instead of the inputs."""
        kernels.pad_images(x.numpy(), self.inputs.numpy(), self.padding)
        self.forward()

    def give(self, slope: Tensor) -> None:
        """Backward to ``slope (n, channels, rows, columns)``."""
        self.backward()
        kernels.unpad_images(self.inputs.numpy(), self.padding, slope.numpy())


@final
class _Dense(_Layer):
    """Every unit sees all of an image, whose layout the ``weight (units, numbers of an image)`` follows."""

    padding = 0

    def __init__(self, n: int, image: Sequence[int], weight: Tensor, bias: Tensor) -> None:
        channels, rows, columns = image
        self.weight, self.bias = weight, bias
        self.transposed = weight.t().contiguous()  # with 64 rows a product is a fifth faster so
        self.inputs = torch.empty(n, rows, columns, channels)
        self.flat = self.inputs.view(n, -1)
        self.sums = torch.empty(n, 1, 1, len(weight))
        self.flat_sums = self.sums.view(n, -1)

    def forward(self) -> None:
        torch.mm(self.flat, self.transposed, out=self.flat_sums)

    def backward(self) -> None:
        torch.mm(self.flat_sums, self.weight, out=self.flat)

    def take(self, x: Tensor) -> None:
        torch.mm(x.flatten(1), self.transposed, out=self.flat_sums)

    def give(self, slope: Tensor) -> None:
        torch.mm(self.flat_sums, self.weight, out=slope.view(len(slope), -1))


@final
class _Patches(_Layer):
    """A convolution as products of patches."""

    def __init__(self, n: int, image: Sequence[int], layer: nn.Conv2d) -> None:
        channels, *sides = image
        units, _, side, _ = layer.weight.shape
        stride, self.padding = layer.stride[0], int(layer.padding[0])
        self.weight = layer.weight.detach().permute(0, 2, 3, 1).reshape(units, -1)
        self.transposed = self.weight.t().contiguous()
        self.bias = layer.bias.detach()  # type: ignore[union-attr]
        rows, columns = (size + 2 * self.padding for size in sides)
        self.inputs = torch.empty(n, rows, columns, channels)
        self.sums = torch.empty(n, (rows - side) // stride + 1, (columns - side) // stride + 1, units)
        self.places = kernels.patch_places((rows, columns, channels), side, stride)
        count, size = self.places.shape
        at_once = min(n, max(1, _PATCH_NUMBERS // self.places.size))
        patches = torch.empty(at_once * count, size)
        self.chunks = []
        for begin in range(0, n, at_once):
            end = min(begin + at_once, n)
            part = patches[: (end - begin) * count]
            sums = self.sums[begin:end].view(-1, units)
            self.chunks.append((self.inputs[begin:end].numpy(), part, part.numpy(), sums))

    def forward(self) -> None:
        for inputs, patches, array, sums in self.chunks:
            kernels.gather_patches(inputs, self.places, array)
            torch.mm(patches, self.transposed, out=sums)

    def backward(self) -> None:
        for inputs, patches, array, sums in self.chunks:
            torch.mm(sums, self.weight, out=patches)
            kernels.scatter_patches(array, self.places, inputs)


@final
class _Convolution(_Layer):
    """A convolution by torch, of images with channels last."""

    padding = 0

    def __init__(self, n: int, image: Sequence[int], layer: nn.Conv2d) -> None:
        channels, rows, columns = image
        self.weight = layer.weight.detach().to(memory_format=torch.channels_last)
        self.bias = layer.bias.detach()  # type: ignore[union-attr]
        self.how = (list(layer.stride), [int(number) for number in layer.padding], [1, 1])
        self.inputs = torch.empty(n, rows, columns, channels)
        self.seen = self.inputs.permute(0, 3, 1, 2)
        made = torch.conv2d(self.seen[:1], self.weight, None, *self.how).shape[2:]
        self.sums = torch.empty(n, *made, len(self.weight))

    def forward(self) -> None:
        found = torch.conv2d(self.seen, self.weight, None, *self.how)
        self.sums.copy_(found.permute(0, 2, 3, 1))

    def backward(self) -> None:
        slope, _, _ = torch.ops.aten.convolution_backward(
            self.sums.permute(0, 3, 1, 2), self.seen, self.weight, None, *self.how, False, [0, 0], 1,
            [True, False, False],
        )  # fmt: skip
        self.seen.copy_(slope)


@final
class Stack:
    """U and dU/dx of ``n`` points for the weights as they are now; what a call gives, the next call overwrites.

    ``layers``: `nn.Conv2d`, then `nn.Linear` layers, the last of one output, with ``activation`` between them; points
    are ``shape``: (channels, rows, columns), or anything where there are no convolutions. Of x, less ``mean``, over
    1 / ``scale`` (both flat; without convolutions only). In single precision, on a processor.
    """

    def __init__(
        self,
        n: int,
        shape: Sequence[int],
        layers: Sequence[nn.Module],
        activation: str,
        mean: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> None:
        *hidden, last = layers
        image = tuple(shape) if isinstance(layers[0], nn.Conv2d) else (int(torch.Size(shape).numel()), 1, 1)
        self.image = (n, *image)
        self.layers: list[_Layer] = []
        for layer in hidden:
            if isinstance(layer, nn.Conv2d):
                made = (_Convolution if image[0] >= _WIDE else _Patches)(n, image, layer)
            else:
                weight, bias = _weights(layer, image)
                if not self.layers and mean is not None and scale is not None:
                    weight, bias = weight * scale, bias - weight @ (mean * scale)
                made = _Dense(n, image, weight, bias)
            self.layers.append(made)
            image = (made.sums.shape[3], *made.sums.shape[1:3])
        weight, self.bias = _weights(last, image)
        self.weight = weight[0]
        self.seed = weight.view(1, *self.layers[-1].sums.shape[1:])
        features = torch.empty(self.layers[-1].sums.shape)
        self.features = features.view(n, -1)
        self.value, self.gradient = torch.empty(n), torch.empty(self.image)
        self.found = self.value, self.gradient.view(n, *shape)
        self.activate = kernels.ACTIVATE[activation]
        after = [(layer.inputs.numpy(), layer.padding) for layer in self.layers[1:]] + [(features.numpy(), 0)]
        arrays = [(layer.sums.numpy(), layer.bias.numpy()) for layer in self.layers]
        self.steps = [(*own, *following) for own, following in zip(arrays, after, strict=True)]

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, *shape)`` to ``(n,)`` and ``(n, *shape)``."""
        first = self.layers[0]
        first.take(x.reshape(self.image))
        self.activate(*self.steps[0])
        for layer, arrays in zip(self.layers[1:], self.steps[1:], strict=True):
            layer.forward()
            self.activate(*arrays)
        torch.addmv(self.bias, self.features, self.weight, out=self.value)
        self.layers[-1].sums.mul_(self.seed)
        for layer, (sums, _, inputs, padding) in zip(self.layers[:0:-1], self.steps[-2::-1], strict=True):
            layer.backward()
            kernels.multiply_inside(sums, inputs, padding)
        first.give(self.gradient)
        return self.found


def _weights(layer: nn.Module, image: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Weights ``(units, numbers)`` in the order of images with channels last, and biases, of a linear layer."""
    weight, bias = layer.weight.detach(), layer.bias.detach()  # type: ignore[union-attr,operator]
    return weight.reshape(len(weight), *image).permute(0, 2, 3, 1).reshape(len(weight), -1), bias  # type: ignore
