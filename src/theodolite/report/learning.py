"""What a learning Dataset says: whether long runs stay with the data, how training ended, findings in plain words."""

import math
import re
from dataclasses import dataclass

import numpy as np
import xarray as xr

from theodolite.report import words

DATA = "data"
LONG = ("long run from data", "long run from noise")
OPTIMISERS = {0: "Adam", 1: "SGD"}
_OSCILLATIONS = {
    "strong": (
        "The oscillation is strong: updates that expand are soon followed by updates that contract, "
        "so the energy still changes fast with each update"
    ),
    "weak": "The oscillation is weak: the sign of an update says nothing of those that follow it",
    "undecided": "Whether the oscillation is strong or weak is not decided: the training is too short to tell",
}


@dataclass(frozen=True)
class Value:
    """A number with the ends of its 95% interval; NaN where none was taken."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is a number at all."""
        return math.isfinite(self.value)


@dataclass(frozen=True)
class LearningFindings:
    """Sentences for headings and for the title block; empty where there is nothing to say."""

    headline: str
    lines: list[str]
    energies: str
    drift: str
    training: str
    oscillation: str
    plane: str
    lyapunov: str
    verdict_heading: str


def run_names(dataset: xr.Dataset) -> list[str]:
    """The rows of the Dataset, in its order."""
    return [str(name) for name in dataset["run"].values]


def energies(dataset: xr.Dataset, run: str) -> np.ndarray:
    """The energies of a row's points, nats; empty where there is no such row."""
    names = run_names(dataset)
    if run not in names:
        return np.empty(0)
    values = np.asarray(dataset["run_energy"].transpose("run", "chain").values[names.index(run)], float)
    return values[np.isfinite(values)]


def points(dataset: xr.Dataset, run: str) -> np.ndarray:
    """Some points ``(n, *shape)`` of a row; empty where none were kept."""
    names = run_names(dataset)
    if "run_image" not in dataset or run not in names:
        return np.empty((0, 0))
    points = np.asarray(dataset["run_image"].values[names.index(run)], float)
    return points[np.isfinite(points).reshape(len(points), -1).all(axis=1)]


def statistic(dataset: xr.Dataset, run: str, name: str) -> Value:
    """One statistic of a row against the data."""
    nothing = Value(math.nan, math.nan, math.nan)
    if "statistic" not in dataset or "statistic_name" not in dataset or run not in run_names(dataset):
        return nothing
    names = [str(known) for known in dataset["statistic_name"].values]
    if name not in names:
        return nothing
    place = {"run": run_names(dataset).index(run), "statistic": names.index(name)}

    def number(variable: str) -> float:
        return float(dataset[variable].isel(place).values) if variable in dataset else math.nan

    return Value(number("statistic"), number("statistic_low"), number("statistic_high"))


def exponent(dataset: xr.Dataset, place: int) -> Value:
    """The Lyapunov exponent at a noise scale."""
    ends = (f"lyapunov_exponent{end}" for end in ("", "_low", "_high"))
    return Value(*(float(dataset[name].values[place]) if name in dataset else math.nan for name in ends))


def deviations(dataset: xr.Dataset, run: str) -> float:
    """Mean energy of a row less that of the data, in standard deviations of the data; NaN where unknown."""
    stated = statistic(dataset, run, "energy difference")
    if stated.known:
        return stated.value
    data, other = energies(dataset, DATA), energies(dataset, run)
    if len(data) < 2 or not len(other) or not np.std(data) > 0:
        return math.nan
    return float((other.mean() - data.mean()) / np.std(data, ddof=1))


def findings(dataset: xr.Dataset) -> LearningFindings:
    """Every sentence of the title block and the headings, from the numbers alone."""
    headline = _headline(dataset)
    drift, training, oscillation = _drift(dataset), _training(dataset), _oscillation(dataset)
    plane, lyapunov = _plane(dataset), _lyapunov(dataset)
    lines = [headline, drift, _agreement(dataset), training, plane]
    lines = [f"{line}." for line in lines if line]
    if str(dataset["verdict"].values) != "convergent":
        lines.append(typeset(str(dataset["verdict_sentence"].values)))
    return LearningFindings(
        headline,
        list(dict.fromkeys(lines)),
        _energies(dataset),
        drift or "The energy along the long runs",
        training or "The training, update by update",
        oscillation,
        plane,
        lyapunov,
        _verdict_heading(dataset),
    )


