"""What the page's script draws a landscape from: the tree, the tiles of basins and members, the paths."""

import math
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import films, images, sheets, words
from theodolite.report.disconnectivity_figure import colour_groups, energy_range
from theodolite.report.landscape import Basins, looks, pictured
from theodolite.report.parts import plain
from theodolite.report.themes import LIGHT

_MOST_MEMBERS = 24
_MOST_BOUNDS = 120
# Pixels of all tiles of a kind; at up to a byte a pixel these keep the page well under 10 MB beside plotly's 5.
_TILE_PIXELS = 900_000
_FRAME_PIXELS = 1_600_000
# Pictures of two values take about an eighth of a byte a pixel.
_TWO_VALUED = 4


def landscape_script(dataset: xr.Dataset, found: Basins) -> dict[str, Any]:
    """The section's data as numbers and text that JSON can hold; pictures and paths thinned to what a page carries."""
    ends, n = found.trunks, len(found.energy)
    space = str(dataset.attrs.get("space", ""))
    values = looks(dataset, "minimum")
    # Pictures have a range of their own, whatever the space of the points is.
    space = "" if pictured(dataset) else space
    low, high = images.value_range(space, values.astype(float))
    shape = values.shape[1:]
    drawable = found.kind in ("picture", "vector")
    pixels = sheets.tile_pixels(shape)
    scale = _TWO_VALUED if space.startswith("spins") else 1
    n_tiles = min(n, scale * _TILE_PIXELS // pixels)
    minima = sheets.sheet(values[:n_tiles], low, high) if drawable else None
    frame_pixels = pixels if found.kind == "picture" else math.prod(shape)
    # Points of two numbers cost next to nothing: a path of them is drawn at every step kept.
    most_each = films.MOST_FRAMES if drawable else films.MOST_STEPS
    paths, frames = films.films(dataset, scale * _FRAME_PIXELS // max(frame_pixels, 1), most_each)
    strip = None
    if len(frames) and drawable:
        draw = sheets.columns_sheet if found.kind == "vector" else sheets.sheet
        strip = draw(frames, low, high)
    groups, _ = colour_groups(found, LIGHT)
    full = n <= _MOST_BOUNDS
    return {
        "kind": found.kind,
        "energy": found.energy.tolist(),
        "joins": ends.joins.tolist(),
        "upper": plain(ends.upper),
        "lower": plain(ends.lower),
        "exact": found.exact.astype(int).tolist(),
        "proven": found.proven.astype(int).tolist(),
        "order": ends.order.tolist(),
        "count": found.count.tolist() if found.count is not None else None,
        "group": groups.tolist(),
        "label": found.label,
        "range": list(energy_range(found)),
        "decimals": found.decimals,
        "bounds": [[plain(row) for row in bound] for bound in (found.lower, found.upper)] if full else None,
        "nearest": found.nearest.tolist(),
        "readouts": [_readout(dataset, found, minimum) for minimum in range(n)],
        "minima": minima.plain() | {"n": n_tiles} if minima else None,
        "members": _members(dataset, found, low, high, scale * _TILE_PIXELS, pixels),
        "paths": [
            {
                "ends": list(film.ends),
                "step": film.step.tolist(),
                "energy": [_rounded(value) for value in film.energy],
                "frame": film.frame.tolist(),
            }
            for film in paths
        ],
        "frames": strip.plain() if strip else None,
        "points": [[_rounded(value) for value in row] for row in np.asarray(frames, float).reshape(len(frames), -1)]
        if len(frames) and not drawable
        else None,
        "caption": minima.caption if minima else "",
    }


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")


def _readout(dataset: xr.Dataset, found: Basins, minimum: int) -> list[tuple[str, str]]:
    ends, near = found.trunks, int(found.nearest[minimum])
    rows = [("energy", found.written(float(found.energy[minimum])))]
    if found.kind in ("plane", "line"):
        point = np.asarray(dataset["minimum_point"].values[minimum], float).ravel()
        rows.append(("at", ", ".join(words.tidy(float(value), 4) for value in point)))
    if found.count is not None:
        rows.append(("members", f"{int(found.count[minimum]):,}"))
    if ends.joins[minimum] >= 0:
        rows.append(("depth", found.written(float(ends.depth[minimum]))))
    if near >= 0:
        rows.append(("nearest", found.name(near)))
        rows.append(("barrier to it", found.level(minimum, near)))
    elif len(found.energy) > 1:
        rows.append(("nearest", "no path known"))
    return rows


def _members(
    dataset: xr.Dataset, found: Basins, low: float, high: float, budget: int, pixels: int
) -> dict[str, Any] | None:
    """Members of each basin in rising energy: from `start[k]` of the sheet, with their energies and labels."""
    if "member_point" not in dataset or not dataset.sizes.get("member", 0):
        return None
    basin = np.asarray(dataset["basin"].values, int)
    energy = np.asarray(dataset["member_energy"].values, float)
    n = len(found.energy)
    each = int(np.clip(budget // max(n * pixels, 1), 1, _MOST_MEMBERS))
    kept: list[np.ndarray] = []
    for minimum in range(n):
        rows = np.flatnonzero(basin == minimum)
        rows = rows[np.argsort(energy[rows], kind="stable")]
        # Spread over the basin's range of energies, not the lowest ones alone.
        kept.append(rows[np.unique(np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(int))])
    chosen = np.concatenate(kept).astype(int)
    drawable = found.kind in ("picture", "vector")
    drawn = sheets.sheet(looks(dataset, "member")[chosen], low, high) if drawable else None
    labels = dataset["member_label"].values[chosen] if "member_label" in dataset else None
    return {
        "sheet": drawn.plain() if drawn else None,
        "start": np.cumsum([0, *(len(rows) for rows in kept)]).tolist(),
        "energy": [found.written(float(value)) for value in energy[chosen]],
        "label": [str(name) for name in labels] if labels is not None else None,
    }
