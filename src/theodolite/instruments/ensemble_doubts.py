"""Where the single network is sure, and whether the ensemble doubts it; estimates as variables of a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from theodolite.instruments import calibration
from theodolite.instruments.calibration import Estimate, Floats
from theodolite.instruments.ensemble_statistics import mean_log_probability

if TYPE_CHECKING:
    from theodolite.instruments.ensemble import Ensemble

Variables = dict[str, tuple]


@dataclass(frozen=True)
class Sure:
    """Where the single network is sure, and what the ensemble makes of it, a row an input: ``sure``, ``doubted`` (sure
    and given less than the stated probability by the members' mean)."""

    sure: NDArray[np.bool_]
    doubted: NDArray[np.bool_]


def sure_of(members: Floats, settings: Ensemble) -> Sure:
    """From ``members (row, member, class)``; rows that are not known are not sure."""
    first = members[:, 0]
    with np.errstate(invalid="ignore"):
        sure = first.max(-1) > np.log(settings.sure)
    own = np.where(sure, np.nan_to_num(first, nan=-np.inf).argmax(-1), 0)
    shared = mean_log_probability(members)[np.arange(len(members)), own]
    return Sure(sure, sure & (np.nan_to_num(shared, nan=0.0) < np.log(settings.doubt)))


def share(part: float, whole: float) -> tuple[float, float, float]:
    """A share with its 95% interval; NaN of nothing."""
    if not whole:
        return np.nan, np.nan, np.nan
    low, high = calibration.share_interval(np.array(part), np.array(whole))
    return part / whole, float(low), float(high)


def triple(estimate: Estimate) -> tuple[float, float, float]:
    """Value, low, high."""
    return estimate.value, estimate.low, estimate.high


def ends(name: str, dims: tuple[str, ...], estimates: Floats) -> Variables:
    """``estimates (..., [value, low, high])`` as three variables."""
    return {
        name: (dims, estimates[..., 0]),
        f"{name}_low": (dims, estimates[..., 1]),
        f"{name}_high": (dims, estimates[..., 2]),
    }