def typeset(text: str) -> str:
    """Numbers and relations in words of the dataset, as print has them."""
    text = re.sub(r"(?<![\w.)-])-(?=\d)", "\N{MINUS SIGN}", text)
    return text.replace("<=", "≤").replace(">=", "≥")


def refuted(dataset: xr.Dataset) -> list[tuple[str, float]]:
    """Names and values of the checks that failed, in their order."""
    if "check_passed" not in dataset:
        return []
    failed = np.flatnonzero(np.asarray(dataset["check_passed"].values, int) == 0)
    values = np.asarray(dataset["check_value"].values, float)
    return [(str(dataset["check_name"].values[k]), float(values[k])) for k in failed]


def _headline(dataset: xr.Dataset) -> str:
    verdict = str(dataset["verdict"].values)
    if verdict == "convergent":
        return "The learned energy reproduces its data"
    if verdict == "undecided":
        return "Whether the learned energy reproduces its data is not decided"
    told = (_failure(name, value) for name, value in refuted(dataset))
    return next((text for text in told if text), "The learned energy does not reproduce its data")


def _failure(check: str, value: float) -> str:
    """A failed check as a finding; empty where its name is not known here."""
    asked, _, run = check.partition(", ")
    start = run.removeprefix("long run ")
    if asked == "learning stayed finite":
        return "Learning diverged"
    if asked == "long runs were made":
        return "The long runs overflowed"
    if not run or not math.isfinite(value):
        return ""
    if asked in ("energy", "held-out energy"):
        data = "held-out data" if asked.startswith("held") else "data"
        side = "deep" if value < 0 else "high"
        return f"Long runs drift away from the {data}: {_short(value)} standard deviations too {side}"
    if asked == "spread of energies":
        side = "wider" if value > 1 else "narrower"
        return f"Long runs {start} hold a {side} range of energies than the data: {words.number(value, 2)} times"
    if asked in ("classes", "clusters"):
        return (
            f"Long runs {start} change the {asked}: {words.tidy(100 * value, 2)}% of the points differ from the data's"
        )
    if asked.startswith("every one of the "):
        one = "class" if asked.endswith("classes") else "cluster"
        return f"Long runs {start} lose a {one}: {words.tidy(100 * value, 2)}% of its share in the data is left"
    if asked == "features":
        return (
            f"Long runs {start} do not look like the data: {words.number(value, 2)} times as far off as other data are"
        )
    if asked == "law of energies":
        return f"The energies of long runs {start} follow another law than the data's"
    return f"Long runs {start} never come to rest" if asked == "no drift" else ""


def _largest(dataset: xr.Dataset, runs: list[str], name: str) -> float:
    values = [statistic(dataset, run, name).value for run in runs]
    known = [value for value in values if math.isfinite(value)]
    return max(known) if known else math.nan


def _drift(dataset: xr.Dataset) -> str:
    parts = []
    for run in LONG:
        value = deviations(dataset, run)
        if math.isfinite(value):
            side = "above" if value > 0 else "below"
            unit = "" if parts else " standard deviations"
            data = "" if parts else " the data"
            begun = "there" if run == LONG[0] else "from noise"
            parts.append(f"{_short(value)}{unit} {side}{data} when begun {begun}")
    if not parts:
        return ""
    return f"Long runs end {words.listing(parts)}"


def _short(value: float) -> str:
    """The size of a number of standard deviations, to a hundredth."""
    return words.fixed(abs(value), 2) if abs(value) < 1 else words.number(abs(value), 2)


def _agreement(dataset: xr.Dataset) -> str:
    """The other statistics of the long runs, the worse of the two."""
    parts = []
    spread = [statistic(dataset, run, "deviation ratio").value for run in LONG]
    spread = [value for value in spread if value > 0]
    if spread:
        worst = max(spread, key=lambda value: abs(math.log(value)))
        parts.append(f"the energies of long runs spread {words.number(worst, 3)} times as wide as the data's")
    classes = _largest(dataset, list(LONG), "class variation")
    if math.isfinite(classes):
        parts.append(f"{words.tidy(100 * classes, 2)}% of them are of other {class_noun(dataset)}")
    frechet = _largest(dataset, list(LONG), "Frechet ratio")
    if math.isfinite(frechet):
        parts.append(f"they are {words.number(frechet, 3)} times as far from the data as other data are (Frechet)")
    text = words.listing(parts)
    return text[:1].upper() + text[1:]


