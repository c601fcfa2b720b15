"""The exact map of a small discrete field: every state enumerated, the watershed between all basins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from theodolite.field import Field
from theodolite.instruments.landscape_findings import LandscapeFindings
from theodolite.instruments.tree_paths import barriers_of_passes
from theodolite.instruments.verdict import Check, Judgement
from theodolite.search.enumerated_values import all_values
from theodolite.search.watershed import watershed

if TYPE_CHECKING:
    from theodolite.instruments.landscape import Landscape

_CITATIONS = (
    "Hill, Nijkamp, Zhu (2019). Building a Telescope to Look Into High-Dimensional Image Spaces. Q. Appl. Math. 77.",
    "Flamm, Hofacker, Stadler, Wolfinger (2002). Barrier trees of degenerate landscapes. Z. Phys. Chem. 216, 155.",
)


@dataclass(frozen=True)
class WatershedState:
    """The values of all states; empty before the enumeration."""

    values: np.ndarray


@final
@dataclass(frozen=True)
class WatershedLandscape:
    """Enumerates the field in one step; every barrier is exact."""

    settings: Landscape
    field: Field

    def plan(self) -> str:
        return f"exact, all {np.exp(self.field.space.log_volume):,.0f} states enumerated"

    def init(self, generator: torch.Generator) -> WatershedState:
        return WatershedState(np.empty(0))

    def step(self, state: WatershedState, generator: torch.Generator) -> tuple[WatershedState, dict[str, Any]]:
        limit = int(self.settings.memory * 2**30)
        values = all_values(self.field, limit, half=self._mirrored)
        return WatershedState(values), {"stage": "enumerating", "states": len(values)}

    def stop(self, state: WatershedState, info: Mapping[str, Any]) -> str | None:
        return "Every state was enumerated." if len(state.values) else None

    def findings(self, state: WatershedState, generator: torch.Generator) -> LandscapeFindings:
        space = self.field.space
        found = watershed(
            state.values,
            space.n_coordinates,
            space.levels,  # type: ignore[attr-defined]
            neighbourhood=self.settings.neighbourhood,
            mirror=self._mirrored,
        )
        total = len(found.energy)
        listed = min(total, self.settings.n_minima)

        def points(levels: np.ndarray) -> np.ndarray:
            return space.from_levels(torch.as_tensor(levels, dtype=torch.int64)).numpy()  # type: ignore[attr-defined]

        barriers = barriers_of_passes(
            found.energy,
            found.first,
            found.second,
            found.level,
            listed,
            found.path,
            lambda levels: state.values[self._index(levels)],
            exact=True,
        )
        shown = [replace(path, point=points(path.point)) for path in barriers.paths]
        n_states = round(math.exp(space.log_volume))
        what = f"the {listed} lowest of {total} minima" if listed < total else f"all {total} minima"
        return LandscapeFindings(
            method="exact (watershed)",
            point=points(found.minimum_level[:listed]),
            energy=found.energy[:listed],
            barriers=replace(barriers, paths=shown),
            judgement=Judgement(
                (Check("every state enumerated", float(n_states), "all", "no state is left out", np.array(True)),),
                "exact",
                f"Exact: all {n_states:,.0f} states were enumerated; {what} and every barrier between them are listed.",
            ),
            citations=_CITATIONS,
            member_count=found.basin_size[:listed],
        )

    @property
    def _mirrored(self) -> bool:
        costs = self.field.flip_costs
        return costs is not None and costs.mirrored and self.field.space.n_coordinates > 1

    def _index(self, levels: np.ndarray) -> np.ndarray:
        """Where the values of states ``(step, n)`` stand; of a mirrored field only those with the last spin up do."""
        space = self.field.space
        strides = space.levels ** np.arange(space.n_coordinates, dtype=np.int64)  # type: ignore[attr-defined]
        index = levels.astype(np.int64) @ strides
        if not self._mirrored:
            return index
        half = 1 << (space.n_coordinates - 1)
        return np.where(index >= half, index, 2 * half - 1 - index) - half
