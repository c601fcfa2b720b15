"""The map of a glass: its lowest minima by parallel tempering, good paths between them, and then the proof.

Three stages: two temperings from different seeds, until they agree; heuristic paths between the minima; reverse
search under rising ceilings, which proves merge after merge. Stopped at any time it leaves valid intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from theodolite import disconnectivity
from theodolite.field import Field
from theodolite.instruments import landscape_checks
from theodolite.instruments.landscape_findings import (
    Barriers,
    LandscapeFindings,
    LandscapePath,
    least_lower_bounds,
    unknown_barriers,
)
from theodolite.instruments.tree_paths import merging_pairs
from theodolite.sampling.lowest_minima import FoundMinima, agree
from theodolite.sampling.parallel_tempering import ParallelTempering, TemperingState
from theodolite.search.certificate import CertifiedState, CertifiedTree
from theodolite.search.discrete_paths import heuristic_barriers, path_energies

if TYPE_CHECKING:
    from theodolite.instruments.landscape import Landscape

_FLOOD_DEPTH = 1.0  # of the local flood around every minimum, which lowers the paths' barriers before the proof
_PATIENCE = 200_000  # sweeps after which only the minima that both searches list are mapped

_CITATIONS = (
    landscape_checks.HILL,
    landscape_checks.BECKER,
    "Hukushima, Nemoto (1996). Exchange Monte Carlo method. J. Phys. Soc. Jpn. 65, 1604.",
    "Avis, Fukuda (1996). Reverse search for enumeration. Discrete Appl. Math. 65, 21.",
)


@dataclass(frozen=True)
class CertifiedLandscapeState:
    """``stage``: "searching", "joining", "proving". ``searches``: two temperings. ``seeds`` ``(K, n)``: the minima
    listed. ``passes`` ``(m, 2, n)``: neighbouring states that paths cross between. ``proof``: the reverse search."""

    stage: str
    searches: tuple[TemperingState, ...]
    seeds: np.ndarray
    passes: np.ndarray
    proof: CertifiedState | None


@final
@dataclass(frozen=True)
class CertifiedLandscape:
    """The ``n_minima`` lowest minima of spins with pair couplings, and the proven tree between them."""

    settings: Landscape
    field: Field

    def plan(self) -> str:
        return (
            f"exact, the {self.settings.n_minima} lowest minima by parallel tempering, then the barriers between them "
            "proven by reverse search as far as the budget goes"
        )

    @property
    def _tempering(self) -> ParallelTempering:
        # In units of the couplings on a spin, so that a rescaled glass is searched at rescaled temperatures.
        return ParallelTempering(self.field, self.settings.n_minima, low=0.15 * self._scale, high=1.3 * self._scale)

    @property
    def _scale(self) -> float:
        couplings = self.field.require("flip_costs").couplings
        return float(np.sqrt((couplings**2).sum() / len(couplings))) or 1.0

    def init(self, generator: torch.Generator) -> CertifiedLandscapeState:
        n = self.field.space.n_coordinates
        searches = tuple(self._tempering.init(generator) for _ in range(2))
        return CertifiedLandscapeState("searching", searches, np.empty((0, n)), np.empty((0, 2, n)), None)

    def step(
        self, state: CertifiedLandscapeState, generator: torch.Generator
    ) -> tuple[CertifiedLandscapeState, dict[str, Any]]:
        if state.stage == "searching":
            return self._search(state, generator)
        if state.stage == "joining":
            return self._join(state, generator)
        tree = self._tree(state)
        before = state.proof if state.proof is not None else tree.init()
        proof, info = tree.step(before, generator)
        self.field.evaluations += proof.states - before.states
        return replace(state, proof=proof), {"stage": "proving", **info}

    def stop(self, state: CertifiedLandscapeState, info: Mapping[str, Any]) -> str | None:
        return None if state.proof is None else self._tree(state).finished(state.proof)

    # ------------------------------------------------------------------ stages

    def _search(
        self, state: CertifiedLandscapeState, generator: torch.Generator
    ) -> tuple[CertifiedLandscapeState, dict[str, Any]]:
        tempering = self._tempering
        searches = []
        for search in state.searches:
            after, info = tempering.step(search, generator)
            self.field.evaluations += (after.n_sweeps - search.n_sweeps) * tempering.n_temperatures
            searches.append(after)
        state = replace(state, searches=tuple(searches))
        first, second = (tempering.found(search) for search in searches)
        n = self.settings.n_minima
        settled = all(tempering.stop(search, {}) for search in searches)
        if settled and agree(first, second, n):
            state = replace(state, stage="joining", seeds=first.point.numpy().astype(np.int8))
        elif searches[0].n_sweeps >= _PATIENCE and (common := _agreed(first, second)) >= 2:
            state = replace(state, stage="joining", seeds=first.point[:common].numpy().astype(np.int8))
        return state, {"stage": "searching", "sweeps": searches[0].n_sweeps, "minima": len(first.energy)}

    def _join(
        self, state: CertifiedLandscapeState, generator: torch.Generator
    ) -> tuple[CertifiedLandscapeState, dict[str, Any]]:
        # The minima next above those listed are good places to lead paths through.
        more = self._tempering.found(state.searches[0], 2 * len(state.seeds)).point[len(state.seeds) :]
        passes = heuristic_barriers(
            self.field, state.seeds, generator=generator, stepping_stones=more.numpy().astype(np.int8)
        ).passes
        over = passes.state.copy()
        over[np.arange(len(over)), passes.coordinate] = passes.new_value
        pairs = np.stack([passes.state, over], 1)
        return replace(state, stage="proving", passes=pairs), {"stage": "joining", "passes": len(pairs)}

    def _tree(self, state: CertifiedLandscapeState) -> CertifiedTree:
        return CertifiedTree(
            self.field.require("flip_costs"),
            state.seeds,
            paths=tuple(state.passes),
            memory_limit=int(self.settings.memory * 2**30),
            flood_depth=_FLOOD_DEPTH * self._scale,
        )

    # ------------------------------------------------------------------ the map

    def findings(self, state: CertifiedLandscapeState, generator: torch.Generator) -> LandscapeFindings:
        tempering = self._tempering
        found = [tempering.found(search) for search in state.searches]
        point = state.seeds if len(state.seeds) else found[0].point.numpy()
        energy = self.field.value(torch.as_tensor(point).long()).numpy()
        order = np.argsort(energy, kind="stable")
        point, energy = point[order], energy[order]
        barriers = unknown_barriers(energy)
        if state.stage == "proving":
            barriers = self._barriers(state, order, energy)
        agreed = agree(found[0], found[1], len(energy))
        listed = landscape_checks.searches_agree(agreed, state.searches[0].n_sweeps)
        return LandscapeFindings(
            method="exact (reverse search)",
            point=point,
            energy=energy,
            barriers=barriers,
            judgement=landscape_checks.judged(listed, barriers, f"the {len(energy)} lowest minima", proven_list=True),
            citations=_CITATIONS,
        )

    def _barriers(self, state: CertifiedLandscapeState, order: np.ndarray, energy: np.ndarray) -> Barriers:
        """What the proof says so far, its minima put in ``order``, rising in ``energy``."""
        proof = state.proof if state.proof is not None else self._tree(state).init()
        estimate = self._tree(state).estimate(proof)
        least = least_lower_bounds(energy)
        upper = np.maximum(estimate.upper[np.ix_(order, order)], least)
        lower = np.clip(estimate.lower[np.ix_(order, order)], least, upper)
        tree = disconnectivity.tree(energy, upper, lower)
        pairs = merging_pairs(tree, energy)
        ways = self._tree(state).paths_between(proof, [(int(order[i]), int(order[j])) for i, j in pairs])
        costs = self.field.require("flip_costs")
        paths = [LandscapePath(i, j, way, path_energies(costs, way)) for (i, j), way in zip(pairs, ways, strict=True)]
        return Barriers(upper, lower, tree, paths)


def _agreed(first: FoundMinima, second: FoundMinima) -> int:
    """How many of the lowest minima both searches list alike; equals of one energy stand or fall together."""
    n = min(len(first.energy), len(second.energy))
    differs = (first.energy[:n] - second.energy[:n]).abs() > 1e-9
    most = int(differs.nonzero()[0]) if bool(differs.any()) else n
    energies = first.energy.tolist()
    while most > 0 and (
        not agree(first, second, most) or (most < len(energies) and energies[most] == energies[most - 1])
    ):
        most -= 1
    return most
