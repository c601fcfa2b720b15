"""Digits 0-9 in an 8-dimensional latent space at two magnetisations, after Hill, Nijkamp and Zhu 2019, section 5.4,
Figures 23 and 24: prints the paper's claim beside ours.

    python experiments/landscape_latent_digits.py mnist.npz [--pair frozen cooperative] [--seed 0] [--out DIR]

The energy U(g(z)) + reference |z|^2 / 2 is mapped by `Landscape` alone, for two pairs: "frozen", an energy learned to
convergence with a generator fitted to its data afterwards; and "cooperative", both learned together (Algorithm 2), as
in the paper. A classifier of the labelled images names minima; it has no part in what is learned or mapped. Purity is
that of the basins weighted by their members, beside what the same number of k-means clusters of the minima has, and
what basins of the same sizes have when labels are shuffled. With `--out` a report for each map. About six minutes of
one core a pair.

What to expect: U of a point is the energy of one image, and images of a digit of little variety (1) are dense, so that
they lie deepest; where the reference is strong, descents drain to them. The density of z itself would carry the volume
by which the generator stretches, and is N(0, I) for a perfect generator: a hill without basins. So the map shows where
the images' density is high along the generator's surface, and a digit is a basin where it is densest in its
neighbourhood, not where it is probable.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray
from learned_landscapes import chance_purity, clusters, purity
from torch import Tensor
from torch.nn import functional

import theodolite as th
from theodolite.learning.bank import NoisyData
from theodolite.learning.generator_fit import GeneratorSettings, fit_generator
from theodolite.learning.generators import GeneratorNetwork, save_generator
from theodolite.learning.latent_energy import latent_field, pictures
from theodolite.learning.model import EnergyModel
from theodolite.learning.naming import name_points
from theodolite.learning.networks import network_generator
from theodolite.search.minimise import distinct, minimise
from theodolite.zoo.datasets import mnist

SIDE = 16
TAU = 0.3  # of eq. A.1: what 8 numbers leave of an image of 40 components


def digits(path: Path, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``n`` images (n, 1, 16, 16) from -1 to 1 with their labels to learn from, and as many others."""
    found = mnist(path, seed=seed)
    x, y = found.x_train[: 2 * n], found.y_train[: 2 * n]
    padded = functional.pad(x.float() / 127.5 - 1, (2, 2, 2, 2), value=-1.0)
    images = functional.avg_pool2d(padded, 2)
    return images[:n], y[:n], images[n:], y[n:]


def cooperative(images: Tensor, arguments: argparse.Namespace) -> tuple[EnergyModel, GeneratorNetwork]:
    model, survey = th.Learning(
        seed=arguments.seed,
        initialisation="generator",
        latent=arguments.latent,
        components=arguments.components,
        data_noise=arguments.noise,
        warm_updates=0,
        updates=arguments.updates,
        long_steps=arguments.long_steps,
        budget="30 min",
    ).fit(images, progress=False)
    judged(survey)
    if model.generator is None:
        raise SystemExit("learning gave no generator")
    return model, model.generator


def frozen(images: Tensor, arguments: argparse.Namespace) -> tuple[EnergyModel, GeneratorNetwork]:
    model, survey = th.Learning(
        seed=arguments.seed,
        components=arguments.components,
        data_noise=arguments.noise,
        warm_updates=arguments.warm_updates,
        updates=arguments.updates,
        long_steps=arguments.long_steps,
        budget="30 min",
    ).fit(images, progress=False)
    judged(survey)
    began = time.process_time()
    points = model.points(images)
    network = network_generator(arguments.latent, NoisyData(points, 0.0), arguments.seed)
    settings = GeneratorSettings(
        deviation=TAU, updates=arguments.generator_updates, batch=500, steps=10, start="principal"
    )
    fitted = fit_generator(network, points, settings, torch.Generator().manual_seed(arguments.seed))
    print(
        f"  generator: {fitted.outcome}, root mean square error {float(fitted.error[-100:].mean()):.3f} a component, "
        f"{time.process_time() - began:.0f} CPU s"
    )
    return model, fitted.network


def judged(survey: xarray.Dataset) -> None:
    print(f"  energy: {survey.verdict.values}. {survey.verdict_sentence.values}")


