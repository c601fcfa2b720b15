"""The ladder survey as one state machine: pilot both ways, place rungs, adapt, freeze, measure.

Ladders start from different kinds of inputs (noise, zeros, data) and share their rungs and nothing else, so that their
disagreement is evidence. Only samples drawn after everything was frozen are kept. Method: docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.run import Meter
from theodolite.sampling import anneal, replica_exchange
from theodolite.sampling.anneal import AnnealState
from theodolite.sampling.metropolis import Mover, Tuning, as_sampled
from theodolite.sampling.replica_exchange import LadderState
from theodolite.space import Box, DiscreteSpace

_PARTICLES = 8
_SWEEPS = 4  # of a temperature of the pilot, at most
_REAL_SWEEPS = 16  # the same on real spaces, whose moves are short
_PILOT_SHARE = 0.25  # of the budget, at most, both directions together
_ADAPT_RATE = 0.15
_REFINE_AT = (0.05, 0.09, 0.13, 0.17, 0.21)  # of what the pilot left: halve intervals whose swaps are rare
_MOST_GROWTH = 0.05  # of the rungs may be added at one refinement, where swaps are rarest: few steps tell little
_MEASURE_AT = 0.27
_LEAST_ADAPTING = 8  # steps between two refinements, so that their swap rates mean something
_LEAST_SWAP = 0.2
_MOST_LADDERS = 8
_STEPS_A_COORDINATE = 6  # more ladders than starts only where each still gets this many steps a coordinate
_SUBSTEPS = 4  # evaluations of a walker a step, about, to plan with
_MOST_RUNGS = 400
_SNAPSHOT_BYTES = 2**26
_PATH = ("rung_lambda", "deviation", "reach", "share")
_LEAST_STEPS = 24  # kept steps below which nothing can be said


@dataclass(frozen=True)
class LadderSurvey:
    """``stage``: pilot-up, pilot-down, adapt or measure. ``value`` ``(capacity, ladder, rung)`` holds the outputs
    of the first ``n_kept`` steps of the stage; ``snapshots`` ``(n, ladder, rung, *point)`` whole points taken every
    ``snapshot_interval`` steps, at the steps ``snapshot_step``."""

    stage: str
    pilot: AnnealState | None
    path: Mapping[str, list[float]]
    ended: Mapping[str, str]
    ladder: LadderState | None
    pilot_share: float
    refined: int
    value: Tensor
    n_kept: int
    snapshots: list[Tensor]
    snapshot_step: list[int]
    snapshot_interval: int


@dataclass(frozen=True)
class LadderSampler:
    """``low`` and ``high`` bound the range to reach (None: until nothing moves); ``starts`` name a kind of start
    for each ladder, ``data`` holds points for "data" starts."""

    field: Field
    mover: Mover
    meter: Meter
    starts: tuple[str, ...]
    data: Tensor | None
    low: float | None
    high: float | None

    def init(self, generator: torch.Generator) -> LadderSurvey:
        pilot = anneal.init(self.mover, self._particles(generator), 1.0)
        empty = torch.empty(0, 0, 0, dtype=torch.float64)
        path = {name: [] for name in _PATH}
        return LadderSurvey("pilot-up", pilot, path, {}, None, 0.0, 0, empty, 0, [], [], 1)

    def step(
        self, state: LadderSurvey, generator: torch.Generator
    ) -> tuple[LadderSurvey, dict[str, float | int | str]]:
        """One temperature of the pilot, or one step of the ladders."""
        if state.pilot is not None:
            return self._pilot_step(state, generator)
        return self._ladder_step(state, generator)

    # ------------------------------------------------------------------ pilot

    def _particles(self, generator: torch.Generator) -> Tensor:
        return as_sampled(self.field.space, self.field.space.draw(_PARTICLES, generator))

    def _pilot_step(
        self, state: LadderSurvey, generator: torch.Generator
    ) -> tuple[LadderSurvey, dict[str, float | int | str]]:
        current = state.pilot
        if current is None:
            raise RuntimeError("the pilot has ended")
        up = state.stage == "pilot-up"
        target = self.high if up else self.low
        sweeps = _SWEEPS if isinstance(self.field.space, DiscreteSpace) else _REAL_SWEEPS
        pilot, info = anneal.step(current, self.mover, sweeps, target, generator)
        share = _PILOT_SHARE * (0.5 if up else 1.0)
        ended = pilot.ended or ("the pilot's share of the budget is spent" if self.meter.fraction > share else "")
        info = {"stage": "finding the range", **info}
        if not ended:
            return replace(state, pilot=pilot), info
        path = {name: [*state.path[name], *getattr(pilot, name)] for name in _PATH}
        ends = {**state.ended, "up" if up else "down": ended}
        if up:
            down = anneal.init(self.mover, self._particles(generator), -1.0)
            return replace(state, stage="pilot-down", pilot=down, path=path, ended=ends), info
        state = replace(state, stage="adapt", pilot=None, path=path, ended=ends, pilot_share=self.meter.fraction)
        return self._with_ladder(state, self._first_ladder(path, generator)), info

    # ------------------------------------------------------------------ ladders

    def _first_ladder(self, path: Mapping[str, list[float]], generator: torch.Generator) -> LadderState:
        where, spread = _merged_path(path)
        rung_lambda = replica_exchange.place_rungs(where, spread)
        rung_lambda = rung_lambda if len(rung_lambda) <= _MOST_RUNGS else _thinned(rung_lambda)
        n_rungs = len(rung_lambda)
        point = torch.stack([self._start(kind, n_rungs, generator) for kind in self._ladder_starts(n_rungs)])
        order = np.argsort(path["rung_lambda"], kind="stable")
        along = np.array(path["rung_lambda"])[order]

        def tuned(name: str) -> Tensor:
            values = np.interp(rung_lambda, along, np.array(path[name])[order])
            return torch.as_tensor(values, dtype=torch.float32)

        tuning = Tuning(tuned("reach"), tuned("share"))
        return replica_exchange.init(self.mover, torch.as_tensor(rung_lambda), point, tuning)

    def _ladder_starts(self, n_rungs: int) -> list[str]:
        """As many ladders as the budget feeds, cycling through the kinds of start."""
        left = 1.0 - self.meter.fraction
        rate = self.meter.evaluations / max(self.meter.fraction, 1e-9)
        steps = max(100, _STEPS_A_COORDINATE * self.field.space.n_coordinates)
        affordable = int(left * rate / (_SUBSTEPS * n_rungs * steps))
        count = max(len(self.starts), min(_MOST_LADDERS, affordable))
        return [self.starts[i % len(self.starts)] for i in range(count)]

    def ladder_starts(self, n_ladders: int) -> list[str]:
        """The kind of start of every ladder."""
        return [self.starts[i % len(self.starts)] for i in range(n_ladders)]

    def _start(self, kind: str, n: int, generator: torch.Generator) -> Tensor:
        space = self.field.space
        if kind == "data" and self.data is not None:
            return as_sampled(space, self.data[torch.randint(0, len(self.data), (n,), generator=generator)])
        noise = as_sampled(space, space.draw(n, generator))
        if kind == "noise":
            return noise
        if isinstance(space, DiscreteSpace):
            return torch.full_like(noise, 0 if kind == "zeros" else space.levels - 1)
        if isinstance(space, Box):
            return torch.full_like(noise, space.low if kind == "zeros" else space.high)
        return torch.zeros_like(noise) if kind == "zeros" else torch.ones_like(noise)

    def _with_ladder(self, state: LadderSurvey, ladder: LadderState) -> LadderSurvey:
        """Begin a stage with this ladder: what earlier stages recorded is dropped."""
        shape = (64, *ladder.rung.shape)
        value = torch.empty(shape, dtype=torch.float64)
        return replace(state, ladder=ladder, value=value, n_kept=0, snapshots=[], snapshot_step=[], snapshot_interval=1)

    def _ladder_step(
        self, state: LadderSurvey, generator: torch.Generator
    ) -> tuple[LadderSurvey, dict[str, float | int | str]]:
        if state.ladder is None:
            raise RuntimeError("the ladder has not been placed")
        measuring = state.stage == "measure"
        rate = 0.0 if measuring else _ADAPT_RATE
        ladder, value = replica_exchange.step(state.ladder, self.mover, rate, generator)
        state = _record(replace(state, ladder=ladder), value, snapshots=measuring)
        info = {
            "stage": "measuring" if measuring else "adapting",
            "rungs": len(ladder.rung_lambda),
            "ladders": len(ladder.rung),
            "step": state.n_kept,
            "output": f"{float(value.min()):.4g} to {float(value.max()):.4g}",
        }
        if measuring:
            return state, info
        settled = state.n_kept >= _LEAST_ADAPTING
        done = (self.meter.fraction - state.pilot_share) / max(1.0 - state.pilot_share, 1e-9)
        if done >= _MEASURE_AT and settled:
            ladder = replica_exchange.clear_statistics(ladder)
            return self._with_ladder(replace(state, stage="measure"), ladder), info
        passed = sum(mark <= done for mark in _REFINE_AT)
        if passed > state.refined and settled:
            state = self._refine(replace(state, refined=passed))
        return state, info

    def _refine(self, state: LadderSurvey) -> LadderSurvey:
        """Halve intervals whose swaps are rare; give every rung the effort its moves need.

        The pilot's spacing is kept elsewhere: ladders still on their way look wider than they are, and ladders stuck
        where they started narrower.
        """
        ladder = state.ladder
        if ladder is None:
            raise RuntimeError("the ladder has not been placed")
        old = ladder.rung_lambda.numpy()
        # the rarest of any ladder: a sharp transition sits at another rung in each while they are on their way
        rate = (ladder.swap_probability / max(ladder.step_count, 1)).amin(0).numpy()
        rare = rate < _LEAST_SWAP
        room = min(_MOST_RUNGS - len(old), max(1, int(_MOST_GROWTH * len(old))))
        if not rare.any() or room <= 0:
            spread = replica_exchange.spread_effort(ladder, self.mover)
            return self._with_ladder(state, replica_exchange.clear_statistics(spread))
        worst = np.argsort(rate)[: min(int(rare.sum()), room)]
        new = np.sort(np.concatenate([old, 0.5 * (old[1:] + old[:-1])[worst]]))
        nearest = torch.as_tensor(np.abs(new[:, None] - old[None]).argmin(1))
        point = replica_exchange.points_by_rung(ladder)[:, nearest]
        place = (torch.arange(len(ladder.rung))[:, None] * len(old) + nearest).flatten()
        tuning = Tuning(ladder.tuning.reach[place], ladder.tuning.share[place])
        effort = replica_exchange.spread_effort(ladder, self.mover).substeps[place]
        fresh = replica_exchange.init(self.mover, torch.as_tensor(new), point, tuning)
        return self._with_ladder(state, replace(fresh, substeps=effort))


def kept_values(state: LadderSurvey) -> np.ndarray:
    """Outputs ``(ladder, step, rung)`` of the current stage."""
    return state.value[: state.n_kept].permute(1, 0, 2).numpy()


def enough(state: LadderSurvey) -> bool:
    """Whether the frozen ladders were run long enough for anything to be said."""
    return state.stage == "measure" and state.n_kept >= _LEAST_STEPS


def _record(state: LadderSurvey, value: Tensor, snapshots: bool) -> LadderSurvey:
    history = state.value
    if state.n_kept == len(history):
        history = torch.cat([history, torch.empty_like(history)])
    history[state.n_kept] = value
    state = replace(state, value=history, n_kept=state.n_kept + 1)
    if not snapshots or state.n_kept % state.snapshot_interval or state.ladder is None:
        return state
    point = replica_exchange.points_by_rung(state.ladder)
    point = point.to(torch.uint8) if not point.is_floating_point() and int(point.max()) < 256 else point
    taken, steps, interval = (
        [*state.snapshots, point],
        [*state.snapshot_step, state.n_kept - 1],
        state.snapshot_interval,
    )
    if len(taken) * point.numel() * point.element_size() > _SNAPSHOT_BYTES and len(taken) >= 8:
        taken, steps, interval = taken[1::2], steps[1::2], 2 * interval
    return replace(state, snapshots=taken, snapshot_step=steps, snapshot_interval=interval)


def _merged_path(path: Mapping[str, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Both pilots as one sorted path; the spread smoothed over neighbours, since a few particles are noisy."""
    rung_lambda, deviation = np.array(path["rung_lambda"]), np.array(path["deviation"])
    order = np.argsort(rung_lambda, kind="stable")
    rung_lambda, first = np.unique(rung_lambda[order], return_index=True)
    log_spread = np.log(np.maximum(deviation[order][first], 1e-12))
    kernel = np.ones(5) / 5
    padded = np.pad(log_spread, 2, mode="edge")
    return rung_lambda, np.exp(np.convolve(padded, kernel, mode="valid"))


def _thinned(rung_lambda: np.ndarray) -> np.ndarray:
    """At most ``_MOST_RUNGS`` rungs, the free one among them; the verdict's swap check tells if they are too few."""
    kept = rung_lambda[np.linspace(0, len(rung_lambda) - 1, _MOST_RUNGS - 1).round().astype(int)]
    return np.unique(np.concatenate([kept, [0.0]]))
