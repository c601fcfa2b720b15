"""A non-convergent energy as a generator, after Hill 2020 (PhD thesis, UCLA), section 3.3: images from noise by L steps
of descent, interpolation, reconstruction of unseen images; prints the thesis's claim beside ours.

    python experiments/short_run_generator.py mnist.npz [--seed 0] [--updates 1000] [--out DIR]

An energy of digits 0-3 at 16x16 is learned with chains that start from noise each update. Its verdict must be
"non-convergent". M(z) is descent for as many steps as learning took. Reconstruction searches z for held-out images; the
latent vectors have as many numbers as an image, so that PCA with as many components has no error at all: beside it
stands PCA with as many components as M's Jacobian has directions that matter (its participation number), which is the
fair comparison, and the error of the best of the training images. With `--out` a picture of the rows. Last, the same
chains at other noise scales gamma (eq. 3.6). About a minute of one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import theodolite as th
from theodolite.learning.bank import NoisyData
from theodolite.learning.naming import name_points
from theodolite.learning.short_run import (
    ReconstructionSettings,
    ShortRun,
    interpolation,
    reconstruct,
    temperature_sweep,
)
from theodolite.zoo.datasets import mnist

CLASSES = (0, 1, 2, 3)
GAMMAS = (0.0, 0.5, 1.0, 2.0)
STEP_SIZE = 0.1  # epsilon, grey levels
NOISE = 0.1  # tau; at 1, L steps would add epsilon sqrt(L) to every pixel, which no update could take away again


def digits(path: Path, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``n`` images (n, 1, 16, 16) from -1 to 1 with labels to learn from, and 400 others."""
    found = mnist(path, CLASSES, seed=seed)
    padded = functional.pad(found.x_train[: n + 400].float() / 127.5 - 1, (2, 2, 2, 2), value=-1.0)
    images, labels = functional.avg_pool2d(padded, 2), found.y_train[: n + 400]
    return images[:n], labels[:n], images[n:], labels[n:]


def participation(short_run: ShortRun, z: Tensor) -> float:
    """How many directions of z matter: (sum of squared singular values)^2 / sum of their squares, mean over rows."""
    numbers = []
    for row in z:
        path = short_run.path(row[None].expand(row.numel(), *row.shape))
        basis = torch.eye(row.numel(), dtype=z.dtype).reshape(row.numel(), *row.shape)
        squares = torch.linalg.svdvals(short_run.pulled_back(path, basis).flatten(1)).square()
        numbers.append(float(squares.sum() ** 2 / squares.square().sum()))
    return float(np.mean(numbers))


def principal_error(train: Tensor, points: Tensor, n: int) -> float:
    """Mean square a coordinate of what n principal components of ``train`` leave of ``points``."""
    flat, other = train.flatten(1).double(), points.flatten(1).double()
    directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:n]
    away = other - flat.mean(0)
    return float((away - away @ directions.T @ directions).square().mean())


