"""Paths of least energy by the reparametrised string, and the refinement of any path of a real space.

Source: the simplified and improved string method of E, Ren and Vanden-Eijnden, J. Chem. Phys. 126, 164103 (2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.search.minimise import bounds, evaluate
from theodolite.search.real_paths import between, path_barrier, path_length, pin_barrier, resample, stack_paths

__all__ = ["String", "refine", "relax_string"]

_TINY = 1e-300
_SHARPEST = 0.5  # cosine of the angle between neighbouring segments of a string
_MOST_SMOOTHINGS = 100


@final
@dataclass(frozen=True)
class String:
    """How strings relax. ``n_points`` of the relaxed string, ends included; ``iterations`` of descent and
    reparametrisation; ``zooms``: how often the neighbourhood of the highest point is made a string of its own;
    ``check_every`` iterations the barrier is sampled at ``samples`` places a segment and the best string kept;
    ``tolerance``: a string whose barrier fell by no more in two checks is done, and so is a zoom that gained no more.

    Raises UserError: a number out of range.
    """

    n_points: int = 24
    iterations: int = 150
    zooms: int = 6
    check_every: int = 25
    samples: int = 4
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        for name, least in (("n_points", 3), ("iterations", 1), ("zooms", 0), ("check_every", 1), ("samples", 1)):
            if getattr(self, name) < least:
                raise UserError(name, f"at least {least}", repr(getattr(self, name)), "leave it out for the default")
        if not self.tolerance >= 0:
            raise UserError("tolerance", "0 or more energy units", repr(self.tolerance), "1e-7 is the default")


def relax_string(field: Field, path: Tensor, settings: String | None = None) -> Tensor:
    """Strings from ``path`` ``(pair, point, *shape)``, ``(pair, n_points, *shape)`` float64 with the same ends.

    Each image goes down the gradient, at most half the spacing, and the string is laid out again at equal arc length;
    a string whose energies rose in sum halves its step instead. Returned is the string of lowest sampled barrier met,
    the resampled path itself among them.

    Raises UserError: a discrete space.
    """
    settings = settings or String()
    low, high = bounds(field)
    shape = path.shape[2:]
    best = resample(path.detach().double().flatten(2), settings.n_points)
    if len(path) == 0:
        return best.reshape(0, settings.n_points, *shape)
    best_barrier = _sampled(field, best, _evaluate(field, best, shape)[0], shape, settings.samples)
    images = _unfolded(best)
    energy, gradient = _evaluate(field, images, shape)
    steepest = gradient.norm(dim=2).amax(1)
    step = 0.2 * path_length(images) / (settings.n_points - 1) / steepest.clamp(min=_TINY)
    row, idle = torch.arange(len(images)), torch.zeros(len(images), dtype=torch.long)
    for iteration in range(1, settings.iterations + 1):
        spacing = path_length(images) / (settings.n_points - 1)
        move = -step[:, None, None] * gradient[:, 1:-1]
        length = move.norm(dim=2, keepdim=True)
        move *= torch.minimum(torch.ones_like(length), 0.5 * spacing[:, None, None] / length.clamp(min=_TINY))
        moved = torch.cat((images[:, :1], (images[:, 1:-1] + move).clamp(low, high), images[:, -1:]), 1)
        trial = resample(moved, settings.n_points)
        new_energy, new_gradient = _evaluate(field, trial, shape)
        # Across the path the energies fall while the step is stable; equal spacing alone may lift their sum a little.
        expected = (gradient[:, 1:-1] * move).sum((1, 2))
        rise = (new_energy - energy).sum(1)
        accepted = new_energy.isfinite().all(1) & (rise <= 0.05 * expected.abs())
        spread = accepted[:, None, None]
        images = torch.where(spread, trial, images)
        gradient = torch.where(spread, new_gradient, gradient)
        energy = torch.where(accepted[:, None], new_energy, energy)
        step = torch.where(accepted, 1.15 * step, 0.5 * step)
        if iteration % settings.check_every == 0 or iteration == settings.iterations:
            barrier = _sampled(field, images, energy, shape, settings.samples)
            gain = best_barrier[row] - barrier
            better = gain > 0
            best[row[better]], best_barrier[row[better]] = images[better], barrier[better]
            idle = torch.where(gain > settings.tolerance, 0, idle + 1)
            going = idle < 2
            if not bool(going.any()):
                break
            row, idle, step = row[going], idle[going], step[going]
            images, energy, gradient = images[going], energy[going], gradient[going]
    return best.reshape(len(path), settings.n_points, *shape)


def refine(field: Field, path: Tensor, settings: String | None = None) -> Tensor:
    """Paths no higher than ``path`` ``(pair, point, *shape)``, with the same ends: ``(pair, other_point, *shape)``.

    Any path will do, jagged ones too (stack paths of several lengths with `stack_paths`). It is relaxed as a string;
    then, again and again, the stretch around its highest point becomes a finer string of its own between two points
    that stay. A path is replaced only by one whose pinned barrier is lower, so the result is never worse. Unused
    points repeat the last one.

    Raises UserError: a discrete space.
    """
    settings = settings or String()
    original = path.detach().double()
    if len(path) == 0:
        return original
    kept = list(original)
    barrier = pin_barrier(field, original).energy
    relaxed = relax_string(field, original, settings)
    tops = pin_barrier(field, relaxed).energy
    for row in (tops < barrier).nonzero()[:, 0].tolist():
        kept[row], barrier[row] = relaxed[row], tops[row]
    active = list(range(len(kept)))
    for _ in range(settings.zooms):
        if not active:
            break
        active = _zoom(field, kept, barrier, active, settings)
    return stack_paths(kept)


def _zoom(field: Field, kept: list[Tensor], barrier: Tensor, active: list[int], settings: String) -> list[int]:
    """Refine the stretch around the top of each active path in place; returns those that gained."""
    stretches: list[tuple[int, int]] = []
    parts: list[Tensor] = []
    tops = pin_barrier(field, stack_paths([kept[row] for row in active]))
    for row, padded, point in zip(active, tops.segment.tolist(), tops.point, strict=True):
        segment = min(padded, len(kept[row]) - 2)  # where the end is the top it is found among its repetitions
        first, last = max(segment - 1, 0), min(segment + 2, len(kept[row]) - 1)
        stretches.append((first, last))
        inner = torch.cat((kept[row][first : segment + 1], point[None], kept[row][segment + 1 : last + 1]))
        parts.append(resample(inner[None], settings.n_points)[0])
    finer = relax_string(field, torch.stack(parts), settings)
    candidates = [
        torch.cat((kept[row][:first], part, kept[row][last + 1 :]))
        for row, (first, last), part in zip(active, stretches, finer, strict=True)
    ]
    gained: list[int] = []
    levels = pin_barrier(field, stack_paths(candidates)).energy.tolist()
    for row, candidate, lowered in zip(active, candidates, levels, strict=True):
        gain = float(barrier[row]) - lowered
        if gain > 0:
            kept[row], barrier[row] = candidate, lowered
        if gain > settings.tolerance:
            gained.append(row)
    return gained


def _unfolded(images: Tensor) -> Tensor:
    """Strings without zigzags: a jagged path is shorter where it goes straight, and its folds never relax away."""
    half = torch.tensor(0.5, dtype=images.dtype)
    for _ in range(_MOST_SMOOTHINGS):
        ahead, behind = images[:, 2:] - images[:, 1:-1], images[:, 1:-1] - images[:, :-2]
        cosine = torch.nn.functional.cosine_similarity(ahead, behind, dim=2)
        if not bool((cosine < _SHARPEST).any()):
            break
        middle = between(between(images[:, :-2], images[:, 2:], half), images[:, 1:-1], half)
        folded = (cosine < _SHARPEST).any(1)[:, None, None]
        smooth = torch.cat((images[:, :1], torch.where(folded, middle, images[:, 1:-1]), images[:, -1:]), 1)
        images = torch.where(folded, resample(smooth, images.shape[1]), images)
    return images


def _evaluate(field: Field, images: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    energy, gradient = evaluate(field, images.reshape(-1, *shape))
    return energy.reshape(images.shape[:2]), gradient.reshape(images.shape)


def _sampled(field: Field, images: Tensor, energy: Tensor, shape: torch.Size, samples: int) -> Tensor:
    barrier = torch.full((len(images),), torch.inf, dtype=torch.float64)
    finite = energy.isfinite().all(1)
    if bool(finite.any()):
        barrier[finite] = path_barrier(field, images[finite].reshape(-1, images.shape[1], *shape), samples)
    return barrier
