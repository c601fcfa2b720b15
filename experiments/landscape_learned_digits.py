"""The landscape of a learned energy of digits, after Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into
High-Dimensional Image Spaces", section 5.3, Figures 16 and 17: prints the paper's value beside ours.

    python experiments/landscape_learned_digits.py mnist.npz [--seeds 0 1 2] [--noise 0.4] [--out DIR]
    python experiments/landscape_learned_digits.py mnist.npz --model DIR/energy.safetensors [--starts noise data]

Each seed learns its own energy (`Learning`, 500 images of each of 0 to 3 at 16 x 16), or all look at the one given. Of
each: whether a chain from a minimum keeps its digit for 5,000 steps (retention, against what two independent draws
would agree on); the map by `Landscape` alone, from the starts named, and how many distinct minima were sorted into
it; the purity of its basins, beside that of chance and of k-means on the same minima with as many clusters, which is
no worse: what a map adds are barriers.

**No label is looked at when alpha is chosen**: the rule is that of `learned_landscapes`. The map at the next pull is
printed beside it. With `--out` a page of the two maps, and the model.

Trials must arrive in both directions ("mutual"): the 1s lie some 15 nats deeper than 2s and 3s, and where one direction
is enough they swallow them long before the 0s have joined (purity .84 at 12 basins, on seed 0).

Score matching is four times as long as `Learning` has it by default, and the noise lower: the minima of energies
learned by default are few, and most descents from any digit end in a 1. This was settled on seed 11 by counting the
minima of each digit below noise.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import xarray
from learned_landscapes import OFTEN, Rule, add_arguments, kept, learned, maps, shown
from scipy.stats import beta
from torch import Tensor

from theodolite.instruments.barriers import pair_barriers
from theodolite.instruments.proposals import Descent, Propose, from_generator, from_reference
from theodolite.learning.generators import load_generator
from theodolite.learning.langevin import LangevinSettings, adapted, langevin, start
from theodolite.learning.latent_energy import points_of
from theodolite.learning.model import EnergyModel, load_energy
from theodolite.learning.naming import name_points
from theodolite.zoo.pictures import PictureSettings, pictures_from

CLASSES = ("0", "1", "2", "3")
DIGIT_PULLS = (1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # alpha T in nats per unit of distance
CHAINS, STEPS, TUNING = 200, 5000, 200
SAME = 0.25  # of the data noise: minima that near are one


def retention(model: EnergyModel, minima: Tensor, named, temperature: float, seed: int) -> str:
    """Share of chains whose point is of the same digit after `STEPS` steps, with its 95% interval, and chance."""
    generator = torch.Generator().manual_seed(seed)
    begun = time.process_time()
    energy = model.energy.requires_grad_(False)
    first = minima[:CHAINS].float()
    chains, step = start(energy, first), 0.05
    for _ in range(TUNING // 10):
        settings = LangevinSettings(step, temperature=temperature)
        chains, moves = langevin(energy, chains, settings, 10, generator)
        step = adapted(step, moves.acceptance, 0.3)
    settings = LangevinSettings(step, temperature=temperature)
    chains, moves = langevin(energy, chains, settings, STEPS, generator)
    before, after = named(first).numpy(), named(chains.point).numpy()
    n, kept = len(before), int((before == after).sum())
    low, high = beta.ppf(0.025, kept, n - kept + 1), beta.ppf(0.975, kept + 1, max(n - kept, 1e-9))
    chance = sum((before == k).mean() * (after == k).mean() for k in range(len(CLASSES)))
    spent = time.process_time() - begun
    return (
        f"T = {temperature:g}: {kept / n:.3f} [{low:.3f}, {high:.3f}], chance {chance:.3f} "
        f"(step {step:.3f}, {moves.acceptance:.0%} accepted, {spent:.0f} CPU s)"
    )


def beside(survey: xarray.Dataset, model: EnergyModel) -> str:
    """How many distinct minima a map sorts, and its barriers beside those of straight paths."""
    points = torch.from_numpy(survey.member_point.values).flatten(1)
    same = torch.cdist(points, points) < SAME * model.data_noise
    distinct = int(same.int().argmax(1).unique().numel())
    often = np.flatnonzero(survey.member_count.values >= OFTEN)
    share = float(np.isin(survey.basin.values, often).mean())
    text = f"{distinct} distinct minima among {len(points)}; basins found often hold {share:.0%} of them"
    n = survey.sizes["minimum"]
    if n < 2:
        return text
    upper, energy = survey.barrier_upper_bound.values, survey.energy.values
    straight = pair_barriers(model.field(), torch.from_numpy(survey.minimum_point.values), "linear", torch.Generator())
    above = np.maximum(energy[:, None], energy[None])
    pairs = np.triu_indices(n, 1)
    return text + (
        f"; barriers above the higher minimum, median: {np.median((upper - above)[pairs]):.1f} nats by paths, "
        f"{np.median((straight.direct - above)[pairs]):.1f} straight"
    )


def look(chosen: argparse.Namespace, seed: int) -> None:
    settings = PictureSettings(n_train=chosen.images, n_held_out=chosen.images, classes=CLASSES, seed=seed)
    given = pictures_from(chosen.file, settings)
    if given.labels is None:
        raise SystemExit(f"{chosen.file} holds no labels")
    if chosen.model is None:
        more = {"components": None} if chosen.pixels else {}
        model, verdict = learned(given, chosen, seed, **more)
        print(f"  {verdict}", flush=True)
    else:
        model = load_energy(chosen.model)
    points = model.points(given.train)
    named = name_points(points, given.labels, model.data_noise, seed)

    def label(new: Tensor) -> list[str]:
        return [CLASSES[int(k)] for k in named(new)]

    starts: dict[str, Propose] = {"noise": from_reference(model)}
    inside = points.clamp(*model.space.bounds())
    starts["data"] = lambda n, generator: (inside[torch.randint(0, len(inside), (n,), generator=generator)], None)
    if chosen.generator is not None:
        network = load_generator(chosen.generator)
        to_point = points_of(model, network)
        starts["generator"] = from_generator(model.field(), lambda z: to_point(z.double()).float(), network.latent)

    generator = torch.Generator().manual_seed(seed)
    minima = Descent(model.field())(starts["noise"](max(CHAINS, chosen.proposals), generator)[0].double())[0]
    minima = minima[torch.randperm(len(minima), generator=generator)]
    counts = torch.bincount(named(minima), minlength=len(CLASSES)).tolist()
    print(f"  minima below noise: {counts} of 0, 1, 2, 3; retention of the digit over {STEPS:,} steps from them:")
    for temperature in (0.1, 0.3):
        print(f"    {retention(model, minima, named, temperature, seed)}", flush=True)

    rule = Rule(
        temperature=chosen.temperature,
        pulls=DIGIT_PULLS if chosen.pull is None else (chosen.pull, 2 * chosen.pull),
        proposals=chosen.proposals,
        limit=chosen.limit,
        barriers="linear" if chosen.straight else "string",
        variant=chosen.variant,
        resolutions=chosen.resolutions,
    )
    for kind in chosen.starts:
        print(f"  starts from {kind}:", flush=True)
        made = maps(model.field(), model.images, starts[kind], label, rule, seed)
        shown(made)
        for each in made[-chosen.resolutions :]:
            print(f"    alpha T = {each.pull:g}: {beside(each.survey, model)}", flush=True)
        kept(made, model, chosen.out, f"learned_digits_{kind}_{seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="full MNIST: an .npz file or a folder of IDX files")
    add_arguments(parser)
    parser.set_defaults(warm_updates=6000, noise=0.3, limit=60)
    parser.add_argument("--pixels", action="store_true", help="learn in all 256 pixels, not in principal components")
    parser.add_argument("--temperature", type=float, default=0.1, help="nats, of the trials")
    parser.add_argument("--variant", choices=("mutual", "faithful", "fast"), default="mutual")
    parser.add_argument("--pull", type=float, help="alpha T to try, and its double, instead of the usual ones")
    parser.add_argument("--resolutions", type=int, default=2, help="maps shown, at rising alpha")
    parser.add_argument("--starts", nargs="+", default=["noise"], choices=("noise", "data", "generator"))
    parser.add_argument("--generator", type=Path, help="of `save_generator`, for proposals")
    chosen = parser.parse_args()
    if "generator" in chosen.starts and chosen.generator is None:
        parser.error("--starts generator needs --generator")
    print(
        "the paper, Figure 17 (8 grey levels, a ConvNet): 0 and 3 one basin each, 1 two by its tilt, 2 three, two mixed"
    )
    for seed in chosen.seeds:
        print(f"seed {seed}", flush=True)
        look(chosen, seed)


if __name__ == "__main__":
    main()
