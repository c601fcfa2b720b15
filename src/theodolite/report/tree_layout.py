"""A tree of merges as a drawing: one trunk a minimum, up from its energy to where it joins a lower minimum's trunk.

The graph is the one of Becker and Karplus, J. Chem. Phys. 106, 1495 (1997), drawn by the elder rule: at a merge the
trunk of the side with the lower minimum goes on and the other ends. What a minimum joins does not change when
shallower ones are left out, so that pruning is leaving out trunks.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trunks:
    """A trunk a minimum, arrays ``(K,)`` in the unit of the energy.

    `joins`: the minimum on whose trunk it ends, -1 for none; `upper`, `lower`: bounds of the energy where it ends, inf
    where no path is known; `depth`: `upper` less its energy; `merge`: the row of the tree, -1 for none; `order`: the
    minima from left to right.
    """

    energy: np.ndarray
    joins: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    merge: np.ndarray
    order: np.ndarray

    @property
    def depth(self) -> np.ndarray:
        return self.upper - self.energy


def trunks(tree: np.ndarray, energy: np.ndarray, kept: np.ndarray | None = None) -> Trunks:
    """Lay out the tree ``(K - 1, 5)`` of minima of ``energy`` ``(K,)``, or the part of it that ``kept`` ``(K,)`` says.

    Each subtree has its deepest minimum in the middle and what joins it around it, on the side with fewer minima so
    far, so that no lines cross.
    """
    n = len(energy)
    kept = np.ones(n, bool) if kept is None else kept
    joins, merge = np.full(n, -1), np.full(n, -1)
    upper, lower = np.full(n, np.inf), np.full(n, np.inf)
    elder = [minimum if kept[minimum] else -1 for minimum in range(n)]
    sides: list[tuple[list[int], list[int]]] = [([], []) for _ in range(n)]
    for row, (one, other, high, low, _) in enumerate(np.asarray(tree, float).tolist()):
        first, second = elder[int(one)], elder[int(other)]
        if min(first, second) < 0:
            elder.append(max(first, second))
            continue
        if (energy[second], second) < (energy[first], first):
            first, second = second, first
        elder.append(first)
        if np.isfinite(high):
            joins[second], merge[second], upper[second], lower[second] = first, row, high, low
        left, right = sides[first]
        block = [*sides[second][0], second, *sides[second][1]]
        if len(right) <= len(left):
            right.extend(block)
        else:
            left[:0] = block
    root = elder[-1] if elder else -1
    order = [*sides[root][0], root, *sides[root][1]] if root >= 0 else []
    return Trunks(np.asarray(energy, float), joins, upper, lower, merge, np.array(order, int))
