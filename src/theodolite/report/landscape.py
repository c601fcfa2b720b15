"""What a landscape Dataset says: its basins, the barriers between them, and findings in plain words."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from theodolite.report import words
from theodolite.report.tree_layout import Trunks, trunks

_COUNTS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_MOST_BARS = 63
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Basins:
    """The numbers behind the graph, a row a basin, rising in energy (the unit of the observable).

    `trunks` is the tree as a drawing; `upper` and `lower` ``(K, K)`` bound the barriers; `count` the members of each;
    `label` its name or class, None where the survey gives none; `kind` how a point is shown: "picture", "vector",
    "plane" (two numbers) or "line" (one).
    """

    energy: np.ndarray
    trunks: Trunks
    tree: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    count: np.ndarray | None
    label: list[str] | None
    kind: str
    image: bool
    decimals: int

    @property
    def exact(self) -> np.ndarray:
        """Of each trunk whether the level where it ends is known exactly; False where it never ends."""
        return np.isfinite(self.trunks.upper) & self._equal(self.trunks.lower, self.trunks.upper)

    @property
    def proven(self) -> np.ndarray:
        """Of each trunk whether its lower bound says more than that a path starts and ends at its minima."""
        return np.isfinite(self.trunks.upper) & ~self._equal(self.trunks.lower, self.energy)

    def _equal(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        known = np.isfinite(low) & np.isfinite(high)
        difference = np.where(known, high, 0.0) - np.where(known, low, 0.0)
        return known & (np.abs(difference) <= _ROUNDING * max(1.0, float(np.abs(self.energy).max())))

    @property
    def nearest(self) -> np.ndarray:
        """The basin over the lowest known barrier, ``(K,)``; -1 where no path is known."""
        apart = self.upper.copy()
        np.fill_diagonal(apart, np.inf)
        found = np.argmin(apart, axis=1)
        return np.where(np.isfinite(apart[np.arange(len(apart)), found]), found, -1)

    def name(self, minimum: int) -> str:
        """The basin in words: basin 3 (“7”)."""
        return f"basin {minimum + 1}" + (f" (“{self.label[minimum]}”)" if self.label else "")

    def written(self, energy: float) -> str:
        """An energy with as many decimals as tell basins apart."""
        return words.fixed(energy, self.decimals)

    def level(self, one: int, other: int, above: float = 0.0) -> str:
        """The barrier between two basins, less `above`: −9.4, −9.6 to −9.4, or at most −9.4 where none is proven."""
        low, high = float(self.lower[one, other]), float(self.upper[one, other])
        return self.interval(low, high, float(max(self.energy[one], self.energy[other])), above)

    def interval(self, low: float, high: float, floor: float, above: float = 0.0) -> str:
        """Bounds less `above` in words; `floor` is the lower bound that needs no proof."""
        if not math.isfinite(high):
            return "no path known"
        if bool(self._equal(np.array(low), np.array(high))):
            return self.written(high - above)
        if bool(self._equal(np.array(low), np.array(floor))):
            return f"at most {self.written(high - above)}"
        return f"{self.written(low - above)} to {self.written(high - above)}"


@dataclass(frozen=True)
class LandscapeFindings:
    """Sentences for headings and for the title block."""

    headline: str
    lines: list[str]
    verdict_heading: str
    figure: str


def basins(dataset: xr.Dataset) -> Basins:
    """Read a landscape Dataset (`result.SCHEMA`)."""
    energy = np.asarray(dataset["energy"].values, float)
    tree = np.asarray(dataset["disconnectivity"].values, float).reshape(-1, 5)
    laid = trunks(tree, energy)
    shape = looks(dataset, "minimum").shape[1:]
    spins = not pictured(dataset) and str(dataset.attrs.get("space", "")).startswith("spins")
    depth = laid.depth[np.isfinite(laid.depth) & (laid.depth > 0)]
    spread = float(np.median(depth)) if len(depth) else float(np.ptp(energy)) or float(np.abs(energy).max())
    return Basins(
        energy=energy,
        trunks=laid,
        tree=tree,
        upper=np.asarray(dataset["barrier_upper_bound"].values, float),
        lower=np.asarray(dataset["barrier_lower_bound"].values, float),
        count=np.asarray(dataset["member_count"].values) if "member_count" in dataset else None,
        label=[str(name) for name in dataset["minimum_label"].values] if "minimum_label" in dataset else None,
        kind=point_kind(shape, spins),
        image=len(shape) >= 2 and min(shape[-2:]) > 1,
        decimals=words.decimals_for(spread / 4),
    )


def pictured(dataset: xr.Dataset) -> bool:
    """Whether the Dataset holds what its points look like, which is then shown in their place."""
    kinds = [name for name in ("minimum", "member", "path") if f"{name}_point" in dataset]
    return all(f"{name}_picture" in dataset for name in kinds)


def looks(dataset: xr.Dataset, name: str) -> np.ndarray:
    """Of "minimum", "member" or "path" the pictures where there are any, else the points themselves."""
    return np.asarray(dataset[f"{name}_{'picture' if pictured(dataset) else 'point'}"].values)


def point_kind(shape: tuple[int, ...], spins: bool) -> str:
    """How points of `shape` are shown: "picture", "vector", "plane" or "line"."""
    size = math.prod(shape)
    if size <= 2:
        return "plane" if size == 2 else "line"
    square = math.isqrt(size) ** 2 == size and (spins or size > _MOST_BARS)
    return "picture" if len(shape) > 1 or square else "vector"


def verdict(dataset: xr.Dataset) -> str:
    """The verdict: "exact", "bracketed", "converged" or "not converged"."""
    return str(dataset["verdict"].values)


def cardinal(count: int) -> str:
    """A count as a word up to twelve, then in figures."""
    return _COUNTS[count] if count < len(_COUNTS) else f"{count:,}"


def findings(dataset: xr.Dataset, found: Basins) -> LandscapeFindings:
    """Every sentence the page says about a landscape, from the numbers alone."""
    headline = _headline(dataset, found)
    lines = [headline + ".", *_deepest(found), *_merges(found), *_search(dataset), *_purity(dataset, found)]
    heading = verdict_heading(dataset, len(found.energy) - 1, int(found.exact.sum()))
    return LandscapeFindings(headline, lines, heading, _figure(found, headline))


def _headline(dataset: xr.Dataset, found: Basins) -> str:
    n = len(found.energy)
    noun = ("kind of image" if n == 1 else "kinds of image") if found.image else ("basin" if n == 1 else "basins")
    head = f"{'at least ' if verdict(dataset) == 'not converged' else ''}{cardinal(n)} {noun}"
    head = head[:1].upper() + head[1:]
    if n == 1:
        return head + f": every descent that was kept ends at {found.written(found.energy[0])}"
    deepest = f"the deepest {_called(found.label[0])}" if found.label else ""
    upper, lower = float(np.min(found.upper[0, 1:])), float(np.min(found.lower[0, 1:]))
    if not math.isfinite(upper):
        return f"{head}{', ' + deepest if deepest else ''}; no way out of the deepest is known"
    climb = found.interval(lower, upper, float(found.energy[1]), float(found.energy[0]))
    lies = f"the lowest pass{' found' if 'at most' in climb else ''}{'' if deepest else ' out of the deepest'} lies "
    lies += climb.removeprefix("at most ") if " to " not in climb else f"between {climb.replace(' to ', ' and ')}"
    return f"{head}, {deepest}; {lies} above it" if deepest else f"{head}; {lies} above its bottom"


def _called(label: str) -> str:
    if not label.isalnum():
        return f"called “{label}”"
    return f"{'an' if label[0].lower() in 'aeio8' or label in ('11', '18') else 'a'}\N{NO-BREAK SPACE}{label}"


def _deepest(found: Basins) -> list[str]:
    if len(found.energy) == 1:
        return []
    text = f"The deepest basin lies at {found.written(found.energy[0])}"
    twins = int(np.sum(found.energy - found.energy[0] <= _ROUNDING * max(1.0, abs(found.energy[0]))))
    if twins > 1:
        text = f"The {cardinal(twins)} deepest basins lie equally low, at {found.written(found.energy[0])}"
    elif found.count is not None and found.count.sum() > 0:
        text += f" and holds {words.share(math.log(max(found.count[0], 1) / found.count.sum()))} of the members"
    near = int(found.nearest[0])
    if near >= 0:
        level = found.level(0, near)
        level = f"between {level.replace(' to ', ' and ')}" if " to " in level else f"at {level}"
        text += f"; the way to {found.name(near)} leads over a pass {level.replace('at at most', 'at most at')}"
    return [text + "."]


def _merges(found: Basins) -> list[str]:
    n = len(found.energy) - 1
    if n == 0:
        return []
    ends = found.trunks
    exact, proven, known = int(found.exact.sum()), found.proven & ~found.exact, np.isfinite(ends.upper)
    unproven = int((known & ~found.exact & ~found.proven).sum())
    if exact == n:
        return [f"All {cardinal(n)} barriers at which basins join are exact." if n > 1 else "The barrier is exact."]
    if unproven == n:
        return ["The barriers are the lowest found: that none is lower is not proven."]
    parts = []
    if exact:
        parts.append(f"{cardinal(exact)} {_are(exact)} exact")
    if proven.any():
        width = ends.upper[proven] - ends.lower[proven]
        text = f"{cardinal(len(width))} {_are(len(width))} known to within {words.number(float(np.median(width)), 2)}"
        widest = words.number(float(width.max()), 2)
        parts.append(text + (f" (median; the widest interval is {widest})" if len(width) > 1 else ""))
    if unproven:
        parts.append(f"for {cardinal(unproven)} only an upper bound is known")
    if known.sum() != n:
        parts.append(f"for {cardinal(n - int(known.sum()))} no path is known")
    return [f"Of {cardinal(n)} barriers at which basins join, {'; '.join(parts)}."]


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _search(dataset: xr.Dataset) -> list[str]:
    parts = []
    if "basins_before_consolidation" in dataset and "basins_after_consolidation" in dataset:
        before = int(dataset["basins_before_consolidation"].values)
        after = int(dataset["basins_after_consolidation"].values)
        parts.append(f"{before:,} basins before trials between all of them, {after:,} after")
    if "leakage" in dataset and math.isfinite(float(dataset["leakage"].values)):
        share = float(dataset["leakage"].values)
        parts.append(f"{words.tidy(100 * share, 2)}% of the proposals reached more than one basin")
    return ["; ".join(parts) + "."] if parts else []


def _purity(dataset: xr.Dataset, found: Basins) -> list[str]:
    if found.label is None or "member_label" not in dataset or not dataset.sizes.get("member", 0):
        return []
    of_basin = np.array(found.label)[np.asarray(dataset["basin"].values, int)]
    same = float(np.mean(dataset["member_label"].values.astype(str) == of_basin))
    return [f"{words.tidy(100 * same, 2)}% of the members carry the label of their basin."]


def verdict_heading(dataset: xr.Dataset, n_merges: int, n_exact: int) -> str:
    """How sure the survey is, as a heading; of its `n_merges` barriers `n_exact` are exact."""
    kind = verdict(dataset)
    passed = np.asarray(dataset["check_passed"].values, int) if "check_passed" in dataset else np.empty(0, int)
    failed, tested = int((passed == 0).sum()), int((passed >= 0).sum())
    if kind == "exact":
        return "Exact: every barrier is proven"
    if kind == "bracketed":
        return f"Bracketed: {n_exact:,} of {n_merges:,} barriers exact, the others between bounds"
    if kind == "converged":
        return "Converged: " + (f"all {tested} checks that could be made hold" if tested else "no check was recorded")
    return "Not converged" + (f": {failed} of {tested} checks failed" if failed else "")


def _figure(found: Basins, headline: str) -> str:
    low = found.written(float(found.energy[0]))
    finite = found.trunks.upper[np.isfinite(found.trunks.upper)]
    text = f"Disconnectivity graph. {headline}. The lowest minimum lies at {low}"
    if len(finite):
        text += f"; the highest of the barriers joins the last two groups at {found.written(float(finite.max()))}"
    return text + "."
