"""Replica exchange: independent ladders of canonical rungs, neighbours swapping states.

A walker is one configuration; a rung is a value of lambda (weight exp(lambda y)); walkers carry their rung, so
that a swap moves two numbers. Rung ``free`` has lambda = 0, where the total weight is the number of inputs.
Source: Swendsen and Wang 1986; Geyer 1991; spacing and swaps: Kofke 2002.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from theodolite.sampling.ensembles import Canonical
from theodolite.sampling.metropolis import Mover, Tuning, Walkers, put_walkers, take_walkers

SPACING = 1.2  # of the outputs' standard deviation, between the means of neighbouring rungs


@dataclass(frozen=True)
class LadderState:
    """``rung`` ``(ladder, walker)``: the rung each walker is on; ``walkers`` are flattened ladder by ladder;
    ``tuning``, ``substeps`` and ``accepted`` are by ladder and rung, flattened: a ladder still on its way needs other
    moves than one that has arrived. ``swap_probability`` ``(ladder, rung - 1)`` and ``accepted`` are sums
    over ``step_count`` steps; ``direction``: +1 last seen on the top rung, -1 on the free one."""

    rung_lambda: Tensor
    rung: Tensor
    walkers: Walkers
    tuning: Tuning
    substeps: Tensor
    swap_probability: Tensor
    accepted: Tensor
    step_count: int
    direction: Tensor
    half_trips: Tensor


def init(mover: Mover, rung_lambda: Tensor, point: Tensor, tuning: Tuning) -> LadderState:
    """``point`` ``(ladder, rung, *point)``: where each walker starts, on the rung of its index. ``tuning`` is by rung,
    or by ladder and rung."""
    n_ladders, n_rungs = point.shape[:2]
    if len(tuning.reach) == n_rungs:
        tuning = Tuning(tuning.reach.repeat(n_ladders), tuning.share.repeat(n_ladders))
    return LadderState(
        rung_lambda.double(),
        torch.arange(n_rungs).repeat(n_ladders, 1),
        mover.start(point.flatten(0, 1)),
        tuning,
        torch.full((n_ladders * n_rungs,), 2),
        torch.zeros(n_ladders, n_rungs - 1, dtype=torch.float64),
        torch.zeros(n_ladders * n_rungs, dtype=torch.float64),
        0,
        torch.zeros(n_ladders, n_rungs, dtype=torch.int64),
        torch.zeros(n_ladders, dtype=torch.int64),
    )


def step(state: LadderState, mover: Mover, adapt: float, generator: torch.Generator) -> tuple[LadderState, Tensor]:
    """Move every walker, swap neighbours; returns the outputs by rung ``(ladder, rung)``.

    ``adapt`` is the rate of tuning; 0 freezes it, as every kept sample needs.
    """
    walkers, accepted = _move(state, mover, generator)
    by_rung = torch.empty_like(state.accepted).scatter_(0, _place(state.rung), accepted.double())
    tuned = state.tuning if adapt == 0 else mover.adapt(state.tuning, by_rung.float(), adapt)
    value = walkers.value.reshape(state.rung.shape)
    rung, probability = _swap(state.rung, value, state.rung_lambda, state.step_count, generator)
    by_rung_value = torch.empty_like(value).scatter_(1, rung, value)
    direction, half_trips = _trips(state, rung)
    return (
        replace(
            state,
            rung=rung,
            walkers=walkers,
            tuning=tuned,
            swap_probability=state.swap_probability + probability,
            accepted=state.accepted + by_rung,
            step_count=state.step_count + 1,
            direction=direction,
            half_trips=half_trips,
        ),
        by_rung_value,
    )


def _place(rung: Tensor) -> Tensor:
    """Index of every walker's ladder and rung in what is kept by ladder and rung, flattened."""
    n_ladders, n_rungs = rung.shape
    return (torch.arange(n_ladders)[:, None] * n_rungs + rung).flatten()


def _move(state: LadderState, mover: Mover, generator: torch.Generator) -> tuple[Walkers, Tensor]:
    """Every walker by its place's number of substeps; walkers of equal effort move together."""
    place = _place(state.rung)
    efforts = state.substeps[place]
    walkers, accepted = state.walkers, torch.zeros(len(place))
    for effort in efforts.unique().tolist():
        index = (efforts == effort).nonzero()[:, 0]
        here = place[index]
        ensemble = Canonical(state.rung_lambda[state.rung.flatten()[index]])
        tuning = Tuning(state.tuning.reach[here], state.tuning.share[here])
        part, share = mover.step(take_walkers(walkers, index), ensemble, tuning, effort, generator)
        walkers = put_walkers(walkers, index, part)
        accepted[index] = share
    return walkers, accepted


