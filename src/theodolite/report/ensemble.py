"""What an ensemble Dataset says: who disagrees where, who is calibrated, and findings in plain words."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from theodolite.report import words

ENSEMBLE = "ensemble"
_UNCERTAINTY = "mutual information"
_MOST = 0.5  # share of the wrong sure answers that an ensemble which knows doubts


@dataclass(frozen=True)
class EnsembleFindings:
    """Sentences for headings and for the title block."""

    headline: str
    lines: list[str]
    calibration: str
    conditions: str
    doubts: str
    levels: str
    verdict_heading: str


def single(dataset: xr.Dataset) -> str:
    """The first member: the network that the ensemble is asked about."""
    return str(dataset["subject"].values[0])


def n_members(dataset: xr.Dataset) -> int:
    """Members, without the ensemble itself."""
    return int(dataset.sizes["subject"]) - 1


def has_levels(dataset: xr.Dataset) -> bool:
    """Whether a density survey was given and its levels were looked at."""
    return "level_count" in dataset and bool((dataset["level_count"].values > 0).any())


def place(dataset: xr.Dataset, dimension: str, name: str) -> int:
    """The position of a name; the first where there is none."""
    names = [str(value) for value in dataset[dimension].values]
    return names.index(name) if name in names else 0


def triple(dataset: xr.Dataset, name: str, *index: int) -> tuple[float, float, float]:
    """An estimate and the ends of its interval."""
    value, low, high = (
        float(np.asarray(dataset[part].values, float)[index]) for part in (name, f"{name}_low", f"{name}_high")
    )
    return value, low, high


def with_interval(estimate: tuple[float, float, float], digits: int = 3) -> str:
    """0.97 (0.91 to 0.99); a dash where nothing is known."""
    value, low, high = estimate
    if math.isnan(value):
        return words.number(math.nan)
    if math.isnan(low):
        return words.tidy(value, digits)
    return f"{words.tidy(value, digits)} ({words.tidy(low, digits)} to {words.tidy(high, digits)})"


def percent(estimate: tuple[float, float, float]) -> str:
    """The same of a share, in percent."""
    value, low, high = (100 * part for part in estimate)
    if math.isnan(value):
        return words.number(math.nan)
    return f"{words.tidy(value)}% ({words.tidy(low, 2)} to {words.tidy(high, 2)})"


def findings(dataset: xr.Dataset) -> EnsembleFindings:
    """Every sentence of the title block, from the numbers alone."""
    headline = _headline(dataset)
    calibration = _calibration(dataset)
    doubts = _doubts(dataset)
    levels = _levels(dataset)
    lines = [f"{headline}.", f"{calibration}.", f"{doubts}."] + ([f"{levels}."] if levels else [])
    return EnsembleFindings(
        headline, lines, calibration, _conditions(dataset), doubts, levels, _verdict_heading(dataset)
    )


def _headline(dataset: xr.Dataset) -> str:
    name = single(dataset)
    _, low, high = triple(dataset, "auroc", 0, 0)
    n_wrong = int(dataset["auroc_yes"].values[0])
    if _untested(dataset, "knows where"):
        return f"Whether the ensemble knows where {name} is overconfident was not seen: {n_wrong:,} wrong sure answers"
    doubted = float(dataset["doubted_wrong_share"].values)
    if low > 0.5 and doubted >= _MOST:
        told = f"The ensemble knows where {name} is overconfident"
        return f"{told}: it doubts {words.tidy(100 * doubted)}% of the wrong sure answers"
    if low > 0.5:
        told = f"The ensemble suspects where {name} is overconfident, but shares most mistakes"
        return f"{told}: it doubts {words.tidy(100 * doubted)}% of the wrong sure answers"
    if high < 0.5:
        return f"The ensemble is misled where {name} is overconfident: its members agree more on wrong sure answers"
    return f"The ensemble is not seen to know where {name} is overconfident"


def _untested(dataset: xr.Dataset, begins: str) -> bool:
    names = [str(name) for name in dataset["check_name"].values] if "check_name" in dataset else []
    return any(
        name.startswith(begins) and int(passed) < 0
        for name, passed in zip(names, dataset["check_passed"].values if names else [], strict=True)
    )


def _calibration(dataset: xr.Dataset) -> str:
    measure = place(dataset, "measure", "squared calibration error")
    value, low, high = triple(dataset, "calibration_difference", 0, measure)
    if math.isnan(value):
        return "Calibration was not measured"
    if _untested(dataset, "better calibrated"):
        return f"{dataset.sizes['image']:,} inputs are too few to compare calibration"
    size = f"by {words.tidy(abs(value), 2)} (95%: {words.tidy(low, 2)} to {words.tidy(high, 2)})"
    if high < 0:
        return f"The ensemble's squared calibration error is smaller than its members' {size}"
    if low > 0:
        return f"The ensemble's squared calibration error is larger than its members' {size}"
    change = f"{words.tidy(value, 2)} (95%: {words.tidy(low, 2)} to {words.tidy(high, 2)})"
    return f"The ensemble is not seen to be better calibrated than its members: squared error {change}"


def _doubts(dataset: xr.Dataset) -> str:
    name = single(dataset)
    sure, doubted = (np.asarray(dataset[part].values, float) for part in ("sure_share", "doubted_share"))
    if not np.isfinite(doubted).any():
        return f"{name} is sure of no input"
    wrong = np.nan_to_num(np.asarray(dataset["sure_wrong_share"].values, float)) * np.nan_to_num(sure)
    most = int(np.argmax(np.where(np.isfinite(doubted), wrong, -1)))
    condition = str(dataset["condition"].values[most])
    if not wrong[most]:
        return f"No sure answer of {name} is wrong under any condition"
    share = 100 * float(dataset["sure_wrong_share"].values[most])
    return (
        f"{words.tidy(share)}% of {name}'s sure answers are wrong on {condition}; "
        f"the ensemble doubts {words.tidy(100 * float(doubted[most]))}% of the sure ones there"
    )


def _conditions(dataset: xr.Dataset) -> str:
    means = np.asarray(dataset["quantity_mean"].values, float)[:, place(dataset, "quantity", _UNCERTAINTY)]
    if not np.isfinite(means).any():
        return "No condition was examined"
    most = int(np.nanargmax(means))
    factor = means[most] / means[0] if means[0] > 0 else math.nan
    by = f", {words.tidy(factor, 2)} times as much as on the inputs as given" if factor > 1 else ""
    return f"The members differ most on {dataset['condition'].values[most]}{by}"


def _levels(dataset: xr.Dataset) -> str:
    if not has_levels(dataset):
        return ""
    count = np.asarray(dataset["level_count"].values, float)
    sure = np.nan_to_num(dataset["level_sure_share"].values) * count
    doubted = np.nan_to_num(dataset["level_doubted_share"].values) * sure
    name = single(dataset)
    if not sure.sum():
        return f"{name} is sure at no level of its density survey"
    share = 100 * doubted.sum() / sure.sum()
    return (
        f"Over the levels of its density survey {name} is sure of {words.tidy(100 * sure.sum() / count.sum())}% of the "
        f"inputs; the ensemble doubts {words.tidy(share)}% of these"
    )


def verdict(dataset: xr.Dataset) -> str:
    """The verdict: "converged" or "not converged"."""
    return str(dataset["verdict"].values)


def _verdict_heading(dataset: xr.Dataset) -> str:
    if verdict(dataset) == "converged":
        return "Every condition was examined; what was found, check by check"
    return "Not every condition was examined"
