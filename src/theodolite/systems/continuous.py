"""Fields on continuous spaces with exact volumes: a sum of uniforms in a box, a slope in a Gaussian latent.

Sources: Irwin, Biometrika 19, 225 (1927), and Hall, Biometrika 19, 240 (1927), for the sum of uniforms.
"""

import math
from fractions import Fraction

import numpy as np
from scipy.special import log_ndtr

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.space import Box, Latent
from theodolite.systems.bins import checked_edges

__all__ = [
    "box_linear",
    "box_linear_log_density_of_states",
    "latent_linear",
    "latent_linear_log_density_of_states",
]


def box_linear(n: int) -> Field:
    """The sum of the n coordinates of a point of Box((n,), 0, 1); values 0..n, differentiable.

    Raises:
        UserError: n < 1.
    """
    return Field(Box((_at_least_one("n", n),), 0.0, 1.0), lambda x: x.sum(1), name=f"sum of {n} uniforms")


def box_linear_log_density_of_states(n: int, edges: np.ndarray) -> np.ndarray:
    """ln of the volume of each bin of `box_linear(n)`, `(bin,)` float64 in nats; -inf outside 0..n.

    `edges` are `(bin + 1,)`, ascending, in output units. In fractions, since Irwin-Hall's terms cancel.

    Raises:
        UserError: n < 1, or edges that do not ascend.
    """
    below = [_irwin_hall(_at_least_one("n", n), Fraction(float(edge))) for edge in checked_edges(edges)]
    return np.array([_log_fraction(high - low) for low, high in zip(below[:-1], below[1:], strict=True)])


def latent_linear(dim: int, slope: float = 1.0) -> Field:
    """slope * (sum of the coordinates) / sqrt(dim) on Latent(dim): normal, of standard deviation |slope|.

    Raises:
        UserError: dim < 1, or a slope that is 0 or not finite.
    """
    factor = _checked_slope(slope) / math.sqrt(_at_least_one("dim", dim))
    return Field(Latent(dim), lambda x: factor * x.sum(1), name=f"slope of a Gaussian in {dim} dimensions")


def latent_linear_log_density_of_states(slope: float, edges: np.ndarray) -> np.ndarray:
    """ln of the probability of each bin of `latent_linear(dim, slope)` for any dim, `(bin,)` float64 in nats.

    Exact far into the tails; edges `(bin + 1,)` in output units, infinite ones allowed.

    Raises:
        UserError: a slope that is 0 or not finite, or edges that do not ascend.
    """
    scaled = checked_edges(edges) / abs(_checked_slope(slope))
    low, high = scaled[:-1], scaled[1:]
    # In the upper tail both probabilities round to 1: measure from the other side there.
    mirrored = low > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    return log_ndtr(high) + np.log1p(-np.exp(log_ndtr(low) - log_ndtr(high)))


def _irwin_hall(n: int, x: Fraction) -> Fraction:
    """Probability that the sum of n uniforms is at most x."""
    if x <= 0:
        return Fraction(0)
    if x >= n:
        return Fraction(1)
    terms = ((-1) ** k * math.comb(n, k) * (x - k) ** n for k in range(math.floor(x) + 1))
    return sum(terms, Fraction(0)) / math.factorial(n)


def _log_fraction(value: Fraction) -> float:
    return math.log(value.numerator) - math.log(value.denominator) if value else -math.inf


def _checked_slope(slope: float) -> float:
    if slope == 0 or not math.isfinite(slope):
        raise UserError("slope", "a finite number other than 0", repr(slope), "for example 1.0")
    return slope


def _at_least_one(argument: str, number: int) -> int:
    if number < 1:
        raise UserError(argument, "at least 1", str(number), "a point needs a coordinate")
    return number
