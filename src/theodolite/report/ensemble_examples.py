"""Inputs that the single network is sure of and the ensemble is not, as pictures with who says what."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import ensemble as numbers
from theodolite.report import images, words

_MOST = 12
_MOST_OF_A_KIND = 4  # so that one condition does not crowd the others out


@dataclass(frozen=True)
class _Example:
    """``doubt``: one minus the ensemble's probability of the single network's answer."""

    doubt: float
    point: np.ndarray
    where: str
    kind: str
    answers: tuple[int, int]
    probabilities: tuple[float, float]
    label: int


def examples(dataset: xr.Dataset) -> dict[str, Any]:
    """The most doubted, at most four a condition (all levels count as one); empty where there are none."""
    found = sorted([*_given(dataset), *_at_levels(dataset)], key=lambda one: -one.doubt)
    shown: list[_Example] = []
    for one in found:
        if len(shown) < _MOST and sum(other.kind == one.kind for other in shown) < _MOST_OF_A_KIND:
            shown.append(one)
    if not shown:
        return {}
    given = np.asarray(dataset["point"].values, float)
    low, high = images.value_range(str(dataset.attrs.get("space", "")), given[np.isfinite(given)])
    names = [str(name) for name in dataset["class_name"].values] if "class_name" in dataset else []
    cards = []
    caption = ""
    for one in shown:
        pixels, caption = images.picture(one.point, low, high)
        cards.append(
            {
                "picture": images.data_uri(pixels),
                "where": one.where,
                "single": _told(one.answers[0], one.probabilities[0], names),
                "ensemble": _told(one.answers[1], one.probabilities[1], names),
                "label": _name(one.label, names) if one.label >= 0 else "",
            }
        )
    return {"cards": cards, "caption": caption, "n": f"{len(found):,}", "shown": len(cards)}


def _name(answer: int, names: list[str]) -> str:
    return names[answer] if answer < len(names) else str(answer)


def _told(answer: int, probability: float, names: list[str]) -> str:
    return f"{_name(answer, names)} ({words.tidy(100 * probability)}%)"


def _given(dataset: xr.Dataset) -> list[_Example]:
    """Of the inputs under every condition, which the survey's own rule says are sure and doubted."""
    probability = np.exp(np.asarray(dataset["log_probability"].values, float))
    sure, doubt = (float(dataset.attrs.get(name, value)) for name, value in (("sure", 0.99), ("doubt", 0.9)))
    points = np.asarray(dataset["point"].values, float)
    answer = np.asarray(dataset["answer"].values, int)
    label = np.asarray(dataset["label"].values, int)
    found = []
    for condition, image in np.argwhere(probability[:, :, 0].max(-1) > sure):
        single, together = answer[condition, image, 0], answer[condition, image, -1]
        shared = float(probability[condition, image, -1, single])
        if shared < doubt:
            name = str(dataset["condition"].values[condition])
            pair = (
                float(probability[condition, image, 0, single]),
                float(probability[condition, image, -1, together]),
            )
            found.append(
                _Example(
                    1 - shared,
                    points[condition, image],
                    f"image {image}, {name}",
                    name,
                    (int(single), int(together)),
                    pair,
                    int(label[image]),
                )
            )
    return found


def _at_levels(dataset: xr.Dataset) -> list[_Example]:
    if not numbers.has_levels(dataset) or "level_example" not in dataset:
        return []
    sure, doubt = (float(dataset.attrs.get(name, value)) for name, value in (("sure", 0.99), ("doubt", 0.9)))
    probability = np.asarray(dataset["level_example_probability"].values, float)
    answer = np.asarray(dataset["level_example_answer"].values, int)
    points = np.asarray(dataset["level_example"].values, float)
    level = np.asarray(dataset["level"].values, float)
    decimals = words.decimals_for(float(np.median(np.diff(level)))) if len(level) > 1 else 1
    found = []
    for number, example in np.argwhere(probability[..., 0] > sure):
        single, together = answer[number, example, 0], answer[number, example, -1]
        own, shared = probability[number, example, 0], probability[number, example, -1]
        # Only the ensemble's own answer was kept: of another one it gives at most what that leaves.
        left = shared if single == together else 1 - shared
        if left < doubt:
            where = f"level {words.fixed(float(level[number]), decimals)}"
            found.append(
                _Example(
                    1 - float(left),
                    points[number, example],
                    where,
                    "level",
                    (int(single), int(together)),
                    (float(own), float(shared)),
                    -1,
                )
            )
    return found
