"""The landscape of colour images from a folder, after Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into
High-Dimensional Image Spaces", section 5.4 (cat faces; Hill 2020, PhD thesis, UCLA, section 5.2.2.5, Figure 5.12):
prints the claim beside ours.

    python experiments/landscape_faces.py FOLDER [--grey] [--size 16] [--seeds 0 1 2] [--out DIR]

The folder holds image files, or a subfolder a class; an .npz file of colour images will do. The claim, of aligned cat
faces in a latent space: one branch, barriers that are quite shallow, and yet basins of consistent appearance, most of
whose members lie above the barrier at which their basin merges. To tell "shallow", the barriers stand beside the
spread of the energies of the images themselves; "consistent" is how much of the variance of the minima lies between
basins, beside k-means with as many clusters (the best that such a share can be) and chance. The map is in image space:
in the principal components the energy is learned in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import xarray
from learned_landscapes import Rule, add_arguments, clusters, each_seed, kept, learned, maps, namer, shown

from theodolite.instruments.proposals import from_reference
from theodolite.learning.model import EnergyModel
from theodolite.zoo.pictures import PictureSettings, pictures_from

CLAIM = (
    "the paper, of cat faces: one branch, shallow barriers; basins of consistent appearance; most members lie above "
    "the barrier at which their basin merges"
)


def between(basin: np.ndarray, points: np.ndarray) -> float:
    """Share of the variance of ``points`` (n, coordinates) that lies between basins."""
    total = np.square(points - points.mean(0)).sum()
    within = sum(np.square(points[basin == k] - points[basin == k].mean(0)).sum() for k in np.unique(basin))
    return 1.0 - float(within / total) if total > 0 else 0.0


def consistency_told(survey: xarray.Dataset) -> str:
    basin, points = survey.basin.values, survey.member_point.values.reshape(survey.sizes["member"], -1)
    generator = np.random.default_rng(0)
    chance = np.mean([between(generator.permutation(basin), points) for _ in range(50)])
    best = between(clusters(survey, survey.sizes["minimum"]), points)
    return (
        f"basins hold {between(basin, points):.2f} of the variance of the minima (chance {chance:.2f}, k-means with as "
        f"many {best:.2f})"
    )


def spread_told(model: EnergyModel, points: torch.Tensor, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    noisy = points + model.data_noise * torch.randn(points.shape, generator=generator)
    energies = model.field().value(noisy.double())
    return f"energies of the noisy images have a standard deviation of {float(energies.std()):.1f} nats"


def look(arguments: argparse.Namespace, seed: int) -> None:
    settings = PictureSettings(
        size=arguments.size,
        n_train=arguments.images,
        n_held_out=400,
        colour=not arguments.grey,
        classes=None if arguments.classes is None else tuple(arguments.classes),
        seed=seed,
    )
    given = pictures_from(arguments.source, settings)
    print(f"  {len(given.train):,} images of {tuple(given.train.shape[1:])}: {given.source}", flush=True)
    model, verdict = learned(given, arguments, seed, components=arguments.components)
    print(f"    {verdict}", flush=True)
    label, words = namer(model, given, seed)
    points = model.points(given.train)
    print(f"    {words}; {spread_told(model, points, seed)}")
    rule = Rule(
        temperature=arguments.temperature,
        pulls=sorted(arguments.pulls),
        proposals=arguments.proposals,
        limit=arguments.limit,
        barriers="linear" if arguments.straight else "string",
        resolutions=arguments.resolutions,
    )
    made = maps(model.field(), model.images, from_reference(model, points), label, rule, seed)
    shown(made)
    for each in made:
        if each.chosen:
            print(f"      {consistency_told(each.survey)}\n  {CLAIM}", flush=True)
    kept(made, model, arguments.out, f"faces_{seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder of image files, or an .npz file")
    parser.add_argument("--classes", nargs="+", help="names of those kept; leave out for all")
    parser.add_argument("--grey", action="store_true", help="without colours")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--components", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=0.1, help="nats, of the trials")
    parser.add_argument("--pulls", type=float, nargs="+", default=[0.35, 0.5, 0.7, 1, 1.4, 2, 2.8, 4], help="alpha T")
    parser.add_argument("--resolutions", type=int, default=1, help="maps shown, at rising alpha")
    add_arguments(parser)
    each_seed(parser.parse_args(), CLAIM, look)


if __name__ == "__main__":
    main()
