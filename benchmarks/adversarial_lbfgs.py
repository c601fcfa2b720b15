"""The paper's attack, all images at once, against scipy's L-BFGS-B one image at a time: seconds, distances, passes.

    OMP_NUM_THREADS=1 python benchmarks/adversarial_lbfgs.py [--mnist mnist.npz] [--images 250] [--rounds 5]
        [--skip 0] [--weights DIR] [--quick] [--out FILE]

Networks: those of the paper's tables (`theodolite.zoo.stability_networks`; `--weights`: as
`experiments/intriguing_properties.py --save` leaves them), or with --quick three small ones, trained on the bundled
digits. Images are test images that the network has right, targets random other classes; `--skip` leaves out the first
of the drawn order, on which settings may have been tuned. scipy gets the same loss |r|^2 c + cross-entropy, the same
search on c from the same first c, the same pull back to the boundary and a float64 network; its own tolerances are the
defaults. "cold": every c starts at the image, as published implementations do; "warm": at the last success, as ours
does. Both run in turn, on one core, in CPU seconds: each of --rounds rounds times ours on all images as one batch, on
the round's part of them as a batch of its own, and scipy on each image of that part. Medians stand before [least,
most]: of ours over rounds, of scipy over images. How many times as fast: mean seconds an image of scipy over those of
ours, on the same images; "in parts": ours by the smaller batches, where a step costs much the same for fewer images.
Bars, by rule: the one batch, against cold and warm alike, and the ratio of mean distances.
The walk's distance beside them is that of `closest_flips` with the same target; the penalty |r| beside |r|^2 is ours.
"""

import argparse
import copy
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor, nn

from theodolite.network import Network
from theodolite.outputs import Outputs
from theodolite.search.adversarial import AdversarialExamples, LbfgsAttack, adversarial_examples, first_constant
from theodolite.search.closest_flips import closest_flips
from theodolite.search.constant_search import ConstantSearch
from theodolite.search.pull_back import margins, pull_back
from theodolite.space import Box
from theodolite.zoo.datasets import Digits, bundled_digits
from theodolite.zoo.flip_networks import FlipTraining, fit, grey_images, small_cnn
from theodolite.zoo.stability_networks import CROSS_MODEL, STABILITY_RECIPES, train_stability_network

SEED = 5
FASTER, LONGER = 50.0, 1.01  # the bars


@dataclass(frozen=True)
class ScipyAttack:
    """One image at a time; counts evaluations, each a forward and a backward pass."""

    exact: Outputs
    module: nn.Module
    settings: LbfgsAttack
    warm: bool

    def __call__(self, x0: Tensor, target: int) -> tuple[float, int]:
        """Distance (inf: none found) and evaluations."""
        aimed, start, n_evaluations = torch.tensor([target]), x0.numpy(), 0
        nearest, nearest_distance, anchor = None, np.inf, None

        def loss_at(x: np.ndarray) -> tuple[float, np.ndarray, float]:
            nonlocal n_evaluations
            n_evaluations += 1
            leaf = torch.from_numpy(x).reshape(1, *self.exact.shape).requires_grad_(True)
            output = self.module(leaf)
            loss = nn.functional.cross_entropy(output, aimed)
            (gradient,) = torch.autograd.grad(loss, leaf)
            lead = float(margins(output.detach(), aimed))
            return float(loss.detach()), gradient.reshape(-1).numpy(), lead

        def weighed(x: np.ndarray, constant: float) -> tuple[float, np.ndarray]:
            nonlocal nearest, nearest_distance
            loss, gradient, lead = loss_at(x)
            change = x - start
            square = float(change @ change)
            if lead > 0 and square < nearest_distance**2:
                nearest, nearest_distance = x.copy(), np.sqrt(square)
            return loss + constant * square, gradient + 2 * constant * change

        _, gradient, lead = loss_at(start)
        held = ((start <= 0) & (gradient > 0)) | ((start >= 1) & (gradient < 0))
        norm = torch.tensor([np.linalg.norm(np.where(held, 0.0, gradient))])
        settings = self.settings
        search = ConstantSearch(
            first_constant(norm, torch.tensor([lead])), settings.factor, settings.accuracy, settings.n_constants
        )
        point = start
        while not bool(search.done[0]):
            end = minimize(
                weighed,
                point if self.warm else start,
                args=(float(search.constant[0]),),
                jac=True,
                method="L-BFGS-B",
                bounds=Bounds(0.0, 1.0),
            ).x
            reached = float(margins(self.exact.value(torch.from_numpy(end)[None]), aimed))
            anchor = end if reached > 0 else anchor
            point = end if anchor is None else anchor
            distance = torch.tensor([np.linalg.norm(end - start)], dtype=torch.float64)
            search.judge(torch.tensor([0]), torch.tensor([reached], dtype=torch.float64), distance)
        best = np.inf
        for candidate in (nearest, anchor):
            if candidate is not None:
                lead_there, units = torch.tensor([lead], dtype=torch.float64), torch.zeros(1, dtype=torch.long)
                pulled = pull_back(self.exact, aimed, x0[None], lead_there, torch.from_numpy(candidate)[None], units)
                best = min(best, float((pulled[0] - x0).norm().nan_to_num(torch.inf)))
        return best, n_evaluations


