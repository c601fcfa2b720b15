"""What a lipschitz Dataset says: bounds, norms and slopes of every layer, rounded so that what is proven stays so."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from theodolite.report import words
from theodolite.report.figures import finish
from theodolite.report.themes import LIGHT, Theme

_MARGIN = {"l": 82, "r": 24, "t": 44, "b": 96}
_NORMS = {"L2": "Euclidean (L2)", "L1": "sums of absolute values (L1)", "Linf": "largest absolute values (Linf)"}
_DIGITS = 4
_LONG_NAME = 14


@dataclass(frozen=True)
class LipschitzFindings:
    """Sentences for headings and for the title block."""

    headline: str
    lines: list[str]
    verdict_heading: str


def above(value: float, digits: int = _DIGITS) -> str:
    """A proven upper bound in words, rounded up so that what is written is proven too."""
    return _rounded(value, digits, up=True)


def below(value: float, digits: int = _DIGITS) -> str:
    """A proven lower bound in words, rounded down."""
    return _rounded(value, digits, up=False)


def _rounded(value: float, digits: int, *, up: bool) -> str:
    if not math.isfinite(value) or value <= 0:
        return words.number(value)
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    share = value / step
    # A bound is moved outward by its own roundings: 1 + 1e-12 is written as 1.
    whole = round(share) if abs(share - round(share)) <= 1e-8 else math.ceil(share) if up else math.floor(share)
    return words.number(whole * step, digits)


def norm_words(dataset: xr.Dataset) -> str:
    """How changes are measured, as the end of a sentence."""
    norm = str(dataset.attrs.get("norm", "L2"))
    return _NORMS.get(norm, norm)


def findings(dataset: xr.Dataset) -> LipschitzFindings:
    """What is said at the top."""
    bound = np.asarray(dataset["lipschitz_upper_bound"].values, float)
    whole, seen = float(dataset["network_upper_bound"].values), float(dataset["network_slope"].values)
    names = [str(name) for name in dataset["layer"].values]
    unknown = [name for name, value in zip(names, bound, strict=True) if not math.isfinite(value)]
    found = f"the steepest pair found has {below(seen)}" if seen > 0 else "no pair was looked for"
    if math.isfinite(whole):
        headline = f"The outputs change by at most {above(whole)} for each unit of input; {found}"
    elif unknown:
        headline = f"Nothing bounds the whole network: {words.listing(unknown[:3])} is unknown; {found}"
    else:
        headline = f"Nothing bounds the whole network; {found}"
    lines = [f"{headline}."]
    finite = np.where(np.isfinite(bound), bound, -math.inf)
    if len(bound) and np.isfinite(finite).any():
        worst = int(finite.argmax())
        lines.append(f"The steepest layer is {names[worst]}: at most {above(float(bound[worst]))}.")
    if math.isfinite(whole) and seen > 0:
        lines.append(f"Between what was found and what is proven lies a factor of {words.number(whole / seen, 2)}.")
    if "local_upper_bound" in dataset:
        lines += _local_lines(dataset)
    erf = float(dataset["erf_upper_bound"].values) if "erf_upper_bound" in dataset else math.nan
    if not math.isnan(erf):
        lines.append(f"By equation 15 of Yousefzadeh and O'Leary 2019 the bound in Linf is {above(erf)}.")
    heading = (
        "Every layer and the whole are proven" if str(dataset["verdict"].values) == "proven" else "Not all is proven"
    )
    return LipschitzFindings(headline, lines, heading)


def _local_lines(dataset: xr.Dataset) -> list[str]:
    bound = np.asarray(dataset["local_upper_bound"].values, float)
    lines = []
    for column, radius in enumerate(np.asarray(dataset["radius"].values, float)):
        known = bound[:, column][~np.isnan(bound[:, column])]
        if len(known):
            told = above(float(np.median(known)))
            lines.append(f"Within {words.tidy(float(radius))} of an input it is at most {told} in the median.")
    return lines


def layer_rows(dataset: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of bounds, the whole network last."""
    measured = ["frame bound below", "slope found", "operator norm", "bound above", "bound / norm", "bound / slope"]
    heads = ["layer", "kind", "size", *measured, "proven by"]
    columns = numbers(dataset)
    rows = []
    for row in range(dataset.sizes["layer"]):
        low, slope, norm, high = (float(columns[name][row] or 0.0) if columns[name][row] is not None else math.nan
                                  for name in ("frame_lower_bound", "measured_slope", "operator_norm",
                                               "lipschitz_upper_bound"))  # fmt: skip
        high = float(dataset["lipschitz_upper_bound"].values[row])
        rows.append(
            [
                str(columns["layer"][row]),
                str(columns["kind"][row]),
                str(columns["shape"][row]),
                below(low),
                below(slope),
                words.number(norm, _DIGITS),
                above(high),
                words.number(high / norm, 4) if norm > 0 and math.isfinite(high) else "–",
                words.number(high / slope, 3) if slope > 0 and math.isfinite(high) else "–",
                str(columns["proof"][row]),
            ]
        )
    whole, seen = float(dataset["network_upper_bound"].values), float(dataset["network_slope"].values)
    ratio = words.number(whole / seen, 3) if seen > 0 and math.isfinite(whole) else "–"
    rows.append(["whole network", "", "", "–", below(seen), "–", above(whole), "–", ratio, "product of the layers"])
    return heads, rows


