"""The learning section of the page: everything its template shows, as plain strings and numbers; it needs no script."""

import math
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import (
    images,
    learning_columns,
    learning_figures,
    learning_plane_figures,
    learning_training_figures,
    words,
)
from theodolite.report import learning as numbers
from theodolite.report.learning import LearningFindings, Value
from theodolite.report.parts import checks, common, figure_pair
from theodolite.report.themes import DARK, LIGHT, set_styles

_COLUMNS = 12  # pictures in a line
_LINES = 2
_NO_CHANGE = 0.005
_GRIDS = {
    "coarse": "too coarse for its tolerance",
    "not normalisable": "no box holds the density: numbers are those of the data's own",
}
_LEAST_WIDTH, _LETTER = 3.0, 2.3  # of a class's part of a bar, percent, to hold its name on a phone


def learning_section(dataset: xr.Dataset, key: str) -> dict[str, Any]:
    """The section's words, tables, figures (light and dark) and pictures; `key` makes its ids unique."""
    said = numbers.findings(dataset)
    attributes = dataset.attrs
    return common(dataset, key, "What was learned") | {
        "template": "learning.html.j2",
        "scripts": [],
        "styles": ["learning.css"],
        "findings": said,
        "script": {},
        "drawn": _figures(dataset, said),
        "energy": _stopped(str(attributes.get("energy_sentence", ""))),
        "verdict_sentence": numbers.typeset(str(dataset["verdict_sentence"].values)),
        "checks": _checks(dataset),
        "learned_from": _learned_from(dataset),
        "advice": _capital(_stopped(str(attributes.get("advice", ""))))
        if str(dataset["verdict"].values) != "convergent"
        else "",
        "rows": picture_rows(dataset),
        "caption": _caption(dataset, "run_image"),
        "classes": _legend(dataset),
        "sentences": _sentences(dataset),
        "plane": plane_rows(dataset),
        "modes": mode_rows(dataset),
        "scales": scale_rows(dataset),
        "statistic_heads": [str(name) for name in dataset["statistic_name"].values] if "statistic" in dataset else [],
        "statistics": statistic_rows(dataset),
    }


def _stopped(text: str) -> str:
    """Words with a full stop."""
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _checks(dataset: xr.Dataset) -> list[dict[str, str]]:
    """The verdict's checks; one that its interval leaves open is not one that was not tested."""
    rows = [
        row | {"limit": numbers.typeset(row["limit"]), "sentence": numbers.typeset(row["sentence"])}
        for row in checks(dataset)
    ]
    return [row | {"result": "open"} if row["result"] == "not tested" else row for row in rows]


def _learned_from(dataset: xr.Dataset) -> str:
    """What it was learned from, as far as the attributes say."""
    attributes = dataset.attrs
    parts = []
    if "n_images" in attributes:
        parts.append(f"learned from {int(attributes['n_images']):,} images")
    if int(attributes.get("n_held_out", 0)):
        parts.append(f"judged by {int(attributes['n_held_out']):,} others too")
    if float(attributes.get("data_noise", 0.0)) > 0:
        parts.append(f"noise of standard deviation {words.tidy(float(attributes['data_noise']))} added to each")
    if 0 < float(attributes.get("explained", 1.0)) < 1:
        parts.append(f"in principal components that keep {words.tidy(100 * float(attributes['explained']))}%")
    return ", ".join(parts)


def picture_kind(dataset: xr.Dataset, name: str = "run_image") -> bool:
    """Whether points are drawn as pictures: all but those of one or two coordinates are."""
    if name not in dataset:
        return False
    shape = [size for dim, size in dataset[name].sizes.items() if str(dim).startswith("image_")]
    return math.prod(shape) > 2


