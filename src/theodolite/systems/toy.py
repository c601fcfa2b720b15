"""Fields that are look-ups in a table of all their values: the smallest exactly known systems.

The 5 x 5 binary toy of Liu et al. 2023 ("Gradient-based Wang-Landau Algorithm: A Novel Sampler for Output
Distribution of Neural Networks over the Input Space", ICML) becomes such a field once its 2^25
inputs are listed.
"""

import math

import numba
import numpy as np
import torch

from theodolite.errors import UserError
from theodolite.field import Field, SingleSite
from theodolite.space import Grid
from theodolite.systems.bins import checked_edges

__all__ = ["random_table", "table_field", "table_log_density_of_states"]


def table_field(values: np.ndarray, shape: tuple[int, ...] = (1, 5, 5), name: str = "toy") -> Field:
    """The field on Grid(shape, 2) whose value at a point is `values[index]`.

    Args:
        values: `(2^n,)` finite numbers in output units; the index of a point is its bits read as a binary
            number, coordinate 0 (row-major) the least significant. Kept in their own type, not copied.
        shape: shape of a point, of n coordinates.
        name: name of the field.

    It offers `table` and `single_site`, and no gradient: samplers use gradient-free proposals.

    Raises:
        UserError: not one finite value for every point.
    """
    values = np.ascontiguousarray(values)
    bits = math.prod(shape)
    if values.shape != (2**bits,):
        raise UserError(
            "values", f"2^{bits} values, one for each point", f"shape {values.shape}", "list every input once"
        )
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise UserError("values", "finite floating-point numbers", str(values.dtype), "convert or mend them")
    table = torch.from_numpy(values)
    powers = 2 ** torch.arange(bits)

    def value(x: torch.Tensor) -> torch.Tensor:
        return table[(x.flatten(1).to(torch.int64) * powers).sum(1)].to(torch.float64)

    return Field(
        Grid(tuple(shape), 2),
        value,
        name=name,
        single_site=SingleSite(change=_change, data=(values,)),
        table=table,
    )


def random_table(seed: int = 0, n_bits: int = 12) -> Field:
    """A small rugged test field on Grid((n_bits,), 2): normal fields and couplings, standard deviation 1.

    Raises:
        UserError: n_bits outside 1..24.
    """
    if not 1 <= n_bits <= 24:
        raise UserError("n_bits", "1 to 24", str(n_bits), "the table has 2^n_bits entries")
    generator = np.random.default_rng(seed)
    fields = generator.normal(size=n_bits)
    couplings = np.triu(generator.normal(size=(n_bits, n_bits)), 1)
    spins = 2.0 * ((np.arange(2**n_bits)[:, None] >> np.arange(n_bits)) & 1) - 1.0
    values = spins @ fields + np.einsum("ip,pq,iq->i", spins, couplings, spins, optimize=True)
    unit = math.sqrt((fields**2).sum() + (couplings**2).sum())
    return table_field(values / unit, (n_bits,), name=f"random table of {n_bits} bits")


def table_log_density_of_states(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """ln of the number of table entries in each bin, `(bin,)` float64 in nats; -inf where a bin is empty.

    `edges` are `(bin + 1,)`, ascending, in output units; a bin holds its lower edge, the last also its upper.

    Raises:
        UserError: edges that do not ascend.
    """
    edges = checked_edges(edges)
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    for start in range(0, len(values), 1 << 20):
        counts += np.histogram(values[start : start + (1 << 20)].astype(np.float64), edges)[0]
    with np.errstate(divide="ignore"):
        return np.log(counts)


@numba.njit
def _change(levels, site, new_level, data):
    table = data[0]
    index = 0
    for bit in range(len(levels)):
        index |= np.int64(levels[bit]) << bit
    difference = (np.int64(new_level) - np.int64(levels[site])) << site
    return np.float64(table[index + difference]) - np.float64(table[index])
