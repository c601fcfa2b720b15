"""What a density Dataset says: its curve, shares of all inputs, and findings in plain words."""

import math
import re
from dataclasses import dataclass

import numpy as np
import xarray as xr

from theodolite.report import words


@dataclass(frozen=True)
class Curve:
    """The numbers behind the figure and its findings, a row a level (nats; NaN: not reached; -inf: empty)."""

    level: np.ndarray
    edges: np.ndarray
    log_count: np.ndarray
    error: np.ndarray
    log_count_per_unit: np.ndarray
    converged: np.ndarray
    log_volume: float
    discrete: bool

    @property
    def finite(self) -> np.ndarray:
        return np.isfinite(self.log_count)

    @property
    def everything(self) -> str:
        """The number of all inputs in words; empty where the space is continuous and has a volume."""
        if not self.discrete or not math.isfinite(self.log_volume):
            return ""
        small = self.log_volume < math.log(1e6)
        return words.size(self.log_volume) if small else words.power("e", round(self.log_volume))

    @property
    def log_fraction(self) -> np.ndarray:
        """ln of each level's share of all inputs."""
        return self.log_count - self.log_volume


@dataclass(frozen=True)
class Share:
    """ln of a share of all inputs, its standard error (nats), whether its levels converged."""

    log_fraction: float
    error: float
    converged: bool


@dataclass(frozen=True)
class Findings:
    """Sentences for headings and for the title block."""

    headline: str
    lines: list[str]
    data_heading: str
    verdict_heading: str
    figure: str


def curve(dataset: xr.Dataset) -> Curve:
    """Read the curve from `log_density_of_states` and its companions; lengths (level,)."""
    log_count = np.asarray(dataset["log_density_of_states"].values, float)
    edges = np.asarray(dataset["level_edges"].values, float)
    converged = (
        np.asarray(dataset["level_converged"].values, bool)
        if "level_converged" in dataset
        else np.full(log_count.shape, verdict(dataset) != "not converged")
    )
    log_volume = float(dataset.attrs.get("log_volume", math.nan))
    return Curve(
        level=np.asarray(dataset["level"].values, float),
        edges=edges,
        log_count=log_count,
        error=np.asarray(dataset["log_density_error"].values, float),
        log_count_per_unit=log_count - np.log(np.diff(edges)),
        converged=converged,
        log_volume=log_volume,
        discrete=str(dataset.attrs.get("space", "")).partition(":")[0] not in ("box", "latent"),
    )


def verdict(dataset: xr.Dataset) -> str:
    """The verdict: "exact", "converged" or "not converged" (the last where a file has none)."""
    return str(dataset["verdict"].values) if "verdict" in dataset else "not converged"


def share_above(line: Curve, threshold: float) -> Share | None:
    """The share of all inputs with output over `threshold`; None where no level above it was reached.

    A bin that the threshold cuts is split by an exponential with the slope between its neighbours. Errors of
    levels are added in proportion to their shares, as if they moved together: the widest they can be.
    """
    rows = np.flatnonzero(line.finite & (line.edges[1:] > threshold))
    if not len(rows):
        return None
    parts = line.log_fraction[rows].copy()
    if line.edges[rows[0]] < threshold:
        parts[0] += _log_part_above(line, int(rows[0]), threshold)
    total = float(np.logaddexp.reduce(parts))
    weight = np.exp(parts - total)
    error = float(np.sum(weight * line.error[rows]))
    return Share(min(total, 0.0), error, bool(line.converged[rows][weight > 0.01].all()))


def _log_part_above(line: Curve, row: int, threshold: float) -> float:
    finite = np.flatnonzero(line.finite)
    place = int(np.searchsorted(finite, row))
    before, after = finite[max(place - 1, 0)], finite[min(place + 1, len(finite) - 1)]
    rise = line.log_count_per_unit[after] - line.log_count_per_unit[before]
    run = line.level[after] - line.level[before]
    slope = rise / run if run > 0 else 0.0
    width, above = line.edges[row + 1] - line.edges[row], line.edges[row + 1] - threshold
    if abs(slope) * width < 1e-9:
        return math.log(above / width)
    # ln of the integrals of exp(slope y) over the two ranges; expm1 keeps small slopes exact.
    part, whole = (math.log(-math.expm1(-abs(slope) * length)) for length in (above, width))
    return part - whole if slope > 0 else part - whole - abs(slope) * (width - above)


