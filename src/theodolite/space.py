"""Where inputs live, and how many there are.

A space draws from its reference measure, tells membership and knows its ``log_volume`` (natural logarithm of
the number of points, or of the Lebesgue volume). It never holds an algorithm.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError


class Space(abc.ABC):
    """Abstract space of inputs; batch is axis 0, one point has ``shape``."""

    shape: tuple[int, ...]

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates of one point."""
        return math.prod(self.shape)

    @property
    @abc.abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the tensors that hold points."""

    @property
    @abc.abstractmethod
    def log_volume(self) -> float:
        """ln of the number of points, or of the volume; 0 where the reference measure is a probability."""

    @abc.abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``(n, *shape)`` points from the reference measure."""

    @abc.abstractmethod
    def spec(self) -> str:
        """The text that ``parse_space`` turns back into this space."""

    @abc.abstractmethod
    def describe(self) -> str:
        """The space in words and numbers."""

    @abc.abstractmethod
    def _inside(self, x: Tensor) -> Tensor:
        """Membership of every coordinate, same shape as ``x``."""

    def contains(self, x: Tensor) -> Tensor:
        """Membership of every row of ``x``: ``(batch,)`` bool. A wrong point shape raises UserError."""
        if not isinstance(x, Tensor):
            raise UserError("x", "a torch tensor", type(x).__name__, "convert it with torch.as_tensor")
        if x.ndim == 0 or tuple(x.shape[1:]) != self.shape:
            raise UserError(
                "x",
                f"a batch of points of shape {self.shape}",
                f"shape {tuple(x.shape)}",
                "put the batch on axis 0 and reshape each point",
            )
        return self._inside(x).flatten(1).all(1)

    @abc.abstractmethod
    def bounds(self) -> tuple[float, float]:
        """Least and largest value of a coordinate in the continuous hull; infinite where it has no edge."""

    def log_reference(self, x: Tensor) -> Tensor:
        """ln of the reference density up to a constant, ``(batch,)`` float64: 0 where it is uniform."""
        return torch.zeros(len(x), dtype=torch.float64)

    def __repr__(self) -> str:
        return f"<{self.spec()}>"


class DiscreteSpace(Space):
    """A space whose coordinates take ``levels`` values each."""

    levels: int

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64

    @property
    def log_volume(self) -> float:
        return self.n_coordinates * math.log(self.levels)

    def to_levels(self, x: Tensor) -> Tensor:
        """Points ``(batch, *shape)`` of any integer type -> levels 0..levels-1 ``(batch, n_coordinates)`` int64."""
        return x.flatten(1).long()

    def from_levels(self, level: Tensor) -> Tensor:
        """Levels ``(batch, n_coordinates)`` -> points ``(batch, *shape)``."""
        return level.reshape(len(level), *self.shape)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        level = torch.randint(0, self.levels, (n, self.n_coordinates), generator=generator)
        return self.from_levels(level)


@final
@dataclass(frozen=True, repr=False)
class Grid(DiscreteSpace):
    """Integers 0..levels-1 at every position of ``shape``: the pixel spaces of Liu et al. 2023.

    Raises UserError for an empty shape or fewer than 2 levels.
    """

    shape: tuple[int, ...]
    levels: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        if not _is_whole(self.levels) or self.levels < 2:
            raise UserError(
                "levels", "a whole number of at least 2 values a coordinate", repr(self.levels), "8-bit pixels have 256"
            )

    def _inside(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            return (x == x.round()) & (x >= 0) & (x < self.levels)
        level = x.long()  # in bytes the limit 256 would be 0
        return (level >= 0) & (level < self.levels)

    def spec(self) -> str:
        return f"grid:{'x'.join(map(str, self.shape))}:{self.levels}"

    def bounds(self) -> tuple[float, float]:
        return 0.0, float(self.levels - 1)

    def describe(self) -> str:
        size = " x ".join(str(s) for s in self.shape if s != 1) or "1"
        return f"{size} pixels of {self.levels} levels: e^{self.log_volume:.0f} inputs"


@final
@dataclass(frozen=True, repr=False)
class Spins(DiscreteSpace):
    """``n`` spins of -1 or +1. Raises UserError for n < 1."""

    n: int

    def __post_init__(self) -> None:
        if not _is_whole(self.n) or self.n < 1:
            raise UserError("n", "at least one spin", repr(self.n), "give the number of spins")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.n,)

    @property
    def levels(self) -> int:  # type: ignore[override]
        return 2

    def to_levels(self, x: Tensor) -> Tensor:
        return (x.flatten(1).long() + 1) // 2

    def from_levels(self, level: Tensor) -> Tensor:
        return 2 * level - 1

    def _inside(self, x: Tensor) -> Tensor:
        value = x if x.is_floating_point() else x.long()
        return (value == 1) | (value == -1)

    def spec(self) -> str:
        return f"spins:{self.n}"

    def bounds(self) -> tuple[float, float]:
        return -1.0, 1.0

    def describe(self) -> str:
        return f"{self.n} spins of -1 or +1: e^{self.log_volume:.0f} states"


