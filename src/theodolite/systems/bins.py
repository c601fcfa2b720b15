"""What every exact density of states here asks of its bin edges."""

import numpy as np

from theodolite.errors import UserError

__all__ = ["checked_edges"]


def checked_edges(edges: np.ndarray) -> np.ndarray:
    """The edges as `(bin + 1,)` float64, in output units; raises UserError unless they ascend."""
    array = np.asarray(edges, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not (np.diff(array) > 0).all():
        raise UserError("edges", "at least two ascending numbers", f"shape {array.shape}", "sort, drop repeats")
    return array
