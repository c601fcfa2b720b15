"""Do examples made to fool one network fool another? Rows of examples, networks they are tested on, and the shares.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4 (tables of cross-model and
cross-training-set generalisation; in Komati 2022, review, Fig. 7 and 9): minimal examples, the same amplified to a
stated distortion, and Gaussian noise. Distortion is sqrt(mean squared change).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from scipy.stats import t as t_distribution
from torch import Tensor

from theodolite.instruments import calibration
from theodolite.outputs import Outputs

MINIMAL, AMPLIFIED, NOISE = "minimal", "amplified", "noise"
_CONFIDENCE = 0.95
_BISECTIONS = 80  # halvings of a factor that doubling has bracketed: beyond the last bit of a double
_DOUBLINGS = 1100  # of the factor: across the range of double precision
_REACHED = 1e-9  # relative error of a stated distortion
_ROUNDING = 1e-13  # relative
_RESAMPLED_AT_ONCE = 2**22  # numbers held while resampling


class Interval(NamedTuple):
    """An estimate and the ends of its 95% interval; NaN where there is nothing to estimate from."""

    value: float
    low: float
    high: float


@final
@dataclass(frozen=True)
class Examples:
    """A row of a transfer matrix: ``kind`` "minimal", "amplified" or "noise"; ``made_for``: a network by its place,
    -1 for noise; ``stated``: the distortion or standard deviation asked for, NaN for minimal ones; ``point (image,
    n)`` float64, ``known (image,)`` bool: where there is one; ``n_unreached``: examples that no factor brings to the
    stated distortion inside the box."""

    kind: str
    made_for: int
    stated: float
    point: Tensor
    known: Tensor
    n_unreached: int = 0


@final
@dataclass(frozen=True)
class Transfer:
    """``share``, ``low``, ``high`` and ``count`` ``(row, network)``: of the ``count`` inputs that the network had
    right and the row has an example of, the share whose example it gets wrong, with its 95% interval; ``fooled (row,
    network)`` their number; ``wrong (row, network, image)`` bool: what the network got wrong, counted or not."""

    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    fooled: np.ndarray
    wrong: np.ndarray


def right(output: Tensor, label: Tensor) -> Tensor:
    """``(image,)`` bool: the output of the label exceeds all others of ``output (image, class)`` by more than rounding,
    so that a tie, as at a flip point, is wrong; so is every unlabelled image (-1) and what is not finite."""
    given = label.clamp(min=0)[:, None]
    lead = output.gather(1, given)[:, 0] - output.scatter(1, given, -torch.inf).amax(1)
    return (lead > rounding(output)) & (label >= 0)


def rounding(output: Tensor) -> Tensor:
    """``(image,)`` what the last bits of ``output (image, class)`` may be off by: they depend on the rows evaluated
    beside them."""
    return _ROUNDING * output.abs().amax(1)


def distortion(change: Tensor) -> Tensor:
    """``(row,)`` sqrt of the mean squared entry of ``change (row, n)``: the unit of Szegedy et al. 2013."""
    return change.norm(dim=1) / change.shape[1] ** 0.5


def amplified(origin: Tensor, example: Tensor, stated: float, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Points ``clip(origin + t (example - origin))`` of ``(row, n)`` whose distortion, after clipping to ``low`` to
    ``high`` ``(n,)``, is ``stated``, and ``(row,)`` bool where there is such a t >= 0; elsewhere the points are NaN.

    Clipping can only shorten, and more of it never helps: the distortion rises with t to that of the farthest corner,
    so that t is found by bisection. Rows of NaN are not reached.
    """
    change = example - origin
    corner = torch.where(change > 0, high - origin, torch.where(change < 0, origin - low, 0.0))
    reachable = (distortion(corner) >= stated) & (change != 0).any(1)
    point = torch.full_like(origin, torch.nan)
    rows = reachable.nonzero()[:, 0]
    if not len(rows):
        return point, reachable
    start, move = origin[rows], change[rows]

    def at(factor: Tensor) -> Tensor:
        return torch.clamp(start + factor[:, None] * move, low, high)

    # Where the corner itself is the answer no factor overshoots: doubling ends when the point stands still.
    upper = stated / distortion(move).clamp(min=torch.finfo(torch.float64).tiny)
    for _ in range(_DOUBLINGS):
        short = (distortion(at(upper) - start) < stated) & (at(upper) != at(2 * upper)).any(1)
        if not bool(short.any()):
            break
        upper = torch.where(short, 2 * upper, upper)
    lower = torch.zeros_like(upper)
    for _ in range(_BISECTIONS):
        middle = (lower + upper) / 2
        beyond = distortion(at(middle) - start) >= stated
        lower, upper = torch.where(beyond, lower, middle), torch.where(beyond, middle, upper)
    point[rows] = at(upper)
    reachable[rows] = (distortion(point[rows] - start) - stated).abs() <= _REACHED * stated
    point[~reachable] = torch.nan
    return point, reachable


