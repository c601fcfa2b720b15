"""The ensemble section of the page: everything its template shows, as plain strings, numbers and pictures."""

from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import ensemble as numbers
from theodolite.report import ensemble_figures, words
from theodolite.report.ensemble_examples import examples
from theodolite.report.parts import common, figure_pair, plain

_QUESTIONS = {
    "wrong": "a sure answer is wrong",
    "not shared": "another member does not share a sure answer",
    "not shared, at levels": "the same, at the levels of the density survey",
}


def ensemble_section(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    """The section's words, tables and figures (light and dark); `key` makes its ids unique."""
    said = numbers.findings(dataset)
    return common(dataset, key, "Whether the ensemble knows where one network is overconfident") | {
        "template": "ensemble.html.j2",
        "scripts": [],
        "styles": ["ensemble.css"],
        "findings": said,
        "n": f"{dataset.sizes['image']:,}",
        "n_members": numbers.n_members(dataset),
        "single": numbers.single(dataset),
        "sure": f"{100 * float(dataset.attrs.get('sure', 0.99)):g}%",
        "doubt": f"{100 * float(dataset.attrs.get('doubt', 0.9)):g}%",
        "n_bins": int(dataset.sizes["bin"]) if "bin" in dataset.sizes else 0,
        "drawn": _figures(dataset, said),
        "calibration": _calibration(dataset),
        "conditions": _conditions(dataset),
        "rankings": _rankings(dataset),
        "examples": examples(dataset),
        "script": {},
    }


def _figures(dataset: xr.Dataset, said: numbers.EnsembleFindings) -> dict[str, dict[str, Any]]:
    drawn = {}
    for name, draw, alt, columns in (
        ("reliability", ensemble_figures.reliability_figure, said.calibration, _reliability_columns),
        ("strips", ensemble_figures.strip_figure, said.conditions, _strip_columns),
        ("levels", ensemble_figures.levels_figure, said.levels, _level_columns),
    ):
        if draw(dataset) is not None:
            drawn[name] = figure_pair(draw, dataset, f"{alt}.", columns(dataset))
    return drawn


def _reliability_columns(dataset: xr.Dataset) -> dict[str, list[Any]]:
    subjects = [str(name) for name in dataset["subject"].values]
    n_bins = dataset.sizes["bin"]
    columns: dict[str, list[Any]] = {
        "subject": [name for name in subjects for _ in range(n_bins)],
        "bin": list(range(n_bins)) * len(subjects),
    }
    for name in ("bin_count", "bin_confidence", "bin_accuracy", "bin_accuracy_low", "bin_accuracy_high"):
        columns[name] = plain(np.asarray(dataset[name].values, float)[0].ravel())
    return columns


def _strip_columns(dataset: xr.Dataset) -> dict[str, list[Any]]:
    names = [str(name) for name in dataset["condition"].values]
    n_images = dataset.sizes["image"]
    columns: dict[str, list[Any]] = {
        "condition": [name for name in names for _ in range(n_images)],
        "image": list(range(n_images)) * len(names),
    }
    for name in ("predictive_entropy", "expected_entropy", "mutual_information", "disagreement"):
        columns[name] = plain(np.asarray(dataset[name].values, float).ravel())
    return columns


def _level_columns(dataset: xr.Dataset) -> dict[str, list[Any]]:
    columns = {
        name: plain(np.asarray(dataset[name].values, float))
        for name in ("level", "level_count", "level_probability", "level_sure_share", "level_doubted_share")
    }
    for number, quantity in enumerate(str(name) for name in dataset["quantity"].values):
        columns[f"mean {quantity}"] = plain(np.asarray(dataset["level_quantity_mean"].values, float)[:, number])
    return columns


# -------------------------------------------------------------------- tables


def _calibration(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Of every measure, on the inputs as given: the single network, the ensemble, and the difference that matters."""
    rows = []
    for number, name in enumerate(str(value) for value in dataset["measure"].values):
        expected, debiased = (
            float(dataset[f"calibration_{part}"].values[0, -1, number]) for part in ("expected", "debiased")
        )
        rows.append(
            {
                "name": name,
                "single": numbers.with_interval(numbers.triple(dataset, "calibration", 0, 0, number)),
                "ensemble": numbers.with_interval(numbers.triple(dataset, "calibration", 0, -1, number)),
                "debiased": words.tidy(debiased) if "error" in name else "",
                "expected": words.tidy(expected),
                "difference": numbers.with_interval(numbers.triple(dataset, "calibration_difference", 0, number), 2),
            }
        )
    return rows


def _conditions(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """A row a condition: distortion, accuracies, calibration errors, uncertainties, who is sure and who doubts."""
    rows = []
    accuracy, error = (numbers.place(dataset, "measure", name) for name in ("accuracy", "calibration error"))
    for number, name in enumerate(str(value) for value in dataset["condition"].values):
        distortion = np.asarray(dataset["distortion"].values, float)[number]
        known = distortion[np.isfinite(distortion)]
        information, apart = (
            numbers.triple(dataset, "quantity_mean", number, numbers.place(dataset, "quantity", quantity))
            for quantity in ("mutual information", "disagreement")
        )
        rows.append(
            {
                "name": name,
                "sentence": str(dataset["condition_sentence"].values[number]),
                "distortion": words.tidy(float(known.mean())) if len(known) else words.number(np.nan),
                "accuracies": [
                    f"{words.tidy(100 * float(dataset['calibration'].values[number, subject, accuracy]))}%"
                    for subject in (0, -1)
                ],
                "errors": [
                    words.tidy(float(dataset["calibration_debiased"].values[number, subject, error]), 2)
                    for subject in (0, -1)
                ],
                "information": words.tidy(information[0], 2),
                "disagreement": f"{words.tidy(100 * apart[0], 2)}%",
                "sure": numbers.percent(numbers.triple(dataset, "sure_share", number)),
                "wrong": numbers.percent(numbers.triple(dataset, "sure_wrong_share", number)),
                "doubted": numbers.percent(numbers.triple(dataset, "doubted_share", number)),
            }
        )
    return rows


def _rankings(dataset: xr.Dataset) -> dict[str, Any]:
    """What tells a sure answer that is wrong, or not shared: AUROC by score."""
    rows = []
    for number, question in enumerate(str(value) for value in dataset["question"].values):
        n_yes, n_no = (int(dataset[name].values[number]) for name in ("auroc_yes", "auroc_no"))
        if n_yes and n_no:
            cells = [
                numbers.with_interval(numbers.triple(dataset, "auroc", number, score))
                for score in range(dataset.sizes["score"])
            ]
            rows.append({"name": _QUESTIONS.get(question, question), "counts": f"{n_yes:,} of {n_yes + n_no:,}"})
            rows[-1]["cells"] = cells
    gain = numbers.triple(dataset, "auroc_gain")
    return {
        "heads": [str(name) for name in dataset["score"].values],
        "rows": rows,
        "gain": numbers.with_interval(gain) if np.isfinite(gain[0]) else "",
    }
