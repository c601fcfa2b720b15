"""What a boundary Dataset says: how near each flip lies, what is proven of it, and findings in plain words."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from theodolite.report import words

_EXACT = 1e-6
_NORMS = {
    "L2": "Euclidean (L2)",
    "L1": "sums of absolute changes (L1)",
    "Linf": "the largest change of any one coordinate (Linf)",
}
# Below this, neighbours of a square layout resemble each other no more than features in a list do.
_LIKE_NEIGHBOURS = 0.3
_SMALLEST_SQUARE = 64


@dataclass(frozen=True)
class Boundary:
    """The numbers behind the section, a row an image ``(n,)`` in the survey's own order; distances in input units.

    ``distance`` is inf where no flip was found, ``lower`` the proven bound, ``order`` the images nearest flip first.
    ``log_odds`` (nats) are those of the predicted class, None where neither outputs nor probabilities were kept;
    ``label`` is None where no true class was given, -1 where one is missing. ``kind`` is "picture" or "vector",
    ``noun`` one coordinate in words.
    """

    distance: np.ndarray
    lower: np.ndarray
    own: np.ndarray
    target: np.ndarray
    label: np.ndarray | None
    log_odds: np.ndarray | None
    names: list[str]
    kind: str
    noun: str
    n_coordinates: int
    norm: str

    @property
    def found(self) -> np.ndarray:
        """Whether a flip point was found."""
        return np.isfinite(self.distance)

    @property
    def order(self) -> np.ndarray:
        """Images in rising distance, those without a flip point last."""
        return np.argsort(self.distance, kind="stable")

    @property
    def share(self) -> np.ndarray:
        """Lower bound over distance; 1 where both are 0, NaN where no flip was found."""
        ratio = np.full(len(self.distance), np.nan)
        np.divide(self.lower, self.distance, out=ratio, where=self.found & (self.distance > 0))
        return np.where(self.distance == 0, 1.0, ratio)

    @property
    def exact(self) -> np.ndarray:
        """Whether the lower bound meets the distance, to a millionth."""
        return self.found & (self.share >= 1 - _EXACT)

    @property
    def labelled(self) -> np.ndarray:
        """Whether the answer and the true class are known."""
        return np.zeros(len(self.own), bool) if self.label is None else (self.label >= 0) & (self.own >= 0)

    @property
    def mistake(self) -> np.ndarray:
        """Whether the network's answer is known to be wrong."""
        return np.zeros(len(self.own), bool) if self.label is None else self.labelled & (self.label != self.own)

    def name(self, number: int) -> str:
        """A class by its name; a dash where there is none."""
        return self.names[number] if 0 <= number < len(self.names) else "–"

    def flip(self, image: int) -> str:
        """The change of answer: 3 → 8."""
        return f"{self.name(int(self.own[image]))} → {self.name(int(self.target[image]))}"


@dataclass(frozen=True)
class BoundaryFindings:
    """Sentences for headings and for the title block."""

    headline: str
    lines: list[str]
    proof: str
    verdict_heading: str


def boundary(dataset: xr.Dataset) -> Boundary:
    """Read a boundary Dataset (`result.SCHEMA`)."""
    points = np.asarray(dataset["input"].values, float)
    own = np.asarray(dataset["predicted_class"].values, int)
    target = np.asarray(dataset["target_class"].values, int)
    label = np.asarray(dataset["label"].values, int) if "label" in dataset else None
    known = [own, target] if label is None else [own, target, label]
    n_classes = max([int(dataset.sizes.get("class", 0)), *(int(values.max(initial=-1)) + 1 for values in known)])
    names = [str(name) for name in dataset["class_name"].values] if "class_name" in dataset else []
    distance = np.asarray(dataset["distance"].values, float)
    kind = point_kind(points)
    channels = points.shape[1] if points.ndim == 4 else 1
    return Boundary(
        distance=np.where(np.isnan(distance), np.inf, distance),
        lower=np.nan_to_num(np.asarray(dataset["distance_lower_bound"].values, float), posinf=np.inf),
        own=own,
        target=target,
        label=label if label is not None and (label >= 0).any() else None,
        log_odds=_log_odds(dataset, own),
        names=names + [str(number) for number in range(len(names), n_classes)],
        kind=kind,
        noun="feature" if kind == "vector" else "pixel" if channels == 1 else "colour value",
        n_coordinates=math.prod(points.shape[1:]),
        norm=str(dataset.attrs.get("norm", "L2")),
    )