@dataclass(frozen=True)
class Subject:
    """A network and the images and targets of its attacks."""

    name: str
    network: Network
    x: Tensor
    own: Tensor
    target: Tensor


def compare(subject: Subject, n_rounds: int, lines: list[str]) -> None:
    outputs, exact = subject.network.all_outputs(), subject.network.all_outputs(torch.float64)
    double = copy.deepcopy(subject.network.module).double()
    settings = LbfgsAttack()

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    def timed(images: np.ndarray, settings: LbfgsAttack) -> tuple[AdversarialExamples, float]:
        begun = time.process_time()
        examples = adversarial_examples(outputs, exact, subject.x[images], subject.target[images], settings)
        return examples, (time.process_time() - begun) / len(images)

    everything = np.arange(len(subject.x))
    timed(everything[:2], settings)  # compiles
    seconds: dict[str, list[float]] = {"ours": [], "parts": [], "cold": [], "warm": []}
    theirs: dict[str, list[tuple[float, int]]] = {"cold": [], "warm": []}
    attacks = {name: ScipyAttack(exact, double, settings, name == "warm") for name in theirs}
    ours, _ = timed(everything, settings)
    for part in np.array_split(everything, n_rounds):
        seconds["ours"].append(timed(everything, settings)[1])
        seconds["parts"].append(timed(part, settings)[1])
        for image in part:
            for name, attack in attacks.items():
                begun = time.process_time()
                theirs[name].append(attack(subject.x[image].double(), int(subject.target[image])))
                seconds[name].append(time.process_time() - begun)
    distance, units, found = ours.distance, ours.units.double(), ours.found
    part_size = -(-len(everything) // n_rounds)
    say(
        f"{subject.name}: {len(distance)} images, found {float(found.double().mean()):.1%}; distance "
        f"{spread(distance[found].numpy())}, mean {float(distance[found].mean()):.4f}, distortion mean "
        f"{float(distance[found].mean()) / subject.x.shape[1] ** 0.5:.4f}; units {spread(units.numpy(), 0)}; "
        f"ms an image {spread(1e3 * np.array(seconds['ours']), 2)} over {n_rounds} rounds, in parts of {part_size} "
        f"{spread(1e3 * np.array(seconds['parts']), 2)}"
    )
    missed = [] if bool(found.all()) else ["100% success"]
    for name, results in theirs.items():
        far, n_evaluations = np.array([result[0] for result in results]), np.array([result[1] for result in results])
        both = np.isfinite(far) & found.numpy()
        same, far = distance.numpy()[both], far[both]
        ratio, cost = same.mean() / far.mean(), float(np.mean(seconds[name]))
        faster, parts = cost / np.mean(seconds["ours"]), cost / np.mean(seconds["parts"])
        if faster < FASTER:
            missed.append(f"{FASTER:.0f} times as fast as scipy, {name}")
        if ratio > LONGER:
            missed.append(f"mean distance against scipy, {name}")
        say(
            f"  scipy, {name}: found {both.mean():.1%}; units {spread(2 * n_evaluations, 0)}; ms an image "
            f"{spread(1e3 * np.array(seconds[name]), 1)}, mean {1e3 * cost:.1f}; mean distance ours / scipy "
            f"{ratio:.4f} (image by image {spread(same / far)})   [bar {LONGER}]; ours is {faster:.0f} times as fast   "
            f"[bar {FASTER:.0f}], in parts {parts:.0f}"
        )
    say("  bars: " + ("all met" if not missed else "NOT met: " + "; ".join(missed)))
    straight, _ = timed(everything, replace(settings, penalty="distance"))
    both = straight.found & found
    say(
        f"  penalty |r|: found {float(straight.found.double().mean()):.1%}; distance / that of |r|^2 "
        f"{spread((straight.distance / distance)[both].numpy())}, of the means "
        f"{float(straight.distance[both].mean() / distance[both].mean()):.4f}; units "
        f"{spread(straight.units.numpy(), 0)}, {float(straight.units.sum() / ours.units.sum()):.1f} times as many"
    )
    flips = closest_flips(
        outputs,
        exact,
        subject.x,
        subject.own,
        target=subject.target,
        generator=torch.Generator().manual_seed(0),
    )
    # The walk asks only that the target beats the own class: where a third class leads, it has another question.
    leading = exact.value(flips.point.nan_to_num(0.0)).argmax(1)
    leads = flips.found & ((leading == subject.target) | (leading == subject.own))
    ratio = (distance / flips.distance)[leads]
    say(
        f"  boundary walk to the same class: {int(leads.sum())} of {len(leads)} end in it; distance ours / walk "
        f"{spread(ratio.numpy(), 4)}, mean {float(ratio.mean()):.4f}; its units {spread(flips.units.numpy(), 0)}"
    )


def spread(numbers: np.ndarray, digits: int = 4) -> str:
    if len(numbers) == 0:
        return "none"
    low, middle, high = np.quantile(numbers, [0.0, 0.5, 1.0])
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def paper_networks(digits: Digits, folder: Path | None) -> Iterator[tuple[str, nn.Module]]:
    """The six of Komati 2022, review, Fig. 6; read where ``folder`` has them."""
    for name in CROSS_MODEL:
        path = None if folder is None else folder / f"{name}_0_{len(digits.y_train)}.safetensors"
        subject = train_stability_network(name, digits, 0, weights=path)
        words = f"{name} (test error {1 - subject.test_accuracy:.1%}"
        yield f"{words}; the paper's distortion {STABILITY_RECIPES[name].paper_distortion})", subject.module


def small_networks(digits: Digits) -> Iterator[tuple[str, nn.Module]]:
    """Linear softmax, 100-100-10 sigmoid, and a small convolutional network."""
    x, y = grey_images(digits.x_train), digits.y_train
    torch.manual_seed(SEED)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    hidden = [nn.Linear(784, 100), nn.Sigmoid(), nn.Linear(100, 100), nn.Sigmoid(), nn.Linear(100, 10)]
    subjects = (
        ("softmax, weight decay 1e-4", linear, 1e-4),
        ("sigmoid 100-100-10", nn.Sequential(nn.Flatten(), *hidden), 1e-6),
        ("small CNN", small_cnn(), 1e-5),
    )
    for name, module, decay in subjects:
        fit(module, x, y, FlipTraining(epochs=15, weight_decay=decay))
        yield name, module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = bundled_digits(tuple(range(10)))
    if arguments.mnist is not None:
        with np.load(arguments.mnist) as file:
            parts = {name: torch.from_numpy(file[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
        x = {name: parts[name].reshape(-1, 1, 28, 28) for name in ("x_train", "x_test")}
        y = {name: parts[name].long() for name in ("y_train", "y_test")}
        digits = replace(digits, **x, **y)
    images, labels = grey_images(digits.x_test), digits.y_test
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(labels), generator=generator)[arguments.skip :]
    shift = torch.randint(1, 10, (len(labels),), generator=generator)
    given = [Path(word).name for word in sys.argv[1:]]
    heading = (
        "OMP_NUM_THREADS=1 python benchmarks/adversarial_lbfgs.py " + " ".join(given),
        f"seed {SEED} of images and targets",
    )
    lines: list[str] = []
    for name, module in small_networks(digits) if arguments.quick else paper_networks(digits, arguments.weights):
        network = Network(module, Box((1, 28, 28), 0.0, 1.0), name=name)
        right = network.predictions(images[order])[0] == labels[order]
        kept = order[right][: arguments.images]
        target = (labels[kept] + shift[kept]) % 10
        subject = Subject(name, network, images[kept].flatten(1), labels[kept], target)
        compare(subject, arguments.rounds, lines)
    if arguments.out:
        arguments.out.write_text("\n".join((*heading, *lines)) + "\n")


if __name__ == "__main__":
    main()
