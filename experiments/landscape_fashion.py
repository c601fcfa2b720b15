"""The landscape of Fashion-MNIST at the training temperature, after Hill 2020 (PhD thesis, UCLA), section 5.2.3.1 and
Figure 1.1: prints the thesis's claim beside ours.

    python experiments/landscape_fashion.py FOLDER_OF_IDX_FILES [--classes 0 1 7 9] [--minima sampling] [--out DIR]

The thesis maps a convergent energy of all classes at the temperature of its training (T = 1), where basins are those of
long chains rather than of descents, and finds modes that "closely resemble the training data", a tree whose branches
are classes or groups of them; it gives no count. So here: `Landscape` with ``minima="sampling"`` at T = 1, from noise
and noisy data, its delta a quarter of the median distance between the states of independent chains (that of minima is
below the radius at which heat keeps a chain), and with ``--minima descent`` the map of the cold minima for comparison.
`trouser ankle boot` and so on are names of Debian's dataset-fashion-mnist by number; k-means on the same states stands
beside the map, and the same on the images themselves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from learned_landscapes import Rule, add_arguments, clusters, each_seed, kept, learned, maps, namer, purity, shown
from sklearn.cluster import KMeans

from theodolite.instruments.proposals import from_reference
from theodolite.learning.langevin import LangevinSettings, adapted, langevin, start
from theodolite.learning.model import EnergyModel
from theodolite.zoo.pictures import Pictures, PictureSettings, pictures_from

NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CLAIM = "the thesis: modes closely resemble the training data, branches group classes; no number of basins is given"
CHAINS, STEPS = 200, 1000


def states(model: EnergyModel, given: Pictures, temperature: float, seed: int) -> torch.Tensor:
    """Where independent chains at the temperature stand (CHAINS, *shape), after `STEPS` steps from noisy data."""
    generator = torch.Generator().manual_seed(seed)
    energy = model.energy.requires_grad_(False)
    chains = start(energy, from_reference(model, model.points(given.train))(CHAINS, generator)[0].float())
    step = 0.2 * max(model.data_noise, 0.05)
    for _ in range(STEPS // 20):
        chains, moves = langevin(energy, chains, LangevinSettings(step, temperature=temperature), 20, generator)
        step = adapted(step, moves.acceptance, 0.3)
    return chains.point


def resolution(points: torch.Tensor) -> float:
    """A quarter of the median distance between ``points``."""
    apart = torch.pdist(points.flatten(1).double())
    return 0.25 * float(apart.median())


def look(arguments: argparse.Namespace, seed: int) -> None:
    classes = tuple(str(k) for k in arguments.classes)
    settings = PictureSettings(n_train=arguments.images, n_held_out=400, classes=classes, seed=seed)
    given = pictures_from(arguments.file, settings)
    given = Pictures(given.train, given.held_out, given.labels, tuple(NAMES[int(k)] for k in classes), given.source)
    model, verdict = learned(given, arguments, seed, components=arguments.components)
    print(f"  {len(given.train):,} images of {', '.join(given.classes)}\n    {verdict}", flush=True)
    label, words = namer(model, given, seed)
    print(f"    {words}")
    points = model.points(given.train)
    k_means = KMeans(len(classes), n_init="auto", random_state=0)
    groups = k_means.fit_predict(points.flatten(1).numpy())
    if given.labels is not None:
        print(f"    k-means of the images, {len(classes)} clusters: purity {purity(groups, given.labels.numpy()):.3f}")
    for minima in arguments.minima:
        sampling = minima == "sampling"
        temperature = 1.0 if sampling else 0.1
        delta = resolution(states(model, given, temperature, seed)) if sampling else None
        rule = Rule(
            temperature=temperature,
            pulls=sorted(arguments.pulls if sampling else arguments.cold_pulls),
            proposals=arguments.proposals,
            limit=arguments.limit,
            resolution=delta,
            minima=minima,
            barriers="linear" if arguments.straight or sampling else "string",
            resolutions=arguments.resolutions,
        )
        told = "a quarter of the median distance of minima" if delta is None else f"{delta:.2f}"
        print(f"  basins by {minima}, T = {temperature:g}, delta {told}", flush=True)
        made = maps(model.field(), model.images, from_reference(model, points), label, rule, seed)
        shown(made)
        for each in made:
            if each.chosen:
                by_clusters = purity(clusters(each.survey, len(classes)), each.survey.member_label.values)
                print(f"      k-means of the members, {len(classes)} clusters: purity {by_clusters:.3f}", flush=True)
        kept(made, model, arguments.out, f"fashion_{minima}_{seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a folder of Fashion-MNIST's IDX files, or an .npz file")
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)), help="0 to 9")
    parser.add_argument("--minima", nargs="+", choices=("sampling", "descent"), default=["sampling", "descent"])
    parser.add_argument("--components", type=int, default=40)
    parser.add_argument("--pulls", type=float, nargs="+", default=[3.5, 4, 4.5, 5, 5.6], help="alpha T at T = 1")
    parser.add_argument("--cold-pulls", type=float, nargs="+", default=[0.5, 0.7, 1, 1.4, 2, 2.8, 4], help="at T = .1")
    parser.add_argument("--resolutions", type=int, default=1, help="maps shown, at rising alpha")
    add_arguments(parser)
    each_seed(parser.parse_args(), CLAIM, look)


if __name__ == "__main__":
    main()