def sheet(rows: list[Tensor], path: Path) -> None:
    from PIL import Image

    n = max(len(row) for row in rows)
    lines = []
    for row in rows:
        full = torch.full((n, 18, 18), -1.0)
        full[: len(row), 1:17, 1:17] = row.reshape(-1, 16, 16).clamp(-1, 1)
        lines.append(torch.cat(list(full), 1))
    grey = ((torch.cat(lines) + 1) * 127.5).to(torch.uint8).numpy()
    Image.fromarray(grey).resize((grey.shape[1] * 3, grey.shape[0] * 3), 0).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="full MNIST: an .npz file or a folder of IDX files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=40, help="L, of learning and of M")
    parser.add_argument("--reconstructed", type=int, default=40, help="held-out images")
    parser.add_argument("--searches", type=int, default=150, help="updates of a reconstruction")
    parser.add_argument("--long-steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="folder for the picture")
    arguments = parser.parse_args()
    images, labels, unseen, _ = digits(arguments.file, arguments.images, arguments.seed)
    began = time.process_time()
    model, survey = th.Learning(
        seed=arguments.seed,
        components=None,
        data_noise=0.1,
        prior=1.0,
        warm_updates=0,
        updates=arguments.updates,
        batch=128,
        schedule="adam:1e-3:1e-4",
        initialisation="noise",
        dynamics="langevin",
        steps=arguments.steps,
        step_size=STEP_SIZE,
        noise=NOISE,
        average=0.0,
        long_steps=arguments.long_steps,
        long_chains=100,
        budget="30 min",
    ).fit(images, labels=labels, held_out=unseen, progress=False)
    print(
        f"energy: {survey.verdict.values} ({time.process_time() - began:.0f} CPU s). {survey.verdict_sentence.values}"
    )
    print('the thesis: such an energy makes good images from noise and is "highly non-convergent"', flush=True)
    short_run = ShortRun(model.energy, STEP_SIZE, arguments.steps)
    data = NoisyData(images, 0.1)
    generator = torch.Generator().manual_seed(arguments.seed)
    named = name_points(images, labels, 0.3, arguments.seed)
    z = data.blank(200, generator)
    made, noisy = short_run.generate(z), short_run.sample(z, generator, NOISE)
    counts = [torch.bincount(named(points), minlength=4).tolist() for points in (z, made, noisy, images)]
    print(f"digits named: noise {counts[0]}, M(z) {counts[1]}, with Langevin's noise {counts[2]}, data {counts[3]}")
    nearest = [float(torch.cdist(p.flatten(1), images.flatten(1)).amin(1).mean()) for p in (z, made, unseen)]
    print(
        f"distance to the nearest training image: noise {nearest[0]:.2f}, M(z) {nearest[1]:.2f}, "
        f"unseen digits {nearest[2]:.2f}"
    )
    lines = [interpolation(z[2 * k], z[2 * k + 1], 12) for k in range(3)]
    between = [short_run.generate(line) for line in lines]
    for k, row in enumerate(between):
        jumps = (row[1:] - row[:-1]).flatten(1).norm(dim=1)
        straight = float((row[-1] - row[0]).norm())
        print(
            f"line {k}: digits {named(row).tolist()}, |M(z1) - M(z0)| {straight:.2f}, path {float(jumps.sum()):.2f}, "
            f"longest of 11 steps {float(jumps.max()):.2f}"
        )
    began = time.process_time()
    some = unseen[: arguments.reconstructed]
    found = reconstruct(
        short_run, some, ReconstructionSettings(arguments.searches, "adam:0.1:0.01", deviation=data.spread), generator
    )
    error = found.error.double()
    half = 1.96 * float(error.std()) / len(error) ** 0.5
    directions = participation(short_run, found.latent[:3])
    nearby = torch.cdist(some.flatten(1), images.flatten(1)).amin(1).square() / images[0].numel()
    print(
        f"unseen images, mean square a pixel: M(z*) {float(error.mean()):.4f} +- {half:.4f}; M has {directions:.0f} "
        f"directions of {images[0].numel()}: PCA with as many "
        f"{principal_error(images, some, max(1, round(directions))):.4f}, with 40 "
        f"{principal_error(images, some, 40):.4f}, with all 0; nearest training image {float(nearby.mean()):.4f} "
        f"({time.process_time() - began:.0f} CPU s)"
    )
    print("the thesis: reconstruction of unseen images on par with GAN and VAE of its time (Table 3.1, other data)")
    sweep = temperature_sweep(model.energy, data.blank(50, generator), GAMMAS, STEP_SIZE, 500, generator)
    for gamma, states in zip(GAMMAS, sweep, strict=True):
        away = float(torch.cdist(states.flatten(1), images.flatten(1)).amin(1).mean())
        print(f"gamma {gamma:g}, 500 steps: nearest training image {away:.2f}, digits {torch.bincount(named(states))}")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        rows = [images[:12], made[:12], *between, some[:12], found.point[:12], *(states[:12] for states in sweep)]
        sheet(rows, arguments.out / "short_run.png")
        print(arguments.out / "short_run.png")


if __name__ == "__main__":
    main()