def look(
    name: str,
    model: EnergyModel,
    network: GeneratorNetwork,
    named: Callable[[Tensor], Tensor],
    arguments: argparse.Namespace,
) -> None:
    """Minima from draws of the latent space, then the two maps."""
    field = latent_field(model, network, arguments.reference)

    def classes(z: Tensor) -> np.ndarray:
        return named(model.points(pictures(model, network, z))).numpy()

    generator = torch.Generator().manual_seed(arguments.seed)
    starts = field.space.draw(arguments.proposals, generator)
    began = time.process_time()
    end = minimise(field, starts)
    kept, _ = distinct(end.point, end.energy, 0.05)
    before, after = classes(starts), classes(end.point)
    print(
        f"  minima of U(g(z)) + {arguments.reference:g} |z|^2 / 2: {len(kept)} from {len(starts)} draws, digits "
        f"{np.bincount(classes(end.point[kept]), minlength=10).tolist()}; draws {np.bincount(before, minlength=10)} "
        f"drained to {np.bincount(after, minlength=10)}, same digit {np.mean(before == after):.0%} "
        f"({time.process_time() - began:.1f} CPU s)",
        flush=True,
    )
    for pull in arguments.pulls:
        began = time.process_time()
        survey = th.Landscape(
            method="adelm",
            temperature=arguments.temperature,
            alpha=pull / arguments.temperature,
            proposals=arguments.proposals,
            variant=arguments.variant,
            seed=arguments.seed,
            barriers="linear",
            budget="20 min",
        ).measure(
            field,
            label=lambda z: [str(digit) for digit in classes(z)],
            picture=lambda z: pictures(model, network, z).reshape(-1, SIDE, SIDE),
            progress=False,
        )
        member = torch.as_tensor(survey.member_point.values)
        basin, digit = survey.basin.values, classes(member)
        n = len(np.unique(basin))
        own = {int(np.bincount(digit[basin == k]).argmax()) for k in np.unique(basin)}
        print(
            f"  alpha T = {pull:g} nats a unit, T = {arguments.temperature:g}: {n} basins, purity "
            f"{purity(basin, digit):.3f} (k-means {purity(clusters(survey, n), digit):.3f}, chance "
            f"{chance_purity(basin, digit):.3f}), digits that a basin is of {sorted(own)}, "
            f"digits met {np.bincount(digit, minlength=10).tolist()}; "
            f"{survey.verdict.values} ({time.process_time() - began:.0f} CPU s)",
            flush=True,
        )
        if arguments.out is not None:
            print(f"  {th.report(survey, arguments.out / f'latent_{name}_{pull:g}.html')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="full MNIST: an .npz file or a folder of IDX files")
    parser.add_argument("--pair", nargs="+", choices=["frozen", "cooperative"], default=["frozen", "cooperative"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=5000, help="that are learned from; the paper took 5,000")
    parser.add_argument("--components", type=int, default=40)
    parser.add_argument("--noise", type=float, default=0.3, help="of the data, in grey levels of -1 to 1")
    parser.add_argument("--latent", type=int, default=8)
    parser.add_argument("--warm-updates", type=int, default=6000, help="of score matching: fewer leave fewer minima")
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--generator-updates", type=int, default=3000)
    parser.add_argument("--long-steps", type=int, default=3000)
    parser.add_argument("--reference", type=float, default=0.1, help="weight of |z|^2 / 2")
    parser.add_argument("--temperature", type=float, default=0.02, help="nats")
    parser.add_argument("--pulls", type=float, nargs="+", default=[0.2, 0.6], help="alpha T, nats a unit of z")
    parser.add_argument("--proposals", type=int, default=300)
    parser.add_argument("--variant", choices=("mutual", "faithful", "fast"), default="mutual")
    parser.add_argument("--out", type=Path, help="folder for models and reports")
    arguments = parser.parse_args()
    images, labels, others, other_labels = digits(arguments.file, arguments.images, arguments.seed)
    print("the paper, Figures 23 and 24: all ten digits have a well-separated branch; less pure at the higher alpha")
    for name in arguments.pair:
        began = time.process_time()
        print(f"{name}: {len(images):,} images of 16x16, {arguments.latent} latent numbers, seed {arguments.seed}")
        model, network = {"frozen": frozen, "cooperative": cooperative}[name](images, arguments)
        named = name_points(model.points(images), labels, 0.5)
        accuracy = float((named(model.points(others)) == other_labels).double().mean())
        print(f"  learned in {time.process_time() - began:.0f} CPU s; the naming classifier is right on {accuracy:.1%}")
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            model.save(arguments.out / f"{name}_energy.safetensors")
            save_generator(network, arguments.out / f"{name}_generator.safetensors")
        look(name, model, network, named, arguments)


if __name__ == "__main__":
    main()
