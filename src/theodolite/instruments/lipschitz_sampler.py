"""The steps of a survey of slopes: every layer's bound, norm and frame, then steep pairs, then balls.

What the budget leaves out is so marked; bounds by sums of weights are there from the start.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from theodolite.instruments.bounds.frame_bounds import frame_bound
from theodolite.instruments.bounds.layer_nodes import Activation, Affine
from theodolite.instruments.bounds.layer_rows import Row, joint_factor
from theodolite.instruments.bounds.layer_steps import OUTWARD, Step, factors_of, pool_factor, product
from theodolite.instruments.bounds.lipschitz_bounds import local_bounds
from theodolite.instruments.bounds.norm_estimates import operator_norm
from theodolite.instruments.bounds.operator_norms import proven_norm
from theodolite.instruments.bounds.slope_search import Domain, Pairs, Segment, effort, steepest_pairs
from theodolite.instruments.bounds.steep_pairs import attained
from theodolite.instruments.lipschitz_task import LipschitzTask

if TYPE_CHECKING:
    from theodolite.instruments.lipschitz import Lipschitz

GREATEST, WINDOWS = "greatest slope", "windows that hold an input"
SHARPEN = "not reached: the budget was spent"
_BLOCK = 16  # images whose balls are looked at in a step
_BALL_PAIRS = 3  # of an image
_LOOKS = 100  # random points that the search of the whole network chooses its starts from


@dataclass(frozen=True)
class LipschitzState:
    """What each step so far found; ``step`` of the schedule comes next.

    A row a layer: ``bound``, ``norm``, ``residual``, ``frame``, ``smallest``, ``slope`` float64, ``proof`` and
    ``frame_proof`` in words, ``direction`` flat (empty: none). ``factors``: of every step of the whole graph.
    ``network_slope`` and ``network_pair (2, n)``; ``local_bound``, ``local_slope (image, radius)``: a part a block.
    """

    step: int
    bound: Tensor
    norm: Tensor
    residual: Tensor
    frame: Tensor
    smallest: Tensor
    slope: Tensor
    proof: tuple[str, ...]
    frame_proof: tuple[str, ...]
    direction: tuple[Tensor, ...]
    factors: tuple[tuple[float, ...], ...]
    network_slope: float
    network_pair: Tensor
    local_bound: tuple[Tensor, ...] = ()
    local_slope: tuple[Tensor, ...] = ()


@final
@dataclass(frozen=True)
class LipschitzSampler:
    """Works through the layers and inputs of the task."""

    settings: Lipschitz
    task: LipschitzTask

    def init(self, generator: torch.Generator) -> LipschitzState:
        rows = self.task.layers.rows
        factors = tuple(self._quick(step) for step in self.task.layers.steps)
        nothing = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        bound = [self._first_bound(row) for row in rows]
        pair = torch.full((2, self.task.start.shape[1]), torch.nan, dtype=torch.float64)
        return LipschitzState(
            0,
            torch.tensor([value for value, _ in bound], dtype=torch.float64),
            nothing,
            nothing,
            torch.zeros(len(rows), dtype=torch.float64),
            nothing,
            nothing,
            tuple(words for _, words in bound),
            tuple(row.reason or SHARPEN for row in rows),
            (torch.zeros(0, dtype=torch.float64),) * len(rows),
            factors,
            math.nan,
            pair,
        )

    def step(self, state: LipschitzState, generator: torch.Generator) -> tuple[LipschitzState, dict[str, Any]]:
        if state.step >= len(self.schedule):
            return state, {}
        stage, number = self.schedule[state.step]
        # Not the run's generator: what a step finds must not depend on the steps before it.
        source = torch.Generator().manual_seed(self.settings.seed + state.step)
        found = {"layer": self._layer, "slope": self._slope, "network": self._network, "ball": self._ball}[stage](
            state, number, source
        )
        info = {"stage": stage, "step": f"{state.step + 1} of {len(self.schedule)}"}
        return dataclasses.replace(found, step=state.step + 1), info

    def stop(self, state: LipschitzState, info: Mapping[str, Any]) -> str | None:
        return "Every layer was looked at." if state.step >= len(self.schedule) else None

    @cached_property
    def schedule(self) -> list[tuple[str, int]]:
        """Stages and what each is about: a row, a block of images."""
        known = [number for number, row in enumerate(self.task.layers.rows) if row.graph is not None]
        found = [("layer", number) for number in known] + [("network", 0)]
        if self.task.layers.graph is not None:
            found += [("slope", number) for number in known]
        if self.task.centre is not None and self.settings.radius:
            found += [("ball", number) for number in range(-(-len(self.task.centre) // _BLOCK))]
        return found

    def left(self, state: LipschitzState, stage: str) -> int:
        """Steps of a stage that the budget left out."""
        return sum(kind == stage for kind, _ in self.schedule[state.step :])

    def whole(self, state: LipschitzState) -> float:
        """The bound of the network; inf where a layer is unknown."""
        graph = self.task.layers.graph
        return math.inf if graph is None else product(self.steps(state), graph.n_nodes)

    def steps(self, state: LipschitzState) -> list[Step]:
        """The steps of the whole network with the factors known so far."""
        pairs = zip(self.task.layers.steps, state.factors, strict=True)
        return [dataclasses.replace(step, factors=factors) for step, factors in pairs]

    # ------------------------------------------------------------------ bounds

    def _quick(self, step: Step) -> tuple[float, ...]:
        graph = self.task.layers.graph
        node = graph.node(step.index) if graph is not None else None
        if graph is None or not isinstance(node, Affine) or step.kind == "maximum pool":
            return factors_of(graph, step, self.task.norm) if graph is not None else ()
        return tuple(proven_norm(node, self.task.norm, k, quick=True).value for k in range(len(node.inputs)))

    def _first_bound(self, row: Row) -> tuple[float, str]:
        if row.graph is None or row.step is None:
            return math.inf, row.reason
        node = row.graph.node(row.step.index)
        if row.step.kind == "maximum pool" or not isinstance(node, Affine):
            words = WINDOWS if row.step.kind == "maximum pool" else GREATEST
            return joint_factor(factors_of(row.graph, row.step, self.task.norm), self.task.norm), words
        found = [proven_norm(node, self.task.norm, k, quick=True) for k in range(len(node.inputs))]
        return joint_factor(tuple(norm.value for norm in found), self.task.norm) * OUTWARD, found[0].proof

    def _layer(self, state: LipschitzState, number: int, source: torch.Generator) -> LipschitzState:
        row, norm = self.task.layers.rows[number], self.task.norm
        if row.graph is None or row.step is None:
            return state
        node = row.graph.node(row.step.index)
        frame = frame_bound(node, norm) if row.step.kind != "maximum pool" else None
        frame_words = "0: smaller inputs are lost" if frame is None else frame.proof
        found = {
            "frame": _put(state.frame, number, 0.0 if frame is None else frame.value),
            "smallest": _put(state.smallest, number, math.nan if frame is None else frame.smallest),
            "frame_proof": _swap(state.frame_proof, number, frame_words),
        }
        if row.step.kind == "maximum pool" or isinstance(node, Activation):
            exact = pool_factor(row.step.repeats, norm) if row.step.repeats else float(state.bound[number])
            return dataclasses.replace(
                state,
                **found,
                norm=_put(state.norm, number, exact / OUTWARD),
                residual=_put(state.residual, number, 0.0),
            )
        proven = [proven_norm(node, norm, k) for k in range(len(node.inputs))]
        value = joint_factor(tuple(each.value for each in proven), norm) * (OUTWARD if len(proven) > 1 else 1)
        estimates = [operator_norm(node, norm, k) for k in range(len(node.inputs))]
        exact = joint_factor(tuple(each.value for each in estimates), norm)
        direction = estimates[0].direction if len(estimates) == 1 else None
        factors = state.factors
        if self.task.layers.graph is not None:
            place = self.task.layers.steps.index(row.step)
            factors = (*factors[:place], tuple(each.value for each in proven), *factors[place + 1 :])
        return dataclasses.replace(
            state,
            **found,
            bound=_put(state.bound, number, min(value, float(state.bound[number]))),
            proof=_swap(state.proof, number, proven[0].proof),
            norm=_put(state.norm, number, exact),
            residual=_put(state.residual, number, max(each.residual for each in estimates)),
            direction=(
                *state.direction[:number],
                torch.zeros(0, dtype=torch.float64) if direction is None else direction,
                *state.direction[number + 1 :],
            ),
            factors=factors,
        )

    # ------------------------------------------------------------------ slopes

    def _slope(self, state: LipschitzState, number: int, source: torch.Generator) -> LipschitzState:
        row = self.task.layers.rows[number]
        if row.graph is None or row.step is None:
            return state
        segment = Segment(row.step.inputs, row.step.index)
        direction = state.direction[number] if len(state.direction[number]) else None
        pairs = self._climbed(segment, self.task.start, self.task.domain, source, direction=direction)
        slope = attained(row.graph, self.steps(state), segment, pairs, self.task.norm)
        return dataclasses.replace(state, slope=_put(state.slope, number, float(slope.max())))

    def _network(self, state: LipschitzState, number: int, source: torch.Generator) -> LipschitzState:
        graph = self.task.search
        segment = Segment((0,), graph.n_nodes - 1)
        pairs = self._climbed(segment, self._steep_starts(segment, source), self.task.domain, source)
        slope = attained(graph, self.steps(state), segment, pairs, self.task.norm)
        best = int(slope.argmax())
        pair = torch.stack([pairs.first[best], pairs.second[best]])
        return dataclasses.replace(state, network_slope=float(slope[best]), network_pair=pair)

    def _steep_starts(self, segment: Segment, source: torch.Generator) -> Tensor:
        """Of many points those where the network is steepest at first sight, steepest first."""
        task = self.task
        n_pairs, _ = effort(task.search, segment.output)
        if n_pairs < len(task.start):
            return task.start
        drawn = task.network.space.draw(_LOOKS, source).flatten(1).double()
        some = torch.cat([task.start, drawn])
        seen = steepest_pairs(task.search, segment, some, task.domain, task.norm, source, n_steps=1)
        task.passes.n += seen.passes
        return some[seen.slope.topk(n_pairs).indices]

    def _ball(self, state: LipschitzState, number: int, source: torch.Generator) -> LipschitzState:
        task, graph = self.task, self.task.search
        if task.centre is None:
            return state
        centre = task.centre[number * _BLOCK : (number + 1) * _BLOCK]
        segment, steps = Segment((0,), graph.n_nodes - 1), self.steps(state)
        bounds, slopes = [], []
        steepest, pair = state.network_slope, state.network_pair
        for radius in self.settings.radius:
            bound = torch.full((len(centre),), torch.inf, dtype=torch.float64)
            if task.layers.graph is not None:
                bound = local_bounds(graph, centre, radius, task.norm, steps=steps).clamp(max=self.whole(state))
            several = centre.repeat_interleave(_BALL_PAIRS, 0)
            domain = Domain(task.domain.low, task.domain.high, task.domain.extent, several, radius)
            pairs = self._climbed(segment, several, domain, source)
            slope = attained(graph, steps, segment, pairs, task.norm)
            best = int(slope.argmax())
            if not float(slope[best]) <= steepest:
                steepest, pair = float(slope[best]), torch.stack([pairs.first[best], pairs.second[best]])
            found = slope.reshape(-1, _BALL_PAIRS).amax(1)
            bounds.append(bound)
            slopes.append(found)
        return dataclasses.replace(
            state,
            network_slope=steepest,
            network_pair=pair,
            local_bound=(*state.local_bound, torch.stack(bounds, 1)),
            local_slope=(*state.local_slope, torch.stack(slopes, 1)),
        )

    def _climbed(
        self,
        segment: Segment,
        start: Tensor,
        domain: Domain,
        source: torch.Generator,
        *,
        direction: Tensor | None = None,
    ) -> Pairs:
        n_pairs, n_steps = effort(self.task.search, segment.output)
        some = start if domain.centre is not None else start[:n_pairs]
        pairs = steepest_pairs(
            self.task.search,
            segment,
            some,
            domain,
            self.task.norm,
            source,
            n_steps=n_steps,
            direction=direction,
        )
        self.task.passes.n += pairs.passes
        return pairs


def _put(values: Tensor, number: int, value: float) -> Tensor:
    found = values.clone()
    found[number] = value
    return found


def _swap(words: tuple[str, ...], number: int, new: str) -> tuple[str, ...]:
    return (*words[:number], new, *words[number + 1 :])
