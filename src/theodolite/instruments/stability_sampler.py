"""The steps of a survey of stability: a block of images for one network each, attacked by the chosen method.

Blocks depend on the task alone and every one starts from a generator of its own, so that neither interruptions nor
budgets change what a block finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from theodolite.instruments.stability_task import StabilityTask
from theodolite.instruments.transfer import rounding
from theodolite.search.adversarial import AdversarialExamples, adversarial_examples
from theodolite.search.boundary_starts import easiest_classes
from theodolite.search.closest_flips import closest_flips
from theodolite.search.flips import Flips, nearer
from theodolite.search.margins import margins
from theodolite.search.pair_flips import pair_flips
from theodolite.search.regions import hull

if TYPE_CHECKING:
    from theodolite.instruments.stability import Stability


@final
@dataclass(frozen=True)
class Attacked:
    """What the search for a block of images found: ``point (image, n)`` float64, the example or the best point known;
    ``found (image,)`` bool; ``residual (image,)``: output of the class asked for less the largest other, or, where any
    class will do, largest other output less the label's: negative by how much a best point fails; ``constant
    (image,)`` the weight of the distance in L-BFGS, NaN in walks; ``units (image,)`` forward and backward passes."""

    point: Tensor
    found: Tensor
    residual: Tensor
    constant: Tensor
    units: Tensor


@dataclass(frozen=True)
class StabilityState:
    """``parts``: what each step so far found; ``identity``: of the task that they belong to."""

    identity: str
    parts: tuple[Attacked, ...] = ()


@final
@dataclass(frozen=True)
class StabilitySampler:
    """Works through the task's networks and images under the settings."""

    settings: Stability
    task: StabilityTask

    def init(self, generator: torch.Generator) -> StabilityState:
        return StabilityState(self.task.identity)

    def step(self, state: StabilityState, generator: torch.Generator) -> tuple[StabilityState, dict[str, Any]]:
        schedule = self._schedule
        if len(state.parts) >= len(schedule):
            return state, {}
        network, rows = schedule[len(state.parts)]
        # Not the run's generator: what a block finds must not depend on the blocks before it.
        source = torch.Generator().manual_seed(self.settings.seed)
        found = self._attack(network, rows, source)
        state = replace(state, parts=(*state.parts, found))
        return state, {"network": self.task.names[network], "step": f"{len(state.parts)} of {len(schedule)}"}

    def stop(self, state: StabilityState, info: Mapping[str, Any]) -> str | None:
        done = len(state.parts) >= len(self._schedule)
        return "Every network was attacked on every input that it has right." if done else None

    @cached_property
    def _schedule(self) -> list[tuple[int, Tensor]]:
        return self.task.schedule()

    def found(self, state: StabilityState) -> tuple[Attacked, Tensor]:
        """Everything so far, ``(network, image, ...)``, NaN and 0 where nothing was tried; and where something was,
        ``(network, image)`` bool."""
        task = self.task
        shape = task.right.shape
        nothing = torch.full(shape, torch.nan, dtype=torch.float64)
        whole = Attacked(
            torch.full((*shape, task.points.shape[1]), torch.nan, dtype=torch.float64),
            torch.zeros(shape, dtype=torch.bool),
            nothing,
            nothing.clone(),
            torch.zeros(shape, dtype=torch.int64),
        )
        tried = torch.zeros(shape, dtype=torch.bool)
        for (network, rows), part in zip(self._schedule, state.parts, strict=False):
            tried[network, rows] = True
            for entry in fields(part):
                getattr(whole, entry.name)[network, rows] = getattr(part, entry.name)
        return whole, tried

    # ------------------------------------------------------------------ attacks

    def _attack(self, network: int, rows: Tensor, source: torch.Generator) -> Attacked:
        if self.settings.method == "l-bfgs":
            return self._descended(network, rows)
        flips = self._walked(network, rows, source)
        n = len(rows)
        part = Attacked(
            flips.point,
            flips.found.clone(),
            torch.zeros(n, dtype=torch.float64),
            torch.full((n,), torch.nan, dtype=torch.float64),
            flips.units,
        )
        lost = (~flips.found).nonzero()[:, 0]
        if len(lost):
            # A walk that meets no other class ends nowhere; L-BFGS ends at the best point it knows.
            again = self._descended(network, rows[lost])
            for entry in fields(part):
                old, new = getattr(part, entry.name), getattr(again, entry.name)
                old[lost] = old[lost] + new if entry.name == "units" else new
        return self._verified(network, rows, part)

    def _walked(self, network: int, rows: Tensor, source: torch.Generator) -> Flips:
        task = self.task
        outputs, exact, points, own = task.outputs[network], task.exact[network], task.points[rows], task.labels[rows]
        passed: dict[str, Any] = {
            "reference": task.known(network),
            "effort": self.settings.effort,
            "generator": source,
        }
        if self.settings.targets == "closest":
            return closest_flips(outputs, exact, points, own, **passed)
        if self.settings.targets != "all":
            return pair_flips(outputs, exact, points, own, task.asked[network, rows], **passed)
        # The nearest tie of the label with one other class: no third class can lead there, or it would be nearer.
        every = [(own + shift) % task.n_classes for shift in range(1, task.n_classes)]
        return reduce(nearer, [closest_flips(outputs, exact, points, own, target=one, **passed) for one in every])

    def _descended(self, network: int, rows: Tensor) -> Attacked:
        """L-BFGS towards the class asked for, towards every class, or towards the one that looks nearest."""
        task = self.task
        points, own = task.points[rows], task.labels[rows]
        n, n_tried = len(rows), task.n_classes - 1 if self.settings.targets == "all" else 1
        spent = torch.zeros(n, dtype=torch.int64)
        if self.settings.targets == "all":
            target = (own[:, None] + torch.arange(1, task.n_classes)) % task.n_classes
        elif self.settings.targets == "closest":
            target, spent = self._easiest(network, points, own)
        else:
            target = task.asked[network, rows, None]
        outputs, exact = task.outputs[network], task.exact[network]
        tried = adversarial_examples(
            outputs, exact, points.repeat_interleave(n_tried, 0), target.flatten(), self.settings.attack
        )
        best = _nearest(tried, n, n_tried)
        part = Attacked(
            tried.point[best].double(),
            tried.found[best].clone(),
            torch.zeros(n, dtype=torch.float64),
            tried.constant[best].double(),
            spent + tried.units.reshape(n, n_tried).sum(1),
        )
        return self._verified(network, rows, part)

    def _easiest(self, network: int, points: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """The class ``(image, 1)`` whose linearised boundary is nearest, and the passes spent on it."""
        outputs = self.task.outputs[network]
        search = margins(outputs, own)
        region = hull(outputs, len(points)).to(outputs.dtype)
        target, _ = easiest_classes(search, region, points.to(outputs.dtype), 1)
        return target, search.units

    def _verified(self, network: int, rows: Tensor, part: Attacked) -> Attacked:
        """Look again, in float64: an example is one that the network gets wrong and that has the class asked for."""
        exact = self.task.exact[network]
        own, asked = self.task.labels[rows], self.task.asked[network, rows]
        output = exact.value(part.point)
        leader = torch.where(asked >= 0, asked, output.scatter(1, own[:, None], -torch.inf).argmax(1))[:, None]
        others = output.scatter(1, leader, -torch.inf).amax(1)
        residual = output.gather(1, leader)[:, 0] - others
        return replace(part, residual=residual, found=part.found & (residual >= -rounding(output)))


def _nearest(tried: AdversarialExamples, n_images: int, n_tried: int) -> Tensor:
    """``(image,)`` rows of the nearest example of each image, or, where there is none, of the point that fails by
    least."""
    shape = (n_images, n_tried)
    found = tried.found.reshape(shape)
    near = torch.where(found, tried.distance.reshape(shape), torch.inf).argmin(1)
    least = tried.margin.reshape(shape).nan_to_num(-torch.inf).argmax(1)
    return torch.arange(n_images) * n_tried + torch.where(found.any(1), near, least)
