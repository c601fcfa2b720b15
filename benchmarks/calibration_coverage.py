"""How often the 95% intervals of `Ensemble` hold the truth: classifiers and ensembles made up so that it is known.

    python benchmarks/calibration_coverage.py [--seeds 400] [--inputs 60 200 1000] [--parts scores differences rankings]
        [--world NAME] [--resamples 500] [--bins 15] [--out FILE]

Scores and differences are of classifiers of four classes that state softmax(z) where softmax(z / temperature) is true:
perfect, a little and far too sure, too unsure, and one that is right on 97% and too sure of the rest. Rankings are of
ensembles of linear classifiers around a true one. The truth is that of 200,000 other inputs of the same kind (15,000
for rankings). A cell is the share of samples whose interval holds the truth, and in brackets the shares where the truth
lies below it and above it, all in percent.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from theodolite.instruments import calibration, ensemble_statistics
from theodolite.instruments.calibration import BINNED, MEASURES, SQUARED, Estimate, Judged, judged

N_CLASSES, POPULATION, POPULATION_SEED = 4, 200_000, 1_000_003
ENOUGH = 0.92
FEWEST_SAMPLES = 50  # with an interval, below which their number is told and no coverage judged
ROUNDING = 1e-9
MOST_RANKED = 1000  # rows that the gain of one ranking on another is measured of: it compares every pair
Floats = NDArray[np.float64]
Samples = Iterator[dict[str, tuple[Estimate, float]]]  # a seed at a time: what is estimated, and its truth


@dataclass(frozen=True)
class World:
    """A classifier that states softmax(z) where softmax(z / ``temperature``) is true; z normal times one of
    ``scales``, which says how sure its answers are."""

    words: str
    temperature: float
    scales: tuple[float, ...] = (1.0, 3.0, 6.0)

    def answers(self, n: int, random: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Stated and true ln probabilities, and labels, of ``n`` inputs."""
        z = random.normal(size=(n, N_CLASSES)) * random.choice(self.scales, size=(n, 1))
        true = log_softmax(z / self.temperature, 1)
        return log_softmax(z, 1), true, drawn_labels(true, random)


WORLDS = (
    World("perfect", 1.0),
    World("a little too sure", 1.3),
    World("far too sure", 2.5),
    World("too unsure", 0.6),
    World("right on 97%, too sure", 1.5, (25.0,)),
)


def drawn_labels(log_probability: Floats, random: np.random.Generator) -> NDArray[np.int64]:
    spread = random.random((len(log_probability), 1))
    return (spread > np.exp(log_probability).cumsum(1)).sum(1).clip(0, N_CLASSES - 1)


class Truth:
    """The measures of a classifier over the whole of a world."""

    def __init__(self, stated: Floats, true: Floats) -> None:
        said, probability, rows = np.exp(stated), np.exp(true), np.arange(len(stated))
        right = probability[rows, stated.argmax(1)]
        self._plain = {
            "accuracy": float(right.mean()),
            "negative log-likelihood": float(-(probability * stated).sum(1).mean()),
            "Brier score": float((np.square(said).sum(1) - 2 * (probability * said).sum(1) + 1).mean()),
        }
        order = np.argsort(said.max(1), kind="stable")
        self._confidence = said.max(1)[order]
        self._gap = np.concatenate([[0.0], (right[order] - self._confidence).cumsum()])

    def of(self, name: str, edge: Floats) -> float:
        """A measure; the binned ones in the bins given."""
        if name in self._plain:
            return self._plain[name]
        place = np.searchsorted(self._confidence, edge, side="right")
        place[0], place[-1] = 0, len(self._confidence)
        count, gap = np.diff(place), np.diff(self._gap[place])
        power = 2 if name == SQUARED else 1
        return float((count * np.abs(gap / np.maximum(count, 1)) ** power).sum() / len(self._confidence))


