"""Exactly solved hard cases: the linear logit, smooth chains, and the rough chain that must be called not converged.

python benchmarks/hard_cases.py linear|smooth|rough [--budget "60 s"] [--seed 0] [--high Y]
"""

import argparse

import numpy as np
from verdict_text import print_verdict

from theodolite.instruments.density import Density
from theodolite.systems.chains import rough_settings, smooth_settings
from theodolite.systems.chains_exact import exact_log_density_of_states
from theodolite.systems.linear import linear_logit, linear_logit_scale, linear_logit_weights
from theodolite.systems.linear_exact import linear_log_density_of_states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["linear", "smooth", "rough"])
    parser.add_argument("--budget", default="60 s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--high", type=float)
    parser.add_argument("--low", type=float)
    parser.add_argument("--width", type=float, default=None)
    arguments = parser.parse_args()
    settings = smooth_settings() if arguments.case == "smooth" else rough_settings()
    field = linear_logit(0) if arguments.case == "linear" else settings.field()
    survey = Density(
        seed=arguments.seed,
        method="ladder",
        budget=arguments.budget,
        low=arguments.low,
        high=arguments.high,
        level_width=arguments.width,
    ).measure(field)
    edges = survey.level_edges.values
    found, claimed = survey.log_density_of_states.values, survey.log_density_error.values
    if arguments.case == "linear":
        weights = linear_logit_weights(0, 784)
        exact = linear_log_density_of_states(weights, 256, edges, scale=linear_logit_scale(weights))
    else:
        exact = exact_log_density_of_states(settings, edges)
    known = np.isfinite(found) & np.isfinite(exact)
    deviation, claimed = (found - exact)[known], claimed[known]
    trusted = survey.level_converged.values[known]
    print_verdict(survey)
    print(
        f"{survey.attrs['evaluations']} evaluations, {survey.attrs['seconds']:.0f} s; {known.sum()} levels, range of S "
        f"{np.ptp(found[known]):.0f} nats, largest standard error {claimed.max():.2f}, largest deviation "
        f"{np.abs(deviation).max():.2f}, within 1.96 errors {(np.abs(deviation) < 1.96 * claimed).mean():.3f}"
    )
    if trusted.any():
        print(
            f"on the {trusted.sum()} trusted levels: largest deviation {np.abs(deviation[trusted]).max():.2f}, within "
            f"1.96 errors {(np.abs(deviation) < 1.96 * claimed)[trusted].mean():.3f}"
        )


if __name__ == "__main__":
    main()
