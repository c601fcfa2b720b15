"""Do 95% intervals cover 95%? Wang-Landau on the tabulated 5x5 toy network, 400 seeds, 200k evaluations each.

    python benchmarks/toy_coverage.py TABLE.npy [--seeds 400] [--first-seed 0] [--evaluations 200000]

TABLE.npy holds the outputs of all 2^25 inputs by index (``theodolite.sampling.enumerate.tabulate``). Bars:
93-97% pooled and at least 90% in every bin of more than 100 inputs; largest error 0.3 nats in those bins.
"""

import argparse
import time

import numpy as np
import torch

from theodolite.field import Field
from theodolite.sampling.wang_landau import WangLandau
from theodolite.space import Grid


def tabulated_field(table: np.ndarray) -> Field:
    n_coordinates = int(np.log2(len(table)))
    strides = 2 ** torch.arange(n_coordinates)
    values = torch.from_numpy(table)
    return Field(
        Grid((n_coordinates,), 2),
        lambda x: values[(x * strides).sum(1)],
        name="tabulated toy network",
        table=values,
    )


def wang_landau(field: Field, seed: int, evaluations: int):
    sampler = WangLandau(field, learning_evaluations=int(0.15 * evaluations), bin_width=1.0)
    generator = torch.Generator().manual_seed(seed)
    state = sampler.init(generator)
    while state.evaluations < evaluations:
        state, _ = sampler.step(state, generator)
    return sampler.estimate(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=200_000)
    arguments = parser.parse_args()
    table = np.load(arguments.table)
    field = tabulated_field(table)
    lowest = int(np.floor(table.min()))
    counts = np.bincount((np.floor(table) - lowest).astype(int))
    deviation = np.full((arguments.seeds, len(counts)), np.nan)
    error = np.full((arguments.seeds, len(counts)), np.nan)
    began = time.process_time()
    for row in range(arguments.seeds):
        estimate = wang_landau(field, arguments.first_seed + row, arguments.evaluations)
        bins = np.round(estimate.level_edges[:-1]).astype(int) - lowest
        deviation[row, bins] = estimate.log_density_of_states - np.log(np.maximum(counts[bins], 1))
        error[row, bins] = estimate.log_density_error
    large = counts > 100
    covered = np.abs(deviation) <= 1.96 * error
    worst = np.abs(np.where(np.isfinite(deviation), deviation, np.inf))[:, large].max(1)
    print("bin  inputs  covered  bias  spread  median error")
    for b in np.flatnonzero(counts):
        print(
            f"{b + lowest:4d} {counts[b]:9d} {covered[:, b].mean():.3f} {np.nanmean(deviation[:, b]):+.4f} "
            f"{np.nanstd(deviation[:, b]):.4f} {np.nanmedian(error[:, b]):.4f}"
        )
    last = arguments.first_seed + arguments.seeds - 1
    print(f"seeds {arguments.first_seed} to {last}, {arguments.evaluations} evaluations")
    print(f"covered, pooled: {covered[:, large].mean():.4f}")
    print(f"covered, least in a bin: {covered[:, large].mean(0).min():.4f}")
    print(
        f"largest error of a run (nats): median {np.median(worst):.3f}, 95% {np.quantile(worst, 0.95):.3f}, "
        f"worst {worst.max():.3f}, at most 0.3 in {(worst <= 0.3).mean():.3f} of the runs"
    )
    print(f"{time.process_time() - began:.1f} CPU-s")


if __name__ == "__main__":
    main()