def picture_rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The rows of pictures: name, how they were made, the pictures, and the bar of classes; none for points."""
    if not picture_kind(dataset):
        return []
    low, high = _range(dataset)
    rows = []
    for place, run in enumerate(numbers.run_names(dataset)):
        points = numbers.points(dataset, run)[: _COLUMNS * _LINES]
        if not len(points):
            continue
        bar = class_bar(dataset, place)
        row = {
            "name": run,
            "sentence": _sentence(dataset, place),
            "bar": bar,
            "bar_words": ", ".join(f"{part['name']} {part['share']}" for part in bar),
            "energy": _energy(dataset, run),
        }
        rows.append(row | _pictures(points, low, high))
    return rows


def _pictures(points: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """The points as one picture, its size, and how wide it is of a full line (percent)."""
    pixels = images.strip(points, low, high, min(_COLUMNS, len(points)))
    return {
        "picture": images.data_uri(pixels),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "share": f"{100 * min(len(points), _COLUMNS) / _COLUMNS:.4g}",
        "count": str(len(points)),
    }


def _range(dataset: xr.Dataset) -> tuple[float, float]:
    """Black and white as the data have them, so that a row that left their range shows it."""
    points = numbers.points(dataset, numbers.DATA)
    values = points if len(points) else np.asarray(dataset["run_image"].values, float)
    return images.value_range("", values)


def _energy(dataset: xr.Dataset, run: str) -> str:
    values = numbers.energies(dataset, run)
    if not len(values):
        return ""
    spread = f" ± {words.number(float(values.std(ddof=1)), 2)}" if len(values) > 1 else ""
    return f"{words.tidy(float(values.mean()), 4)}{spread} nats"


def _sentence(dataset: xr.Dataset, place: int) -> str:
    return str(dataset["run_sentence"].values[place]) if "run_sentence" in dataset else ""


def _sentences(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """How each row was made, where no picture says it."""
    named = enumerate(numbers.run_names(dataset))
    return [(run, _sentence(dataset, place)) for place, run in named if _sentence(dataset, place)]


def class_bar(dataset: xr.Dataset, place: int) -> list[dict[str, str]]:
    """The shares of the classes in one row, as parts of a bar."""
    if "run_class_share" not in dataset or not dataset.sizes.get("class", 0):
        return []
    share = learning_figures.class_shares(dataset)[place]
    if not np.isfinite(share).any():
        return []
    names = [str(name) for name in dataset["class_name"].values]
    light, dark = (set_styles(names, theme) for theme in (LIGHT, DARK))
    return [
        {
            "name": name,
            "width": f"{100 * float(np.nan_to_num(value)):.4g}",
            "share": f"{words.tidy(100 * float(np.nan_to_num(value)))}%",
            "label": name if 100 * np.nan_to_num(value) >= _LEAST_WIDTH + _LETTER * len(name) else "",
            "light": one.colour,
            "dark": other.colour,
        }
        for name, value, one, other in zip(names, share, light, dark, strict=True)
    ]


def _legend(dataset: xr.Dataset) -> list[dict[str, str]]:
    bars = (class_bar(dataset, place) for place in range(dataset.sizes["run"]))
    return next((bar for bar in bars if bar), [])


def _caption(dataset: xr.Dataset, name: str) -> str:
    if not picture_kind(dataset, name):
        return ""
    axes = [dim for dim in dataset[name].dims if str(dim).startswith("image_")]
    return images.picture(np.zeros([dataset.sizes[axis] for axis in axes]), 0.0, 1.0)[1]


def statistic_rows(dataset: xr.Dataset) -> list[list[str]]:
    """Every statistic of every row with its interval."""
    if "statistic" not in dataset:
        return []
    names = [str(name) for name in dataset["statistic_name"].values]
    rows = [[run, *(written(numbers.statistic(dataset, run, name)) for name in names)] for run in _others(dataset)]
    return [row for row in rows if any(cell != "–" for cell in row[1:])]


def _others(dataset: xr.Dataset) -> list[str]:
    return [run for run in numbers.run_names(dataset) if run != numbers.DATA]


def written(value: Value) -> str:
    """A number with its interval in brackets; a dash where there is none."""
    if not value.known:
        return "–"
    text = words.number(value.value)
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return text
    return f"{text} ({words.number(value.low)} to {words.number(value.high)})"


def plane_rows(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """The divergences of the learned density from the true one, and ln Z, with what the grid may be off by."""
    known = (
        ("divergence", "KL from data to model"),
        ("reverse_divergence", "KL from model to data"),
        ("log_partition", "ln Z of the energy"),
    )
    rows = [
        (head, _with_error(dataset, name))
        for name, head in known
        if name in dataset and not math.isnan(float(dataset[name].values))
    ]
    told = _GRIDS.get(str(dataset["plane_outcome"].values), "") if "plane_outcome" in dataset else ""
    return [*rows, ("The grid", told)] if rows and told else rows


def _with_error(dataset: xr.Dataset, name: str) -> str:
    """A number of nats that the grid gave, and the error of the grid."""
    value = float(dataset[name].values)
    error = float(dataset[f"{name}_error"].values) if f"{name}_error" in dataset else math.nan
    told = f" ± {words.number(error, 1)}" if math.isfinite(value) and math.isfinite(error) else ""
    return f"{words.number(value, 3)}{told} nats"


def mode_rows(dataset: xr.Dataset) -> list[list[str]]:
    """Number of each mode, its true and its learned probability."""
    if "mode_mass" not in dataset:
        return []
    learned = np.asarray(dataset["mode_mass"].values, float)
    true = (
        np.asarray(dataset["true_mode_mass"].values, float)
        if "true_mode_mass" in dataset
        else np.full(len(learned), math.nan)
    )
    return [
        [str(k + 1), words.number(float(one)), words.number(float(other)), words.number(float(other - one))]
        for k, (one, other) in enumerate(zip(true, learned, strict=True))
    ]


def scale_rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Of each noise scale its exponent and the pictures of its long runs."""
    if "lyapunov_exponent" not in dataset and "noise_scale_image" not in dataset:
        return []
    drawn = picture_kind(dataset, "noise_scale_image")
    low, high = _range(dataset) if drawn and "run_image" in dataset else (0.0, 1.0)
    if drawn and "run_image" not in dataset:
        low, high = images.value_range("", np.asarray(dataset["noise_scale_image"].values, float))
    rows = []
    for place in np.argsort(np.asarray(dataset["noise_scale"].values, float), kind="stable"):
        row: dict[str, Any] = {
            "name": f"γ = {words.tidy(float(dataset['noise_scale'].values[place]))}",
            "exponent": written(numbers.exponent(dataset, int(place))),
        }
        if drawn:
            points = np.asarray(dataset["noise_scale_image"].values[place], float)
            points = points[np.isfinite(points).reshape(len(points), -1).all(axis=1)][:_COLUMNS]
            if len(points):
                row |= _pictures(points, low, high)
        rows.append(row)
    return rows


