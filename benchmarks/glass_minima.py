"""The 500 lowest minima of spin glasses of 100 spins: parallel tempering by two seeds, and generalised Wang-Landau.

    python benchmarks/glass_minima.py [--instances 10] [--write]

Bars: two seeds agree on the 500 lowest minima and neither finds a new one in the last half of its run, in at most
20 s (aim 5 s) on each instance; generalised Wang-Landau finds the same 500 by 1e6 steps at 200,000 steps a second or
more, each with its mirror image. Compilation (once a process) is timed apart. --write stores the table in results/.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import torch

from theodolite.sampling.basin_wang_landau import BasinWangLandau
from theodolite.sampling.lowest_minima import FoundMinima, agree
from theodolite.sampling.parallel_tempering import ParallelTempering, TemperingState
from theodolite.systems.spin_glass import spin_glass

N_SPINS, N_LOWEST, SEEDS, WALK_STEPS = 100, 500, (1, 2), 1_000_000


def settle(sampler: ParallelTempering, state: TemperingState, at_least: int) -> tuple[TemperingState, float]:
    """Steps until nothing new was met in the last half, and at least so many sweeps; CPU-seconds used."""
    began, generator = time.thread_time(), torch.Generator()
    while state.n_sweeps < at_least or sampler.stop(state, {}) is None:
        state, _ = sampler.step(state, generator)
    return state, time.thread_time() - began


def search(sampler: ParallelTempering) -> tuple[FoundMinima, list[int], float, float]:
    """Two searches on two threads, doubled until they agree: the minima, sweeps of each, seconds and CPU-seconds."""
    began, cpu = time.perf_counter(), 0.0
    states = [sampler.init(torch.Generator().manual_seed(seed)) for seed in SEEDS]
    at_least = 0
    with ThreadPoolExecutor(len(SEEDS)) as threads:
        while True:
            settled = list(threads.map(settle, repeat(sampler), states, repeat(at_least)))
            states = [state for state, _ in settled]
            cpu += sum(seconds for _, seconds in settled)
            one, other = (sampler.found(state) for state in states)
            if agree(one, other, N_LOWEST):
                break
            at_least = 2 * max(state.n_sweeps for state in states)
    return one, [state.n_sweeps for state in states], time.perf_counter() - began, cpu


def walk(sampler: BasinWangLandau, truth: FoundMinima) -> tuple[int, int, float]:
    """Minima of the truth that a walk found, those whose mirror image it found too, and steps a second."""
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(generator)
    began = time.process_time()
    state, _ = sampler.walk(state, WALK_STEPS)
    seconds = time.process_time() - began
    found = {tuple(row) for row in sampler.found(state).point.tolist()}
    hits = [tuple(row) for row in truth.point.tolist() if tuple(row) in found]
    return len(hits), sum(tuple(-spin for spin in row) in found for row in hits), WALK_STEPS / seconds


def compile_kernels() -> float:
    began = time.perf_counter()
    small = spin_glass(12, 0)
    tempering = ParallelTempering(small, n_lowest=4)
    generator = torch.Generator().manual_seed(0)
    tempering.found(tempering.step(tempering.init(generator), generator)[0])
    for mirror in (True, False):
        sampler = BasinWangLandau(small, n_lowest=4, high=0.5, mirror=mirror)
        sampler.walk(sampler.init(generator), 100)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    lines = [
        f"compilation {compile_kernels():.1f} s (once a process)",
        "seed | two seeds agree after s | CPU-s of both | sweeps of each | lowest, highest of 500 |"
        " walk: found by 1e6 steps, with mirror images, steps a CPU-second | walk without the symmetry: the same",
    ]
    print("\n".join(lines), flush=True)
    for seed in range(arguments.instances):
        field = spin_glass(N_SPINS, seed)
        truth, sweeps, seconds, cpu = search(ParallelTempering(field, n_lowest=N_LOWEST))
        walks = []
        for mirror in (True, False):
            hits, mirrored, rate = walk(BasinWangLandau(field, n_lowest=N_LOWEST, mirror=mirror), truth)
            walks.append(f"{hits}, {mirrored}, {rate:,.0f}")
        ends = f"{float(truth.energy[0]):.4f}, {float(truth.energy[-1]):.4f}"
        lines.append(
            f"{seed} | {seconds:.2f} | {cpu:.2f} | {sweeps[0]}, {sweeps[1]} | {ends} | {walks[0]} | {walks[1]}"
        )
        print(lines[-1], flush=True)
    if arguments.write:
        path = Path(__file__).parent / "results" / "glass_minima.txt"
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