@final
@dataclass(frozen=True, repr=False)
class Box(Space):
    """Real inputs with ``low`` <= x <= ``high`` in every coordinate; uniform reference measure.

    ``log_volume`` is ln of the Lebesgue volume in input units. Raises UserError unless low < high, both finite.
    """

    shape: tuple[int, ...]
    low: float
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UserError("low, high", "finite low < high", f"{self.low}, {self.high}", "give the input range")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def log_volume(self) -> float:
        return self.n_coordinates * math.log(self.high - self.low)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand((n, *self.shape), generator=generator)
        # Rounding to float32 may step over the upper edge.
        return (self.low + (self.high - self.low) * uniform).clamp(self.low, self.high)

    def _inside(self, x: Tensor) -> Tensor:
        return (x >= self.low) & (x <= self.high)

    def spec(self) -> str:
        return f"box:{'x'.join(map(str, self.shape))}:{_shortest(self.low)}:{_shortest(self.high)}"

    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def describe(self) -> str:
        return f"{self.n_coordinates} real inputs in [{self.low:g}, {self.high:g}]: volume e^{self.log_volume:.1f}"


@final
@dataclass(frozen=True, repr=False)
class Latent(Space):
    """Real vectors with the standard normal N(0, I) as reference measure; ``log_volume`` is 0."""

    dim: int

    def __post_init__(self) -> None:
        if not _is_whole(self.dim) or self.dim < 1:
            raise UserError("dim", "at least one dimension", repr(self.dim), "give the latent dimension")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.dim,)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def log_volume(self) -> float:
        return 0.0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn((n, self.dim), generator=generator)

    def log_reference(self, x: Tensor) -> Tensor:
        return -0.5 * x.double().square().flatten(1).sum(1)

    def _inside(self, x: Tensor) -> Tensor:
        return torch.isfinite(x)

    def spec(self) -> str:
        return f"latent:{self.dim}"

    def bounds(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def describe(self) -> str:
        return f"{self.dim} latent coordinates under N(0, I): probabilities, total 1"


def parse_space(spec: str) -> Space:
    """Space from text: ``grid:1x28x28:256``, ``spins:100``, ``box:3x32x32:0:1``, ``latent:8``.

    Raises UserError for any other text.
    """
    kind, *rest = spec.split(":")
    try:
        if kind == "grid" and len(rest) == 2:
            return Grid(_parse_shape(rest[0]), int(rest[1]))
        if kind == "spins" and len(rest) == 1:
            return Spins(int(rest[0]))
        if kind == "box" and len(rest) == 3:
            return Box(_parse_shape(rest[0]), float(rest[1]), float(rest[2]))
        if kind == "latent" and len(rest) == 1:
            return Latent(int(rest[0]))
    except UserError:
        raise
    except ValueError:
        pass
    raise UserError(
        "space",
        "grid:SHAPE:LEVELS, spins:N, box:SHAPE:LOW:HIGH or latent:DIM",
        repr(spec),
        "for example grid:1x28x28:256",
    )


def _parse_shape(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("x"))


def _checked_shape(shape: Iterable[int]) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if not sizes or not all(_is_whole(size) and size >= 1 for size in sizes):
        raise UserError("shape", "a tuple of positive integers", repr(shape), "for example (1, 28, 28)")
    return tuple(int(size) for size in sizes)


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _shortest(number: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(number)).removesuffix(".0")
