"""The steps of a survey of an ensemble: the given inputs, with noise, the levels of a density survey, closest flips of
the single network (amplified too) and of the ensemble's mean; a block of images each.

Amplified examples are those of Szegedy et al. 2013 ("Intriguing properties of neural networks"; Komati 2022, review,
Figures 7 to 9): the change continued along its direction to a stated distortion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from theodolite.instruments.ensemble_task import EnsembleTask, on_levels
from theodolite.search.closest_flips import closest_flips

if TYPE_CHECKING:
    from theodolite.instruments.ensemble import Ensemble

_LEVEL_ROWS = 512  # representatives looked at in a step
_HALVINGS = 60
_FARTHEST = 1e4  # times the change to the flip point


@dataclass(frozen=True)
class Part:
    """Some images of a condition: ``image (k,)``, ``point (k, n)`` (NaN: none found), ``log_probability (k, member,
    class)`` float64 there."""

    condition: int
    image: Tensor
    point: Tensor
    log_probability: Tensor


@dataclass(frozen=True)
class EnsembleState:
    """What each step so far gave; ``step`` of the schedule comes next. ``levels``: log-probabilities ``(k, member,
    class)`` of the representatives, part after part."""

    step: int
    parts: tuple[Part, ...] = ()
    levels: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Condition:
    """Where the members are compared: a name, a sentence, and how its points are made: "clean", "noise" or "single"
    and "mean" (flips of the single network or of the ensemble's mean), with ``size`` a share of the extent, or 0 for
    the flip points themselves."""

    name: str
    sentence: str
    kind: str
    size: float


@dataclass(frozen=True)
class Examined:
    """``point (condition, image, n)`` and ``log_probability (condition, image, member, class)``, NaN where nothing was
    reached or found; ``reached (condition, image)`` bool; ``levels (row, member, class)`` of the representatives
    reached, in their order; ``unreached`` conditions in words."""

    point: Tensor
    log_probability: Tensor
    reached: Tensor
    levels: Tensor
    unreached: tuple[str, ...]


def conditions_of(settings: Ensemble, task: EnsembleTask) -> tuple[Condition, ...]:
    """Those that the settings ask for; flips only where the networks are defined between levels."""
    single = task.members.names[0]
    found = [Condition("clean", "the inputs as given", "clean", 0.0)]
    for size in settings.noise:
        sentence = f"with Gaussian noise of standard deviation {size:g} of the extent of a coordinate, clipped to it"
        found.append(Condition(f"noise {size:g}", sentence, "noise", size))
    if not task.members.continuous:
        return tuple(found)
    found.append(Condition(f"flips of {single}", f"the closest points where {single} flips", "single", 0.0))
    for size in settings.distortion:
        sentence = f"the change to the flip point of {single} continued to a distortion of {size:g} of the extent"
        found.append(Condition(f"adversarial of {single}, {size:g}", sentence, "single", size))
    sentence = "the closest points where the ensemble's mean flips"
    return (*found, Condition("flips of the ensemble", sentence, "mean", 0.0))


@final
@dataclass(frozen=True)
class EnsembleSampler:
    """Works through the schedule; what a step finds depends on the task and the settings alone."""

    settings: Ensemble
    task: EnsembleTask

    def init(self, generator: torch.Generator) -> EnsembleState:
        return EnsembleState(0)

    def step(self, state: EnsembleState, generator: torch.Generator) -> tuple[EnsembleState, dict[str, Any]]:
        if state.step >= len(self._schedule):
            return state, {}
        stage, rows = self._schedule[state.step]
        if stage == "levels" and self.task.levels is not None:
            asked = self.task.members.log_probability(self.task.levels.point[rows])
            state = replace(state, levels=(*state.levels, asked))
        elif stage in ("single", "mean"):
            state = replace(state, parts=(*state.parts, *self._flips(stage, rows)))
        else:
            state = replace(state, parts=(*state.parts, *self._given(rows)))
        state = replace(state, step=state.step + 1)
        return state, {"stage": stage, "step": f"{state.step} of {len(self._schedule)}"}

    def stop(self, state: EnsembleState, info: Mapping[str, Any]) -> str | None:
        return "Every condition was examined." if state.step >= len(self._schedule) else None

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        return conditions_of(self.settings, self.task)

    @cached_property
    def _schedule(self) -> list[tuple[str, Tensor]]:
        blocks = self.task.blocks
        found = [("given", rows) for rows in blocks]
        if self.task.levels is not None:
            found += [("levels", rows) for rows in torch.arange(len(self.task.levels.point)).split(_LEVEL_ROWS)]
        if self.task.members.continuous:
            found += [(stage, rows) for stage in ("single", "mean") for rows in blocks]
        return found

    # ------------------------------------------------------------------ stages

    def _given(self, rows: Tensor) -> list[Part]:
        """The inputs themselves and with noise."""
        task, parts = self.task, []
        for number, condition in enumerate(self.conditions):
            points = task.points[rows]
            if condition.kind == "noise":
                # Of the block and the condition alone, so that neither interruptions nor other settings change it.
                seed = (self.settings.seed, number, int(rows[0]))
                noise = torch.randn(points.shape, generator=_generator(seed), dtype=torch.float64)
                points = self._inside(points + condition.size * task.scale * noise)
            elif condition.kind != "clean":
                continue
            parts.append(self._asked(number, rows, points))
        return parts

    def _flips(self, stage: str, rows: Tensor) -> list[Part]:
        members, x0 = self.task.members, self.task.points[rows]
        search, exact = members.searched(stage)
        own = exact.value(x0).argmax(1)
        flips = closest_flips(
            search,
            exact,
            x0,
            own,
            effort=self.settings.effort,
            generator=_generator((self.settings.seed, int(rows[0]))),
        )
        parts = []
        for number, condition in enumerate(self.conditions):
            if condition.kind == stage:
                points = flips.point
                if condition.size:
                    points = amplified(x0, points, condition.size * self.task.scale, self.task.network.space.bounds())
                parts.append(self._asked(number, rows, points))
        return parts

    def _inside(self, points: Tensor) -> Tensor:
        low, high = self.task.network.space.bounds()
        inside = points.clamp(low, high)
        return inside if self.task.members.continuous else on_levels(inside, self.task.network)

    def _asked(self, condition: int, rows: Tensor, points: Tensor) -> Part:
        known = points.isfinite().all(1)
        n_members, n_classes = len(self.task.members.names), len(self.task.class_names)
        answer = torch.full((len(rows), n_members, n_classes), torch.nan, dtype=torch.float64)
        if known.any():
            answer[known] = self.task.members.log_probability(points[known])
        return Part(condition, rows, points, answer)

    # ------------------------------------------------------------------ what is known

    def examined(self, state: EnsembleState) -> Examined:
        """Everything so far, a row a condition and image."""
        task = self.task
        n_conditions, (n_images, n_coordinates) = len(self.conditions), task.points.shape
        n_members, n_classes = len(task.members.names), len(task.class_names)
        point = torch.full((n_conditions, n_images, n_coordinates), torch.nan, dtype=torch.float64)
        answer = torch.full((n_conditions, n_images, n_members, n_classes), torch.nan, dtype=torch.float64)
        reached = torch.zeros((n_conditions, n_images), dtype=torch.bool)
        for part in state.parts:
            point[part.condition, part.image] = part.point
            answer[part.condition, part.image] = part.log_probability
            reached[part.condition, part.image] = True
        levels = torch.cat(state.levels) if state.levels else answer.new_zeros((0, n_members, n_classes))
        left = [self.conditions[number].name for number in (~reached.all(1)).nonzero()[:, 0].tolist()]
        if task.levels is not None and len(levels) < len(task.levels.point):
            left.append("the levels of the density survey")
        return Examined(point, answer, reached, levels, tuple(left))


def amplified(x0: Tensor, flip: Tensor, distortion: float, bounds: tuple[float, float]) -> Tensor:
    """The points on the way from ``x0 (image, n)`` over ``flip`` and on, clipped to the box, at which sqrt(mean squared
    change) is ``distortion``, or as far as the box lets them go. NaN stays NaN."""
    low, high = bounds
    change = flip - x0

    def at(factor: Tensor) -> Tensor:
        return (x0 + factor[:, None] * change).clamp(low, high)

    near = torch.zeros(len(x0), dtype=x0.dtype)
    size = change.square().mean(1).sqrt()
    far = torch.where(size > 0, torch.clamp(_FARTHEST * distortion / size, max=_FARTHEST * 1e4), near)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        short = (at(middle) - x0).square().mean(1).sqrt() <= distortion
        near, far = torch.where(short, middle, near), torch.where(short, far, middle)
    return at(near)


def _generator(parts: tuple[int, ...]) -> torch.Generator:
    """A generator of its own for every tuple of small numbers."""
    seed = 0
    for part in parts:
        seed = (seed * 1_000_003 + part + 1) % (2**62)
    return torch.Generator().manual_seed(seed)