def class_names(dataset: xr.Dataset) -> tuple[str, str] | None:
    """What an input is called above and below output 0, for a binary observable; None for any other."""
    if str(dataset.attrs.get("probability", "")) != "sigmoid":
        return None
    found = re.match(r"^(logit|log_odds):(.+)$", str(dataset.attrs.get("observable", "")))
    if not found:
        return "the observable's class", "anything else"
    positive = found.group(2).strip()
    names = [str(name) for name in dataset["data_set"].values] if "data_set" in dataset.coords else []
    others = {name.rpartition(":")[2].strip() for name in names} - {positive}
    if found.group(1) == "logit" and len(others) == 1:
        return f"'{positive}'", f"'{others.pop()}'"
    return f"'{positive}'", f"not '{positive}'"


def where_unconverged(line: Curve) -> str:
    """The levels that have not converged, as a phrase: "above 2.0", "below -100 and above 2.0"."""
    rows = np.flatnonzero(line.finite)
    bad = ~line.converged[rows]
    if not bad.any():
        return ""
    if bad.all():
        return "at any level"
    decimals = words.decimals_for(float(np.median(np.diff(line.edges))))
    good = np.flatnonzero(~bad)
    first, last = int(good[0]), int(good[-1])
    inside = int(bad[first:last].sum())
    phrases = []
    if first > 0:
        phrases.append(f"below {words.fixed(float(line.edges[rows[first]]), decimals)}")
    if last < len(rows) - 1:
        phrases.append(f"above {words.fixed(float(line.edges[rows[last] + 1]), decimals)}")
    if inside:
        phrases.append(f"at {inside} level{'s' if inside > 1 else ''} between")
    return words.listing(phrases)


def findings(dataset: xr.Dataset) -> Findings:
    """Every sentence the page says about a density, from the numbers alone."""
    line = curve(dataset)
    if not line.finite.any():
        nothing = "The survey reached no level"
        return Findings(nothing, ["No level was reached, so there is no curve to show."], "", nothing, nothing)
    moments = _moments(line)
    mean = moments[0]
    headline, called = _headline(dataset, line, moments)
    odds = str(dataset.attrs.get("probability", "")) == "sigmoid"
    names = class_names(dataset)
    random = f"A random input has output {_typical(*moments)}"
    if odds and names:
        random += f": its probability of being {names[0]} is about {words.probability(mean)}"
    data_heading, data_line = _data(dataset)
    lines = [called, *([random + "."] if names else []), *([data_line] if data_line else []), _reach(line)]
    return Findings(headline, lines, data_heading, _verdict_heading(dataset, line), _figure(dataset, line, mean))


def _moments(line: Curve) -> tuple[float, float]:
    rows = line.finite
    weight = np.exp(line.log_count[rows] - line.log_count[rows].max())
    weight /= weight.sum()
    mean = float(np.sum(weight * line.level[rows]))
    spread = float(np.sqrt(np.sum(weight * (line.level[rows] - mean) ** 2)))
    # Symmetric counts cancel to rounding error, which would print as a tiny number instead of 0.
    return (0.0 if abs(mean) < 1e-9 * float(np.abs(line.level[rows]).max()) else mean), spread


def _typical(mean: float, spread: float) -> str:
    decimals = words.decimals_for(spread)
    return f"{words.fixed(mean, decimals)} ± {words.fixed(spread, decimals)}"