def class_noun(dataset: xr.Dataset) -> str:
    """What classes are called: "clusters" where no labels were given."""
    names = [str(name) for name in dataset["class_name"].values] if "class_name" in dataset else []
    return "clusters" if names and all(name.startswith("cluster ") for name in names) else "classes"


def _energies(dataset: xr.Dataset) -> str:
    value = max((deviations(dataset, run) for run in LONG), key=lambda one: abs(np.nan_to_num(one)))
    if not math.isfinite(value):
        return "The energies of each row"
    apart = _largest(dataset, list(LONG), "Kolmogorov-Smirnov")
    told = f"; the largest gap between the shares is {words.tidy(100 * apart, 2)}%" if math.isfinite(apart) else ""
    side = "above" if value > 0 else "below"
    return f"Long runs lie up to {_short(value)} standard deviations {side} the data{told}"


def _training(dataset: xr.Dataset) -> str:
    if "energy_difference_mean" not in dataset:
        return ""
    mean = float(dataset["energy_difference_mean"].values)
    error = float(dataset["energy_difference_error"].values) if "energy_difference_error" in dataset else math.nan
    if not math.isfinite(mean):
        return ""
    side = "above" if mean > 0 else "below"
    known = math.isfinite(error)
    within = f" ± {words.number(1.96 * error, 2)}" if known else ""
    if known and abs(mean) <= 1.96 * error:
        return (
            f"In training data and chains kept the same energy: {words.number(mean, 2)}{within} nats between them "
            "over the second half"
        )
    return f"In training the data lay {words.number(abs(mean), 2)}{within} nats {side} the chains over the second half"


def _oscillation(dataset: xr.Dataset) -> str:
    return _OSCILLATIONS.get(str(dataset["oscillation"].values), "") if "oscillation" in dataset else ""


def _plane(dataset: xr.Dataset) -> str:
    if "divergence" not in dataset or not math.isfinite(float(dataset["divergence"].values)):
        return ""
    text = f"The learned density is {words.number(float(dataset['divergence'].values), 2)} nats (KL) from the true one"
    if "mode_mass" not in dataset or "true_mode_mass" not in dataset or not dataset.sizes["mode"]:
        return text
    learned, true = (np.asarray(dataset[name].values, float) for name in ("mode_mass", "true_mode_mass"))
    worst = int(np.nanargmax(np.abs(learned - true)))
    weighs, should = (words.fixed(100 * float(mass[worst]), 1) for mass in (learned, true))
    return f"{text}; the mode that is farthest off weighs {weighs}%, where {should}% is true"


def _lyapunov(dataset: xr.Dataset) -> str:
    if "lyapunov_exponent" not in dataset or not dataset.sizes["noise_scale"]:
        return ""
    scale = np.asarray(dataset["noise_scale"].values, float)
    low, high = (
        np.asarray(dataset[f"lyapunov_exponent{end}"].values, float)
        if f"lyapunov_exponent{end}" in dataset
        else np.full(len(scale), math.nan)
        for end in ("_low", "_high")
    )
    order = np.argsort(scale)
    chaotic = [float(scale[k]) for k in order if low[k] > 0]
    ordered = [float(scale[k]) for k in order if high[k] < 0]
    if chaotic:
        return f"Two chains under one noise drift apart from noise scale {words.tidy(min(chaotic))} on"
    if len(ordered) == len(scale):
        return "Two chains under one noise come together at every noise scale: no chaos was seen"
    return "Whether two chains under one noise come together or apart is within its error"


def _verdict_heading(dataset: xr.Dataset) -> str:
    passed = np.asarray(dataset["check_passed"].values, int) if "check_passed" in dataset else np.empty(0, int)
    failed, tested = int((passed == 0).sum()), int((passed >= 0).sum())
    verdict = str(dataset["verdict"].values)
    if verdict == "convergent":
        return f"Convergent: all {tested} checks hold" if tested and not failed else "Convergent"
    head = verdict[:1].upper() + verdict[1:]
    if verdict == "undecided":
        return head + f": {int((passed < 0).sum())} of {len(passed)} checks open"
    return head + (f": {failed} of {tested} checks failed" if failed else "")