def noisy(origin: Tensor, deviation: float, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """``origin (row, n)`` with Gaussian noise of this standard deviation, clipped to ``low`` to ``high``."""
    noise = torch.randn(origin.shape, generator=generator, dtype=torch.float64)
    return torch.clamp(origin + deviation * noise, low, high)


def transfer(rows: Sequence[Examples], networks: Sequence[Outputs], label: Tensor, right_before: Tensor) -> Transfer:
    """Test every row of examples on every network, in float64: one forward pass a network and known example.

    ``label (image,)``, ``right_before (network, image)`` bool: what each network had right before the change.
    """
    shape = (len(rows), len(networks), len(label))
    wrong, counted = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for i, row in enumerate(rows):
        images = row.known.nonzero()[:, 0]
        for j, outputs in enumerate(networks):
            if len(images):
                wrong[i, j, images.numpy()] = ~right(outputs.value(row.point[images]), label[images]).numpy()
            counted[i, j] = (row.known & right_before[j]).numpy()
    count, fooled = counted.sum(2), (wrong & counted).sum(2)
    interval = np.vectorize(share_interval)(fooled, count)
    return Transfer(interval[0], interval[1], interval[2], count, fooled, wrong)


def share_interval(successes: int, count: int) -> Interval:
    """The share and its exact 95% interval (Clopper and Pearson 1934), one-sided at 0 and 1 where it ends there.

    Resampling the images of a share is drawing from a binomial; its percentiles have no width at 0% and at 100%,
    where tables of transfer often are, and cover too seldom near them. The exact interval covers at least 95%.
    """
    if not count:
        return Interval(np.nan, np.nan, np.nan)
    low, high = calibration.share_interval(np.array(successes), np.array(count))
    return Interval(successes / count, float(low), float(high))


def mean_interval(values: np.ndarray, n_resamples: int, generator: np.random.Generator) -> Interval:
    """The mean of ``values (image,)`` and its 95% bootstrap-t interval over images (Efron 1979; Hall 1988).

    Resamples are studentised, since distortions are skewed and percentiles of their mean cover too seldom; of few
    values a resample repeats too many, so that the interval is never narrower than Student's. No interval, NaN, where
    there are fewer than two values; values all alike have none but themselves.
    """
    n = len(values)
    mean = float(values.mean()) if n else np.nan
    if n < 2:
        return Interval(mean, np.nan, np.nan)
    error = float(_standard_error(values[None])[0])
    if error <= _ROUNDING * abs(mean):
        return Interval(mean, mean, mean)
    ratios = []
    for first in range(0, n_resamples, size := max(1, _RESAMPLED_AT_ONCE // n)):
        drawn = values[generator.integers(n, size=(min(size, n_resamples - first), n))]
        spread = _standard_error(drawn)
        some = spread > _ROUNDING * abs(mean)
        ratios.append((drawn.mean(1)[some] - mean) / spread[some])
    below, above = np.quantile(np.concatenate(ratios), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    student = float(t_distribution.ppf((1 + _CONFIDENCE) / 2, n - 1))
    return Interval(mean, mean - max(above, student) * error, mean - min(below, -student) * error)


def _standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean of each row of ``values (row, n)``."""
    return values.std(axis=1, ddof=1) / values.shape[1] ** 0.5
