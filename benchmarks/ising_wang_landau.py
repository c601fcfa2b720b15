"""Ising 16x16 against Beale's exact counts, beside icet's WangLandauEnsemble in the same run.

    python benchmarks/ising_wang_landau.py [--cpu-seconds 5 20] [--seeds 4] [--icet-seconds 10]

Bars: at least 10 million trial moves a CPU-second; largest error of ln g at most 0.25 nats within 5 CPU-s,
aim 0.05 within 20. Compilation (once a process) is timed apart. icet 4 (mchammer) is used where it is
installed: ``pip install icet``.
"""

import argparse
import math
import time

import numpy as np
import torch

from theodolite.sampling.wang_landau import WangLandau
from theodolite.systems.ising import ising
from theodolite.systems.ising_exact import ising_counts

SIDE = 16


def exact_log_counts() -> dict[int, float]:
    return {energy: math.log(count) for energy, count in ising_counts(SIDE).items() if count}


def ours(seed: int, trials: int):
    sampler = WangLandau(ising(SIDE), learning_evaluations=int(0.15 * trials))
    generator = torch.Generator().manual_seed(seed)
    state = sampler.init(generator)
    while state.evaluations < trials:
        state, _ = sampler.step(state, generator)
    return sampler.estimate(state), state.evaluations


def compare(estimate, exact: dict[int, float]) -> str:
    centres = np.round((estimate.level_edges[1:] + estimate.level_edges[:-1]) / 2).astype(int)
    found = {int(c): i for i, c in enumerate(centres) if np.isfinite(estimate.log_density_of_states[i])}
    rows = [found[energy] for energy in exact if energy in found]
    truth = np.array([exact[energy] for energy in exact if energy in found])
    deviation = np.abs(estimate.log_density_of_states[rows] - truth)
    covered = deviation <= 1.96 * estimate.log_density_error[rows]
    levels = f"levels {len(rows)} of {len(exact)}"
    return f"{levels}, largest error {deviation.max():.3f} nats, covered {covered.mean():.3f}"


def icet_rate(seconds: float) -> str:
    """Trial moves a CPU-second of icet's ensemble on the same lattice, and the levels it reached."""
    try:
        from ase import Atoms
        from icet import ClusterExpansion, ClusterSpace
        from mchammer.calculators import ClusterExpansionCalculator
        from mchammer.ensembles import WangLandauEnsemble
    except ImportError:
        return "icet: not installed"
    primitive = Atoms("Au", positions=[[0, 0, 0]], cell=[1, 1, 10], pbc=True)
    space = ClusterSpace(primitive, cutoffs=[1.1], chemical_symbols=["Ag", "Au"])
    structure = primitive.repeat((SIDE, SIDE, 1))
    for site in range(0, SIDE * SIDE, 2):
        structure[site].symbol = "Ag"
    ensemble = WangLandauEnsemble(
        structure=structure,
        calculator=ClusterExpansionCalculator(structure, ClusterExpansion(space, [0, 0, 2])),
        energy_spacing=4,
        trial_move="flip",
        random_seed=0,
        ensemble_data_write_interval=10**9,
        trajectory_write_interval=10**9,
    )
    trials, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        ensemble.run(number_of_trial_steps=10_000)
        trials += 10_000
    spent = time.process_time() - began
    return f"icet WangLandauEnsemble: {trials / spent:,.0f} trial moves a CPU-second ({trials} trials)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-seconds", type=float, nargs="+", default=[5.0, 20.0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--icet-seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    exact = exact_log_counts()
    began = time.process_time()
    ours(0, 50_000)
    print(f"compilation and first run: {time.process_time() - began:.1f} CPU-s")
    began = time.process_time()
    _, made = ours(0, 20_000_000)
    rate = made / (time.process_time() - began)
    print(f"theodolite: {rate:,.0f} trial moves a CPU-second")
    print(icet_rate(arguments.icet_seconds))
    for seconds in arguments.cpu_seconds:
        for seed in range(arguments.seeds):
            began = time.process_time()
            estimate, made = ours(seed, int(0.9 * rate * seconds))
            spent = time.process_time() - began
            print(f"seed {seed}: {spent:.1f} CPU-s, {made:,} trials, {compare(estimate, exact)}")


if __name__ == "__main__":
    main()