def _headline(dataset: xr.Dataset, line: Curve, moments: tuple[float, float]) -> tuple[str, str]:
    names = class_names(dataset)
    rows = np.flatnonzero(line.finite)
    if names is None:
        ends = [(line.level[row], line.log_fraction[row], line.converged[row]) for row in (rows[0], rows[-1])]
        far, log_fraction, sure = min(ends, key=lambda end: end[1])
        head = f"Inputs typically have an output of {_typical(*moments)}; {words.share(float(log_fraction))} "
        head += f"{'reaches' if sure else 'may reach'} {words.tidy(float(far))}"
        return head, head + "."
    above = share_above(line, 0.0)
    positive, negative = names
    if above is None:
        top = words.tidy(float(line.edges[rows[-1] + 1]))
        head = f"No input called {positive} was reached: the survey ends at output {top}"
        return head, head + ", so that their share is not known, only that it is small."
    below = math.log(-math.expm1(above.log_fraction)) if above.log_fraction < 0 else -math.inf
    doubt = "" if above.converged else "; a first estimate, not converged"
    margin = _margin(above)
    if above.log_fraction < math.log(1e-3):
        rare = words.share(above.log_fraction)
        head = f"Almost every input — all but {_about(above)}{rare} — is {_called(negative)}"
        return head, f"All inputs but {_about(above)}{rare} are {_called(negative)}{margin}{doubt}."
    if above.log_fraction > math.log1p(-1e-3):
        reached = below > -math.inf and float(line.edges[rows[0]]) < 0
        rest = words.share(below) if reached else "those the survey did not reach"
        head = f"Almost every input — all but {_about(above)}{rest} — is called {positive}"
        return head, f"All inputs but {_about(above)}{rest} are called {positive}{doubt}."
    head = f"{words.share(above.log_fraction)} of all inputs are called {positive}"
    head = f"{_about(above)}{head}"
    head = head[:1].upper() + head[1:]
    return head, f"{head}{margin}{doubt}."


def _called(name: str) -> str:
    return f"not called {name[4:]}" if name.startswith("not ") else f"called {name}"


def _about(part: Share) -> str:
    return "" if part.converged else "perhaps "


def _margin(part: Share) -> str:
    half_width = 1.96 * part.error
    if half_width == 0:
        return ""
    if part.log_fraction > -math.log(1e6) and half_width < 20:
        return f" (within a factor of {words.number(math.exp(half_width), 2)}, 95%)"
    return f" (exponent ± {words.number(half_width / words.LN10, 2)}, 95%)"


def _reach(line: Curve) -> str:
    rows = np.flatnonzero(line.finite)
    fall = line.log_count_per_unit[rows]
    low, high = (words.tidy(float(line.edges[index])) for index in (rows[0], rows[-1] + 1))
    return (
        f"Outputs from {low} to {high} were reached; between the commonest and the rarest of them the "
        f"number of inputs falls by a factor of {words.size(float(fall.max() - fall.min()))}."
    )


def _data(dataset: xr.Dataset) -> tuple[str, str]:
    if "data_rarity" not in dataset:
        return "", ""
    rarity = np.asarray(dataset["data_rarity"].values, float)
    names = [str(name) for name in dataset["data_set"].values]
    known = [(value, name) for value, name in zip(rarity, names, strict=True) if math.isfinite(value)]
    if not known:
        return "The given inputs lie where the survey did not reach", ""
    least = min(known)[0]
    if least < 1:
        return "The given inputs are no rarer than others at their own output", ""
    ratio = words.size(least)
    heading = f"At their own output, other inputs outnumber the given ones by {ratio} to one or more"
    if len(known) > 4:
        most = words.size(max(known)[0])
        said = f"between {ratio} and {most} to one, from set to set"
    else:
        said = words.listing([f"{words.size(value)} to one (“{name}”)" for value, name in known])
    line = f"At its own output, a given input is outnumbered by others {said}; medians."
    return heading, line


def _verdict_heading(dataset: xr.Dataset, line: Curve) -> str:
    kind = verdict(dataset)
    if kind == "exact":
        return "Exact: every input was counted"
    passed = np.asarray(dataset["check_passed"].values, int) if "check_passed" in dataset else np.empty(0, int)
    failed, untested = int((passed == 0).sum()), int((passed == -1).sum())
    tested = len(passed) - untested
    if kind == "converged":
        head = "Converged over the whole range: " if not where_unconverged(line) else "Converged: "
        head += f"all {tested} checks that could be made hold" if tested else "no check was recorded"
        return head
    where = where_unconverged(line)
    head = f"Not converged {where}".rstrip()
    return head + (f": {failed} of {tested} checks failed" if failed else "")


def _figure(dataset: xr.Dataset, line: Curve, mean: float) -> str:
    rows = np.flatnonzero(line.finite)
    text = (
        f"Curve of ln of the number of inputs per unit of output. It peaks near output {words.number(mean)} "
        f"at {words.number(float(line.log_count_per_unit[rows].max()), 4)} nats and falls to "
        f"{words.number(float(line.log_count_per_unit[rows[0]]), 4)} at the lowest and "
        f"{words.number(float(line.log_count_per_unit[rows[-1]]), 4)} at the highest output reached."
    )
    where = where_unconverged(line)
    return text + (f" Not converged {where}." if where else "")
