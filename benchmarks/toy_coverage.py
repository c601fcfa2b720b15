"""Do 95% intervals cover 95%? Each method on the tabulated 5x5 toy network, 400 seeds, 200k evaluations each.

    python benchmarks/toy_coverage.py TABLE.npy --method ladder|wang-landau [--seeds 400] [--first-seed 0]

TABLE.npy holds the outputs of all 2^25 inputs by index (``theodolite.sampling.enumerate.tabulate``). Bars:
93-97% pooled and at least 90% in every bin of more than 100 inputs; largest error 0.3 nats in those bins.
"""

import argparse
import time

import numpy as np

from theodolite.field import Field
from theodolite.instruments.density import Density
from theodolite.systems.toy import table_field


def survey(field: Field, method: str, seed: int, evaluations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges, ln g and its standard errors, NaN where not reached."""
    settings = {"seed": seed, "method": method, "budget": f"{evaluations} evaluations", "level_width": 1.0}
    found = Density(**settings, target_error=1e-6).measure(field, progress=False)
    return found.level_edges.values, found.log_density_of_states.values, found.log_density_error.values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--method", choices=["ladder", "wang-landau"], default="ladder")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=200_000)
    arguments = parser.parse_args()
    table = np.load(arguments.table)
    field = table_field(table)
    lowest = int(np.floor(table.min()))
    counts = np.bincount((np.floor(table) - lowest).astype(int))
    deviation = np.full((arguments.seeds, len(counts)), np.nan)
    error = np.full((arguments.seeds, len(counts)), np.nan)
    began = time.process_time()
    for row in range(arguments.seeds):
        edges, found, claimed = survey(field, arguments.method, arguments.first_seed + row, arguments.evaluations)
        bins = np.round(edges[:-1]).astype(int) - lowest
        here = (bins >= 0) & (bins < len(counts))
        deviation[row, bins[here]] = found[here] - np.log(np.maximum(counts[bins[here]], 1))
        error[row, bins[here]] = claimed[here]
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
    print(f"{arguments.method}, seeds {arguments.first_seed} to {last}, {arguments.evaluations} evaluations")
    print(f"covered, pooled: {covered[:, large].mean():.4f}")
    print(f"covered, least in a bin: {covered[:, large].mean(0).min():.4f}")
    print(
        f"largest error of a run (nats): median {np.median(worst):.3f}, 95% {np.quantile(worst, 0.95):.3f}, "
        f"worst {worst.max():.3f}, at most 0.3 in {(worst <= 0.3).mean():.3f} of the runs"
    )
    print(f"{time.process_time() - began:.1f} CPU-s")


if __name__ == "__main__":
    main()