def point_kind(points: np.ndarray) -> str:
    """How points ``(n, *shape)`` are shown: "picture" or "vector".

    A flat list is a picture where it fills a square in which coordinates one row apart vary together, as pixels do.
    """
    shape = points.shape[1:]
    if len(shape) in (2, 3) and min(shape[-2:]) > 1:
        return "picture"
    size = math.prod(shape)
    side = math.isqrt(size)
    if len(shape) != 1 or side * side != size or size < _SMALLEST_SQUARE:
        return "vector"
    points = np.nan_to_num(points)
    varied = points - points.mean(axis=0) if len(points) >= 8 else points - points.mean()
    upper, lower = varied[:, :-side].ravel(), varied[:, side:].ravel()
    spread = math.sqrt(float(upper @ upper) * float(lower @ lower))
    return "picture" if spread > 0 and float(upper @ lower) > _LIKE_NEIGHBOURS * spread else "vector"


def _log_odds(dataset: xr.Dataset, own: np.ndarray) -> np.ndarray | None:
    if "output" in dataset:
        output = np.asarray(dataset["output"].transpose("image", "class").values, float)
        if output.shape[1] == 1:
            # A single output z stands for the two classes (0, z).
            output = np.concatenate([np.zeros_like(output), output], axis=1)
        rows = np.arange(len(own))
        mine = output[rows, own]
        others = output.copy()
        others[rows, own] = -np.inf
        # Outputs that are no numbers leave the odds of their image unknown, and nothing else.
        with np.errstate(invalid="ignore"):
            return mine - np.logaddexp.reduce(others, axis=1)
    if "probability" in dataset:
        share = np.asarray(dataset["probability"].values, float)
        with np.errstate(divide="ignore"):
            return np.log(share) - np.log1p(-share)
    return None


def verdict(dataset: xr.Dataset) -> str:
    """The verdict: "exact", "bracketed", "converged" or "not converged"."""
    return str(dataset["verdict"].values)


def softmax(log_odds: float) -> str:
    """A softmax in percent while it can be told from 100, then as 1 less a power of ten."""
    share = 1 / (1 + math.exp(-min(max(log_odds, -700.0), 700.0))) if not math.isnan(log_odds) else math.nan
    if math.isinf(log_odds) and log_odds > 0:
        return "100%"
    return words.probability(log_odds) if share > 0.9995 else f"{words.fixed(100 * share, 1)}%"


def proven(value: float) -> str:
    """A proven lower bound in words, rounded down so that what is written is proven too."""
    if not math.isfinite(value) or value <= 0:
        return words.number(value)
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return words.number(math.floor(value / step * (1 + 1e-12)) * step)


def bracket(low: float, high: float) -> str:
    """A true distance proven to be at least `low` and found to be at most `high`, in words."""
    if math.isinf(low):
        return "no flip point exists (proven)"
    if not math.isfinite(high):
        return f"at least {proven(low)}" if low > 0 else "nothing known"
    if low >= high * (1 - _EXACT):
        return f"{words.number(high)} (proven)"
    return f"between {proven(low)} and {words.number(high)}" if low > 0 else f"at most {words.number(high)}"


def distance_words(found: Boundary) -> str:
    """How distances are measured, as the end of a sentence."""
    return _NORMS.get(found.norm, found.norm)


def spread_evenly(found: Boundary, distance: float) -> str:
    """What a distance would be if every coordinate changed alike; empty where the norm says that already."""
    power = {"L2": 0.5, "L1": 1.0}.get(found.norm)
    if power is None or found.n_coordinates < 2 or not math.isfinite(distance):
        return ""
    each = words.number(distance / found.n_coordinates**power, 2)
    return f"{words.number(distance)} is as much as changing every {found.noun} by {each}"


def findings(dataset: xr.Dataset, found: Boundary) -> BoundaryFindings:
    """Every sentence of the title block, from the numbers alone."""
    headline = _headline(found)
    heading, sentence = _proof(found)
    lines = [headline + ".", sentence, *_mistakes(dataset, found), *_commonest(found)]
    lines += [*_ambiguous(dataset, found), *_missing(found)]
    return BoundaryFindings(headline, [line for line in lines if line], heading, verdict_heading(dataset, found))


def _headline(found: Boundary) -> str:
    n, distance = len(found.distance), found.distance[found.found]
    if not len(distance):
        return f"No flip point was found for {'the input' if n == 1 else f'any of {n:,} inputs'}"
    nearest = words.number(float(distance.min()))
    if n == 1:
        return f"The answer flips {nearest} from the input"
    middle = float(np.median(found.distance))
    if not math.isfinite(middle):
        return f"{len(distance):,} of {n:,} answers were flipped, the closest call {nearest} from its input"
    half = words.number(middle)
    return f"Half of the {n:,} answers flip within {half} of their input, the closest call at {nearest}"


