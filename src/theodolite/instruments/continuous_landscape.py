"""A map of a field on a real space: the network of minima and passes, grown and then tried by fresh searches.

Barriers are bounded from above by paths, whose highest energy is pinned, and from below by their ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.instruments import landscape_checks
from theodolite.instruments.landscape_findings import Barriers, LandscapeFindings
from theodolite.instruments.proposals import Propose
from theodolite.instruments.tree_paths import barriers_of_passes
from theodolite.search.continuous_network import ContinuousNetwork, ContinuousSearch, NetworkState

if TYPE_CHECKING:
    from theodolite.instruments.landscape import Landscape

_ROUNDS = 10  # fresh searches that may find more before the map is called not converged
_SAMPLES = 4  # energies shown on each segment of a path

CITATIONS = (
    landscape_checks.HILL,
    landscape_checks.BECKER,
    "Wales (2002). Discrete path sampling. Mol. Phys. 100, 3285.",
    "Trygubenko, Wales (2004). A doubly nudged elastic band method for finding transition states. J. Chem. Phys. 120.",
    "E, Ren, Vanden-Eijnden (2007). Simplified and improved string method. J. Chem. Phys. 126, 164103.",
)


@dataclass(frozen=True)
class ContinuousState:
    """``inner``: the network so far. ``rounds`` fresh searches were made; the last had ``fresh`` starts, of which
    ``fresh_new`` ended in minima that were not known; ``count`` ``(k,)``: how many ended in each, in the network's own
    order."""

    inner: NetworkState
    rounds: int
    fresh: int
    fresh_new: int
    count: Tensor


@final
@dataclass(frozen=True)
class ContinuousNetworkLandscape:
    """``proposals`` descents from data and random points, saddles and paths; then as many fresh descents."""

    settings: Landscape
    field: Field
    propose: Propose

    def plan(self) -> str:
        return (
            f"network, {self.settings.proposals:,} descents, the passes between their minima, and as many fresh "
            "descents to see whether minima are missing"
        )

    @cached_property
    def _search(self) -> ContinuousSearch:
        return network_search(self.field, self.settings.n_minima)

    def init(self, generator: torch.Generator) -> ContinuousState:
        starts = self._draw(self.settings.proposals, generator)
        return ContinuousState(self._search.init(generator, starts=starts), 0, 0, 0, torch.empty(0, dtype=torch.int64))

    def step(self, state: ContinuousState, generator: torch.Generator) -> tuple[ContinuousState, dict[str, Any]]:
        if state.inner.stage != "done":
            inner, info = self._search.step(state.inner, generator)
            return replace(state, inner=inner), dict(info)
        points = self._draw(self.settings.proposals, generator)
        before = len(state.inner.point)
        inner, place = self._search.quench(state.inner, points)
        count = torch.bincount(place[place >= 0], minlength=len(inner.point))
        new = int(count[before:].sum())
        if new:
            inner = replace(inner, stage="pairs")
        return ContinuousState(inner, state.rounds + 1, len(points), new, count), {
            "stage": "fresh descents",
            "minima": len(inner.point),
            "new": new,
        }

    def stop(self, state: ContinuousState, info: Mapping[str, Any]) -> str | None:
        if state.inner.stage != "done" or not state.rounds:
            return None
        if not state.fresh_new:
            return f"{state.fresh:,} fresh descents found no new minimum."
        return "The list of minima keeps growing." if state.rounds >= _ROUNDS else None

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.propose(n, generator)[0].double()

    def findings(self, state: ContinuousState, generator: torch.Generator) -> LandscapeFindings:
        network = self._search.network(state.inner)
        listed = min(len(network.energy), self.settings.n_minima)
        barriers = _barriers(self.field, network, listed)
        share = state.fresh_new / state.fresh if state.fresh else 1.0
        stable = landscape_checks.fresh_searches(state.fresh, share)
        count = torch.zeros(len(state.inner.point), dtype=torch.int64)
        count[: len(state.count)] = state.count
        return LandscapeFindings(
            method="network",
            point=network.point[:listed].numpy(),
            energy=network.energy[:listed].numpy(),
            barriers=barriers,
            judgement=landscape_checks.judged(stable, barriers, landscape_checks.counted(listed), proven_list=False),
            citations=CITATIONS,
            member_count=count[torch.argsort(state.inner.energy, stable=True)][:listed].numpy(),
        )


def network_search(field: Field, n_minima: int) -> ContinuousSearch:
    """The search for a field; one that computes in float32 gets a tolerance that its gradient can reach."""
    return ContinuousSearch(
        field, most_minima=max(2, n_minima), gradient_tolerance=1e-3 if computes_in_float32(field) else 1e-6
    )


def computes_in_float32(field: Field) -> bool:
    """Whether a change of 1e-9 of the input changes no value: the field rounds its input to float32."""
    before = field.evaluations
    point = field.space.draw(8, torch.Generator().manual_seed(0)).double()
    scale = point.abs().clamp(min=1.0)
    inside = torch.where(field.space.contains(point + 1e-9 * scale).reshape(-1, *[1] * (point.ndim - 1)), 1.0, -1.0)
    same = field.value(point) == field.value(point + 1e-9 * scale * inside)
    field.evaluations = before
    return bool(same.all())


def _barriers(field: Field, network: ContinuousNetwork, listed: int) -> Barriers:
    return barriers_of_passes(
        network.energy.numpy(),
        network.ends[:, 0].numpy(),
        network.ends[:, 1].numpy(),
        network.level.numpy(),
        listed,
        lambda index: _shown(network.path[index]),
        lambda points: field.value(torch.from_numpy(points)).numpy(),
    )


def _shown(path: Tensor) -> np.ndarray:
    """The points of a path with some more between them, so that its energies are read from them."""
    low, high = path[:-1, None], path[1:, None]
    share = torch.arange(_SAMPLES, dtype=path.dtype).reshape(1, -1, *[1] * (path.ndim - 1)) / _SAMPLES
    between = (low + share * (high - low)).flatten(0, 1)
    return torch.cat([between, path[-1:]]).numpy()
