"""How many states of the periodic 2-D Ising model lie at each energy, exactly.

Source: Beale, Phys. Rev. Lett. 76, 78 (1996), from the partition function of Kaufman, Phys. Rev. 76, 1232
(1949). The partition function is a polynomial in x = exp(-2 / kT) whose coefficients are the counts. It is
evaluated at the roots of unity of several prime fields, where the cosines of Kaufman's formula exist too,
turned into coefficients by a number-theoretic transform, and joined by the Chinese remainder theorem: no
rounding.
"""

import functools
import math

import numpy as np

from theodolite.errors import UserError

__all__ = ["ising_counts", "ising_log_density_of_states"]


def ising_log_density_of_states(side: int) -> tuple[np.ndarray, np.ndarray]:
    """All energies that occur on a periodic side x side lattice, and ln of the number of states at each.

    Returns:
        levels `(level,)` float64, ascending, in units of the coupling (E = -sum over bonds of s s'), and
        log_g `(level,)` float64, in nats. Energies that no state has are left out.

    Raises:
        UserError: side is not a whole number of at least 2.
    """
    counts = ising_counts(side)
    return np.array(list(counts), dtype=np.float64), np.array([math.log(count) for count in counts.values()])


def ising_counts(side: int) -> dict[int, int]:
    """The exact number of states at each energy that occurs, by ascending energy (units of the coupling).

    Raises:
        UserError: side is not a whole number of at least 2.
    """
    if isinstance(side, bool) or not isinstance(side, int) or side < 2:
        raise UserError("side", "a whole number >= 2", repr(side), "for example ising_counts(16)")
    return dict(_counts(side))


@functools.cache
def _counts(side: int) -> tuple[tuple[int, int], ...]:
    sites = side * side
    length = 1 << (2 * sites).bit_length()
    order = math.lcm(2 * side, length)
    coefficients, modulus = [0] * length, 1
    prime = 2**31 // order * order + 1
    # Every count is at most 2^sites, so residues modulo anything larger are the counts themselves.
    while modulus <= 2**sites:
        prime = _prime_below(prime, order)
        residues = _coefficients_modulo(side, length, prime, order)
        inverse = pow(modulus, -1, prime)
        coefficients = [
            known + modulus * ((residue - known) * inverse % prime)
            for known, residue in zip(coefficients, residues.tolist(), strict=True)
        ]
        modulus *= prime
    return tuple((2 * power - 2 * sites, count) for power, count in enumerate(coefficients) if count)


def _coefficients_modulo(side: int, length: int, prime: int, order: int) -> np.ndarray:
    """Coefficients of the partition function modulo prime, `(length,)`."""
    root = _root_of_unity(order, prime)
    point_root = pow(root, order // length, prime)
    x = _powers(point_root, length, prime)
    values = _partition_function(x, side, pow(root, order // (2 * side), prime), prime)
    coefficients = _transform(values, pow(point_root, -1, prime), prime)
    return coefficients * np.uint64(pow(length, -1, prime)) % np.uint64(prime)


def _partition_function(x: np.ndarray, side: int, root: int, prime: int) -> np.ndarray:
    """Kaufman's four products at the points x, where root stands for exp(i pi / side) (Beale 1996)."""
    p = np.uint64(prime)
    one, half = np.uint64(1), pow(2, -1, prime)
    square = x * x % p
    b = 2 * x % p * (one + p - square) % p
    base = (one + square) * (one + square) % p
    b_power = _power(b, side, prime) * np.uint64(pow(half, side - 1, prime)) % p
    cosh_odd = sinh_odd = cosh_even = sinh_even = np.ones_like(x)
    for k in range(1, side):
        cosine = np.uint64((pow(root, k, prime) + pow(root, -k, prime)) * half % prime)
        a = (base + p - b * cosine % p) % p
        # (a + c)^m + (a - c)^m with c^2 = a^2 - b^2, by its recurrence, which needs no square root.
        b_square, before, now = b * b % p, np.full_like(x, 2), 2 * a % p
        for _ in range(side - 1):
            before, now = now, (2 * a % p * now + (p - b_square) * before % p) % p
        now = now * np.uint64(pow(half, side, prime)) % p
        if k % 2:
            cosh_odd, sinh_odd = cosh_odd * (now + b_power) % p, sinh_odd * (now + p - b_power) % p
        else:
            cosh_even, sinh_even = cosh_even * (now + b_power) % p, sinh_even * (now + p - b_power) % p
    minus, plus = _power(one + p - x, side, prime), _power(one + x, side, prime)
    x_power = _power(x, side, prime)
    first, second = x_power * plus % p, x_power * minus % p
    cosh_even, sinh_even = cosh_even * (minus + first) % p, sinh_even * (minus + p - first) % p
    # Mode k = side has no partner; it is an odd mode on an odd side.
    if side % 2:
        cosh_odd, sinh_odd = cosh_odd * (plus + second) % p, sinh_odd * (plus + p - second) % p
    else:
        cosh_even, sinh_even = cosh_even * (plus + second) % p, sinh_even * (plus + p - second) % p
    return (cosh_odd + sinh_odd + cosh_even + sinh_even) % p * np.uint64(half) % p


def _transform(values: np.ndarray, root: int, prime: int) -> np.ndarray:
    """sum over i of values[i] root^(i j) for all j, modulo prime; the length is a power of two."""
    if len(values) == 1:
        return values
    p = np.uint64(prime)
    even = _transform(values[::2], root * root % prime, prime)
    odd = _transform(values[1::2], root * root % prime, prime) * _powers(root, len(even), prime) % p
    return np.concatenate([even + odd, even + p - odd]) % p


def _powers(root: int, length: int, prime: int) -> np.ndarray:
    powers = np.ones(1, dtype=np.uint64)
    while len(powers) < length:
        powers = np.concatenate([powers, powers * np.uint64(pow(root, len(powers), prime)) % np.uint64(prime)])
    return powers[:length]


def _power(base: np.ndarray, exponent: int, prime: int) -> np.ndarray:
    p = np.uint64(prime)
    base, result = base % p, np.ones_like(base)
    while exponent:
        if exponent & 1:
            result = result * base % p
        base, exponent = base * base % p, exponent >> 1
    return result


def _prime_below(limit: int, order: int) -> int:
    """The largest prime under limit that is 1 modulo order, where limit itself is 1 modulo order."""
    candidate = limit - order
    while any(candidate % divisor == 0 for divisor in range(3, math.isqrt(candidate) + 1, 2)):
        candidate -= order
    return candidate


def _root_of_unity(order: int, prime: int) -> int:
    """An element of exact multiplicative order `order`, which divides prime - 1."""
    divisors = [d for d in range(2, order + 1) if order % d == 0 and all(d % e for e in range(2, math.isqrt(d) + 1))]
    base = 2
    while True:
        root = pow(base, (prime - 1) // order, prime)
        if all(pow(root, order // divisor, prime) != 1 for divisor in divisors):
            return root
        base += 1
