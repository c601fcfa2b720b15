"""The factor that makes few-ladder intervals cover: surveys of exactly solved chains, many seeds.

    python benchmarks/error_calibration.py [--seeds 12] [--first-seed 0] [--rows 7] [--sites 7] [--evaluations 60000]

Prints coverage at 1 and 2 claimed errors and the root mean square of deviation / claimed error, level by level and
pooled, for the factor in ``theodolite.instruments.ladder_estimate`` (CALIBRATION).
"""

import argparse
import time

import numpy as np

from theodolite.instruments import ladder_estimate
from theodolite.instruments.density import Density
from theodolite.systems.chains import smooth_settings
from theodolite.systems.chains_exact import exact_log_density_of_states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=7)
    parser.add_argument("--sites", type=int, default=7)
    parser.add_argument("--reach", type=float, default=4.0, help="outputs to reach, in standard deviations of noise")
    parser.add_argument("--evaluations", type=int, default=60_000)
    arguments = parser.parse_args()
    settings = smooth_settings(rows=arguments.rows, sites=arguments.sites)
    reach = arguments.reach * settings.scale
    deviations, claims, words = [], [], []
    began = time.process_time()
    exact = {}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        survey = Density(
            seed=seed,
            method="ladder",
            budget=f"{arguments.evaluations} evaluations",
            level_width=0.5 * settings.scale,
            low=-reach,
            high=reach,
            starts=("noise", "zeros", "ones"),
            target_error=1e-6,
        ).measure(settings.field(), progress=False)
        edges = survey.level_edges.values
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            if (low, high) not in exact:
                exact[low, high] = float(exact_log_density_of_states(settings, np.array([low, high]))[0])
        truth = np.array([exact[pair] for pair in zip(edges[:-1], edges[1:], strict=True)])
        deviation = survey.log_density_of_states.values - truth
        known = np.isfinite(deviation)
        deviations.append(deviation[known])
        claims.append(survey.log_density_error.values[known])
        words.append(str(survey.verdict.values))
        ratio = deviations[-1] / claims[-1]
        print(
            f"seed {seed}: {words[-1]}, {survey.sizes.get('ladder', 0)} ladders, {survey.sizes.get('rung', 0)} rungs, "
            f"largest error {np.abs(deviations[-1]).max():.2f} nats, claimed {claims[-1].max():.2f}, "
            f"within 1.96 claimed errors {(np.abs(ratio) < 1.96).mean():.2f}, range {np.ptp(truth[known]):.0f} nats",
            flush=True,
        )
    ratio = np.concatenate(deviations) / np.concatenate(claims)
    print(f"factor {ladder_estimate.CALIBRATION}, {words.count('converged')} of {len(words)} converged")
    print(
        f"covered within 1 error {(np.abs(ratio) < 1).mean():.3f}, within 1.96 {(np.abs(ratio) < 1.96).mean():.3f}, "
        f"root mean square {np.sqrt((ratio**2).mean()):.3f}; {time.process_time() - began:.0f} CPU-s"
    )


if __name__ == "__main__":
    main()
