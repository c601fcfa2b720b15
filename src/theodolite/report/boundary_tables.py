"""The tables of a boundary: trust, classes next door, every image, and the numbers behind the figures."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import words
from theodolite.report.boundary import Boundary, proven, softmax
from theodolite.report.parts import plain

_MOST_CLASSES = 12
_MOST_FLIPS = 20
_MOST_ROWS = 500
_FULL_TINT = 46
_AUROC = ("auroc", "auroc_low", "auroc_high", "auroc_lead", "auroc_lead_low", "auroc_lead_high")
_SCORES = {
    "distance": "distance to the flip point",
    "softmax": "softmax of the answer",
    "margin": "difference of the two largest outputs",
}


@dataclass(frozen=True)
class Trust:
    """What tells mistakes from right answers: a heading, a paragraph and a row a score."""

    heading: str
    words: str
    rows: list[dict[str, Any]]


def trust(dataset: xr.Dataset, found: Boundary) -> Trust:
    """Whether distance tells mistakes better than softmax, from the AUROCs and the interval of their difference.

    After Yousefzadeh and O'Leary 2019, section 6.1, which claims it; the page says what this survey shows.
    """
    rows = _score_rows(dataset)
    counted = _counted(found) + _named(dataset)
    if found.label is None:
        return Trust(
            "How far a flip is, against how sure the softmax is", "No true classes were given." + counted, rows
        )
    if not found.mistake.any():
        return Trust("No mistake among these answers", f"{counted} Whether distance tells mistakes is open.", rows)
    by_name = {row["score"]: row for row in rows}
    if "distance" not in by_name or not by_name.get("softmax", {}).get("lead_interval"):
        return Trust("Mistakes against right answers", counted, rows)
    distance, other = by_name["distance"], by_name["softmax"]
    figures = f"AUROC {distance['text']} against {other['text']}"
    said = f"The AUROC of distance less that of softmax is {other['lead_text']}"
    interval = f"its interval {other['lead_interval']} (95%, bootstrap of both together)"
    if other["lead_low"] > 0:
        heading = f"Distance tells mistakes better than softmax: {figures}"
        said += f", {interval}."
    elif other["lead_high"] < 0:
        heading = f"Softmax tells mistakes better than distance: AUROC {other['text']} against {distance['text']}"
        said += f", {interval}. The paper's claim does not hold here."
    else:
        heading = f"Distance is not shown to tell mistakes better than softmax: {figures}"
        said += f" in this sample, but {interval} holds 0."
    if distance["low"] <= 0.5:
        said += " Distance itself is not shown to tell mistakes at all: its interval reaches 0.5, which is chance."
    return Trust(heading, f"{said}{counted}", rows)


def _counted(found: Boundary) -> str:
    """How many mistakes the softmax was sure of, and how many lie near; empty where there are none."""
    wrong, right = found.mistake & found.found, found.labelled & ~found.mistake & found.found
    if not wrong.any() or not right.any():
        return ""
    middle = float(np.median(found.distance[right]))
    n, near = int(wrong.sum()), int((found.distance[wrong] < middle).sum())
    text = f" {near:,} of {n:,} {'mistake' if n == 1 else 'mistakes'} {_lie(near)} nearer than the median right answer"
    if found.log_odds is not None:
        sure = int((found.log_odds[wrong] >= math.log(4)).sum())
        text += f"; {sure:,} of {n:,} {'has' if sure == 1 else 'have'} a softmax of 80% or more"
    return text + "."


def _named(dataset: xr.Dataset) -> str:
    """For how many mistakes the nearest other class is the true one; empty where it is not known."""
    rank = np.asarray(dataset["true_class_rank"].values, int) if "true_class_rank" in dataset else np.zeros(0, int)
    n, named = int((rank > 0).sum()), int((rank == 1).sum())
    if not n:
        return ""
    mistakes = "mistake" if n == 1 else "mistakes"
    return f" For {named:,} of {n:,} {mistakes} the nearest other class is the true one (in the paper: for all)."


def _lie(count: int) -> str:
    return "lies" if count == 1 else "lie"


def _score_rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    if "auroc" not in dataset or "score" not in dataset:
        return []
    rows = []
    for name, *figures in zip(dataset["score"].values, *(_column(dataset, name) for name in _AUROC), strict=True):
        value, low, high, lead, lead_low, lead_high = map(float, figures)
        if not (math.isfinite(value) and math.isfinite(low) and math.isfinite(high)):
            continue
        compared = str(name) != "distance" and math.isfinite(lead_low) and math.isfinite(lead_high)
        rows.append(
            {
                "score": str(name),
                "words": _SCORES.get(str(name), str(name)),
                "low": low,
                "text": words.fixed(value, 3),
                "interval": f"{words.fixed(low, 3)} to {words.fixed(high, 3)}",
                "lead_low": lead_low,
                "lead_high": lead_high,
                "lead_text": words.fixed(lead, 3) if compared else "",
                "lead_interval": f"{words.fixed(lead_low, 3)} to {words.fixed(lead_high, 3)}" if compared else "",
            }
        )
    return rows


def _column(dataset: xr.Dataset, name: str) -> np.ndarray:
    """Figures of the scores; NaN where a survey has none of that name."""
    return np.asarray(dataset[name].values, float) if name in dataset else np.full(dataset.sizes["score"], np.nan)


@dataclass(frozen=True)
class NextDoor:
    """From class to class: a matrix of cells where classes are few, else the commonest flips as a list."""

    heading: str
    caption: str
    heads: list[str]
    rows: list[tuple[str, str, list[dict[str, Any]]]]
    flips: list[tuple[str, str, str]]
    columns: dict[str, list[Any]]


def next_door(dataset: xr.Dataset, found: Boundary) -> NextDoor | None:
    """Median distance from each class to each other, and how many nearest flips lead there."""
    rows = found.found & (found.target >= 0) & (found.own >= 0)
    if not rows.any() or len(found.names) < 2:
        return None
    k = len(found.names)
    counts = np.zeros((k, k), int)
    np.add.at(counts, (found.own[rows], found.target[rows]), 1)
    every = "pair_distance" in dataset and dataset.sizes.get("class", 0) == k
    median = _medians(np.asarray(dataset["pair_distance"].values, float), found) if every else _nearest_medians(found)
    pairs = np.argwhere((counts > 0) | np.isfinite(median))
    first, second = pairs[:, 0], pairs[:, 1]
    columns: dict[str, list[Any]] = {
        "from": [found.names[i] for i in first],
        "to": [found.names[j] for j in second],
        "nearest_flips": counts[first, second].tolist(),
        "median_distance": plain(median[first, second]),
    }
    of = "of all images of the row's class" if every else "of the images whose nearest flip leads there"
    caption = f"Median distance {of}; under it how many of them flip there first. The stronger the tint, the nearer."
    asked = np.unique(found.own[found.own >= 0])
    largest = np.argsort(-counts.ravel(), kind="stable")[:_MOST_FLIPS]
    flips = [
        (f"{found.names[i]} → {found.names[j]}", f"{counts[i, j]:,}", words.number(float(median[i, j])))
        for i, j in zip(*np.unravel_index(largest, counts.shape), strict=True)
        if counts[i, j]
    ]
    return NextDoor(
        heading=_nearest_neighbour(found, counts, median),
        caption=caption if k <= _MOST_CLASSES else f"Median distance {of}, for the commonest flips.",
        heads=found.names if k <= _MOST_CLASSES else [],
        rows=[
            (found.names[i], f"{int((found.own == i).sum()):,}", _cells(counts[i], median, i)) for i in map(int, asked)
        ]
        if k <= _MOST_CLASSES
        else [],
        flips=[] if k <= _MOST_CLASSES else flips,
        columns=columns,
    )


def _medians(pair: np.ndarray, found: Boundary) -> np.ndarray:
    k = len(found.names)
    median = np.full((k, k), np.nan)
    for number in np.unique(found.own[found.own >= 0]):
        rows = pair[found.own == number]
        some = ~np.isnan(rows).all(axis=0)
        median[number, some] = np.nanmedian(rows[:, some], axis=0)
    return median


def _nearest_medians(found: Boundary) -> np.ndarray:
    k = len(found.names)
    median = np.full((k, k), np.nan)
    for i, j in {(int(i), int(j)) for i, j in zip(found.own, found.target, strict=True) if min(i, j) >= 0}:
        median[i, j] = np.median(found.distance[(found.own == i) & (found.target == j)])
    return median


def _cells(counts: np.ndarray, median: np.ndarray, row: int) -> list[dict[str, Any]]:
    finite = median[np.isfinite(median)]
    low = float(finite.min()) if len(finite) else 0.0
    decimals = words.decimals_for(low)
    cells = []
    for column, (count, value) in enumerate(zip(counts, median[row], strict=True)):
        cells.append(
            {
                "own": column == row,
                "text": words.fixed(float(value), decimals) if math.isfinite(value) else "–",
                "count": f"{count:,}" if count else "",
                # Percent of tint, so that a template need not compute.
                "tint": round(_FULL_TINT * (low / value if value > 0 else 1.0)) if math.isfinite(value) else 0,
            }
        )
    return cells


def _nearest_neighbour(found: Boundary, counts: np.ndarray, median: np.ndarray) -> str:
    best = np.unravel_index(int(np.argmax(counts)), counts.shape)
    flip = f"{found.names[best[0]]} → {found.names[best[1]]}"
    if len(found.names) < 3:
        return f"From class to class: {flip} lies {words.number(float(median[best]))} away (median)"
    if counts[best] < 2:
        return "Which classes lie next door"
    return f"Next door: {flip} is the commonest flip, {words.number(float(median[best]))} away (median)"


def image_columns(dataset: xr.Dataset, found: Boundary) -> dict[str, list[Any]]:
    """The numbers of every image, nearest flip first, for a CSV file; empty where there is none."""
    order = found.order
    columns: dict[str, list[Any]] = {"image": order.tolist()}
    if found.label is not None:
        columns["label"] = [found.name(int(k)) if k >= 0 else None for k in found.label[order]]
    columns["answer"] = [found.name(int(k)) for k in found.own[order]]
    columns["flips_to"] = [found.name(int(k)) if k >= 0 else None for k in found.target[order]]
    columns["distance"] = plain(found.distance[order])
    columns["distance_lower_bound"] = plain(found.lower[order])
    if found.log_odds is not None:
        columns["log_odds_of_answer_nats"] = plain(found.log_odds[order])
    columns["residual_logit"] = plain(np.asarray(dataset["residual"].values, float)[order])
    columns["units"] = [int(value) for value in dataset["units"].values[order]]
    columns["certificate"] = [str(value) for value in dataset["certificate"].values[order]]
    columns["outcome"] = [str(value) for value in dataset["outcome"].values[order]]
    return columns


def image_table(dataset: xr.Dataset, found: Boundary) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of images, nearest flip first."""
    heads = ["image", *(["true class"] if found.label is not None else []), "answer", "flips to", "distance"]
    heads += ["proven", "of it", *(["softmax"] if found.log_odds is not None else []), "proof", "passes"]
    rows = []
    for image in map(int, found.order[:_MOST_ROWS]):
        share = float(found.share[image])
        row = [str(image), *([found.name(int(found.label[image]))] if found.label is not None else [])]
        row += [found.name(int(found.own[image])), found.name(int(found.target[image]))]
        row += [words.number(float(found.distance[image])) if found.found[image] else "none found"]
        row += [proven(float(found.lower[image]))]
        row += [f"{words.fixed(math.floor(1000 * share + 1e-9) / 10, 1)}%" if math.isfinite(share) else "–"]
        row += [softmax(float(found.log_odds[image]))] if found.log_odds is not None else []
        row += [str(dataset["certificate"].values[image]), f"{int(dataset['units'].values[image]):,}"]
        rows.append(row)
    return heads, rows


def not_found(dataset: xr.Dataset, found: Boundary) -> list[dict[str, str]]:
    """The images without a flip point, with what came of the search in words."""
    violation = np.asarray(dataset["violation"].values, float) if "violation" in dataset else None
    return [
        {
            "image": str(image),
            "answer": found.name(int(found.own[image])),
            "outcome": str(dataset["outcome"].values[image]),
            "violation": words.number(float(violation[image]))
            if violation is not None and violation[image] > 0
            else "",
            "proven": proven(float(found.lower[image])) if found.lower[image] > 0 else "–",
        }
        for image in map(int, np.flatnonzero(~found.found)[:_MOST_ROWS])
    ]


def certificates(dataset: xr.Dataset, found: Boundary) -> str:
    """What proves the lower bounds, with counts: cap tightening (34), none (2)."""
    names, counts = np.unique(dataset["certificate"].values.astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return words.listing([f"{names[k] or 'nothing'} ({counts[k]:,})" for k in order])
