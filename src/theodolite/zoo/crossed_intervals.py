"""A mean over seeds and images at once, with the interval that both kinds of chance leave: what trainings differ by.

Every seed is measured on the same images, so neither is a repetition of the other: seeds and images are crossed random
factors. Variance: Searle, Casella and McCulloch 1992, "Variance Components", section 4.7; degrees of freedom:
Satterthwaite 1946, Biometrics Bulletin 2, 110.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import stats

from theodolite.errors import UserError


@final
@dataclass(frozen=True)
class Interval:
    """``mean`` with its interval [``low``, ``high``], in the units of what was averaged."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 where the interval lies above 0, -1 where below, 0 where it holds 0."""
        return int(self.low > 0) - int(self.high < 0)

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies in the interval."""
        return self.low <= value <= self.high


def crossed_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """The mean of ``values (seed, image)`` over all seeds and images there might be, at confidence ``level``.

    For a difference give the differences, paired: rows of the same seed, columns of the same image. With mean squares
    M of seeds, images and what is left, the variance of the mean is (M_seed + M_image - M_left) / (seeds * images),
    taken as no less than the larger of the first two: a negative component is chance. Raises UserError for fewer than
    three seeds (two leave one degree of freedom, and too short intervals) or images, numbers that are not finite, or a
    level outside (0, 1).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 3:
        raise UserError("values", "three seeds and three images or more", str(values.shape), "train with more seeds")
    if not np.isfinite(values).all():
        raise UserError("values", "finite numbers", "others", "leave out images that have no value for every seed")
    if not 0 < level < 1:
        raise UserError("level", "a share between 0 and 1", repr(level), "0.95 is usual")
    n_seeds, n_images = values.shape
    mean = float(values.mean())
    by_seed, by_image = values.mean(1), values.mean(0)
    left = values - by_seed[:, None] - by_image[None, :] + mean
    of_seeds = n_images * float(by_seed.var(ddof=1))
    of_images = n_seeds * float(by_image.var(ddof=1))
    of_left = float((left**2).sum()) / ((n_seeds - 1) * (n_images - 1))
    squares = max(of_seeds + of_images - of_left, of_seeds, of_images)
    if squares == 0:
        return Interval(mean, mean, mean)
    spread = of_seeds**2 / (n_seeds - 1) + of_images**2 / (n_images - 1)
    if squares > max(of_seeds, of_images):
        spread += of_left**2 / ((n_seeds - 1) * (n_images - 1))
    freedom = squares**2 / spread
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(squares / (n_seeds * n_images))
    return Interval(mean, mean - half, mean + half)
