"""Modes of a density on a grid: which maximum each cell rises to, maxima with a shallow pass between them joined.

Source: maxima and their prominences by adding cells from the highest down (Edelsbrunner, Letscher and Zomorodian,
Discrete and Computational Geometry 28, 511, 2002: persistence of the components of super-level sets).
"""

from __future__ import annotations

import numpy as np

PROMINENCE = 0.5


def modes_of(log_density: np.ndarray, prominence: float = PROMINENCE) -> np.ndarray:
    """``(axis_0, axis_1)`` int: the mode of each cell of ``log_density``, in nats; modes counted along axis 0, then 1.

    A maximum less than ``prominence`` nats above the pass to a higher one belongs to the higher: on a grid the crest
    of a ring is a row of such maxima.
    """
    n_rows, n_columns = log_density.shape
    value = log_density.ravel()
    order = np.argsort(-value, kind="stable")
    label = np.full(n_rows * n_columns, -1)
    parent: list[int] = []
    top: list[int] = []  # the highest cell of each mode

    def root(mode: int) -> int:
        while parent[mode] != mode:
            parent[mode] = parent[parent[mode]]
            mode = parent[mode]
        return mode

    for cell in order.tolist():
        row, column = divmod(cell, n_columns)
        best, met = -1, set()
        for other_row in range(max(row - 1, 0), min(row + 2, n_rows)):
            for other_column in range(max(column - 1, 0), min(column + 2, n_columns)):
                other = other_row * n_columns + other_column
                if label[other] >= 0:
                    met.add(root(int(label[other])))
                    if best < 0 or value[other] > value[best]:
                        best = other
        if best < 0:
            label[cell] = len(parent)
            parent.append(len(parent))
            top.append(cell)
            continue
        label[cell] = label[best]
        highest = max(met, key=lambda mode: (value[top[mode]], -mode))
        for mode in met:
            if mode != highest and not value[top[mode]] - value[cell] >= prominence:
                parent[mode] = highest
    roots = np.array([root(mode) for mode in range(len(parent))])
    kept = sorted(set(roots.tolist()), key=lambda mode: top[mode])
    number = np.zeros(len(parent), dtype=int)
    number[kept] = np.arange(len(kept))
    return number[roots[label]].reshape(log_density.shape)
