"""A linear logit with integer weights on a grid; `linear_exact.py` has its density of states."""

import math

import numba
import numpy as np
import torch

from theodolite.errors import UserError
from theodolite.field import Field, LevelDifferences, SingleSite
from theodolite.space import Grid

__all__ = ["linear", "linear_logit", "linear_logit_scale", "linear_logit_weights"]


def linear(weights: np.ndarray, levels: int = 256, shape: tuple[int, ...] | None = None, scale: float = 1.0) -> Field:
    """The field scale * sum_i w_i x_i over a Grid of n coordinates with values 0..levels-1.

    Args:
        weights: `(n,)` whole numbers, not all zero; coordinate i is the i-th in row-major order.
        levels: number of values of a coordinate.
        shape: shape of a point, of n coordinates; `(n,)` when None.
        scale: unit of the output for a weight of 1. A power of two keeps every output exact.

    `level_spacing` is scale * (greatest common divisor of the weights).

    Raises:
        UserError: weights not whole or all zero, a scale that is not positive, a shape of another size.
    """
    weights = checked_weights(weights)
    if not (math.isfinite(scale) and scale > 0):
        raise UserError("scale", "a finite number > 0", repr(scale), "use weights of the other sign instead")
    shape = (len(weights),) if shape is None else tuple(shape)
    if math.prod(shape) != len(weights):
        raise UserError("shape", f"a shape of {len(weights)} coordinates", str(shape), "match the weights")
    slopes = torch.from_numpy(weights).to(torch.float64)

    def value(x: torch.Tensor) -> torch.Tensor:
        return scale * (x.to(torch.float64).flatten(1) @ slopes)

    return Field(
        Grid(shape, levels),
        value,
        name=f"linear field of {len(weights)} coordinates",
        level_spacing=scale * math.gcd(*weights.tolist()),
        level_differences=LevelDifferences(
            table=torch.arange(levels, dtype=torch.float64).reshape(-1, 1), function=value
        ),
        single_site=SingleSite(change=_change, data=(scale * weights,)),
    )


def linear_logit(seed: int = 0, shape: tuple[int, ...] = (28, 28), levels: int = 256) -> Field:
    """A linear field scaled like a classifier's logit: its standard deviation over all inputs is in [1, 2).

    The weights are `linear_logit_weights(seed, n)` and the scale `linear_logit_scale(weights, levels)`.

    Raises:
        UserError: a shape or number of levels that `Grid` refuses.
    """
    weights = linear_logit_weights(seed, Grid(shape, levels).n_coordinates)
    return linear(weights, levels, shape, linear_logit_scale(weights, levels))


def linear_logit_weights(seed: int, n: int) -> np.ndarray:
    """`(n,)` whole numbers from -8 to 8 drawn by `numpy.random.default_rng(seed).integers(-8, 9, n)`."""
    return np.random.default_rng(seed).integers(-8, 9, n)


def linear_logit_scale(weights: np.ndarray, levels: int = 256) -> float:
    """The power of two that brings the standard deviation over all inputs into [1, 2), in output units."""
    variance = float(np.square(checked_weights(weights)).sum()) * (levels**2 - 1) / 12
    return 2.0 ** math.ceil(-0.5 * math.log2(variance))


@numba.njit
def _change(levels, site, new_level, data):
    return data[0][site] * (np.int64(new_level) - np.int64(levels[site]))


def checked_weights(weights: np.ndarray) -> np.ndarray:
    """The weights as `(n,)` int64; raises UserError unless they are whole numbers, not all zero."""
    array = np.asarray(weights)
    whole = array.ndim == 1 and array.dtype.kind in "iuf" and bool((array == np.round(array)).all())
    if not whole or not array.any():
        raise UserError(
            "weights",
            "a 1-D array of whole numbers, not all zero",
            f"shape {array.shape} of {array.dtype}",
            "round them and put their unit in scale",
        )
    return array.astype(np.int64)