def spread_effort(state: LadderState, mover: Mover) -> LadderState:
    """More substeps for rungs whose steps renew little of a point: 1, 2, 4 or 8."""
    accepted = (state.accepted / max(state.step_count, 1)).float()
    renewal = mover.renewal(state.tuning, accepted).clamp(min=1e-9)
    effort = 2 ** torch.log2(mover.wanted_renewal / renewal).ceil().clamp(0, 3)
    return replace(state, substeps=effort.long())


def clear_statistics(state: LadderState) -> LadderState:
    """Forget swaps, acceptance and trips: what is kept afterwards was measured at frozen settings."""
    return replace(
        state,
        swap_probability=torch.zeros_like(state.swap_probability),
        accepted=torch.zeros_like(state.accepted),
        step_count=0,
        direction=torch.zeros_like(state.direction),
        half_trips=torch.zeros_like(state.half_trips),
    )


def points_by_rung(state: LadderState) -> Tensor:
    """Points ``(ladder, rung, *point)``."""
    order = state.rung.argsort(1)
    point = state.walkers.point.reshape(*state.rung.shape, *state.walkers.point.shape[1:])
    return torch.stack([point[ladder, order[ladder]] for ladder in range(len(order))])


def place_rungs(rung_lambda: np.ndarray, deviation: np.ndarray, spacing: float = SPACING) -> np.ndarray:
    """Rungs whose neighbours lie ``spacing`` standard deviations apart, with one at exactly lambda = 0.

    ``deviation`` of the output, at sorted ``rung_lambda`` that include 0.
    """
    order = np.argsort(rung_lambda)
    grid, spread = rung_lambda[order], np.maximum(deviation[order], 1e-12)
    step = np.diff(grid)
    length = np.concatenate([[0.0], np.cumsum(step * np.sqrt(spread[1:] * spread[:-1]))])
    free = float(np.interp(0.0, grid, length))
    sides = []
    for end in (length[0], length[-1]):
        count = int(np.ceil(abs(end - free) / spacing - 1e-9))
        marks = free + (end - free) * np.arange(1, count + 1) / max(count, 1)
        sides.append(np.interp(marks, length, grid))
    return np.concatenate([sides[0][::-1], [0.0], sides[1]])


def _swap(
    rung: Tensor, value: Tensor, rung_lambda: Tensor, step_count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Even then odd neighbours; returns the rungs and the swap probabilities ``(ladder, rung - 1)``."""
    n_ladders, n_rungs = rung.shape
    rung = rung.clone()
    probability = torch.zeros(n_ladders, n_rungs - 1, dtype=torch.float64)
    rows = torch.arange(n_ladders)[:, None]
    for parity in (step_count % 2, 1 - step_count % 2):
        lower = torch.arange(parity, n_rungs - 1, 2)
        if not len(lower):
            continue
        walker_on = rung.argsort(1)
        left, right = walker_on[:, lower], walker_on[:, lower + 1]
        gain = (rung_lambda[lower] - rung_lambda[lower + 1]) * (value[rows, right] - value[rows, left])
        probability[:, lower] = gain.exp().clamp(max=1.0)
        accept = torch.rand(gain.shape, generator=generator, dtype=torch.float64).log() < gain
        rung[rows, left] = torch.where(accept, lower + 1, lower)
        rung[rows, right] = torch.where(accept, lower, lower + 1)
    return rung, probability


def _trips(state: LadderState, rung: Tensor) -> tuple[Tensor, Tensor]:
    """Direction labels, and half trips between the free rung and either end."""
    free = int((state.rung_lambda == 0).nonzero()[0])
    at_free = rung == free
    at_end = ((rung == 0) & (free != 0)) | ((rung == rung.shape[1] - 1) & (free != rung.shape[1] - 1))
    arrived = (at_free & (state.direction == 1)) | (at_end & (state.direction == -1))
    direction = torch.where(at_free, -1, torch.where(at_end, 1, state.direction))
    return direction, state.half_trips + arrived.sum(1)
