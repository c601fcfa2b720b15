"""What a network's forward and backward pass do between matrix products: activations with their slopes, patches.

Images are (row of the batch, row, column, channel), with ``padding`` zeros around them where a convolution reads them:
a patch's row is then one run of memory. Each number passes through memory once; as tensors it would several times.
Exponential: Cephes, expf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from theodolite.learning.normal_numbers import FAST, logarithm

_F, _I = np.float32, np.int32
_ZERO, _HALF, _ONE, _TWO = _F(0.0), _F(0.5), _F(1.0), _F(2.0)
_LOWEST, _HIGHEST = _F(-87.0), _F(88.0)  # beyond which exp leaves single precision
_LOG2_E, _LN2_HIGH, _LN2_LOW = _F(1.44269504), _F(0.693359375), _F(-2.12194440e-4)
_E0, _E1, _E2 = _F(1.9875691500e-4), _F(1.3981999507e-3), _F(8.3334519073e-3)
_E3, _E4, _E5 = _F(4.1665795894e-2), _F(1.6666665459e-1), _F(5.0000001201e-1)


@njit(inline="always")
def _exponential(x):
    x = _LOWEST if x < _LOWEST else (_HIGHEST if x > _HIGHEST else x)
    k = np.floor(x * _LOG2_E + _HALF)
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = (((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5) * r * r + r + _ONE
    return p * _I((_I(k) + _I(127)) << _I(23)).view(_F)


@njit(inline="always")
def _silu(x):
    s = _ONE / (_ONE + _exponential(-x))
    y = x * s
    return y, s + y * (_ONE - s)


@njit(inline="always")
def _tanh(x):
    y = _TWO / (_ONE + _exponential(-_TWO * x)) - _ONE
    return y, _ONE - y * y


@njit(inline="always")
def _softplus(x):
    e = _exponential(-abs(x))
    s = _ONE / (_ONE + e)
    return (x if x > _ZERO else x * _ZERO) + logarithm(_ONE + e), s if x > _ZERO else _ONE - s


@njit(inline="always")
def _relu(x):
    return (x, _ONE) if x > _ZERO else (x * _ZERO, _ZERO)


_LEAK = _F(0.05)


@njit(inline="always")
def _leaky_relu(x):
    return (x, _ONE) if x > _ZERO else (x * _LEAK, _LEAK)


def _activation(function: Any) -> Callable[..., None]:
    @njit(cache=True, error_model="numpy", fastmath=FAST)
    def activate(sums, bias, out, padding):
        """Write f(sums + bias) into the inside of ``out``, zeros around it, and f' in place of ``sums``."""
        n, rows, columns, units = sums.shape
        for i in range(n):
            if padding > 0:
                out[i] = _ZERO
            for row in range(rows):
                for column in range(columns):
                    before, after = sums[i, row, column], out[i, row + padding, column + padding]
                    for k in range(units):
                        y, slope = function(before[k] + bias[k])
                        after[k] = y
                        before[k] = slope

    return activate


# Of (sums, bias, out, padding), by the names of `energy.ACTIVATIONS`.
ACTIVATE: dict[str, Callable[..., None]] = {
    "silu": _activation(_silu),
    "leaky_relu": _activation(_leaky_relu),
    "relu": _activation(_relu),
    "softplus": _activation(_softplus),
    "tanh": _activation(_tanh),
}


@njit(cache=True, fastmath=FAST)
def multiply_inside(slope, gradient, padding):
    """``slope (n, rows, columns, units)`` times the inside of ``gradient``, in place."""
    n, rows, columns, units = slope.shape
    for i in range(n):
        for row in range(rows):
            for column in range(columns):
                one, other = slope[i, row, column], gradient[i, row + padding, column + padding]
                for k in range(units):
                    one[k] *= other[k]


@njit(cache=True)
def pad_images(x, out, padding):
    """``x (n, channels, rows, columns)`` into the inside of ``out``, channels last, zeros around it."""
    n, channels, rows, columns = x.shape
    for i in range(n):
        if padding > 0:
            out[i] = _ZERO
        for c in range(channels):
            for row in range(rows):
                for column in range(columns):
                    out[i, row + padding, column + padding, c] = x[i, c, row, column]


@njit(cache=True)
def unpad_images(padded, padding, out):
    """The inverse of `pad_images`."""
    n, channels, rows, columns = out.shape
    for i in range(n):
        for c in range(channels):
            for row in range(rows):
                for column in range(columns):
                    out[i, c, row, column] = padded[i, row + padding, column + padding, c]


def patch_places(image: tuple[int, int, int], side: int, stride: int) -> NDArray[np.uint32]:
    """Where in an image ``(rows, columns, channels)``, zeros around it included, each number of its patches lies:
    ``(patch, number)``, patches in the order of their places."""
    rows, columns, channels = image
    flat = np.arange(rows * columns * channels, dtype=np.uint32).reshape(image)
    windows = np.lib.stride_tricks.sliding_window_view(flat, (side, side, channels))[::stride, ::stride, 0]
    return np.ascontiguousarray(windows.reshape(-1, side * side * channels))


@njit(cache=True)
def gather_patches(padded, places, out):
    """All patches of the images ``padded (n, ...)``, one a row of ``out``, with ``places`` of `patch_places`."""
    count, size = places.shape
    for i in range(len(padded)):
        image = padded[i].reshape(-1)
        for j in range(count):
            patch, place = out[i * count + j], places[j]
            for k in range(size):
                patch[k] = image[place[k]]


@njit(cache=True)
def scatter_patches(patches, places, out):
    """The transpose of `gather_patches`: ``out`` becomes the sum of what all patches say of each place."""
    count, size = places.shape
    for i in range(len(out)):
        out[i] = _ZERO
        image = out[i].reshape(-1)
        for j in range(count):
            patch, place = patches[i * count + j], places[j]
            for k in range(size):
                image[place[k]] += patch[k]