def scores(world: World, n: int, arguments: argparse.Namespace) -> Samples:
    """Every measure of one classifier."""
    truth = Truth(*world.answers(POPULATION, np.random.default_rng(POPULATION_SEED))[:2])
    for seed in range(arguments.seeds):
        random = np.random.default_rng(seed)
        stated, _, label = world.answers(n, random)
        found, drawn = judged(stated, label), calibration.drawn_again(n, arguments.resamples, random)
        told = {}
        for name in MEASURES:
            edge = calibration.edges(found.confidence, arguments.bins, BINNED.get(name, "width"))
            estimate = calibration.measure(found, name, arguments.bins, drawn, random).measured
            told[name] = (estimate, truth.of(name, edge))
        yield told


def differences(world: World, n: int, arguments: argparse.Namespace) -> Samples:
    """One classifier against another that gives mostly the same answers, half as surely, and against both."""

    def softer(stated: Floats, random: np.random.Generator) -> Floats:
        return log_softmax(0.5 * stated + 0.3 * random.normal(size=stated.shape), 1)

    random = np.random.default_rng(POPULATION_SEED)
    stated, true, _ = world.answers(POPULATION, random)
    truths = Truth(stated, true), Truth(softer(stated, random), true)
    width = np.linspace(0, 1, arguments.bins + 1)
    for seed in range(arguments.seeds):
        random = np.random.default_rng(seed)
        stated, _, label = world.answers(n, random)
        one, other = judged(stated, label), judged(softer(stated, random), label)
        drawn = calibration.drawn_again(n, arguments.resamples, random)
        told = {}
        for name in MEASURES:
            if name not in BINNED:
                true_difference = truths[0].of(name, width) - truths[1].of(name, width)
                told[name] = (difference(one, [other], name, arguments, drawn), true_difference)
        half = difference(one, [one, other], SQUARED, arguments, drawn)
        told[f"{SQUARED}, two others"] = (half, 0.5 * told[SQUARED][1])
        yield told


def difference(one: Judged, others: list[Judged], name: str, arguments: argparse.Namespace, drawn: Floats) -> Estimate:
    return calibration.difference(one, others, name, arguments.bins, drawn)


@dataclass(frozen=True)
class Members:
    """An ensemble of ``count`` linear classifiers of normal inputs around a true one: weights apart by ``apart``."""

    words: str
    apart: float
    count: int = 5
    dimensions: int = 6

    def answers(
        self, network: int, n: int, n_looks: int, random: np.random.Generator
    ) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
        """ln probabilities ``(row, member, class)``, labels and input of ``n`` inputs, each seen ``n_looks`` times,
        more blurred at each."""
        weights = np.random.default_rng(network)
        true = 2 * weights.normal(size=(self.dimensions, N_CLASSES))
        members = true + self.apart * weights.normal(size=(self.count, self.dimensions, N_CLASSES))
        x = random.normal(size=(n, self.dimensions))
        label = drawn_labels(log_softmax(x @ true, 1), random)
        looks = [x + 0.5 * look * random.normal(size=x.shape) for look in range(n_looks)]
        rows = np.concatenate([log_softmax(2 * np.einsum("rd,mdc->rmc", seen, members), -1) for seen in looks])
        return rows, np.tile(label, n_looks), np.tile(np.arange(n), n_looks)


ENSEMBLES = (Members("members much alike", 0.3), Members("members far apart", 1.5))
N_NETWORKS, N_LOOKS, RANKED_POPULATION = 5, 3, 15_000


