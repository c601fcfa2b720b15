"""Heuristic barriers between the 500 lowest minima of spin glasses of 100 spins against the certified truth.

    python benchmarks/glass_barriers.py [--instances 10] [--seconds 30] [--write]

Bar: mean excess of the uncertified upper bounds over the truth at most 2% of the depth, aim 0.5%. The excess of a pair
of minima is its bound less its true barrier, its depth the true barrier less the energy of the higher minimum; the
share is the mean excess over all pairs by the mean depth over all pairs. Half of all pairs lie on the two sides of the
mirror symmetry, so that the one highest merge weighs as much as all others; "merges" is the mean excess over the 499
merges of the tree. Truth: reverse search within --seconds; where it leaves an interval its lower end is taken, so that
the excess is then an upper bound, and the instance is marked with the widest interval.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from theodolite.sampling.parallel_tempering import ParallelTempering
from theodolite.search.certificate import CertifiedTree
from theodolite.search.discrete_paths import HeuristicBarriers, beam_paths, heuristic_barriers, path_energies
from theodolite.systems.spin_glass import spin_glass

N_SPINS, N_LOWEST, N_STONES, SWEEPS, GREEDY_PAIRS = 100, 500, 500, 60_000, 2_000


def lowest_minima(field) -> np.ndarray:
    sampler = ParallelTempering(field, n_lowest=N_LOWEST + N_STONES)
    generator = torch.Generator().manual_seed(1)
    state = sampler.init(generator)
    while state.n_sweeps < SWEEPS:
        state, _ = sampler.step(state, generator)
    return sampler.found(state).point.numpy().astype(np.int8)


def certified(field, minima: np.ndarray, found: HeuristicBarriers, seconds: float):
    """Lower ends of the barriers, merges, their number exact, and the widest interval."""
    passes = found.passes
    over = passes.state.copy()
    over[np.arange(len(over)), passes.coordinate] = passes.new_value
    tree = CertifiedTree(field.flip_costs, minima, paths=tuple(np.stack([passes.state, over], 1)), flood_depth=1.0)
    state, generator, began = tree.init(), torch.Generator(), time.perf_counter()
    while not tree.finished(state) and time.perf_counter() - began < seconds:
        state, _ = tree.step(state, generator)
    return tree.estimate(state)


def greedy_excess(field, minima: np.ndarray, truth: np.ndarray) -> float:
    """Mean over random pairs of the paper's greedy barrier, the lower of both directions, less the truth."""
    first, second = np.random.default_rng(0).integers(0, len(minima), (2, GREEDY_PAIRS))
    first, second = first[first != second], second[first != second]
    peaks = []
    for start, end in ((first, second), (second, first)):
        paths = beam_paths(field, minima[start], minima[end], width=1)
        peaks.append([path_energies(field, path).max() for path in paths])
    return float((np.minimum(*peaks) - truth[first, second]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    lines = [
        "seed | exact merges, widest interval | mean depth | excess: greedy, neighbours + closure, with rounds, with"
        " stepping stones | merges | share of depth | CPU-s of the last"
    ]
    print(lines[0], flush=True)
    heuristic_barriers(spin_glass(12, 0), lowest_minima(spin_glass(12, 0))[:4], generator=torch.Generator())
    shares = []
    for seed in range(arguments.instances):
        field = spin_glass(N_SPINS, seed)
        every = lowest_minima(field)
        minima, stones = every[:N_LOWEST], every[N_LOWEST:]
        plain = heuristic_barriers(field, minima)
        rounds = heuristic_barriers(field, minima, generator=torch.Generator().manual_seed(0))
        began = time.process_time()
        best = heuristic_barriers(field, minima, generator=torch.Generator().manual_seed(0), stepping_stones=stones)
        seconds = time.process_time() - began
        truth = certified(field, minima, best, arguments.seconds)
        pair = np.triu_indices(len(minima), 1)
        depth = (truth.lower - np.maximum.outer(truth.energy, truth.energy))[pair]
        excess = [(found.upper_bound - truth.lower)[pair].mean() for found in (plain, rounds, best)]
        merges = (best.upper_bound[truth.first, truth.second] - truth.lower_level).mean()
        share = excess[-1] / depth.mean()
        if truth.n_exact == len(truth.first):
            shares.append(share)
        greedy = greedy_excess(field, minima, truth.lower)
        widest = (truth.upper_level - truth.lower_level).max()
        lines.append(
            f"{seed} | {truth.n_exact} of {len(truth.first)}, {widest:.3f} | {depth.mean():.3f} | {greedy:.3f}, "
            f"{', '.join(f'{value:.4f}' for value in excess)} | {merges:.5f} | {share:.2%} | {seconds:.1f}"
        )
        print(lines[-1], flush=True)
    if shares:
        lines.append(
            f"share of depth over the {len(shares)} instances certified in full: mean {np.mean(shares):.2%}, "
            f"median {np.median(shares):.2%}, largest {max(shares):.2%}"
        )
    print(lines[-1])
    if arguments.write:
        (Path(__file__).parent / "results" / "glass_barriers.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