def lost(dataset: xr.Dataset) -> list[tuple[str, str]]:
    """Layers whose frame bound is 0, with the reason, reasons that agree taken together."""
    reasons: dict[str, list[str]] = {}
    for name, value, proof in zip(
        dataset["layer"].values, dataset["frame_lower_bound"].values, dataset["frame_proof"].values, strict=True
    ):
        if not float(value) > 0:
            reasons.setdefault(str(proof).removeprefix("0: "), []).append(str(name))
    return [(reason, words.listing(names)) for reason, names in reasons.items()]


def local_heading(dataset: xr.Dataset) -> str:
    """Whether anything gentler is proven near inputs than everywhere."""
    rows, whole = local_rows(dataset), float(dataset["network_upper_bound"].values)
    if not rows:
        return ""
    nearest = int(np.asarray(dataset["radius"].values, float).argmin())
    values = np.asarray(dataset["local_upper_bound"].values, float)[:, nearest]
    middle, radius = float(np.nanmedian(values)), words.tidy(float(dataset["radius"].values[nearest]))
    if middle < 0.99 * whole:
        return f"Within {radius} of an input the outputs change by at most {above(middle)} for each unit (median)"
    return f"Within {radius} of an input nothing gentler is proven than everywhere"


def local_rows(dataset: xr.Dataset) -> list[list[str]]:
    """A row a radius: median and largest proven bound over the inputs, median and largest slope found, and ratio."""
    if "local_upper_bound" not in dataset:
        return []
    rows = []
    for column, radius in enumerate(np.asarray(dataset["radius"].values, float)):
        bound, slope = (
            np.asarray(dataset[name].values, float)[:, column] for name in ("local_upper_bound", "local_slope")
        )
        known = ~np.isnan(bound)
        if not known.any():
            continue
        middle, seen = float(np.median(bound[known])), float(np.median(slope[known]))
        rows.append(
            [
                words.tidy(float(radius)),
                f"{int(known.sum()):,}",
                below(seen),
                below(float(slope[known].max())),
                above(middle),
                above(float(bound[known].max())),
                words.number(middle / seen, 3) if seen > 0 and math.isfinite(middle) else "–",
            ]
        )
    return rows


def numbers(dataset: xr.Dataset) -> dict[str, list]:
    """The numbers of every layer, a column a name, for the table and for a CSV file; None where there is none."""
    columns: dict[str, list] = {name: [str(v) for v in dataset[name].values] for name in ("layer", "kind", "shape")}
    for name in ("frame_lower_bound", "measured_slope", "operator_norm", "lipschitz_upper_bound"):
        values = (
            np.asarray(dataset[name].values, float) if name in dataset else np.full(dataset.sizes["layer"], math.nan)
        )
        columns[name] = [float(value) if math.isfinite(value) else None for value in values]
    columns["proof"] = [str(v) for v in dataset["proof"].values]
    return columns


def slope_figure(dataset: xr.Dataset, theme: Theme = LIGHT) -> go.Figure | None:
    """Of every layer and the whole network the interval between the slope found and the bound proven; log scale.

    x the layers in the order of the network; y in units of output for a unit of input.
    """
    columns = numbers(dataset)
    names = [*columns["layer"], "whole network"]
    whole, seen = float(dataset["network_upper_bound"].values), float(dataset["network_slope"].values)
    high = [*columns["lipschitz_upper_bound"], whole if math.isfinite(whole) else None]
    low = [*columns["measured_slope"], seen if math.isfinite(seen) else None]
    low = [value if value else None for value in low]
    if not any(high) and not any(low):
        return None
    place = list(range(len(names)))
    figure = go.Figure()
    bars = [k for k in place if high[k] and low[k]]
    figure.add_scatter(
        x=[value for k in bars for value in (k, k, None)],
        y=[value for k in bars for value in (low[k], high[k], None)],
        mode="lines",
        line={"color": theme.band, "width": float(np.clip(360 / len(names), 3.0, 16.0))},
        hoverinfo="skip",
    )
    for values, name, symbol, colour, size in (
        (high, "proven: at most", "line-ew-open", theme.ink, 16),
        (low, "found: at least", "circle", theme.accent, 8),
    ):
        known = [k for k in place if values[k]]
        figure.add_scatter(
            x=known,
            y=[values[k] for k in known],
            name=name,
            mode="markers",
            customdata=[names[k] for k in known],
            marker={"size": size, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
            hovertemplate=f"%{{customdata}}: {name} %{{y:.4g}}<extra></extra>",
        )
    finish(figure, theme)
    figure.update_layout(
        xaxis={
            "tickvals": place,
            "ticktext": [name if len(name) <= _LONG_NAME else f"{name[: _LONG_NAME - 1]}…" for name in names],
            "tickangle": -40,
            "range": [-0.6, len(names) - 0.4],
        },
        yaxis={"title": {"text": "output change / input change"}, "type": "log", "dtick": 1, "exponentformat": "power"},
        margin=_MARGIN,
        height=400,
        hovermode="closest",
    )
    figure.update_xaxes(automargin=False)
    figure.add_annotation(
        text=f'<span style="color:{theme.ink}">–</span> proven: no more   '
        f'<span style="color:{theme.accent}">●</span> found: between two real inputs',
        xref="paper", yref="paper", x=0, y=1, yshift=8, xanchor="left", yanchor="bottom", showarrow=False,
    )  # fmt: skip
    return figure