def _figures(dataset: xr.Dataset, said: LearningFindings) -> dict[str, dict[str, Any]]:
    runs = numbers.run_names(dataset)
    known = {
        "points": (
            learning_plane_figures.points_figure,
            "Points of each row, a panel a row.",
            learning_columns.point_columns,
        ),
        "energies": (learning_figures.energy_figure, f"{said.energies}.", learning_columns.energy_columns),
        "long_runs": (learning_figures.long_run_figure, f"{said.drift}.", learning_columns.long_run_columns),
        "classes": (learning_figures.class_figure, f"{class_words(dataset)}.", learning_columns.class_columns),
        "density": (
            learning_plane_figures.density_figure,
            f"{said.plane or 'The learned density'}.",
            learning_columns.density_columns,
        ),
        "traces": (learning_training_figures.trace_figure, f"{said.training}.", learning_columns.trace_columns),
        "correlations": (
            learning_training_figures.correlation_figure,
            f"{said.oscillation or 'Correlations of the training'}.",
            learning_columns.correlation_columns,
        ),
        "lyapunov": (
            learning_training_figures.lyapunov_figure,
            f"{said.lyapunov or 'Lyapunov exponents'}.",
            learning_columns.lyapunov_columns,
        ),
    }
    drawn = {
        name: figure_pair(draw, dataset, alt, columns(dataset, runs))
        for name, (draw, alt, columns) in known.items()
        if draw(dataset) is not None
    }
    for name, figure in drawn.items():
        figure["narrow"] |= _narrow(name, figure["light"]["layout"])
    return drawn


def _narrow(name: str, layout: dict[str, Any]) -> dict[str, Any]:
    """Shorter words for a phone, where panels are a finger wide."""
    axes = [axis for axis in layout if axis.startswith(("xaxis", "yaxis"))]
    if name == "traces":
        titles = {axis: layout[axis]["title"]["text"] for axis in axes if axis.startswith("y")}
        short = (("d:", "d (nats)"), ("r:", "r (nats/unit)"), ("learning", "rate"))
        return {
            f"{axis}.title.text": new for axis, title in titles.items() for old, new in short if title.startswith(old)
        }
    if name == "correlations" and "xaxis2" in layout:
        return {"xaxis2.title.text": "lag of r", "xaxis2.nticks": 3, "xaxis.nticks": 3}
    if name == "points":
        short_names = {
            f"annotations.{place}.text": note["text"].removeprefix("long run ").removesuffix(" run")
            for place, note in enumerate(layout["annotations"])
        }
        sizes = {f"annotations.{place}.font.size": 9 for place in range(len(layout["annotations"]))}
        bare = {f"{axis}.title.text": "" for axis in axes if axis.startswith("x")}
        return short_names | sizes | bare | {f"{axis}.nticks": 2 for axis in axes if axis.startswith("x")}
    return {}


def class_words(dataset: xr.Dataset) -> str:
    """How far the long runs' classes are from the data's, in words."""
    noun = numbers.class_noun(dataset)
    values = [numbers.statistic(dataset, run, "class variation").value for run in numbers.LONG]
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return f"The {noun} of each row"
    if max(known) < _NO_CHANGE:
        return f"Long runs hold the {noun} of the data"
    return f"Long runs hold the {noun} of the data but for {words.tidy(100 * max(known), 2)}% of the points"
