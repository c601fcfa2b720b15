"""One Metropolis-Hastings step: propose, weigh, accept; the same for every ensemble.

``Mover`` is what a ladder needs of a proposal: ``start`` evaluates points, ``step`` moves every walker once,
``adapt`` tunes the proposal towards half of the proposals accepted. Source: Metropolis et al. 1953, Hastings
1970; parallel tiles: docs/methods.md, "Tiles".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.sampling.ensembles import Ensemble
from theodolite.sampling.proposals import (
    Redraw,
    Tiling,
    draw_tiling,
    log_reverse,
    redraw,
    redraw_uniformly,
)
from theodolite.space import DiscreteSpace, Space

TARGET_ACCEPTANCE = 0.5


@dataclass(frozen=True)
class Walkers:
    """``point``: levels ``(walker, coordinate)`` on discrete spaces, points ``(walker, *shape)`` on others;
    ``value`` ``(walker,)`` float64; ``terms`` ``(walker, position)`` float64 and ``gradient``
    ``(walker, coordinate, m)`` are empty where the mover needs none."""

    point: Tensor
    value: Tensor
    terms: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Tuning:
    """``reach`` ``(walker,)``: tile side in positions, or the step in input units; ``share`` ``(walker,)``: the
    probability that a coordinate of a tile is redrawn (1 on continuous spaces)."""

    reach: Tensor
    share: Tensor


def as_sampled(space: Space, point: Tensor) -> Tensor:
    """Points as samplers hold them: levels on discrete spaces."""
    return space.to_levels(point) if isinstance(space, DiscreteSpace) else point


def as_points(space: Space, sampled: Tensor) -> Tensor:
    """What ``as_sampled`` turned, back into points ``(batch, *shape)``."""
    return space.from_levels(sampled) if isinstance(space, DiscreteSpace) else sampled


class Mover(Protocol):
    """A proposal with its Metropolis step. ``substeps``: steps between two refreshments of the proposal's frame;
    ``wanted_renewal``: the share of a point that the substeps between two swaps should renew together."""

    @property
    def wanted_renewal(self) -> float: ...

    def start(self, point: Tensor) -> Walkers: ...

    def initial_tuning(self, n: int) -> Tuning: ...

    def step(
        self, walkers: Walkers, ensemble: Ensemble, tuning: Tuning, substeps: int, generator: torch.Generator
    ) -> tuple[Walkers, Tensor]:
        """Move every walker ``substeps`` times; returns the walkers and the accepted share ``(walker,)``."""
        ...

    def adapt(self, tuning: Tuning, accepted: Tensor, rate: float) -> Tuning: ...

    def small(self, tuning: Tuning) -> Tensor:
        """Where the adapted proposal has shrunk to its least size ``(walker,)``: acceptance means little there."""
        ...

    def renewal(self, tuning: Tuning, accepted: Tensor) -> Tensor:
        """About the share of a point that one step renews ``(walker,)``: how much effort a rung needs."""
        ...


def choose_mover(field: Field, generator: torch.Generator) -> Mover:
    """Tiles where the field is a sum of local terms, one decision where it has a gradient, else gradient-free."""
    from theodolite.sampling.continuous import LangevinMover, RandomWalkMover

    gradient = field.has_gradient(generator)
    if not isinstance(field.space, DiscreteSpace):
        return LangevinMover(field) if gradient else RandomWalkMover(field)
    if not gradient:
        return RandomMaskMover(field)
    return TileMover(field)


@final
@dataclass(frozen=True)
class TileMover:
    """Many coordinates at once from their full conditional, accepted tile by tile where terms are local.

    A nonlinear weight couples the tiles, so that an ensemble that is not linear gets one tile. The gradient is
    taken anew at every step: freezing it would break invariance.
    """

    field: Field

    @property
    def wanted_renewal(self) -> float:
        # a frame of tiles costs an evaluation of its own, so that several steps share it
        return 0.3 if self.field.terms is not None else 0.1

    @property
    def _grid(self) -> tuple[int, int]:
        if self.field.terms is not None:
            return self.field.terms.grid
        return (1, self.field.space.n_coordinates)

    @property
    def _least_share(self) -> float:
        return 0.3 if self.field.terms is not None else 1.0 / self.field.space.n_coordinates

    def initial_tuning(self, n: int) -> Tuning:
        share = 0.5 if self.field.terms is not None else 0.1
        return Tuning(torch.full((n,), float(max(self._grid))), torch.full((n,), share))

    def start(self, point: Tensor) -> Walkers:
        if self.field.terms is None:
            value, gradient = self.field.level_gradient(point)
            return Walkers(point, value, torch.empty(len(point), 0), gradient)
        terms, gradient = self.field.term_gradient(point)
        return Walkers(point, terms.sum(1) + self.field.terms.constant, terms, gradient)

    def step(
        self, walkers: Walkers, ensemble: Ensemble, tuning: Tuning, substeps: int, generator: torch.Generator
    ) -> tuple[Walkers, Tensor]:
        local = self.field.terms is not None and ensemble.linear
        n = len(walkers.value)
        if local:
            side = tuning.reach.round().long()
            tiling = draw_tiling(side, self.field.require("terms").radius, self._grid, generator)
        else:
            positions = self._grid[0] * self._grid[1]
            everywhere = torch.ones(n, positions, dtype=torch.bool)
            tiling = Tiling(torch.zeros(n, positions, dtype=torch.int64), everywhere, 1)
        accepted = torch.zeros(n)
        mixed = torch.zeros(n, dtype=torch.bool)
        for _ in range(substeps):
            walkers, share, partly = self._substep(walkers, ensemble, tuning, tiling, generator)
            accepted += share / substeps
            mixed |= partly
        stale = mixed.nonzero()[:, 0]
        if len(stale):
            walkers = put_walkers(walkers, stale, self.start(walkers.point[stale]))
        return walkers, accepted

    def _substep(
        self, walkers: Walkers, ensemble: Ensemble, tuning: Tuning, tiling: Tiling, generator: torch.Generator
    ) -> tuple[Walkers, Tensor, Tensor]:
        """One proposal, one decision a tile. Also says which walkers accepted some tiles but not all: their
        gradient is exact inside the tiles only, and must be refreshed before the tiles move."""
        table = self.field.require("level_differences").table
        n, n_coordinates = walkers.point.shape
        repeat = n_coordinates // tiling.active.shape[1]
        draw = torch.rand((n, n_coordinates), generator=generator) < tuning.share[:, None]
        mask = draw & tiling.active.repeat(1, repeat)
        slope = -ensemble.inverse_temperature(walkers.value)
        move = redraw(mask, walkers.point, slope, walkers.gradient, table, generator)
        point = walkers.point.clone()
        point[move.walker, move.coordinate] = move.new
        proposed = self.start(point)
        back = -ensemble.inverse_temperature(proposed.value)
        ratio = (log_reverse(move, back, proposed.gradient, table) - move.log_forward).double()

        size = n * tiling.n_tiles
        tile = (torch.arange(n)[:, None] * tiling.n_tiles + tiling.label).repeat(1, repeat)
        tile_of_move = tile[move.walker, move.coordinate]
        log_ratio = torch.zeros(size, dtype=torch.float64).index_add_(0, tile_of_move, ratio)
        used = torch.zeros(size, dtype=torch.bool)
        used[tile_of_move] = True
        if tiling.n_tiles == 1:
            change = ensemble.log_weight(proposed.value) - ensemble.log_weight(walkers.value)
        else:
            difference = torch.zeros(size, dtype=torch.float64)
            difference.index_add_(
                0, tile[:, : tiling.label.shape[1]].flatten(), (proposed.terms - walkers.terms).flatten()
            )
            change = (slope.double()[:, None] * difference.reshape(n, -1)).flatten()
        uniform = torch.rand(size, generator=generator, dtype=torch.float64)
        accept = (uniform.log() < change + log_ratio) & used
        per_walker, used_tiles = accept.reshape(n, -1), used.reshape(n, -1)
        share = per_walker.sum(1) / used_tiles.sum(1).clamp(min=1)
        if tiling.n_tiles == 1:
            return select_walkers(walkers, proposed, accept), share, torch.zeros(n, dtype=torch.bool)
        # where every tile accepts, the new point is the proposed one and its gradient holds in the gaps too
        whole = ~(used_tiles & ~per_walker).any(1)
        take = accept[tile] | whole[:, None]
        taken = take[:, : tiling.label.shape[1]]
        terms = torch.where(taken, proposed.terms, walkers.terms)
        moved = Walkers(
            torch.where(take, proposed.point, walkers.point),
            terms.sum(1) + self.field.require("terms").constant,
            terms,
            torch.where(take[..., None], proposed.gradient, walkers.gradient),
        )
        partly = per_walker.any(1) & (used_tiles & ~per_walker).any(1)
        return moved, share, partly

    def adapt(self, tuning: Tuning, accepted: Tensor, rate: float) -> Tuning:
        """Grow the share to 1, then the side; shrink the side first, then the share."""
        factor = torch.exp(rate * (accepted - TARGET_ACCEPTANCE))
        reach, share = tuning.reach, tuning.share * factor
        if self.field.terms is not None:
            change_side = (share > 1.0) | ((reach > 2) & (share < 0.35))
            reach = torch.where(change_side, reach * factor, reach).clamp(1.6, float(max(self._grid)))
        return Tuning(reach, share.clamp(self._least_share, 1.0))

    def small(self, tuning: Tuning) -> Tensor:
        if self.field.terms is not None:
            return tuning.reach <= 2
        return tuning.share * self.field.space.n_coordinates < 1.5

    def renewal(self, tuning: Tuning, accepted: Tensor) -> Tensor:
        if self.field.terms is None:
            return tuning.share * accepted
        side, gap = tuning.reach.round(), 2.0 * self.field.terms.radius
        covered = torch.where(side >= max(self._grid), torch.ones_like(side), (side / (side + gap)).square())
        return covered * tuning.share * accepted


@final
@dataclass(frozen=True)
class RandomMaskMover:
    """Gradient-free: a random few coordinates, each to another level, one decision."""

    field: Field
    wanted_renewal: float = 0.3

    def initial_tuning(self, n: int) -> Tuning:
        return Tuning(torch.ones(n), torch.full((n,), 0.2))

    def start(self, point: Tensor) -> Walkers:
        space = self.field.space
        value = self.field.value(space.from_levels(point))  # type: ignore[attr-defined]
        return Walkers(point, value, torch.empty(len(point), 0), torch.empty(len(point), 0))

    def step(
        self, walkers: Walkers, ensemble: Ensemble, tuning: Tuning, substeps: int, generator: torch.Generator
    ) -> tuple[Walkers, Tensor]:
        accepted = torch.zeros(len(walkers.value))
        for _ in range(substeps):
            move = self._propose(walkers.point, tuning, generator)
            point = walkers.point.clone()
            point[move.walker, move.coordinate] = move.new
            proposed = self.start(point)
            change = ensemble.log_weight(proposed.value) - ensemble.log_weight(walkers.value)
            accept = torch.rand(len(change), generator=generator, dtype=torch.float64).log() < change
            accepted += accept / substeps
            walkers = select_walkers(walkers, proposed, accept)
        return walkers, accepted

    def _propose(self, point: Tensor, tuning: Tuning, generator: torch.Generator) -> Redraw:
        uniform = torch.rand(point.shape, generator=generator)
        mask = uniform < tuning.share[:, None]
        mask.scatter_(1, uniform.argmin(1, keepdim=True), True)  # an empty mask would propose nothing
        return redraw_uniformly(mask, point, self.field.space.levels, generator)  # type: ignore[attr-defined]

    def adapt(self, tuning: Tuning, accepted: Tensor, rate: float) -> Tuning:
        factor = torch.exp(rate * (accepted - TARGET_ACCEPTANCE))
        return Tuning(tuning.reach, (tuning.share * factor).clamp(0.5 / self.field.space.n_coordinates, 0.5))

    def small(self, tuning: Tuning) -> Tensor:
        return tuning.share * self.field.space.n_coordinates <= 1.0

    def renewal(self, tuning: Tuning, accepted: Tensor) -> Tensor:
        return tuning.share.clamp(min=1.0 / self.field.space.n_coordinates) * accepted


def select_walkers(walkers: Walkers, proposed: Walkers, accept: Tensor) -> Walkers:
    """Whole walkers from ``proposed`` where accepted."""

    def choose(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old) if new.numel() else old

    return Walkers(
        choose(proposed.point, walkers.point),
        choose(proposed.value, walkers.value),
        choose(proposed.terms, walkers.terms),
        choose(proposed.gradient, walkers.gradient),
    )


def take_walkers(walkers: Walkers, index: Tensor) -> Walkers:
    """The walkers at ``index``, with repetition."""

    def rows(tensor: Tensor) -> Tensor:
        return tensor[index] if tensor.numel() else tensor

    return Walkers(rows(walkers.point), rows(walkers.value), rows(walkers.terms), rows(walkers.gradient))


def put_walkers(walkers: Walkers, index: Tensor, part: Walkers) -> Walkers:
    """``walkers`` with ``part`` at ``index``."""

    def rows(tensor: Tensor, new: Tensor) -> Tensor:
        return tensor.index_copy(0, index, new) if tensor.numel() else tensor

    return Walkers(
        rows(walkers.point, part.point),
        rows(walkers.value, part.value),
        rows(walkers.terms, part.terms),
        rows(walkers.gradient, part.gradient),
    )
