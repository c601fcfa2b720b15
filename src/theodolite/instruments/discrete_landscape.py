"""A map of a discrete field too large to enumerate: quenches from random points and data, then the lowest paths.

Barriers are bounded from above by paths and from below by their ends; nothing here is proven beyond that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.instruments import landscape_checks
from theodolite.instruments.landscape_findings import Barriers, LandscapeFindings, unknown_barriers
from theodolite.instruments.proposals import Propose
from theodolite.instruments.tree_paths import barriers_of_passes
from theodolite.search.descent import descend
from theodolite.search.descent_trace import path_over
from theodolite.search.discrete_paths import HeuristicBarriers, Passes, heuristic_barriers, path_energies

if TYPE_CHECKING:
    from theodolite.instruments.landscape import Landscape

_BATCH = 32  # quenches a step
_NEIGHBOURS, _WIDTH = 6, 10
_DEAR = 64  # coordinates above which fields without compiled changes get greedy paths to the nearest minimum only


@dataclass(frozen=True)
class SearchState:
    """Distinct minima ``point`` ``(k, *shape)`` with ``energy`` ``(k,)`` and how often each was found, ``count``;
    ``found_at`` ``(k,)``: the search that found it first. ``joined``: the paths between them, once known."""

    point: Tensor
    energy: Tensor
    count: Tensor
    found_at: Tensor
    n_searches: int
    joined: HeuristicBarriers | None


@final
@dataclass(frozen=True)
class DiscreteNetworkLandscape:
    """``proposals`` quenches in batches, then paths between the ``n_minima`` lowest minima."""

    settings: Landscape
    field: Field
    propose: Propose

    def plan(self) -> str:
        return f"network, {self.settings.proposals:,} quenches, then the lowest paths between the minima"

    def init(self, generator: torch.Generator) -> SearchState:
        empty = self.field.space.draw(0, generator)
        none = torch.empty(0, dtype=torch.int64)
        return SearchState(empty, torch.empty(0, dtype=torch.float64), none, none, 0, None)

    def step(self, state: SearchState, generator: torch.Generator) -> tuple[SearchState, dict[str, Any]]:
        if state.n_searches < self.settings.proposals:
            state = self._search(state, generator)
            return state, {"stage": "searching", "searches": state.n_searches, "minima": len(state.energy)}
        listed = state.point[: self.settings.n_minima].numpy()
        dear = self.field.space.n_coordinates > _DEAR and self.field.flip_costs is None
        neighbours, width = (1, 1) if dear else (_NEIGHBOURS, _WIDTH)
        joined = heuristic_barriers(
            self.field,
            listed,
            neighbours=neighbours,
            width=width,
            rounds=0 if dear else 20,
            generator=generator,
            neighbourhood=self.settings.neighbourhood,  # type: ignore[arg-type]
        )
        return replace(state, joined=joined), {"stage": "joining", "minima": len(listed)}

    def stop(self, state: SearchState, info: Mapping[str, Any]) -> str | None:
        return "All minima found are joined." if state.joined is not None else None

    def _search(self, state: SearchState, generator: torch.Generator) -> SearchState:
        n = min(_BATCH, self.settings.proposals - state.n_searches)
        points, _ = self.propose(n, generator)
        found = descend(self.field, points, neighbourhood=self.settings.neighbourhood)  # type: ignore[arg-type]
        return merge_minima(state, found.point, found.energy)

    def findings(self, state: SearchState, generator: torch.Generator) -> LandscapeFindings:
        listed = min(len(state.energy), self.settings.n_minima)
        energy = state.energy[:listed].numpy()
        barriers = unknown_barriers(energy)
        if state.joined is not None:
            barriers = _barriers(self.field, state.joined.passes, listed, self.settings.neighbourhood)
        stable = landscape_checks.stable_list(state.n_searches, int(state.found_at[:listed].max()) if listed else 0)
        found = f"{landscape_checks.counted(listed)} by {state.n_searches:,} searches"
        return LandscapeFindings(
            method="network",
            point=state.point[:listed].numpy(),
            energy=energy,
            barriers=barriers,
            judgement=landscape_checks.judged(stable, barriers, found, proven_list=False),
            citations=(landscape_checks.HILL, landscape_checks.BECKER),
            member_count=state.count[:listed].numpy(),
        )


def merge_minima(state: SearchState, point: Tensor, energy: Tensor) -> SearchState:
    """The state with more minima ``(n, *shape)``, equal ones counted together, rising in energy."""
    number = state.n_searches + torch.arange(1, len(point) + 1)
    every = torch.cat([state.point, point])
    distinct, place = torch.unique(every.flatten(1), dim=0, return_inverse=True)
    count = torch.zeros(len(distinct), dtype=torch.int64)
    count.index_add_(0, place, torch.cat([state.count, torch.ones(len(point), dtype=torch.int64)]))
    found_at = torch.full((len(distinct),), torch.iinfo(torch.int64).max)
    found_at.scatter_reduce_(0, place, torch.cat([state.found_at, number]), "amin")
    value = torch.empty(len(distinct), dtype=torch.float64)
    value[place] = torch.cat([state.energy, energy])
    order = torch.argsort(value, stable=True)
    points = distinct.reshape(len(distinct), *point.shape[1:])[order]
    return SearchState(points, value[order], count[order], found_at[order], state.n_searches + len(point), None)


def _barriers(field: Field, passes: Passes, listed: int, neighbourhood: Any) -> Barriers:
    landscape = field.flip_costs or field

    def points_of(index: int) -> np.ndarray:
        state, other = passes.state[index], passes.state[index].copy()
        other[passes.coordinate[index]] = passes.new_value[index]
        if field.flip_costs is not None:
            return path_over(field, state, other, neighbourhood)
        both = field.space.from_levels(torch.from_numpy(np.stack([state, other])))  # type: ignore[attr-defined]
        return path_over(field, both[0].numpy(), both[1].numpy(), neighbourhood)

    def energies_of(points: np.ndarray) -> np.ndarray:
        return path_energies(landscape, points)

    return barriers_of_passes(passes.energy, passes.first, passes.second, passes.level, listed, points_of, energies_of)
