"""Exact trees by enumeration: time, memory, and equality with brute force.

    python benchmarks/exact_trees.py [--spins 20 22 24 26] [--checked 24] [--instances 10000] [--seed 0]

Sherrington-Kirkpatrick glasses up to --checked spins are held against values evaluated one state at a time and against
a flood of all states in order of energy, written here and sharing nothing with the library; so are --instances random
small landscapes of 2 to 4 levels full of plateaus, with both neighbourhoods and, for spins, the mirror quotient.
Bars: values and barriers equal to 1e-12; the whole tree within 7 s at 24 spins (aim 1.5) and 40 s at 26. Times exclude
compilation, which is printed first. Last, a flood of a 2001 x 2001 surface.
"""

import argparse
import os
import resource
import time

import numpy as np
import torch
from numba import njit

from theodolite.search.enumerated_values import all_values
from theodolite.search.surface_flood import surface_flood
from theodolite.search.watershed import Watershed, watershed
from theodolite.systems import spin_glass

BAR_SECONDS = {24: 7.0, 26: 40.0}
BAR_DIFFERENCE = 1e-12


@njit
def flood(values, order, n, n_levels, adjacent):
    """Pools that end, the elder pools they join and the levels, and pools that never end: states enter one by one."""
    parent = np.full(len(values), -1)
    merges = []
    for state in order:
        parent[state] = state
        stride = 1
        for _ in range(n):
            old = state // stride % n_levels
            for new in range(n_levels):
                if new == old or (adjacent and abs(new - old) != 1):
                    continue
                other = state + (new - old) * stride
                if parent[other] < 0:
                    continue
                a, b = state, other
                while parent[a] != a:
                    parent[a] = parent[parent[a]]
                    a = parent[a]
                while parent[b] != b:
                    parent[b] = parent[parent[b]]
                    b = parent[b]
                if a != b:
                    if values[a] < values[b] or (values[a] == values[b] and a < b):
                        a, b = b, a
                    parent[a] = b
                    if values[a] < values[state]:
                        merges.append((a, b, values[state]))
            stride *= n_levels
    return merges, order[parent[order] == order]


def flooded_tree(values: np.ndarray, n: int, n_levels: int, neighbourhood: str) -> tuple[np.ndarray, np.ndarray]:
    merges, lasting = flood(values, np.argsort(values, kind="stable"), n, n_levels, neighbourhood == "adjacent")
    minima = np.array([*lasting, *(ended for ended, _, _ in merges)])
    minima = minima[np.lexsort((minima, values[minima]))]
    number = {int(state): k for k, state in enumerate(minima)}
    barrier = np.full((len(minima), len(minima)), np.inf)
    pools = {k: [k] for k in range(len(minima))}
    for ended, elder, level in merges:
        low, high = pools[number[elder]], pools.pop(number[ended])
        barrier[np.ix_(low, high)] = level
        barrier[np.ix_(high, low)] = level
        low += high
    np.fill_diagonal(barrier, values[minima])
    return minima, barrier


def difference(found: Watershed, minima: np.ndarray, barrier: np.ndarray) -> float:
    """Largest difference of the barriers; inf where the minima are others."""
    index = found.minimum_level.astype(np.int64) @ found.n_levels ** np.arange(found.minimum_level.shape[1])
    # Mirror images have equal energies, which rounding may order either way.
    rows, places = np.argsort(index), np.argsort(minima)
    if not np.array_equal(index[rows], minima[places]):
        return np.inf
    return float(np.abs(found.barrier()[np.ix_(rows, rows)] - barrier[np.ix_(places, places)]).max())


def brute_force_difference(field, values: np.ndarray, n: int) -> float:
    """Against the field evaluated at every state."""
    largest = 0.0
    for start in range(0, len(values), 1 << 18):
        index = torch.arange(start, min(start + (1 << 18), len(values)))
        spins = 2 * ((index[:, None] >> torch.arange(n)) & 1) - 1
        largest = max(largest, float(np.abs(field.value(spins).numpy() - values[start : start + len(index)]).max()))
    return largest


