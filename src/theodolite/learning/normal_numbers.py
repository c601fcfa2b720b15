"""Standard normal numbers in single precision, four times as fast as torch's: noise is a good part of a Langevin step.

Uniform numbers by xoshiro128++ (Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators"), many
generators side by side; pairs of them to normal ones by Box and Muller 1958. Logarithm: Cephes, logf.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

_LANES = 128
_F, _U, _I = np.float32, np.uint32, np.int32
# Sums of products may be fused; a division by 0 cannot occur, and Python's check for it would stop vector code.
FAST = {"contract", "nsz"}
_SINE = tuple(_F(1.0 / math.factorial(k) * (-1) ** (k // 2)) for k in (3, 5, 7, 9, 11))
_COSINE = tuple(_F(1.0 / math.factorial(k) * (-1) ** (k // 2)) for k in (2, 4, 6, 8, 10, 12))
_LOGARITHM = tuple(
    _F(number)
    for number in (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
                   -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)
)  # fmt: skip
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8 = _LOGARITHM
_S3, _S5, _S7, _S9, _S11 = _SINE
_C2, _C4, _C6, _C8, _C10, _C12 = _COSINE
_LN2_HIGH, _LN2_LOW = _F(0.693359375), _F(-2.12194440e-4)
_ROOT_HALF, _HALF, _ONE, _TWO = _F(math.sqrt(0.5)), _F(0.5), _F(1.0), _F(2.0)
_UNIT = _F(2.0**-24)
_HALF_ANGLE = _F(math.pi * 2.0**-32)


@final
class Normals:
    """Standard normal numbers of one dtype: of generators seeded by ``generator`` in single precision (their state is
    drawn at once, a fixed number of its numbers), of ``generator`` itself otherwise."""

    def __init__(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        self.generator = generator
        self.state: NDArray[np.uint32] | None = None
        if dtype == torch.float32:
            drawn = torch.randint(-(2**31), 2**31, (4, _LANES), generator=generator, dtype=torch.int32)
            self.state = drawn.numpy().view(np.uint32)

    def fill(self, out: Tensor) -> None:
        """Overwrite ``out``, contiguous."""
        if self.state is None:
            out.normal_(generator=self.generator)
        else:
            _fill(self.state, out.numpy().reshape(-1))


@njit(inline="always")
def logarithm(u):
    """ln of a positive normal float32, within 2 units of its last place."""
    bits = _F(u).view(_I)
    exponent = _I(bits >> _I(23)) - _I(126)
    f = _I((bits & _I(0x007FFFFF)) | _I(0x3F000000)).view(_F)
    small = f < _ROOT_HALF
    f = f + f - _ONE if small else f - _ONE
    power = _F(exponent - _I(1) if small else exponent)
    z = f * f
    y = ((((((((_L0 * f + _L1) * f + _L2) * f + _L3) * f + _L4) * f + _L5) * f + _L6) * f + _L7) * f + _L8) * f * z
    return f + (y + power * _LN2_LOW - _HALF * z) + power * _LN2_HIGH


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _fill(state, out):
    """Write independent standard normal numbers to ``out (n,)`` and move ``state`` on, by whole blocks."""
    lanes = state.shape[1]
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    drawn = np.empty((2, lanes), _U)
    pair = np.empty(2 * lanes, _F)
    for begin in range(0, len(out), 2 * lanes):
        for half in range(2):
            number = drawn[half]
            for i in range(lanes):
                t = s0[i] + s3[i]
                number[i] = ((t << _U(7)) | (t >> _U(25))) + s0[i]
                t = s1[i] << _U(9)
                s2[i] ^= s0[i]
                s3[i] ^= s1[i]
                s1[i] ^= s2[i]
                s0[i] ^= s3[i]
                s2[i] ^= t
                s3[i] = (s3[i] << _U(11)) | (s3[i] >> _U(21))
        whole = begin + 2 * lanes <= len(out)
        block = out[begin : begin + 2 * lanes] if whole else pair
        radial, angular = drawn[0], drawn[1]
        for i in range(lanes):
            radius = np.sqrt(-_TWO * logarithm((_F(_I(radial[i] >> _U(8))) + _HALF) * _UNIT))
            half_angle = _F(_I(angular[i])) * _HALF_ANGLE
            z = half_angle * half_angle
            sine = half_angle + half_angle * z * (_S3 + z * (_S5 + z * (_S7 + z * (_S9 + z * _S11))))
            cosine = _ONE + z * (_C2 + z * (_C4 + z * (_C6 + z * (_C8 + z * (_C10 + z * _C12)))))
            block[i] = radius * (_ONE - _TWO * sine * sine)
            block[lanes + i] = radius * (_TWO * sine * cosine)
        if not whole:
            for i in range(len(out) - begin):
                out[begin + i] = pair[i]
