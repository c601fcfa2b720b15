"""Adversarial examples the first way: box-constrained L-BFGS on a weighed distortion plus the loss of a target class.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4.1: minimise c |r| + loss(x + r, l)
subject to x + r in the box, and search for the c whose minimiser is just of class l.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.attack_kernels import turn_rows, weigh_rows
from theodolite.search.box_lbfgs import BoxRows, finite_rows
from theodolite.search.constant_search import ConstantSearch
from theodolite.search.pull_back import margins, pull_back

PENALTIES = ("squared", "distance")
_LEAST_CONSTANT, _GREATEST_CONSTANT = 1e-12, 1e12


@final
@dataclass(frozen=True)
class LbfgsAttack:
    """``penalty``: "squared", c |r|^2, or "distance", c |r|, whose gradient at r = 0 is taken as 0.

    The search on c: at most ``n_constants`` of them a row, moved by ``factor`` until one fails and one succeeds, until
    their distances differ by at most the share ``accuracy``. For each c at most ``max_iterations`` steps, until the
    gradient is at most the share ``gradient_tolerance`` of the penalty's own; ``history`` as in `BoxSettings`.
    ``batch_size``: images searched for at once. Raises UserError for numbers out of range.
    """

    penalty: str = "squared"
    n_constants: int = 20
    factor: float = 3.0
    accuracy: float = 0.01
    max_iterations: int = 50
    gradient_tolerance: float = 0.1
    history: int = 4
    batch_size: int = 1024

    def __post_init__(self) -> None:
        if self.penalty not in PENALTIES:
            raise UserError("penalty", " or ".join(PENALTIES), repr(self.penalty), "squared is the usual choice")
        if not self.factor > 1:
            raise UserError("factor", "a number above 1", repr(self.factor), "leave it out for the default")
        for argument in ("n_constants", "accuracy", "max_iterations", "gradient_tolerance", "history", "batch_size"):
            number = getattr(self, argument)
            if not number > 0:
                raise UserError(argument, "a positive number", repr(number), "leave it out for the default")


@final
@dataclass
class AdversarialExamples:
    """A row an image: ``point (image, n)`` float64 in the box, ``distance (image,)`` from the image, in L2 (inf: none
    found), ``target (image,)``, ``margin (image,)`` output of the target minus the largest other there, in float64,
    ``found (image,)`` bool: it is positive; ``constant (image,)`` the last c whose minimiser succeeded (NaN: none, or
    none needed), ``units (image,)`` forward and backward passes.

    Where none is found ``point`` is the one of the largest margin met.
    """

    point: Tensor
    distance: Tensor
    target: Tensor
    margin: Tensor
    found: Tensor
    constant: Tensor
    units: Tensor


def adversarial_examples(
    outputs: Outputs, exact: Outputs, inputs: Tensor, target: Tensor, settings: LbfgsAttack | None = None
) -> AdversarialExamples:
    """For every input the closest point found that the network gives the class ``target``.

    ``outputs`` in the precision of the search, ``exact`` the same in float64, by which every example is judged;
    ``inputs (image, n)`` in input units, inside the hull; ``target (image,)`` classes. The closest success of all
    points evaluated, and the last minimiser that succeeded, are pulled back along their segments to the boundary; the
    nearer is returned. An input that is of the target class already is its own example.

    Not found: where no point met is of the target class, or the outputs are not finite at the input. Raises UserError
    for wrong shapes, classes, precisions, or inputs outside the box.
    """
    settings = settings or LbfgsAttack()
    x0 = _checked(outputs, exact, inputs, target)
    n_images = len(x0)
    found = AdversarialExamples(
        x0.clone(),
        torch.full((n_images,), torch.inf, dtype=torch.float64),
        target.clone(),
        torch.full((n_images,), -torch.inf, dtype=torch.float64),
        torch.zeros(n_images, dtype=torch.bool),
        torch.full((n_images,), torch.nan, dtype=torch.float64),
        torch.zeros(n_images, dtype=torch.long),
    )
    everything = torch.arange(n_images)
    _enter(found, exact, x0, everything, x0)
    margin = found.margin.clone()
    for image in everything[~found.found].split(settings.batch_size):
        attack = _Attack(settings, outputs, x0[image], target[image])
        attack.run()
        found.units[image] += attack.units
        found.constant[image] = attack.constant
        for point in (attack.nearest, attack.anchor):
            met = image[point.isfinite().all(1)]
            units = torch.zeros_like(met)
            there = point[point.isfinite().all(1)].double()
            pulled = pull_back(exact, target[met], x0[met], margin[met], there, units)
            found.units[met] += units
            good = pulled.isfinite().all(1)
            _enter(found, exact, x0, met[good], pulled[good])
        lost = (~found.found[image]).nonzero()[:, 0]
        _enter(found, exact, x0, image[lost], attack.best[lost].double())
    return found


def first_constant(gradient_norm: Tensor, margin: Tensor) -> Tensor:
    """c ``(row,)`` for |r|^2 from the loss's gradient, without what the box forbids, and the margin at the input.

    Far from the target the loss falls as its margin rises; where two classes tie, half as fast. The minimiser lies
    there if 2 c d = gradient / 2, at the distance d = -margin / gradient.
    """
    constant = gradient_norm.double().square() / (4 * -margin.double())
    return torch.where(constant.isfinite() & (constant > 0), constant, 1.0).clamp(_LEAST_CONSTANT, _GREATEST_CONSTANT)


class _Attack:
    """One batch on its way: a row an image, each with its own c."""

    def __init__(self, settings: LbfgsAttack, outputs: Outputs, x0: Tensor, target: Tensor) -> None:
        self.settings, self.outputs, self.target = settings, outputs, target
        self.squared = settings.penalty == "squared"
        low, high = (wall.to(outputs.dtype) for wall in (outputs.low, outputs.high))
        # Rounding to single precision may step out of the box; every example is clamped again in double.
        self.x0 = x0.to(outputs.dtype).clamp(low, high)
        self.rows = BoxRows(self.x0.clone(), low, high, settings.history)
        n = len(x0)
        self.units = torch.zeros(n, dtype=torch.long)
        self.margin = torch.full((n,), -torch.inf, dtype=torch.float64)  # at each row's point
        self.length = torch.zeros(n, dtype=torch.float64)  # of its distortion
        self.nearest, self.anchor = torch.full_like(self.x0, torch.nan), torch.full_like(self.x0, torch.nan)
        self.nearest_distance = torch.full((n,), torch.inf, dtype=torch.float64)
        self.anchor_loss, self.anchor_gradient = torch.zeros(n, dtype=torch.float64), torch.zeros_like(self.x0)
        self.anchor_length, self.anchor_margin = torch.zeros_like(self.margin), torch.zeros_like(self.margin)
        self.constant = torch.full((n,), torch.nan, dtype=torch.float64)
        self.best, self.best_margin = self.x0.clone(), self.margin.clone()

    def run(self) -> None:
        rows = self.rows
        everything = rows.row
        loss, gradient, margin = self._evaluate(everything, self.x0)
        rows.begin(loss, gradient)
        self.margin[:] = margin
        first = first_constant(rows.gradient_norm, margin)
        if not self.squared:
            first *= 2 * (-margin / rows.gradient_norm.double()).nan_to_num(1.0)
        self.search = ConstantSearch(
            first.clamp(_LEAST_CONSTANT, _GREATEST_CONSTANT),
            self.settings.factor,
            self.settings.accuracy,
            self.settings.n_constants,
        )
        # The penalty and its gradient vanish at the input.
        self.search.done = ~loss.isfinite()
        rows.rest(self.search.done[rows.row])
        while len(rows.row):
            here, points = rows.trial()
            image = rows.row[here]
            value, gradient, margin = self._evaluate(image, points)
            length = self._weigh(image, points, value, gradient, margin)
            accepted = rows.judge(here, value, gradient)
            moved = image[accepted]
            self.margin[moved], self.length[moved] = margin[accepted], length[accepted]
            self._next()

    def _evaluate(self, image: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropies ``(k,)`` float64 and their gradients ``(k, n)``, and margins ``(k,)``: two units each."""
        target = self.target[image]

        def weight(output: Tensor, index: Tensor) -> Tensor:
            # The gradient of the cross-entropy with respect to the outputs.
            probability = output.softmax(1)
            probability[torch.arange(len(index)), target[index]] -= 1.0
            return probability

        output, gradient = self.outputs.gradient(points, weight)
        self.units[image] += 2
        exact = output.double()
        loss = exact.logsumexp(1) - exact.gather(1, target[:, None])[:, 0]
        return *finite_rows(loss, gradient), margins(exact, target)

    def _weigh(self, image: Tensor, points: Tensor, value: Tensor, gradient: Tensor, margin: Tensor) -> Tensor:
        """Add c times the penalty to the loss and its gradient, in place, and keep what was met; returns |r|."""
        length = torch.empty_like(value)
        kept = (length, self.nearest, self.nearest_distance, self.best, self.best_margin)
        weigh_rows(
            image.numpy(),
            points.numpy(),
            self.x0.numpy(),
            self.search.constant.numpy(),
            self.squared,
            value.numpy(),
            gradient.numpy(),
            margin.numpy(),
            *(tensor.numpy() for tensor in kept),
        )
        return length

    def _penalty(self, constant: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """c times the penalty of changes of ``length (k,)``, and its gradient's share of the change."""
        if self.squared:
            return constant * length.square(), 2 * constant
        return constant * length, torch.where(length > 0, constant / length, 0.0)

    def _next(self) -> None:
        """Give the rows that have the minimiser of their c another one, or let them rest."""
        rows, settings = self.rows, self.settings
        constant, length = self.search.constant[rows.row], self.length[rows.row]
        slope = 2 * constant * length if self.squared else constant
        # At r = 0 the penalty |r| holds every gradient up to c.
        tolerance = torch.where((length == 0) & (not self.squared), 1.0, settings.gradient_tolerance)
        met = (rows.gradient_norm <= tolerance * slope) | rows.stuck | (rows.iterations >= settings.max_iterations)
        met = (met & rows.active).nonzero()[:, 0]
        if len(met) == 0:
            return
        image, before, length = rows.row[met], constant[met], length[met]
        penalty, share = self._penalty(before, length)
        loss, margin = rows.value[met] - penalty, self.margin[image]
        won = margin > 0
        winner = image[won]
        self.anchor_length[winner], self.anchor_margin[winner] = length[won], margin[won]
        self.anchor_loss[winner], self.constant[winner] = loss[won], before[won]
        self.search.judge(image, margin, length)
        # Back to the last success, if there is one: its branch of minima may reach nearer than that of the failures.
        back = ~won & self.constant[image].isfinite()
        self.margin[image] = torch.where(back, self.anchor_margin[image], margin)
        self.length[image] = length = torch.where(back, self.anchor_length[image], length)
        loss = torch.where(back, self.anchor_loss[image], loss)
        after = self.search.constant[image]
        penalty, next_share = self._penalty(after, length)
        arrays = (met, image, won, back, share, next_share, self.x0, rows.point, rows.gradient)
        turn_rows(*(array.numpy() for array in (*arrays, self.anchor, self.anchor_gradient)))
        stiffening = 2 * (after - before) if self.squared else torch.full_like(after, torch.nan)
        rows.restart(met, loss + penalty, stiffening)
        done = torch.zeros(len(rows.row), dtype=torch.bool)
        done[met] = self.search.done[image]
        rows.rest(done)


def _enter(found: AdversarialExamples, exact: Outputs, x0: Tensor, image: Tensor, point: Tensor) -> None:
    """Enter points ``(k, n)`` that are nearer examples than what is known, or less far from one."""
    if len(image) == 0:
        return
    margin = margins(exact.value(point), found.target[image])
    found.units[image] += 1
    distance = torch.where(margin > 0, (point - x0[image]).norm(dim=1), torch.inf)
    better = torch.where(
        found.found[image] | (margin > 0), distance < found.distance[image], margin > found.margin[image]
    )
    chosen = image[better]
    found.point[chosen], found.distance[chosen] = point[better], distance[better]
    found.margin[chosen], found.found[chosen] = margin[better], margin[better] > 0


def _checked(outputs: Outputs, exact: Outputs, inputs: Tensor, target: Tensor) -> Tensor:
    n, n_images = outputs.n_coordinates, len(inputs)
    if exact.dtype != torch.float64:
        raise UserError("exact", "outputs in float64", str(exact.dtype), "make them by all_outputs(torch.float64)")
    if outputs.n_outputs < 2:
        raise UserError("outputs", "two classes or more", str(outputs.n_outputs), "a single number has no classes")
    for name, tensor, shape in (("inputs", inputs, (n_images, n)), ("target", target, (n_images,))):
        if tuple(tensor.shape) != shape:
            raise UserError(name, f"shape {shape}", str(tuple(tensor.shape)), "one row an image, points flattened")
    if n_images and not bool(((target >= 0) & (target < outputs.n_outputs)).all()):
        raise UserError("target", f"classes 0 to {outputs.n_outputs - 1}", str(target.tolist()), "one for each input")
    x0 = inputs.to(torch.float64)
    inside = ((x0 >= outputs.low) & (x0 <= outputs.high)).all(1)
    if not bool(inside.all()):
        row = int((~inside).nonzero()[0])
        raise UserError("inputs", "points in the box of the space", f"row {row} outside", "check its scale")
    return x0
