"""The steps of a survey of units: some random bases each, then closest flip points of a block of inputs each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from theodolite.instruments.unit_statistics import alike, random_basis, top_inputs
from theodolite.instruments.unit_task import SCALINGS, UnitTask
from theodolite.search.closest_flips import closest_flips
from theodolite.search.flips import Flips

if TYPE_CHECKING:
    from theodolite.instruments.units import Units

MEASURES = ("purity", "entropy")
_BASES_A_STEP = 4
_FLIPS_A_STEP = 32
_EFFORT = "quick"


@dataclass(frozen=True)
class UnitState:
    """``mean (basis, scaling, measure, top)``: over the directions of every random basis so far; of the single
    directions ``size_count (scaling, top, size)``, how many have that many inputs of their commonest label, and
    ``entropy_sum``, ``entropy_square_sum (scaling, top)``; ``flips``: a part a block of inputs."""

    mean: Tensor
    size_count: Tensor
    entropy_sum: Tensor
    entropy_square_sum: Tensor
    flips: tuple[Flips, ...] = ()

    @property
    def n_flipped(self) -> int:
        return sum(len(part.distance) for part in self.flips)


@final
@dataclass(frozen=True)
class UnitSampler:
    """Draws the bases that the settings ask for, then searches the flip points of the task."""

    settings: Units
    task: UnitTask

    def init(self, generator: torch.Generator) -> UnitState:
        n_top, largest = len(self.task.top), max(self.task.top)
        sums = torch.zeros((len(SCALINGS), n_top), dtype=torch.float64)
        return UnitState(
            mean=torch.zeros((0, len(SCALINGS), len(MEASURES), n_top), dtype=torch.float64),
            size_count=torch.zeros((len(SCALINGS), n_top, largest + 1), dtype=torch.int64),
            entropy_sum=sums,
            entropy_square_sum=sums.clone(),
        )

    def step(self, state: UnitState, generator: torch.Generator) -> tuple[UnitState, dict[str, Any]]:
        n_left = self.settings.permutations - len(state.mean)
        for _ in range(min(n_left, _BASES_A_STEP)):
            state = self._one_more_basis(state, generator)
        if n_left <= 0 and state.n_flipped < len(self.task.flipped):
            state = self._more_flips(state)
        return state, {"random bases": len(state.mean), "flip points": state.n_flipped}

    def stop(self, state: UnitState, info: Mapping[str, Any]) -> str | None:
        done = len(state.mean) >= self.settings.permutations and state.n_flipped >= len(self.task.flipped)
        return "Every random basis was drawn." if done else None

    def _one_more_basis(self, state: UnitState, generator: torch.Generator) -> UnitState:
        task = self.task
        # One basis for all scalings: what tells them apart is then the scaling alone.
        basis = random_basis(task.turned.n_units, generator)
        means, size_count = [], state.size_count.clone()
        entropy_sum, entropy_square_sum = state.entropy_sum.clone(), state.entropy_square_sum.clone()
        for row, scaling in enumerate(SCALINGS):
            projection = task.turned.project(basis.T, task.scale(scaling))
            found = alike(task.label[top_inputs(projection, max(task.top))], task.top)
            means.append(torch.stack((found.purity.mean(0), found.entropy.mean(0))))
            for column, k in enumerate(task.top):
                size = (found.purity[:, column] * k).round().long()
                size_count[row, column] += torch.bincount(size, minlength=size_count.shape[2])
            entropy_sum[row] += found.entropy.sum(0)
            entropy_square_sum[row] += found.entropy.square().sum(0)
        return replace(
            state,
            mean=torch.cat((state.mean, torch.stack(means)[None])),
            size_count=size_count,
            entropy_sum=entropy_sum,
            entropy_square_sum=entropy_square_sum,
        )

    def _more_flips(self, state: UnitState) -> UnitState:
        task = self.task
        if task.outputs is None or task.exact is None:
            return state
        rows = task.flipped[state.n_flipped : state.n_flipped + _FLIPS_A_STEP]
        points = task.inputs[rows].flatten(1).double()
        # Blocks depend on the task alone, so that neither interruptions nor budgets change what one finds.
        source = torch.Generator().manual_seed(self.settings.seed)
        own = task.exact.value(points).argmax(1)
        flips = closest_flips(task.outputs, task.exact, points, own, effort=_EFFORT, generator=source)
        return replace(state, flips=(*state.flips, flips))
