"""Langevin chains of an energy, with or without Metropolis correction: the inner loop of learning.

x' = x - step_size^2 / (2 T) dU/dx + step_size noise Z. Corrected, it is MALA, whose law is exp(-U/T) exactly;
uncorrected, its law is off by terms of order step_size^2.
Sources: Hill 2020 (PhD thesis, UCLA), eq. 1.2 and Algorithm 1; Roberts and Tweedie 1996; Roberts and Rosenthal 1998.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from numba import njit
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy
from theodolite.learning.normal_numbers import Normals

WANTED_ACCEPTANCE = 0.6  # Roberts and Rosenthal 1998: .574 is best in many dimensions


@final
@dataclass(frozen=True)
class LangevinSettings:
    """``step_size`` epsilon in input units; ``temperature`` T in units of the energy's nats.

    ``noise``: tau of Algorithm 1: 1 is Langevin, 0 gradient descent, another value gamma of eq. 3.6, whose temperature
    is noise^2 T. Only 1 can be corrected (``metropolis``). Raises UserError for numbers that make no step.
    """

    step_size: float
    metropolis: bool = True
    noise: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("step_size", "temperature"):
            number = getattr(self, name)
            if not (math.isfinite(number) and number > 0):
                raise UserError(name, "a finite number above 0", repr(number), "choose a positive one")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise UserError("noise", "a finite number, 0 or more", repr(self.noise), "use 1, or 0 for descent")
        if self.metropolis and self.noise != 1:
            raise UserError("noise", "1 with Metropolis correction", repr(self.noise), "set metropolis=False")


class Chains(NamedTuple):
    """``point (chain, *shape)`` with its energy ``value (chain,)`` and slope ``gradient (chain, *shape)``."""

    point: Tensor
    value: Tensor
    gradient: Tensor


class Moves(NamedTuple):
    """Means over the steps and chains: accepted share (NaN without correction), length of dU/dx where steps began."""

    acceptance: float
    gradient_norm: float


def start(energy: Energy, point: Tensor) -> Chains:
    """Chains at ``point (chain, *shape)``, in its dtype (which must be the energy's). One evaluation a chain."""
    if tuple(point.shape[1:]) != energy.shape:
        raise UserError("point", f"(chains, *{energy.shape})", str(tuple(point.shape)), "give points of that shape")
    return Chains(point, *energy.value_and_gradient(point))


def langevin(
    energy: Energy, chains: Chains, settings: LangevinSettings, steps: int, generator: torch.Generator
) -> tuple[Chains, Moves]:
    """``steps`` Langevin steps of every chain: one evaluation a chain and step. ``chains`` is left as it was.

    Each step takes standard normals of the points' shape (`Normals`, seeded once a call) and, with correction, one
    exponential number a chain of the generator itself: a chain depends on its own start and its own row of these, never
    on other chains. A proposal whose energy or slope is not finite is refused; without correction nothing is refused,
    and numbers that overflow stay in the chains for the caller to see. Computes in the dtype of the chains. Raises
    UserError for fewer than one step.
    """
    if steps < 1:
        raise UserError("steps", "1 or more", str(steps), "take at least one step")
    run = _corrected if settings.metropolis else _uncorrected
    return run(energy, chains, settings, steps, generator)


def adapted(step_size: float, acceptance: float, rate: float) -> float:
    """A step moved towards the wanted acceptance: ``step_size`` exp(rate (acceptance - .6)) (Robbins and Monro)."""
    return step_size * math.exp(rate * (acceptance - WANTED_ACCEPTANCE))


def _uncorrected(
    energy: Energy, chains: Chains, settings: LangevinSettings, steps: int, generator: torch.Generator
) -> tuple[Chains, Moves]:
    size, noisy = settings.step_size, settings.noise > 0
    evaluate = energy.evaluator(len(chains.point), chains.point.dtype)
    normals = Normals(generator, chains.point.dtype)
    point, value, gradient = chains
    buffers = _fresh(point), _fresh(point)
    noise = torch.zeros_like(buffers[0])
    x, z, behind = _rows(point), _rows(noise), tuple(_rows(buffer) for buffer in buffers)
    drift, spread, length = size**2 / (2 * settings.temperature), size * settings.noise, 0.0
    for step in range(steps):
        if noisy:
            normals.fill(noise)
        length += _move(x, _rows(gradient), z, drift, spread, behind[step % 2])
        point, x = buffers[step % 2], behind[step % 2]
        value, gradient = evaluate(point)
    return Chains(point, value.clone(), gradient.clone()), Moves(math.nan, length / (steps * len(x)))


def _corrected(
    energy: Energy, chains: Chains, settings: LangevinSettings, steps: int, generator: torch.Generator
) -> tuple[Chains, Moves]:
    size, temperature = settings.step_size, settings.temperature
    evaluate = energy.evaluator(len(chains.point), chains.point.dtype)
    normals = Normals(generator, chains.point.dtype)
    now = Chains(*(_fresh(tensor) for tensor in chains))
    proposed, noise, threshold = (torch.empty_like(tensor) for tensor in (now.point, now.point, now.value))
    x, u, g = _rows(now.point), now.value.numpy(), _rows(now.gradient)
    y, z, bar = _rows(proposed), _rows(noise), threshold.numpy()
    length, accepted = 0.0, 0
    for _ in range(steps):
        normals.fill(noise)
        length += _move(x, g, z, size**2 / (2 * temperature), size, y)
        value, gradient = evaluate(proposed)
        threshold.exponential_(generator=generator)
        accepted += _accept(x, u, g, y, value.detach().numpy(), _rows(gradient), z, bar, size, temperature)
    n = steps * len(x)
    return now, Moves(accepted / n, length / n)


def _fresh(tensor: Tensor) -> Tensor:
    """A contiguous copy, which `_rows` sees as it is."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _rows(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().reshape(tensor.shape[0], -1)


# Sums may be taken in any order; what is not finite keeps its meaning.
_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True, fastmath=_FAST)
def _move(point, gradient, noise, drift, spread, out):
    """Write point - drift gradient + spread noise, all ``(n, d)``, and give the sum of the gradients' lengths."""
    one = point.dtype.type
    along, across, total = one(drift), one(spread), 0.0
    for i in range(len(point)):
        x, slope, z, to = point[i], gradient[i], noise[i], out[i]
        squared = one(0.0)
        for j in range(len(x)):
            squared += slope[j] * slope[j]
            to[j] = x[j] - along * slope[j] + across * z[j]
        total += np.sqrt(squared)
    return total


@njit(cache=True, fastmath=_FAST)
def _accept(point, value, gradient, there, its_value, its_gradient, noise, threshold, size, temperature):
    """Metropolis' choice of each row, in place, and how many moved.

    With z the noise that led there and b the noise that would lead back, b = -z + d with d = size / (2 T) (sum of both
    slopes): the densities of the two proposals differ by (|z|^2 - |b|^2) / 2 = (2 z - d) . d / 2, and no difference of
    points, which would cancel, is formed. Minus the logarithm of a uniform number is the ``threshold``.
    """
    one = point.dtype.type
    share, two, moved = one(size / (2 * temperature)), one(2.0), 0
    for i in range(len(point)):
        slope, other, z = gradient[i], its_gradient[i], noise[i]
        total = one(0.0)
        for j in range(len(z)):
            d = share * (slope[j] + other[j])
            total += (two * z[j] - d) * d
        log_ratio = (float(value[i]) - float(its_value[i])) / temperature + 0.5 * float(total)
        if log_ratio > -threshold[i]:
            moved += 1
            value[i] = its_value[i]
            x, y = point[i], there[i]
            for j in range(len(z)):
                x[j] = y[j]
                slope[j] = other[j]
    return moved
