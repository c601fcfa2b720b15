"""Landscapes of spots and stripes in image space and in a generator's latent space, after Hill, Nijkamp and Zhu 2019,
"Building a Telescope to Look Into High-Dimensional Image Spaces", section 5.3, Figures 20 to 22: prints the paper's
claim beside ours.

    python experiments/landscape_spots_and_stripes.py [--starts noise generator latent] [--seeds 0 1 2] [--out DIR]
    python experiments/landscape_spots_and_stripes.py --folder FOLDER   (two subfolders of image files, one a texture)

In the paper, one energy (with a generator of 4 numbers) of both textures had a trivial tree in image space: all minima
merge in one branch, and spots and stripes are not told apart, since the network "creates accidental low
energy regions between modes"; in latent space there was some separation. That energy had not converged. Here the
verdict on it is printed, and a generator is fitted to the noise-free images afterwards, with no part in the energy. The
map starts from draws of the energy's Gaussian, from the generator, and in latent space (U(g(z)) + reference |z|^2 / 2).
Where stripes point is measured by the structure tensor of the minima: how much of it the basins know is the share of
the variance of their doubled angle that lies between basins, beside that share with angles shuffled.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import xarray
from learned_landscapes import Rule, add_arguments, each_seed, kept, learned, maps, namer, shown
from torch import Tensor

from theodolite.instruments.proposals import Propose, from_generator, from_reference
from theodolite.learning.bank import NoisyData
from theodolite.learning.generator_fit import GeneratorSettings, fit_generator
from theodolite.learning.generators import GeneratorNetwork
from theodolite.learning.latent_energy import latent_field, pictures, points_of
from theodolite.learning.model import EnergyModel
from theodolite.learning.networks import network_generator
from theodolite.zoo.pictures import Pictures, PictureSettings, pictures_from, zoo_pictures

LATENT = 4
CLAIM = "the paper: one branch in image space, spots and stripes not told apart; some separation in latent space"


def angles(images: Tensor) -> np.ndarray:
    """Unit vectors (n, 2) of twice the angle of the steepest direction of each image (structure tensor)."""
    down, across = torch.gradient(images.flatten(0, -3).double(), dim=(-2, -1))
    x = (across.square() - down.square()).sum((-2, -1))
    y = (2 * across * down).sum((-2, -1))
    length = (x.square() + y.square()).sqrt().clamp(min=1e-12)
    return torch.stack([x / length, y / length], 1).numpy()


def between(basin: np.ndarray, values: np.ndarray) -> float:
    """Share of the variance of ``values`` (n, 2) that lies between basins."""
    total = np.square(values - values.mean(0)).sum()
    within = sum(np.square(values[basin == k] - values[basin == k].mean(0)).sum() for k in np.unique(basin))
    return 1.0 - float(within / total) if total > 0 else 0.0


def orientation_told(survey: xarray.Dataset, images: Tensor, kind: str = "stripes") -> str:
    """How much of the direction of stripes the basins know, beside chance."""
    of_kind = survey.member_label.values == kind
    if of_kind.sum() < 3:
        return "too few stripes to tell their directions"
    basin, values = survey.basin.values[of_kind], angles(images)[of_kind]
    generator = np.random.default_rng(0)
    chance = [between(basin, generator.permutation(values)) for _ in range(200)]
    return (
        f"basins know {between(basin, values):.2f} of the variance of the direction of the {of_kind.sum()} stripes "
        f"(chance {np.mean(chance):.2f}, 97.5% of shufflings below {np.quantile(chance, 0.975):.2f})"
    )


def generator_of(model: EnergyModel, given: Pictures, arguments: argparse.Namespace, seed: int) -> GeneratorNetwork:
    begun = time.process_time()
    points = model.points(given.train)
    network = network_generator(arguments.latent, NoisyData(points, 0.0), seed)
    settings = GeneratorSettings(
        deviation=0.3, updates=arguments.generator_updates, batch=500, steps=10, start="principal"
    )
    fitted = fit_generator(network, points, settings, torch.Generator().manual_seed(seed))
    print(
        f"    generator of {arguments.latent} numbers: {fitted.outcome}, root mean square error "
        f"{float(fitted.error[-100:].mean()):.2f} a component, {time.process_time() - begun:.0f} CPU s",
        flush=True,
    )
    return fitted.network


def look(arguments: argparse.Namespace, seed: int) -> None:
    settings = PictureSettings(n_train=arguments.images, seed=seed)
    given = (
        zoo_pictures("spots-and-stripes", settings)
        if arguments.folder is None
        else pictures_from(arguments.folder, settings)
    )
    print(f"  {len(given.train):,} images: {given.source}", flush=True)
    model, verdict = learned(given, arguments, seed, components=arguments.components)
    print(f"    {verdict}", flush=True)
    label, words = namer(model, given, seed)
    print(f"    {words}")
    if label is None:
        raise SystemExit("images of two kinds are needed")
    field, points = model.field(), model.points(given.train)
    starts: dict[str, Propose] = {"noise": from_reference(model), "data": from_reference(model, points)}
    network = None
    if {"generator", "latent"} & set(arguments.starts):
        network = generator_of(model, given, arguments, seed)
        to_point = points_of(model, network)
        starts["generator"] = from_generator(field, lambda z: to_point(z.double()).float(), network.latent)
    for kind in arguments.starts:
        rule = Rule(
            temperature=arguments.latent_temperature if kind == "latent" else arguments.temperature,
            pulls=sorted(arguments.latent_pulls if kind == "latent" else arguments.pulls),
            proposals=arguments.proposals,
            limit=arguments.limit,
            barriers="linear" if arguments.straight else "string",
        )
        if kind == "latent" and network is not None:
            map_latent(model, network, label, rule, arguments, seed)
            continue
        print(f"  in image space from {kind}, T = {rule.temperature:g}")
        made = maps(field, model.images, starts[kind], label, rule, seed)
        shown(made)
        for each in made:
            if each.chosen:
                images = model.images(torch.from_numpy(each.survey.member_point.values))
                print(f"      {orientation_told(each.survey, images)}", flush=True)
        kept(made, model, arguments.out, f"spots_and_stripes_{kind}_{seed}")


def map_latent(
    model: EnergyModel, network: GeneratorNetwork, label, rule: Rule, arguments: argparse.Namespace, seed: int
) -> None:
    field = latent_field(model, network, arguments.reference)

    def images(z: Tensor) -> Tensor:
        return pictures(model, network, z)

    print(f"  in latent space, T = {rule.temperature:g}, reference {arguments.reference:g} |z|^2 / 2")
    made = maps(field, images, None, lambda z: label(model.points(images(z))), rule, seed)
    shown(made)
    for each in made:
        if each.chosen:
            told = orientation_told(each.survey, images(torch.from_numpy(each.survey.member_point.values)))
            print(f"      {told}", flush=True)
    kept(made, model, arguments.out, f"spots_and_stripes_latent_{seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="subfolders spots and stripes of images, instead of synthesised")
    parser.add_argument("--starts", nargs="+", choices=("noise", "data", "generator", "latent"), default=["noise"])
    parser.add_argument("--components", type=int, default=40)
    parser.add_argument("--latent", type=int, default=LATENT)
    parser.add_argument("--generator-updates", type=int, default=1500)
    parser.add_argument("--reference", type=float, default=0.1, help="weight of |z|^2 / 2")
    parser.add_argument("--temperature", type=float, default=0.1, help="nats, of the trials in image space")
    parser.add_argument("--pulls", type=float, nargs="+", default=[0.5, 1, 2, 4], help="alpha T in image space")
    parser.add_argument("--latent-temperature", type=float, default=0.02)
    parser.add_argument("--latent-pulls", type=float, nargs="+", default=[0.2, 0.6, 1.8], help="alpha T, a unit of z")
    add_arguments(parser)
    each_seed(parser.parse_args(), CLAIM, look)


if __name__ == "__main__":
    main()
