"""What a units Dataset says: whether single units mean more than other directions, and findings in plain words."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from theodolite.report import words

_HEADLINES = {
    "units mean more": "Single units mean more than random directions",
    "units mean less": "Single units mean less than random directions",
    "no difference seen": "Single units mean no more than random directions",
    "undecided": "Whether single units mean more than random directions stays open",
}


@dataclass(frozen=True)
class UnitFindings:
    """Sentences for headings and for the title block."""

    headline: str
    lines: list[str]
    test: str
    principal: str
    steadiness: str


@dataclass(frozen=True)
class Against:
    """A row of the table of comparisons: units against one kind of direction, at one k."""

    other: str
    k: int
    units: float
    others: float
    p_value: float
    standardised: tuple[float, float, float]
    exceeds: tuple[float, float, float]


def first_top(dataset: xr.Dataset) -> int:
    """The size of the sets that decide the claim."""
    return int(dataset["top"].values[0])


def findings(dataset: xr.Dataset) -> UnitFindings:
    """What the page says in words; numbers alone decide them, never the paper."""
    headline = _headline(dataset)
    test, principal, steadiness = _test(dataset), _principal(dataset), _steadiness(dataset)
    lines = [f"{headline}.", test, principal, steadiness]
    return UnitFindings(headline, [line for line in lines if line], test, principal, steadiness)


def comparisons(dataset: xr.Dataset) -> list[Against]:
    """Purity against every kind of direction, at every k."""
    found = []
    for column, k in enumerate(dataset["top"].values):
        units = _mean(dataset["unit_purity"].values[:, column])
        for row, name in enumerate(dataset["against"].values):
            standardised = tuple(
                float(dataset[f"standardised_difference{end}"].values[row, 0, column]) for end in ("", "_low", "_high")
            )
            exceeds = tuple(float(dataset[f"exceeds{end}"].values[row, column]) for end in ("", "_low", "_high"))
            found.append(
                Against(
                    str(name),
                    int(k),
                    units,
                    units - float(dataset["difference"].values[row, 0, column]),
                    float(dataset["p_value"].values[row, 0, column]),
                    (standardised[0], standardised[1], standardised[2]),
                    (exceeds[0], exceeds[1], exceeds[2]),
                )
            )
    return found


def percent(share: float) -> str:
    """A share as a percentage; a dash for NaN."""
    return words.fixed(100 * share, 1) + ("%" if not math.isnan(share) else "")


def labels_sentence(dataset: xr.Dataset) -> str:
    """Where the classes come from."""
    if str(dataset.attrs.get("labels", "given")) == "given":
        return "Classes are the labels given with the inputs."
    return "No labels were given: classes are the network's own predictions, which its units are trained to serve."


def positions_sentence(dataset: xr.Dataset) -> str:
    """How a map's positions are joined; empty for a layer of vectors."""
    positions = str(dataset.attrs.get("positions", ""))
    if not positions:
        return ""
    if positions == "each":
        return "Every channel at every position is a unit of its own."
    return (
        f"What a channel, or a direction of channels, says to an input is its {positions} over the positions of the "
        "map; directions are turned before positions are joined."
    )


def _headline(dataset: xr.Dataset) -> str:
    text = _HEADLINES.get(str(dataset["claim"].values), "What the units mean")
    units, others = _purities(dataset)
    if math.isnan(units) or math.isnan(others):
        return text
    return f"{text}: their top inputs are {percent(units)} of one class, against {percent(others)}"


def _purities(dataset: xr.Dataset) -> tuple[float, float]:
    units = _mean(dataset["unit_purity"].values[:, 0])
    return units, units - float(dataset["difference"].values[0, 0, 0])


def _test(dataset: xr.Dataset) -> str:
    n = int(dataset.sizes["basis"])
    if not n or math.isnan(_purities(dataset)[0]):
        return "No random basis was drawn, or no unit has a top set of its own: nothing is tested."
    parts = []
    for row, scaling in enumerate(dataset["scaling"].values):
        p_more = float(dataset["p_value_more"].values[row, 0, 0])
        as_pure = round(p_more * (1 + n)) - 1
        p_value = words.number(float(dataset["p_value"].values[row, 0, 0]), 2)
        parts.append(f"{_of(as_pure, n)} as pure as the units' own ({scaling}, p = {p_value})")
    return f"{parts[0]}; {parts[1][0].lower() + parts[1][1:]}." if len(parts) > 1 else f"{parts[0]}."


def _of(count: int, n: int) -> str:
    if count <= 0:
        return f"None of {n:,} random bases is at least"
    return f"{count:,} of {n:,} random bases {'is' if count == 1 else 'are'} at least"


def _principal(dataset: xr.Dataset) -> str:
    value, low, high = (float(dataset[f"exceeds{end}"].values[2, 0]) for end in ("", "_low", "_high"))
    if math.isnan(value) or math.isnan(low):
        return ""
    interval = f"{percent(value)}, {percent(low)} to {percent(high)}"
    if low > 0.5:
        return f"A unit is purer than a principal direction more often than not ({interval})."
    if high < 0.5:
        return f"A principal direction is purer than a unit more often than not (units purer: {interval})."
    return f"Units and principal directions are not told apart (units purer: {interval})."


def _steadiness(dataset: xr.Dataset) -> str:
    n = int(np.isfinite(np.asarray(dataset["flip_distance"].values, float)).sum())
    change = np.asarray(dataset["unit_change"].values, float)
    if not n or not np.isfinite(change).any():
        return ""
    noise = float(np.nanmedian(dataset["unit_noise_change"].values))
    middle = float(np.nanmedian(change))
    leaving, count = (np.asarray(dataset[name].values, float) for name in ("unit_leaving", "unit_leaving_count"))
    tried = int(count.sum())
    left = round(float(np.nansum(leaving * count)))
    text = (
        f"The closest flip of {n:,} inputs moves the median unit by {words.number(middle, 2)} of its spread, noise of "
        f"the same length by {words.number(noise, 2)}"
    )
    return text + (f"; {left:,} of {tried:,} top inputs leave their unit's top set." if tried else ".")


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