def _proof(found: Boundary) -> tuple[str, str]:
    """A heading and a sentence on how much of the distances is proven."""
    n = int(found.found.sum())
    share = found.share[found.found]
    if not n:
        return "No distance was found", ""
    some = int((found.lower[found.found] > 0).sum())
    if found.exact[found.found].all():
        return "Every distance is proven: no flip point lies nearer", "Every distance is exact: proven from both sides."
    if not some and not found.exact.any():
        return (
            "The distances are the shortest found: nothing is proven from below",
            "Nothing is proven from below: a nearer flip point may exist.",
        )
    exact, bare = int(found.exact.sum()), int((share == 0).sum())
    parts = [f"{exact:,} of {n:,} exact" if exact else ""]
    if 2 * bare >= n:
        heading = f"For {bare:,} of {n:,} inputs nothing is proven: their distances are the shortest found"
        parts.insert(
            0, f"Proven from below for {n - bare:,} of {n:,}: {_percent(share[share > 0])} of the distance found"
        )
        parts[0] += " (median of these)"
        return heading, "; ".join(part for part in parts if part) + "."
    heading = f"For half of the inputs no flip point lies nearer than {_percent(share)} of the distance found"
    loosest = _percent(share.min())
    parts = [f"Proven from below: {_percent(share)} of the distance found (median)", *parts]
    parts.insert(1, f"nothing for {bare:,}" if bare else f"{loosest} for the loosest")
    return heading, "; ".join(part for part in parts if part) + "."


def _percent(share: np.ndarray) -> str:
    """The median share in percent, rounded down."""
    return f"{words.tidy(math.floor(1000 * float(np.median(share)) + 1e-9) / 10)}%"


def _mistakes(dataset: xr.Dataset, found: Boundary) -> list[str]:
    if found.label is None:
        return []
    wrong, right = found.mistake, found.labelled & ~found.mistake
    known = int(found.labelled.sum())
    if not wrong.any() or not right.any():
        return [f"{int(wrong.sum()):,} of {known:,} answers are mistakes."]
    near, far = (words.number(float(np.median(found.distance[rows]))) for rows in (wrong, right))
    if wrong.sum() == 1:
        return [f"1 of {known:,} answers is a mistake; it lies {near} from the boundary, right answers {far} (median)."]
    return [
        f"{int(wrong.sum()):,} of {known:,} answers are mistakes; they lie {near} from the boundary (median), "
        f"right answers {far}."
    ]


def _commonest(found: Boundary) -> list[str]:
    rows = found.found & (found.target >= 0)
    if rows.sum() < 4 or len(found.names) < 3:
        return []
    pairs, counts = np.unique(np.stack([found.own[rows], found.target[rows]]), axis=1, return_counts=True)
    most = int(np.argmax(counts))
    if counts[most] < 2:
        return []
    flip = f"{found.name(int(pairs[0, most]))} → {found.name(int(pairs[1, most]))}"
    return [f"The commonest flip is {flip}: {int(counts[most]):,} of {int(rows.sum()):,}."]


def _ambiguous(dataset: xr.Dataset, found: Boundary) -> list[str]:
    return [ambiguity(dataset, found)] if "ambiguous" in dataset else []


def ambiguity(dataset: xr.Dataset, found: Boundary) -> str:
    """How many answers could be another one, given the stated uncertainty of the inputs."""
    count, n = int((np.asarray(dataset["ambiguous"].values) == 1).sum()), len(found.own)
    stated = float(dataset.attrs.get("uncertainty", math.nan))
    within = f"the stated uncertainty of {words.tidy(stated)}" if math.isfinite(stated) else "the stated uncertainty"
    safe = int((found.lower > stated).sum())
    proof = f"; {safe:,} {'is' if safe == 1 else 'are'} proven not to" if safe else ""
    if not count:
        return f"No answer is known to flip within {within}{proof}."
    return f"{count:,} of {n:,} answers {'flips' if count == 1 else 'flip'} within {within}{proof}."


def _missing(found: Boundary) -> list[str]:
    count = int((~found.found).sum())
    if not count or not found.found.any():
        return []
    return [f"For {count:,} of {len(found.own):,} inputs no flip point was found."]


def verdict_heading(dataset: xr.Dataset, found: Boundary) -> str:
    """How sure the survey is, as a heading."""
    kind = verdict(dataset)
    passed = np.asarray(dataset["check_passed"].values, int) if "check_passed" in dataset else np.empty(0, int)
    failed, tested = int((passed == 0).sum()), int((passed >= 0).sum())
    if kind == "exact":
        return "Exact: every distance is proven from both sides"
    if kind == "bracketed":
        return "Bracketed: each true distance lies between a proven bound and a flip point that was found"
    if kind == "converged" and failed:
        return f"Converged, with {failed} of {tested} checks not met"
    if kind == "converged":
        return "Converged: " + (f"all {tested} checks that could be made hold" if tested else "no check was recorded")
    return "Not converged" + (f": {failed} of {tested} checks failed" if failed else "")
