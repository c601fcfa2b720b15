"""A plain flood of a small grid: the truth that continuous searches and known surfaces are held against."""

import itertools

import numpy as np


def flood_barriers(energy, places):
    """Min-max barriers between the grid points ``places`` (index tuples); diagonal neighbours count."""
    shape = energy.shape
    order = np.argsort(energy, axis=None, kind="stable")
    flat = energy.ravel()
    offsets = [step for step in itertools.product((-1, 0, 1), repeat=energy.ndim) if any(step)]
    parent = np.full(flat.size, -1)
    members = {}
    wanted = {int(np.ravel_multi_index(place, shape)): k for k, place in enumerate(places)}
    barrier = np.full((len(places), len(places)), np.inf)
    unjoined = len(places) * (len(places) - 1) // 2

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i in order.tolist():
        parent[i] = i
        members[i] = [wanted[i]] if i in wanted else []
        here = np.unravel_index(i, shape)
        for step in offsets:
            there = tuple(a + b for a, b in zip(here, step, strict=True))
            if min(there) < 0 or any(a >= b for a, b in zip(there, shape, strict=True)):
                continue
            j = int(np.ravel_multi_index(there, shape))
            if parent[j] < 0:
                continue
            a, b = root(i), root(j)
            if a != b:
                for p, q in itertools.product(members[a], members[b]):
                    barrier[p, q] = barrier[q, p] = flat[i]
                    unjoined -= 1
                parent[b] = a
                members[a] += members.pop(b)
        if unjoined == 0:
            break
    return barrier


def exact_barrier(energy, n, first, second):
    """The least highest energy between two states over all paths, by flooding states in rising order."""
    parent = np.arange(2**n)
    seen = np.zeros(2**n, bool)

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for state in np.argsort(energy):
        seen[state] = True
        for k in range(n):
            if seen[state ^ (1 << k)]:
                parent[root(state)] = root(state ^ (1 << k))
        if seen[first] and seen[second] and root(first) == root(second):
            return energy[state]
    raise AssertionError


def grid_of(field, low, high, n):
    """Energies ``(n, n, ...)`` on a grid between the corners ``low`` and ``high``, and the sides' coordinates."""
    import torch

    sides = [np.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
    points = np.stack([side.ravel() for side in np.meshgrid(*sides, indexing="ij")], 1)
    return field.value(torch.from_numpy(points)).numpy().reshape([n] * len(sides)), sides


def nearest_places(sides, points):
    return [tuple(int(np.abs(side - x).argmin()) for side, x in zip(sides, point, strict=True)) for point in points]