def timed_glass(n: int, seed: int) -> None:
    field = spin_glass(n, seed=seed)
    began = time.perf_counter()
    values = all_values(field, half=True)
    valued = time.perf_counter()
    found = watershed(values, n, mirror=True)
    barrier = found.barrier()
    seconds = time.perf_counter() - began
    bar = f" (bar {BAR_SECONDS[n]:g})" if n in BAR_SECONDS else ""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{n} spins, seed {seed}: {seconds:.2f} s{bar}, of which {valued - began:.2f} s for the values; "
        f"{len(found.energy)} minima, {len(found.level)} passes, highest barrier {barrier.max():.6f}; "
        f"at most {memory:.2f} GiB of memory so far",
        flush=True,
    )


def checked_glass(n: int, seed: int) -> None:
    field = spin_glass(n, seed=seed)
    whole = all_values(field)
    quotient = watershed(all_values(field, half=True), n, mirror=True)
    minima, barrier = flooded_tree(whole, n, 2, "any")
    tree = max(difference(found, minima, barrier) for found in (quotient, watershed(whole, n)))
    print(
        f"{n} spins: largest difference to brute force: values {brute_force_difference(field, whole, n):.2g}, "
        f"barriers {tree:.2g} (bar {BAR_DIFFERENCE:g})",
        flush=True,
    )


def small_instances(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    largest, n_mirrored, n_minima = 0.0, 0, 0
    for number in range(count):
        n_levels = int(generator.choice([2, 2, 3, 4]))
        n = int(generator.integers(1, {2: 11, 3: 7, 4: 6}[n_levels]))
        neighbourhood = "any" if number % 2 else "adjacent"
        kinds = int(generator.choice([1, 2, 3, 5, 9, 10**6]))
        values = generator.integers(0, kinds, n_levels**n).astype(float)
        mirror = n_levels == 2 and number % 3 == 0
        if mirror:
            values = values + values[::-1]
        minima, barrier = flooded_tree(values, n, n_levels, neighbourhood)
        found = watershed(values, n, n_levels, neighbourhood=neighbourhood)
        largest = max(largest, difference(found, minima, barrier))
        n_minima += len(minima)
        if mirror:
            n_mirrored += 1
            quotient = watershed(values, n, mirror=True)
            place = found.basin_of(quotient.minimum_level)
            same = np.array_equal(np.sort(place), np.arange(len(minima)))
            worst = np.abs(quotient.barrier() - found.barrier()[np.ix_(place, place)]).max() if same else np.inf
            largest = max(largest, float(worst))
    print(
        f"{count} random small landscapes ({n_mirrored} through the mirror quotient too), {n_minima} minima: "
        f"largest difference of a barrier {largest:g}, every list of minima the same: {np.isfinite(largest)}"
    )


def surface() -> None:
    x, y = np.meshgrid(np.linspace(-3, 3, 2001), np.linspace(-3, 3, 2001))
    values = np.sin(3 * x) * np.cos(4 * y) + 0.1 * x**2 + 0.2 * y
    began = time.perf_counter()
    found = surface_flood(values, diagonal=True)
    print(f"surface of 2001 x 2001 points: {time.perf_counter() - began:.2f} s, {len(found.energy)} minima")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spins", type=int, nargs="*", default=[20, 22, 24, 26])
    parser.add_argument("--checked", type=int, default=24)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    watershed(all_values(spin_glass(12), half=True), 12, mirror=True).barrier()
    surface_flood(np.zeros((2, 2)))
    print(f"compilation: {time.perf_counter() - began:.1f} s; load of the machine {os.getloadavg()[0]:.1f}")
    for n in arguments.spins:
        timed_glass(n, arguments.seed)
    for n in arguments.spins:
        if n <= arguments.checked:
            checked_glass(n, arguments.seed)
    small_instances(arguments.instances, arguments.seed)
    surface()


if __name__ == "__main__":
    main()
