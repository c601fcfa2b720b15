"""What a stability Dataset says: how little fools each network, what fools others too, and findings in plain words."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from theodolite.report import words
from theodolite.report.boundary import point_kind


@dataclass(frozen=True)
class Stability:
    """The numbers behind the section. ``(network, image)``: ``distortion`` (NaN: not attacked, inf: no example);
    ``(row, network)``: ``share``, ``low``, ``high``, ``count`` of the transfer matrix; ``(row,)``: ``kind``,
    ``made_for`` (-1: noise), ``stated``; ``(row, 3)`` ``spread`` and ``(network, 3)`` ``mean``, ``error``: a value and
    the ends of its interval. ``shape_kind`` is "picture" or "vector"."""

    names: list[str]
    classes: list[str]
    distortion: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    kind: np.ndarray
    made_for: np.ndarray
    stated: np.ndarray
    spread: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    shape_kind: str

    @property
    def found(self) -> np.ndarray:
        """``(network, image)``: whether there is an example."""
        return np.isfinite(self.distortion)

    def name_of_class(self, number: int) -> str:
        """A class by its name; a dash where there is none."""
        return self.classes[number] if 0 <= number < len(self.classes) else "–"

    def row_words(self, row: int) -> str:
        """A row as a person would name it."""
        if self.kind[row] == "noise":
            return f"Gaussian noise, standard deviation {words.tidy(float(self.stated[row]))}"
        made = f"made for {self.names[self.made_for[row]]}"
        if self.kind[row] == "minimal":
            return made
        return f"{made}, amplified to {words.tidy(float(self.stated[row]))}"

    def rows(self, kind: str, stated: float | None = None) -> np.ndarray:
        """Rows of a kind, and of a stated distortion where one is given."""
        chosen = self.kind == kind
        return np.flatnonzero(chosen if stated is None else chosen & np.isclose(self.stated, stated))

    def across(self, rows: np.ndarray) -> np.ndarray:
        """Shares that examples of these rows have on networks they were not made for, where any was counted."""
        other = self.made_for[rows][:, None] != np.arange(len(self.names))
        shares = self.share[rows][other]
        return shares[np.isfinite(shares)]


@dataclass(frozen=True)
class StabilityFindings:
    """Sentences for headings and for the title block."""

    headline: str
    lines: list[str]
    transfer: str
    noise: str
    verdict_heading: str


def stability(dataset: xr.Dataset) -> Stability:
    """Read a stability Dataset (`result.SCHEMA`)."""

    def numbers(name: str) -> np.ndarray:
        return np.asarray(dataset[name].values, float)

    def interval(name: str) -> np.ndarray:
        return np.stack([numbers(name + end) for end in ("", "_low", "_high")], axis=-1)

    n_classes = int(max(numbers(name).max(initial=-1) for name in ("label", "predicted_class", "example_class"))) + 1
    named = [str(name) for name in dataset["class_name"].values] if "class_name" in dataset else []
    return Stability(
        names=[str(name) for name in dataset["network"].values],
        classes=named + [str(number) for number in range(len(named), n_classes)],
        distortion=np.asarray(dataset["distortion"].transpose("network", "image").values, float),
        share=numbers("transfer"),
        low=numbers("transfer_low"),
        high=numbers("transfer_high"),
        count=np.asarray(dataset["transfer_count"].values, int),
        kind=dataset["row_kind"].values.astype(str),
        made_for=np.asarray(dataset["made_for"].values, int),
        stated=numbers("stated_distortion"),
        spread=interval("row_distortion"),
        mean=interval("mean_distortion"),
        error=interval("test_error"),
        shape_kind=point_kind(np.asarray(dataset["input"].values, float)),
    )


def percent(share: float) -> str:
    """A share in percent: whole numbers at both ends, else a decimal."""
    if math.isnan(share):
        return "–"
    return f"{words.fixed(100 * share, 0 if share in (0.0, 1.0) else 1)}%"


def between(interval: np.ndarray, write: str = "number") -> str:
    """ "0.12 to 0.15", or a dash where there is no interval."""
    if not np.isfinite(interval[1:]).all():
        return "–"
    low, high = (percent(float(v)) if write == "percent" else words.number(float(v)) for v in interval[1:])
    return f"{low} to {high}"


def findings(dataset: xr.Dataset, found: Stability) -> StabilityFindings:
    """Every sentence of the title block, from the numbers alone."""
    verdict_heading = _verdict_heading(dataset)
    if not found.found.any():
        headline = "No adversarial example was found"
        return StabilityFindings(headline, [headline + "."], headline, "", verdict_heading)
    transfer, noise = _transfer(found), _noise(found)
    lines = [_headline(found) + ".", transfer + ".", noise + "." if noise else "", *_amplified(found)]
    if str(dataset["verdict"].values) != "complete":
        lines.append(str(dataset["verdict_sentence"].values))
    return StabilityFindings(_headline(found), [line for line in lines if line], transfer, noise, verdict_heading)


def _headline(found: Stability) -> str:
    known = np.flatnonzero(np.isfinite(found.mean[:, 0]))
    order = known[np.argsort(found.mean[known, 0], kind="stable")]
    least, most = int(order[0]), int(order[-1])
    low = words.number(float(found.mean[least, 0]))
    if len(order) == 1:
        return f"A distortion of {low} on average fools {found.names[least]}"
    high = words.number(float(found.mean[most, 0]))
    return (
        f"{found.names[least]} is fooled by the least, a distortion of {low} on average; "
        f"{found.names[most]} takes the most, {high}"
    )


def _transfer(found: Stability) -> str:
    shares = found.across(found.rows("minimal"))
    if not len(shares):
        return "Made for one network, tested on it"
    low, high = percent(float(shares.min())), percent(float(shares.max()))
    amount = low if low == high else f"{low} to {high}"
    return f"Of what just fools one network, {amount} fools another"


def _noise(found: Stability) -> str:
    """Noise as strong as the examples, on all networks together."""
    rows = found.rows("noise")
    if not len(rows):
        return ""
    row = int(rows[0])
    counted = np.isfinite(found.share[row])
    shares = found.share[row][counted]
    if not len(shares):
        return ""
    low, high = percent(float(shares.min())), percent(float(shares.max()))
    amount = low if low == high else f"{low} to {high}"
    strength = words.tidy(float(found.stated[row]))
    return f"Gaussian noise of standard deviation {strength} fools {amount} of the right answers"


def _amplified(found: Stability) -> list[str]:
    lines = []
    for stated in dict.fromkeys(found.stated[found.rows("amplified")].tolist()):
        shares = found.across(found.rows("amplified", stated))
        if len(shares):
            low, high = percent(float(shares.min())), percent(float(shares.max()))
            lines.append(f"Amplified to a distortion of {words.tidy(stated)}, {low} to {high} fool another network.")
    return lines


def _verdict_heading(dataset: xr.Dataset) -> str:
    passed = np.asarray(dataset["check_passed"].values, int) if "check_passed" in dataset else np.empty(0, int)
    failed, tested = int((passed == 0).sum()), int((passed >= 0).sum())
    if str(dataset["verdict"].values) != "complete":
        return "Incomplete" + (f": {failed} of {tested} checks failed" if failed else "")
    if failed:
        return f"Complete, with {failed} of {tested} checks not met"
    return f"Complete: all {tested} checks hold" if tested else "Complete: no check was recorded"
