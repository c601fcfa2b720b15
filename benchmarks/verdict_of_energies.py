"""Is the verdict on learned energies right? Fourteen prepared energies, six the density of their data and eight not.

Most are Gaussian mixtures, whose data are drawn exactly, so that what is right is known by construction; the others
were learned from digits. Bad ones: a class lost, weights wrong, too hot, too cold, energies equal and a class lost,
learned by score matching alone, oversaturated (Adam, little noise), and trained for short runs from noise. With
``--random N``, N random mixtures and N spoiled ones beside: the confusion table of the verdict. Prints CPU seconds of
each judgement.

    python benchmarks/verdict_of_energies.py [--digits mnist.npz] [--only NAME ...] [--random 100]

``--digits``: a file of MNIST (digits 0-3, 2,000 learned and 2,000 held out); without it the digits of the demo.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from theodolite.instruments.learning import Learning
from theodolite.instruments.learning_verdict import CONVERGENT, Finding, LearningVerdict, judge
from theodolite.learning import long_runs
from theodolite.learning.energy import Energy
from theodolite.learning.examination import examine
from theodolite.learning.frame import PrincipalFrame
from theodolite.learning.long_runs import LongRuns
from theodolite.learning.mixture import MixtureEnergy
from theodolite.learning.reference import Reference

RESULTS = Path(__file__).parent / "results" / "verdict_of_energies.json"
NOISE = 0.4
FITTED_NOISE = 0.6  # less, and its classes are so far apart that no chain changes them in 10,000 steps
N_DATA = 2000


@dataclass(frozen=True)
class Prepared:
    """An energy, the data it should be the density of once they have ``noise`` (``points`` have none), and whether it
    is."""

    energy: Energy
    points: Tensor
    labels: Tensor | None
    held_out: Tensor | None
    good: bool
    noise: float = NOISE


@dataclass(frozen=True)
class Mixture:
    """``weights (k,)``, ``means (k, n)``, ``covariances (k, n, n)``."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def energy(self, weights: Tensor | None = None, temperature: float = 1.0) -> MixtureEnergy:
        return MixtureEnergy(self.weights if weights is None else weights, self.means, self.covariances, temperature)

    def prepared(self, energy: Energy, generator: torch.Generator, *, good: bool, labelled: bool = True) -> Prepared:
        points, labels = self.energy().sample(N_DATA, generator, less_noise=NOISE)
        held_out, _ = self.energy().sample(N_DATA, generator, less_noise=NOISE)
        return Prepared(energy, points, labels if labelled else None, held_out, good)


def random_mixture(n: int, k: int, apart: float, generator: torch.Generator, *, even: bool = False) -> Mixture:
    """``k`` components about ``apart`` standard deviations from each other; ``even``: equal weights and covariances."""
    means = torch.randn(k, n, generator=generator, dtype=torch.float64)
    means = means / means.norm(dim=1, keepdim=True) * apart / math.sqrt(2)
    weights = torch.rand(k, generator=generator, dtype=torch.float64) + 0.5
    covariances = []
    for _ in range(k):
        turn = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
        variances = torch.rand(n, generator=generator, dtype=torch.float64) * 0.8 + 0.4
        covariances.append(turn @ torch.diag(variances) @ turn.T)
    if even:
        return Mixture(torch.full((k,), 1 / k), means, torch.eye(n, dtype=torch.float64).expand(k, n, n).clone())
    return Mixture(weights / weights.sum(), means, torch.stack(covariances))


def without(weights: Tensor, lost: int, left: float = 1e-6) -> Tensor:
    changed = weights.clone()
    changed[lost] *= left
    return changed / changed.sum()


def swapped(weights: Tensor) -> Tensor:
    """The first weight tripled: what a bank hides."""
    changed = weights.clone()
    changed[0] *= 3
    return changed / changed.sum()


def equal_energies(mixture: Mixture, generator: torch.Generator) -> MixtureEnergy:
    """The first class all but lost, and a temperature at which the mean energy of the data is that of the density.

    Found by bisection: the mean energy of exact draws of the mixture without the class, reweighted to the temperature,
    less that of draws of the whole mixture.
    """
    weights = without(mixture.weights, 0, math.exp(-6))
    lost = mixture.energy(weights)
    mine, _ = lost.sample(200_000, generator)
    data, _ = mixture.energy().sample(200_000, generator)
    energy_mine, energy_data = lost(mine).double(), lost(data).double()
    low, high = 0.8, 1.5
    for _ in range(40):
        temperature = (low + high) / 2
        weight = torch.softmax(energy_mine * (1 - 1 / temperature), 0)
        low, high = (temperature, high) if (weight * energy_mine).sum() < energy_data.mean() else (low, temperature)
    return mixture.energy(weights, temperature)


# ---------------------------------------------------------------------- digits


@dataclass(frozen=True)
class DigitImages:
    """``images`` and ``held_out`` ``(n, 1, 16, 16)`` in [-1, 1]; ``labels (n,)``."""

    images: Tensor
    labels: Tensor
    held_out: Tensor


