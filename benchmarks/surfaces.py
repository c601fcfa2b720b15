"""Barriers of surfaces against a flood of a grid, and against known saddles.

    python benchmarks/surfaces.py [--grid 2001] [--seeds 5]

Bars: on surfaces of the plane every barrier within 1e-3 of a flood of a 2001 x 2001 grid; in 8 dimensions within 1e-3
of the known saddles. The flood here is a plain one of its own (union-find over sorted grid points, 8 neighbours); its
own error, against the known saddles, is printed beside. Then what single paths reach between all pairs of minima,
without the closure over others. Times are of the processor; set OMP_NUM_THREADS=1.
"""

import argparse
import time

import numpy as np
import torch
from numba import njit

from theodolite.field import Field
from theodolite.search.continuous_network import ContinuousSearch, find_network
from theodolite.search.elastic_band import ElasticBand, relax_band
from theodolite.search.minimise import minimise
from theodolite.search.real_paths import linear_path, pin_barrier
from theodolite.search.string import refine, relax_string
from theodolite.systems import Surface, gaussian_mixture, mueller_brown, quartic_wells, rough_basins


@njit
def flood(energy: np.ndarray, order: np.ndarray, columns: int, place: np.ndarray) -> np.ndarray:
    """Min-max barriers between grid points ``place``, joining points as the level rises."""
    n = len(place)
    parent = np.full(len(energy), -1)
    mark = np.full(len(energy), -1)
    group = np.arange(n)
    barrier = np.full((n, n), np.inf)
    for k in range(n):
        mark[place[k]] = k
    for i in order:
        parent[i] = i
        for down in range(-1, 2):
            for right in range(-1, 2):
                column = i % columns + right
                j = i + down * columns + right
                if column < 0 or column >= columns or j < 0 or j >= len(energy) or parent[j] < 0:
                    continue
                a, b = i, j
                while parent[a] != a:
                    parent[a] = parent[parent[a]]
                    a = parent[a]
                while parent[b] != b:
                    parent[b] = parent[parent[b]]
                    b = parent[b]
                if a == b:
                    continue
                parent[a] = b
                if mark[a] < 0:
                    continue
                if mark[b] < 0:
                    mark[b] = mark[a]
                    continue
                kept, gone = group[mark[b]], group[mark[a]]
                for p in range(n):
                    for q in range(n):
                        if group[p] == kept and group[q] == gone:
                            barrier[p, q] = energy[i]
                            barrier[q, p] = energy[i]
                for p in range(n):
                    if group[p] == gone:
                        group[p] = kept
    return barrier


def flooded(field: Field, points: np.ndarray, size: int) -> np.ndarray:
    side = np.linspace(field.space.low, field.space.high, size)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(side, side, indexing="ij")], 1)
    energy = field.value(torch.from_numpy(grid)).numpy()
    row, column = (np.abs(side - points[:, axis, None]).argmin(1) for axis in (0, 1))
    return flood(energy, np.argsort(energy, kind="stable"), size, row * size + column)


def network_line(known: Surface, seed: int, grid: int | None, n_starts: int = 256) -> None:
    field, truth = known.field, known.known_minima()
    field.evaluations = 0
    began = time.process_time()
    search = ContinuousSearch(field, n_starts=n_starts)
    network = find_network(field, torch.Generator().manual_seed(seed), search=search)
    seconds, evaluations = time.process_time() - began, field.evaluations
    line = f"{field.name}, seed {seed}: {len(network.energy)} of {len(truth.energy)} minima, "
    line += f"{int(network.verified.sum())} saddles, {seconds:.2f} CPU-s, {evaluations:,} evaluations"
    if len(network.energy) == len(truth.energy):
        error = network.barrier.numpy() - known.known_barriers()
        line += f"; barriers off the known saddles by up to {np.abs(error).max():.1e}"
        if grid is not None:
            level = flooded(field, truth.point, grid)
            off = ~np.eye(len(level), dtype=bool)
            gap = np.abs(network.barrier.numpy() - level)[off].max()
            own = np.abs(known.known_barriers() - level)[off].max()
            line += f", off the {grid}^2 flood by up to {gap:.1e} (the flood itself: {own:.1e})"
    print(line, flush=True)


def path_lines(known: Surface, most: int = 12) -> None:
    """Excess of single paths over the true barriers, all pairs of the lowest minima."""
    field, point = known.field, torch.from_numpy(known.known_minima().point[:most])
    first, second = np.triu_indices(len(point), 1)
    barrier = torch.from_numpy(known.known_barriers()[first, second])
    line = linear_path(point[first], point[second], 24)
    noise = 0.1 * torch.randn(line.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise[:, [0, -1]] = 0.0
    jagged = (line + noise).clamp(field.space.low, field.space.high)
    print(f"single paths on {field.name}, {len(first)} pairs: mean and median excess, share within 1e-3")
    for name, make in (
        ("linear", lambda: line),
        ("NEB", lambda: relax_band(field, line, ElasticBand(doubly_nudged=False))),
        ("DNEB", lambda: relax_band(field, line)),
        ("string", lambda: relax_string(field, line)),
        ("refined", lambda: refine(field, line)),
        ("jagged", lambda: jagged),
        ("jagged, refined", lambda: refine(field, jagged)),
    ):
        began = time.process_time()
        field.evaluations = 0
        path = make()
        seconds, evaluations = time.process_time() - began, field.evaluations
        excess = pin_barrier(field, path).energy - barrier
        print(
            f"  {name:16s} {excess.mean():.3f} {excess.median():.1e} {(excess < 1e-3).double().mean():.2f}"
            f"  {seconds:.2f} CPU-s, {evaluations / len(first):,.0f} evaluations a pair",
            flush=True,
        )


def batch_line(known: Surface) -> None:
    starts = known.field.space.draw(4096, torch.Generator().manual_seed(0)).double()
    began = time.process_time()
    minimise(known.field, starts)
    together = time.process_time() - began
    began = time.process_time()
    for row in range(64):
        minimise(known.field, starts[row : row + 1])
    alone = (time.process_time() - began) / 64
    print(f"descents on {known.field.name}: {4096 / together:,.0f} a CPU-second at batch 4096, {1 / alone:,.0f} alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=2001)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    find_network(mueller_brown().field, torch.Generator().manual_seed(0))  # compiles
    network_line(mueller_brown(), 0, arguments.grid)
    for seed in range(arguments.seeds):
        network_line(gaussian_mixture(2, seed), seed, arguments.grid)
    network_line(rough_basins(), 0, None)
    for seed in range(arguments.seeds):
        network_line(quartic_wells(8), seed, None, n_starts=4096)
    path_lines(gaussian_mixture(2, 0))
    path_lines(quartic_wells(8))
    batch_line(quartic_wells(8))


if __name__ == "__main__":
    main()
