"""Between images and the coordinates an energy is learned in: the pixels themselves, or principal components.

A density over all pixels needs noise in every one of them, and noise of deviation s lies on a shell of radius
s sqrt(D) that leaves the images' own neighbourhood untrained; few coordinates keep the shell small (docs/learning.md).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError


class Frame(nn.Module, abc.ABC):
    """Abstract: ``image_shape`` of images, ``shape`` of coordinates."""

    image_shape: tuple[int, ...]
    shape: tuple[int, ...]

    @abc.abstractmethod
    def coordinates(self, images: Tensor) -> Tensor:
        """``(n, *image_shape)`` -> ``(n, *shape)``."""

    @abc.abstractmethod
    def images(self, coordinates: Tensor) -> Tensor:
        """``(n, *shape)`` -> ``(n, *image_shape)``."""

    @abc.abstractmethod
    def spec(self) -> dict[str, object]:
        """From which `build_frame` makes a frame of this structure."""


@final
class PixelFrame(Frame):
    """The images themselves."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = self.image_shape = tuple(int(n) for n in shape)

    def coordinates(self, images: Tensor) -> Tensor:
        return images

    def images(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def spec(self) -> dict[str, object]:
        return {"kind": "pixels", "shape": list(self.shape)}


@final
class PrincipalFrame(Frame):
    """Coordinates along the leading principal components, in the images' own units: distances are those of images.

    ``explained``: the share of the images' variance that the components carry.
    """

    def __init__(self, image_shape: Sequence[int], n_components: int) -> None:
        super().__init__()
        self.image_shape = tuple(int(n) for n in image_shape)
        n = int(torch.Size(self.image_shape).numel())
        if not 1 <= n_components <= n:
            raise UserError("components", f"1 to {n}, the pixels of an image", str(n_components), "give fewer")
        self.shape = (int(n_components),)
        self.mean: Tensor
        self.basis: Tensor
        self.explained: Tensor
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("basis", torch.zeros(n, n_components))
        self.register_buffer("explained", torch.zeros(()))

    @classmethod
    def of(cls, images: Tensor, n_components: int) -> PrincipalFrame:
        """Of ``images (n, *shape)``. Raises UserError where there are fewer images than components."""
        frame = cls(images.shape[1:], n_components)
        if len(images) <= n_components:
            raise UserError("components", f"fewer than the {len(images)} images", str(n_components), "give fewer")
        flat = images.flatten(1).double()
        mean = flat.mean(0)
        _, values, directions = torch.linalg.svd(flat - mean, full_matrices=False)
        variance = values.square()
        frame.mean.copy_(mean)
        frame.basis.copy_(directions[:n_components].T)
        frame.explained.copy_(variance[:n_components].sum() / variance.sum())
        return frame

    def coordinates(self, images: Tensor) -> Tensor:
        return (images.flatten(1).to(self.mean.dtype) - self.mean) @ self.basis

    def images(self, coordinates: Tensor) -> Tensor:
        return (coordinates @ self.basis.T + self.mean).reshape(-1, *self.image_shape)

    def spec(self) -> dict[str, object]:
        return {"kind": "principal", "image_shape": list(self.image_shape), "n_components": self.shape[0]}


_KINDS: dict[str, Callable[..., Frame]] = {"pixels": PixelFrame, "principal": PrincipalFrame}


def register_frame(kind: str, make: Callable[..., Frame]) -> None:
    """Have `build_frame` make frames of ``kind`` by ``make(**spec without kind)``."""
    _KINDS[kind] = make


def build_frame(spec: Mapping[str, object]) -> Frame:
    """The frame that ``spec`` describes. Raises UserError for a kind that there is not."""
    arguments = dict(spec)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise UserError("frame", f"one of {', '.join(_KINDS)}", repr(kind), "use the version that wrote it")
    return _KINDS[str(kind)](**arguments)