def digit_images(file: Path | None) -> DigitImages:
    """Digits 0-3, 16 by 16 pixels, drawn at random."""
    from torch.nn import functional

    from theodolite.zoo.datasets import bundled_digits, mnist

    digits = bundled_digits((0, 1, 2, 3)) if file is None else mnist(file, (0, 1, 2, 3))
    levels = torch.cat([digits.x_train, digits.x_test]).float()
    labels = torch.cat([digits.y_train, digits.y_test])
    order = torch.randperm(len(levels), generator=torch.Generator().manual_seed(1))
    images = functional.avg_pool2d(functional.pad(levels[order], (2, 2, 2, 2)), 2) / (digits.levels - 1) * 2 - 1
    n = min(N_DATA, 4 * len(images) // 5)
    return DigitImages(images[:n], labels[order][:n], images[n : n + N_DATA])


def fitted_mixture(digits: DigitImages, generator: torch.Generator) -> Prepared:
    """A mixture fitted to 40 principal components, noise of .6 added; the data are drawn from it anew."""
    from sklearn.mixture import GaussianMixture

    points = PrincipalFrame.of(digits.images, 40).coordinates(digits.images)
    noisy = points + FITTED_NOISE * torch.randn(points.shape, generator=generator)
    fitted = GaussianMixture(4, random_state=0).fit(noisy.double().numpy())
    parts = (torch.as_tensor(part) for part in (fitted.weights_, fitted.means_, fitted.covariances_))
    mixture = Mixture(*parts)
    return mixture.prepared(mixture.energy(), generator, good=True)


def learned(digits: DigitImages, good: bool, noise: float = NOISE, **settings: Any) -> Prepared:
    """An energy learned from the digits' 40 principal components."""
    common = {"components": 40, "data_noise": noise, "long_steps": 0, "seed": 0, "budget": "60 min"}
    started = time.process_time()
    model, _ = Learning(**{**common, **settings}).fit(digits.images, progress=False)
    print(f"  learned in {time.process_time() - started:.0f} CPU s", flush=True)
    points, held_out = model.points(digits.images), model.points(digits.held_out)
    return Prepared(model.energy, points, digits.labels, held_out, good, noise)


# ---------------------------------------------------------------------- the twelve


def prepared(file: Path | None) -> dict[str, Callable[[], Prepared]]:
    """What is judged, by name; made when it is asked for."""

    def mixture(n: int, k: int, apart: float, seed: int, even: bool = False) -> tuple[Mixture, torch.Generator]:
        generator = torch.Generator().manual_seed(seed)
        return random_mixture(n, k, apart, generator, even=even), generator

    def exact(n: int, k: int, apart: float, seed: int, labelled: bool = True) -> Prepared:
        parts, generator = mixture(n, k, apart, seed)
        return parts.prepared(parts.energy(), generator, good=True, labelled=labelled)

    def spoiled(
        n: int, k: int, apart: float, seed: int, spoil: Callable[[Mixture], Energy], labelled: bool
    ) -> Prepared:
        parts, generator = mixture(n, k, apart, seed)
        return parts.prepared(spoil(parts), generator, good=False, labelled=labelled)

    def equal() -> Prepared:
        parts, generator = mixture(40, 4, 4.5, 11, even=True)
        return parts.prepared(equal_energies(parts, generator), generator, good=False, labelled=False)

    def digits(name: str) -> Prepared:
        images = digit_images(file)
        if name == "fitted":
            return fitted_mixture(images, torch.Generator().manual_seed(5))
        if name == "convergent":
            return learned(images, True)
        if name == "score matching":
            return learned(images, False, updates=0)
        if name == "oversaturated":
            return learned(images, False, 0.05, **OVERSATURATED)
        return learned(images, False, **SHORT_RUN)

    return {
        "good: Gaussian, 10 dimensions, no labels": lambda: exact(10, 1, 0.0, 1, False),
        "good: 3 classes, 2 dimensions": lambda: exact(2, 3, 3.5, 2),
        "good: 4 classes, 10 dimensions, no labels": lambda: exact(10, 4, 4.0, 3, False),
        "good: 4 classes, 40 dimensions": lambda: exact(40, 4, 4.5, 4),
        "good: mixture fitted to digits": lambda: digits("fitted"),
        "good: learned from digits": lambda: digits("convergent"),
        "bad: a class lost, 2 dimensions": lambda: spoiled(
            2, 3, 3.5, 6, lambda m: m.energy(without(m.weights, 0)), True
        ),
        "bad: weights wrong, 10 dimensions": lambda: spoiled(
            10, 4, 4.0, 7, lambda m: m.energy(swapped(m.weights)), True
        ),
        "bad: too hot, U / 1.3, 2 dimensions": lambda: spoiled(2, 3, 3.5, 8, lambda m: m.energy(None, 1.3), True),
        "bad: too cold, 1.3 U, 40 dimensions": lambda: spoiled(40, 4, 4.5, 9, lambda m: m.energy(None, 1 / 1.3), False),
        "bad: equal energies and a class lost, 40 dimensions, no labels": equal,
        "bad: score matching alone, digits": lambda: digits("score matching"),
        "bad: oversaturated, digits": lambda: digits("oversaturated"),
        "bad: short runs from noise, digits": lambda: digits("short run"),
    }


OVERSATURATED: dict[str, Any] = {
    "prior": "none",
    "warm_updates": 0,
    "updates": 1500,
    "schedule": "adam:1e-3:1e-3",
    "dynamics": "langevin",
    "step_size": 0.03,
    "average": 0.0,
}
SHORT_RUN: dict[str, Any] = {
    "prior": "none",
    "warm_updates": 0,
    "updates": 1500,
    "schedule": "adam:1e-3:1e-4",
    "initialisation": "noise",
    "dynamics": "langevin",
    "step_size": 0.1,
    "steps": 40,
    "average": 0.0,
}


def judged(case: Prepared, runs: LongRuns, seed: int = 0) -> tuple[LearningVerdict, float]:
    """The verdict, and the CPU seconds it took, long runs included."""
    started = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    reference = Reference.of(case.points, case.noise, generator, labels=case.labels, held_out=case.held_out)
    state = long_runs.init(case.energy, reference.spread(runs.chains, generator), runs, generator)
    while not long_runs.finished(runs, state):
        state = long_runs.step(case.energy, runs, state, generator)
    verdict = judge(examine(case.energy, reference, runs, state, generator))
    return verdict, time.process_time() - started


def random_case(seed: int) -> Prepared:
    """A mixture of its own, spoiled in one of five ways where ``seed`` is odd."""
    generator = torch.Generator().manual_seed(1000 + seed)
    n, k = [(2, 3), (5, 3), (10, 4)][seed // 2 % 3]
    parts = random_mixture(n, k, 3.5, generator)
    ways: list[Callable[[], Energy]] = [
        lambda: parts.energy(without(parts.weights, 0)),
        lambda: parts.energy(swapped(parts.weights)),
        lambda: parts.energy(None, 1.4),
        lambda: parts.energy(None, 1 / 1.4),
        lambda: equal_energies(parts, generator),
    ]
    good = seed % 2 == 0
    energy = parts.energy() if good else ways[seed // 6 % len(ways)]()
    return parts.prepared(energy, generator, good=good, labelled=seed % 4 < 2)


def table(counts: Counter[tuple[bool, str]]) -> str:
    words = ("convergent", "undecided", "non-convergent")
    rows = [
        f"{'good' if good else 'bad':5}" + "".join(f"{counts[good, word]:16}" for word in words)
        for good in (True, False)
    ]
    return "\n".join(["     " + "".join(f"{word:>16}" for word in words), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, help="MNIST as .npz; without it, the digits of the demo")
    parser.add_argument("--only", nargs="*", default=None, help="parts of names of what to judge")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--chains", type=int, default=400)
    parser.add_argument("--random", type=int, default=0, help="random mixtures of either kind to judge as well")
    parser.add_argument("--checks", action="store_true", help="print every check")
    parser.add_argument("--save", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = LongRuns(steps=given.steps, chains=given.chains)
    counts: Counter[tuple[bool, str]] = Counter()
    kept = []
    for name, make in prepared(given.digits).items():
        if given.only is not None and not any(part in name for part in given.only):
            continue
        case = make()
        verdict, seconds = judged(case, runs)
        counts[case.good, verdict.word] += 1
        wrong = " WRONG" if not case.good and verdict.word == CONVERGENT else ""
        print(f"{name}: {seconds:.0f} CPU s{wrong}\n  {verdict.sentence}", flush=True)
        if given.checks:
            for check, finding in zip(verdict.checks, verdict.findings, strict=True):
                print(f"    {finding.name:8}{check.name}: {check.sentence}")
        kept.append({"name": name, "verdict": verdict.word, "sentence": verdict.sentence, "cpu_seconds": seconds})
    print(table(counts))
    random: Counter[tuple[bool, str]] = Counter()
    for seed in range(2 * given.random):
        case = random_case(seed)
        verdict, _ = judged(case, LongRuns(steps=1500, chains=given.chains), seed)
        random[case.good, verdict.word] += 1
        if (verdict.word == CONVERGENT) != case.good:
            print(f"random {seed} ({'good' if case.good else 'bad'}): {verdict.sentence}", flush=True)
            for check, finding in zip(verdict.checks, verdict.findings, strict=True):
                if given.checks and finding is not Finding.HOLDS:
                    print(f"    {finding.name:8}{check.name}: {check.sentence}")
    if given.random:
        print(f"{2 * given.random} random mixtures, 1,500 steps:\n{table(random)}")
    found = {"energies": kept, "random": {f"{good} {word}": n for (good, word), n in random.items()}}
    given.save.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
