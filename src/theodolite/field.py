"""A batched scalar function over a space: the one thing every instrument measures.

The only place that differentiates a field with respect to its input, splits batches to fit memory, counts
evaluations and checks what a function returns. One evaluation is one forward pass of one input, with or
without a backward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from theodolite.errors import FieldError, MissingCapability
from theodolite.space import DiscreteSpace, Space


@dataclass(frozen=True)
class LevelDifferences:
    """What setting a coordinate to each level does, linearised, from one gradient.

    ``table`` is ``(levels, m)``: the embedding of a level. ``function`` maps embedded points
    ``(batch, n_coordinates, m)`` to values ``(batch,)`` and is differentiable.
    """

    table: Tensor
    function: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TermWindow:
    """The terms of a rectangle of positions alone, in two stages.

    ``affine`` maps embedded points ``(batch, n_coordinates, m)`` to ``(batch, ...)`` and is affine, so that what it
    gives for parts of a point can be added up. ``function`` maps that, and the slices (start and stop given) of the
    rectangle's rows and columns, to terms ``(batch, n_rows * n_columns)``.
    """

    affine: Callable[[Tensor], Tensor]
    function: Callable[[Tensor, slice, slice], Tensor]


@dataclass(frozen=True)
class Terms:
    """Value = ``constant`` + a sum of local terms, one at each position of ``grid`` (rows, columns).

    ``function`` maps embedded points ``(batch, n_coordinates, m)`` (the table is that of the field's
    ``level_differences``) to terms ``(batch, rows * columns)``. Coordinate p lies at position
    p mod (rows * columns) and changes only terms within ``radius`` of it (Chebyshev distance). ``window`` evaluates
    some of the terms for less than the price of all; None where that is not possible.
    """

    grid: tuple[int, int]
    radius: int
    constant: float
    function: Callable[[Tensor], Tensor]
    window: TermWindow | None = None


@dataclass(frozen=True)
class SingleSite:
    """Exact change of the value when one coordinate changes: ``change(levels, site, new_level, data)``.

    ``change`` is compiled by numba, ``levels`` is a 1-D array of levels and ``data`` a tuple of arrays.
    """

    change: Callable[..., float]
    data: tuple[Any, ...]


@dataclass(frozen=True)
class FlipCosts:
    """Spins with pair couplings: E(s) = constant - 1/2 s.J s - h.s, so that every single flip has an exact cost.

    ``couplings`` J is ``(n, n)`` float64, symmetric with a zero diagonal; ``external`` h is ``(n,)`` float64. The
    local field of spin i is L_i = sum_k J_ik s_k + h_i, and flipping it costs 2 s_i L_i.
    """

    couplings: np.ndarray
    external: np.ndarray
    constant: float = 0.0

    @property
    def mirrored(self) -> bool:
        """Whether E(s) = E(-s) exactly."""
        return not self.external.any()


@final
class Field:
    """A scalar field: ``function`` maps points ``(batch, *space.shape)`` to ``(batch,)``.

    ``level_spacing``: outputs are integer multiples of it. ``table``: the values of all points by index
    (coordinate 0 the least significant digit). The other capabilities are described at their classes; they are
    None where the field does not offer them. Raises FieldError when ``function`` is a module in train mode.
    """

    def __init__(
        self,
        space: Space,
        function: Callable[[Tensor], Tensor],
        *,
        name: str = "energy",
        level_spacing: float | None = None,
        batch_size: int = 4096,
        level_differences: LevelDifferences | None = None,
        terms: Terms | None = None,
        single_site: SingleSite | None = None,
        flip_costs: FlipCosts | None = None,
        table: Tensor | None = None,
        model_hash: str = "",
        model_name: str = "",
        probability: str = "",
        module: nn.Module | None = None,
    ) -> None:
        self.space = space
        self.name = name
        self.level_spacing = level_spacing
        self.batch_size = int(batch_size)
        self.level_differences = level_differences
        self.terms = terms
        self.single_site = single_site
        self.flip_costs = flip_costs
        self.table = table
        self.model_hash = model_hash
        self.model_name = model_name or name
        self.probability = probability
        self.evaluations = 0
        self._function = function
        self._module = module if module is not None else function if isinstance(function, nn.Module) else None
        self._refuse_train_mode()

    # ------------------------------------------------------------------ evaluation

    def value(self, x: Tensor) -> Tensor:
        """Values ``(batch,)`` float64 of points ``(batch, *shape)``.

        Raises FieldError for points outside the space and for what is not one finite number a point.
        """
        self._refuse_outside(x)
        with torch.no_grad():
            return self._batched(x, lambda part: (self._function(part),))[0]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(batch,)`` and gradients ``(batch, *shape)`` with respect to the input relaxed to reals.

        Raises MissingCapability where the input has no such relaxation (a one-hot embedding).
        """
        self._refuse_outside(x)

        def evaluate(part: Tensor) -> tuple[Tensor, Tensor]:
            relaxed = part.to(torch.get_default_dtype()) if not part.is_floating_point() else part
            return _differentiate(self._function, relaxed, self.name)

        value, gradient = self._batched(x, evaluate)
        return value, gradient

    def level_gradient(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(batch,)`` and gradients ``(batch, n_coordinates, m)`` in the embedding, at levels
        ``(batch, n_coordinates)``. Raises MissingCapability without ``level_differences``."""
        capability = self.require("level_differences")
        value, gradient = self._batched(
            level, lambda part: _differentiate(capability.function, capability.table[part.long()], self.name)
        )
        return value, gradient

    def term_gradient(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Terms ``(batch, positions)`` and the gradient of their sum ``(batch, n_coordinates, m)``, at levels
        ``(batch, n_coordinates)``. Raises MissingCapability without ``terms``."""
        capability = self.require("terms")
        table = self.require("level_differences").table
        terms, gradient = self._batched(
            level, lambda part: _differentiate(capability.function, table[part.long()], self.name), ndim=2
        )
        return terms, gradient

    def window_terms(self, affine: Tensor, rows: slice, columns: slice) -> Tensor:
        """Terms ``(batch, n_rows * n_columns)`` float64 of a rectangle, from what ``terms.window.affine`` gave.

        Raises MissingCapability without ``terms``, or where these have no ``window``.
        """
        window = self.require("terms").window
        if window is None:
            raise MissingCapability(
                "field", "local terms with a window", f"{self.name!r} without", "evaluate all terms"
            )
        with torch.no_grad():
            return self._batched(affine, lambda part: (window.function(part, rows, columns),), ndim=2)[0]

    def require(self, capability: str) -> Any:
        """The capability of that name; raises MissingCapability where the field lacks it."""
        found = getattr(self, capability, None)
        if found is None:
            raise MissingCapability(
                "field", f"a field with {capability}", f"{self.name!r} without", "choose a method that needs none"
            )
        return found

    def pulled_back(
        self, space: Space, to_point: Callable[[Tensor], Tensor], extra: Callable[[Tensor], Tensor], name: str
    ) -> Field:
        """The field z -> value(to_point(z)) + extra(z) over ``space``: an energy seen through a generator.

        ``to_point`` maps ``(batch, *space.shape)`` to points of this field's space, relaxed to reals; ``extra`` maps
        the same to ``(batch,)``. Evaluations are counted on the new field.
        """
        return Field(
            space,
            lambda z: self._function(to_point(z)).double().reshape(len(z)) + extra(z),
            name=name,
            batch_size=self.batch_size,
            model_hash=self.model_hash,
            model_name=self.model_name,
        )

    # ------------------------------------------------------------------ checks

    def check(self, generator: torch.Generator, n: int = 4) -> Tensor:
        """One trial batch from the space: one finite number a point, rows independent of each other.

        Returns the trial values ``(n,)``. Raises FieldError. Evaluations are not counted.
        """
        self._refuse_train_mode()
        before = self.evaluations
        x = self.space.draw(n, generator)
        together = self.value(x)
        # Pairs before single points: batch statistics of one point are undefined, and fail in words of their own.
        self._refuse_influence(x, together, torch.stack([self.value(x[[i, i - 1]])[0] for i in range(n)]))
        self._refuse_influence(x, together, torch.cat([self.value(x[i : i + 1]) for i in range(n)]))
        self.evaluations = before
        return together

    def _refuse_influence(self, x: Tensor, together: Tensor, apart: Tensor) -> None:
        influenced = (together - apart).abs() > 1e-4 * together.abs().clamp(min=1.0)
        if bool(influenced.any()):
            row = int(influenced.nonzero()[0])
            raise FieldError(
                "field",
                "rows that do not influence each other",
                f"{float(together[row]):.6g} for a point in a batch and {float(apart[row]):.6g} in a smaller one",
                "normalise with fixed statistics (batch normalisation in eval mode) and fix random layers",
                example=x[row],
            )

    def has_gradient(self, generator: torch.Generator, n: int = 4) -> bool:
        """False, with a warning, where there is no gradient or it is zero everywhere on a trial batch."""
        if self.level_differences is None and isinstance(self.space, DiscreteSpace):
            return False
        before = self.evaluations
        x = self.space.draw(n, generator)
        try:
            if isinstance(self.space, DiscreteSpace):
                gradient = self.level_gradient(self.space.to_levels(x))[1]
            else:
                gradient = self.value_and_gradient(x)[1]
        except MissingCapability:
            lacking = "torch cannot differentiate"
        else:
            if bool((gradient != 0).any()):
                return True
            lacking = f"zero everywhere on {n} random points"
        finally:
            self.evaluations = before
        warnings.warn(f"the gradient of {self.name!r}: {lacking}; using gradient-free proposals", stacklevel=2)
        return False

    def _refuse_train_mode(self) -> None:
        if self._module is not None and any(layer.training for layer in self._module.modules()):
            raise FieldError("field", "a module in eval mode", "a module in train mode", "call module.eval() first")

    def _refuse_outside(self, x: Tensor) -> None:
        inside = self.space.contains(x)
        if not bool(inside.all()):
            row = int((~inside).nonzero()[0])
            raise FieldError(
                "x",
                f"points of {self.space.describe()}",
                f"{int((~inside).sum())} of {len(x)} outside, the first at index {row} "
                f"(values {float(x[row].min()):g} to {float(x[row].max()):g})",
                "scale the data to the space, or declare the space the data live in",
                example=x[row],
            )

    # ------------------------------------------------------------------ batches

    def _batched(
        self, x: Tensor, evaluate: Callable[[Tensor], tuple[Tensor, ...]], ndim: int = 1
    ) -> tuple[Tensor, ...]:
        """Evaluate in parts of ``batch_size``; halve it when memory runs out."""
        parts: list[tuple[Tensor, ...]] = []
        start = 0
        while start < len(x) or not parts:
            part = x[start : start + self.batch_size]
            try:
                result = evaluate(part)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error) or len(part) <= 1:
                    raise
                self.batch_size = len(part) // 2
                continue
            parts.append((self._checked(result[0], part, start, ndim), *result[1:]))
            start += len(part)
            self.evaluations += len(part)
        return tuple(column[0] if len(column) == 1 else torch.cat(column) for column in zip(*parts, strict=True))

    def _checked(self, value: Any, part: Tensor, start: int, ndim: int) -> Tensor:
        if not isinstance(value, Tensor) or value.ndim != ndim or len(value) != len(part):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise FieldError(
                "field",
                f"one number a point: shape ({len(part)},)",
                got,
                "choose an output: network.logit(k), or reduce in your function",
            )
        value = value.double()
        finite = torch.isfinite(value)
        if not bool(finite.all()):
            rows = (~finite.reshape(len(value), -1).all(1)).nonzero()[:, 0]
            raise FieldError(
                "field",
                "finite values",
                f"{len(rows)} non-finite of {len(part)}, the first at index {start + int(rows[0])}",
                "look at that input (the error's .example); clamp logarithms and divisions in the model",
                example=part[int(rows[0])].clone(),
            )
        return value


def _differentiate(function: Callable[[Tensor], Tensor], x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """``function(x)`` and the gradient of its sum: the rows are independent, so each row's own gradient."""
    leaf = x.detach().requires_grad_(True)
    refusal = MissingCapability(
        "field", "a function torch can differentiate", f"{name!r} without a graph", "use torch operations"
    )
    with torch.enable_grad():
        try:
            value = function(leaf)
        except RuntimeError as error:
            if "requires grad" in str(error):  # what torch says to numpy() and tolist()
                raise refusal from error
            raise
        if not isinstance(value, Tensor):
            return value, torch.zeros_like(leaf)
        if not value.requires_grad:
            raise refusal
        (gradient,) = torch.autograd.grad(value.sum(), leaf, materialize_grads=True)
    return value.detach(), gradient


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