def rankings(world: Members, n: int, arguments: argparse.Namespace) -> Samples:
    """AUROC of a wrong answer by mutual information, its gain on the first member's own doubt, and the mean of held-out
    members; inputs seen once and three times."""
    for network in range(N_NETWORKS):
        truths = {looks: _true_rankings(world, network, looks) for looks in (1, N_LOOKS)}
        for seed in range(arguments.seeds // N_NETWORKS):
            random = np.random.default_rng([network, seed])
            drawn = calibration.drawn_again(n, arguments.resamples, random)
            told = {}
            for looks, true in truths.items():
                found = _ranked(*world.answers(network, n, looks, random), drawn)
                told |= {f"{name}, seen {looks}x": (one, true[name].value) for name, one in found.items()}
            yield told


@cache
def _true_rankings(world: Members, network: int, looks: int) -> dict[str, Estimate]:
    random = np.random.default_rng(POPULATION_SEED)
    return _ranked(*world.answers(network, RANKED_POPULATION, looks, random), None)


def _ranked(
    rows: Floats, label: NDArray[np.int64], image: NDArray[np.int64], drawn: Floats | None
) -> dict[str, Estimate]:
    own = rows[:, 0]
    wrong = own.argmax(-1) != label
    score = ensemble_statistics.uncertainty(rows).mutual_information
    doubt = 1 - np.exp(own.max(-1))
    whole = ensemble_statistics.ranking(score, wrong, image).auroc
    held = ensemble_statistics.held_out_rankings(rows, np.ones(len(rows), bool), image)
    if drawn is None:
        value = whole.value - ensemble_statistics.auroc(doubt, wrong)
        gain = Estimate(value, value, value)
    elif len(rows) > MOST_RANKED:
        gain = Estimate(math.nan, math.nan, math.nan)
    else:
        gain = ensemble_statistics.ranking_gain(score, doubt, wrong, image, drawn)
    names = ("mutual information", "entropy", "disagreement", "own doubt")
    return {
        "wrong": whole,
        "gain": gain,
        **{f"held out, {name}": one.auroc for name, one in zip(names, held, strict=True)},
    }


PARTS: dict[str, tuple[tuple, Callable[..., Samples], str]] = {
    "scores": (WORLDS, scores, "One classifier"),
    "differences": (WORLDS, differences, "One classifier less another, paired"),
    "rankings": (ENSEMBLES, rankings, "AUROC"),
}


def tally(samples: Samples) -> dict[str, tuple[Floats, int]]:
    """Of everything estimated: the shares of samples with the truth in, below and above the interval, and their number:
    those that have one."""
    counts: dict[str, list[tuple[bool, bool]]] = {}
    for told in samples:
        for name, (estimate, true) in told.items():
            if not math.isnan(estimate.low):
                outside = true < estimate.low - ROUNDING, true > estimate.high + ROUNDING
                counts.setdefault(name, []).append(outside)
    shares = {name: (np.mean(rows, 0), len(rows)) for name, rows in counts.items()}
    return {name: (np.array([1 - share.sum(), *share]), number) for name, (share, number) in shares.items()}


def run(arguments: argparse.Namespace, out: TextIO) -> None:
    begun = time.process_time()
    out.write(f"{arguments.seeds} samples a cell, {arguments.resamples} resamples, {arguments.bins} bins\n")
    short: list[str] = []
    for part in arguments.parts:
        worlds, samples, words = PARTS[part]
        for world in (one for one in worlds if arguments.world in one.words):
            cells = {n: tally(samples(world, n, arguments)) for n in arguments.inputs}
            out.write(f"\n{words}: {world.words}\n")
            out.write(" " * 40 + "".join(f"{f'{n:,} inputs':>22}" for n in arguments.inputs) + "\n")
            for name in dict.fromkeys(name for told in cells.values() for name in told):
                row = f"  {name:<38}"
                for n in arguments.inputs:
                    if name not in cells[n]:
                        row += f"{'-':>22}"
                        continue
                    (held, below, above), number = 100 * cells[n][name][0], cells[n][name][1]
                    given = f" of {number}" if number < FEWEST_SAMPLES else ""
                    row += f"{f'{held:.1f} ({below:.1f}, {above:.1f}){given}':>22}"
                    if held < 100 * ENOUGH and not given:
                        short.append(f"{part}, {world.words}, {name}, {n:,} inputs: {held:.1f}%")
                out.write(row + "\n")
            out.flush()
    out.write(f"\nless than {ENOUGH:.0%}: " + ("\n  ".join(["", *short]) if short else "none") + "\n")
    out.write(f"\n{time.process_time() - begun:.0f} CPU s\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--inputs", type=int, nargs="+", default=[60, 200, 1000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--world", default="", help="only those with this in their name")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--bins", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is None:
        run(arguments, sys.stdout)
    else:
        with arguments.out.open("w", encoding="utf8") as file:
            run(arguments, file)


if __name__ == "__main__":
    main()
