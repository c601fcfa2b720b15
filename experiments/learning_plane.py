"""Figure 3.1 of Hill 2020 (PhD thesis, UCLA): convergent and non-convergent learning in the plane, densities exact.

    python experiments/learning_plane.py [--only mixture|rings|line] [--recipe plane|non-convergent] [--seeds 3]
        [--points 20000] [--updates N] [--long-steps 2000] [--out FILE]

The thesis shows pictures: a convergent p(x; theta) that "closely approximates the true density", and a non-convergent
one whose negative samples look right while its density is "sharply concentrated". Here: KL both ways and the mass of
every mode, on a grid whose ln Z is good to a thousandth, with the verdict that long runs alone come to (they never see
the truth), and CPU seconds of all of it. Training points are a fixed sample, not drawn anew; KL is against the true
density, not the sample. The least KL that a sample of n points allows is about (number of weights that matter) / (2 n).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import xarray

import theodolite as th
from theodolite.learning.recipes import recipe
from theodolite.systems.planar import KnownDensity, concentric_rings, gaussian_line, gaussian_ring

TARGETS = {"mixture": gaussian_ring, "rings": concentric_rings, "line": gaussian_line}
# The thesis's failure brought to the plane: Adam at 1e-4, epsilon .01, chains from noise, L = 100.
NON_CONVERGENT = {
    **recipe("thesis non-convergent"),
    "energy": "mlp",
    "widths": (128, 128),
    "activation": "leaky_relu",
    "data_noise": 0.0,
    "updates": 300,
}
SETTINGS = {"plane": dict(recipe("plane")), "non-convergent": NON_CONVERGENT}
PAPER = {"plane": "p(x; theta) close to q(x)", "non-convergent": "samples like q, p(x; theta) sharply concentrated"}
# Thin rings at three distances take more bending than the modes of a mixture do.
UPDATES = {"rings": 8000}
BARS = {"mixture": "KL(q to p) <= .06, aim .02", "rings": "KL(q to p) <= .15, aim .05", "line": "none"}


def row(known: KnownDensity, survey: xarray.Dataset, seconds: float) -> str:
    """One line of the table."""
    wrong = 0.5 * float(np.abs(survey["mode_mass"].values - survey["true_mode_mass"].values).sum())
    which = list(survey["statistic_name"].values).index("energy difference")
    long_run = list(survey["run"].values).index("long run from data")
    difference = float(survey["statistic"].values[long_run, which])
    known_to = float(survey["divergence_error"])
    return (
        f"KL(q to p) {float(survey['divergence']):9.4f} +- {known_to:.1g}   "
        f"KL(p to q) {float(survey['reverse_divergence']):9.4f}   "
        f"masses off by {wrong:.3f}   dE/sd of the long run {difference:8.2f}   "
        f"{str(survey['verdict'].values):14s} {seconds:6.1f} CPU s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(TARGETS))
    parser.add_argument("--recipe", choices=tuple(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--updates", type=int, help="in place of the recipe's")
    parser.add_argument("--long-steps", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []

    def tell(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    for name, make in TARGETS.items():
        if options.only not in (None, name):
            continue
        known = make()
        tell(f"\n{known.name}: {options.points:,} points; bar: {BARS[name]}")
        for kind, settings in SETTINGS.items():
            if options.recipe not in (None, kind) or (name == "line" and kind != "plane"):
                continue
            tell(f"  {kind}; the thesis: {PAPER[kind]}")
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                points = known.draw(options.points, torch.Generator().manual_seed(1000 + seed))
                begun = time.process_time()
                asked = options.updates or (UPDATES.get(name) if kind == "plane" else None)
                changed = {"updates": asked} if asked else {}
                changed |= {"seed": seed, "long_steps": options.long_steps, "budget": "3 h"}
                learning = th.Learning(**{**settings, **changed})
                _, survey = learning.fit(points, truth=known.log_density, progress=False)
                tell(f"    seed {seed}: {row(known, survey, time.process_time() - begun)}")
                tell(f"      {str(survey['verdict_sentence'].values)}")
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
