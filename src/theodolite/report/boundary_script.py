"""What the page's script draws a boundary from: the calls, their pictures or bars, the flips to every class."""

import math
from typing import Any

import numpy as np
import xarray as xr

from theodolite.report import images, sheets, words
from theodolite.report.boundary import Boundary, bracket, proven, softmax
from theodolite.report.changes import bars, change_sheet
from theodolite.report.themes import DARK, LIGHT, Theme

_MOST_CALLS = 400
_MOST_SUSPECTS = 24
_MOST_BARS = 10
# Pixels of all tiles of a kind; at about a byte a pixel these keep the section near 2 MB.
_TILE_PIXELS = 700_000
_OTHER_PIXELS = 800_000
_MOST_OTHER_BARS = 2_000
_LEAST_EXPLAINED = 1e-3
_MOST_OTHERS = 20
_MOST_DIRECTIONS = 20


def boundary_script(dataset: xr.Dataset, found: Boundary) -> dict[str, Any]:
    """The section's data as numbers and text that JSON can hold; images thinned to what a page carries."""
    values = np.nan_to_num(points(dataset, "input"))
    low, high = images.value_range(str(dataset.attrs.get("space", "")), values)
    # Inputs that are all alike have no range of their own to magnify changes to.
    spread = high - low if high > low else 1.0
    picture = found.kind == "picture"
    pixels = sheets.tile_pixels(values.shape[1:]) if picture else 1
    kept = carried_images(dataset, found, _TILE_PIXELS // (2 * pixels))
    flip = points(dataset, "flip_point")[kept] - values[kept]
    most = _OTHER_PIXELS // pixels if picture else _MOST_OTHER_BARS
    others, other = _others(dataset, found, kept, values, most)
    calls = [
        _call(dataset, found, image) | {"others": rows} for image, rows in zip(map(int, kept), others, strict=True)
    ]
    inputs = sheets.sheet(values[kept], low, high) if picture else None
    changes = change_sheet(flip, spread) if picture else None
    other_changes = change_sheet(np.array(other), spread) if picture and other else None
    if not picture:
        for place, call in enumerate(calls):
            before = values[kept[place]]
            call["bars"] = bars(flip[place], before, _MOST_BARS)
            for row in call["others"]:
                row["bars"] = bars(other[row["change"]], before, _MOST_BARS) if row["change"] is not None else []
    return {
        "kind": found.kind,
        "calls": calls,
        "filters": _filters(dataset, found, kept),
        "suspects": _suspects(dataset, kept),
        "inputs": inputs.plain() if inputs else None,
        "changes": changes.plain() if changes else None,
        "others": other_changes.plain() if other_changes else None,
        "directions": _direction_tiles(dataset, found),
        "spread": spread,
        "coloured": picture and values.ndim == 4 and values.shape[1] == 3,
        "colours": {"light": _colours(LIGHT), "dark": _colours(DARK)},
    }


def points(dataset: xr.Dataset, name: str) -> np.ndarray:
    """A variable of points as floats, the axes of a point last and in order."""
    array = dataset[name]
    axes = sorted((str(dim) for dim in array.dims if str(dim).startswith("point_")), key=lambda dim: int(dim[6:]))
    return np.asarray(array.transpose(..., *axes).values, float)


def carried_images(dataset: xr.Dataset, found: Boundary, most: int) -> np.ndarray:
    """Images shown one by one, nearest flip first: all while they fit, else the nearest half, the labels in doubt,
    mistakes, and others spread evenly."""
    order, limit = found.order, max(1, min(_MOST_CALLS, most))
    if len(order) <= limit:
        return order
    doubtful = dataset["suspicious_image"].values[:_MOST_SUSPECTS] if "suspicious_image" in dataset else []
    wanted = [*order[: limit // 2], *doubtful, *order[found.mistake[order]]]
    wanted += [order[k] for k in np.linspace(0, len(order) - 1, limit).astype(int)]
    chosen = set(list(dict.fromkeys(int(image) for image in wanted))[:limit])
    return np.array([image for image in order if int(image) in chosen])


def _call(dataset: xr.Dataset, found: Boundary, image: int) -> dict[str, Any]:
    """One image in words and numbers; null distances where no flip was found."""
    reached = bool(found.found[image])
    label = int(found.label[image]) if found.label is not None else -1
    facts = [
        ("distance", bracket(float(found.lower[image]), float(found.distance[image]))),
        ("proof", str(dataset["certificate"].values[image]) or "none"),
    ]
    if reached:
        residual = float(dataset["residual"].values[image])
        facts.append(("past the boundary by", f"{words.number(residual, 2)} logit"))
    outcome = str(dataset["outcome"].values[image])
    if outcome != "found":
        facts.append(("outcome", outcome))
    about = [("passes of the search", f"{int(dataset['units'].values[image]):,}")]
    if label >= 0:
        about.insert(0, ("true class", found.name(label)))
    if found.log_odds is not None:
        about.insert(0, ("softmax of the answer", softmax(float(found.log_odds[image]))))
    low, high = float(found.lower[image]), float(found.distance[image])
    return {
        "image": image,
        "answer": found.name(int(found.own[image])),
        "flip": found.flip(image) if reached else f"{found.name(int(found.own[image]))}, no flip found",
        "label": found.name(label) if label >= 0 else "",
        "mistake": bool(found.mistake[image]),
        "distance": high if reached else None,
        "lower": low if math.isfinite(low) else None,
        "found": words.number(high) if reached else "none found",
        "proven": "none exists"
        if math.isinf(low)
        else "exact"
        if bool(found.exact[image])
        else f"≥ {proven(low)}"
        if low > 0
        else "nothing proven",
        "softmax": softmax(float(found.log_odds[image])) if found.log_odds is not None else "",
        "facts": facts,
        "about": about,
    }


def _others(
    dataset: xr.Dataset, found: Boundary, kept: np.ndarray, values: np.ndarray, most: int
) -> tuple[list[list[dict[str, Any]]], list[np.ndarray]]:
    """Of each image the flips to every other class, nearest first, and where several meet; with the changes there.

    Changes are kept for the images nearest a flip, `most` in all; a row without one has the change None.
    """
    changes: list[np.ndarray] = []
    if "pair_distance" not in dataset:
        return [[] for _ in kept], changes
    distance = np.asarray(dataset["pair_distance"].values, float)
    lower = np.zeros_like(distance)
    if "pair_lower_bound" in dataset:
        lower = np.nan_to_num(np.asarray(dataset["pair_lower_bound"].values, float), posinf=np.inf)
    flips = points(dataset, "pair_flip_point") if "pair_flip_point" in dataset else None
    meeting = points(dataset, "meeting_point") if "meeting_point" in dataset else None
    found_rows = []
    for image in map(int, kept):
        rows = []
        for number in map(int, np.argsort(np.where(np.isnan(distance[image]), np.inf, distance[image]), kind="stable")):
            high = float(distance[image, number])
            # What was not found and what was not asked for look alike here: neither is listed.
            if number == found.own[image] or not math.isfinite(high):
                continue
            if len(rows) == _MOST_OTHERS:
                break
            flip = flips[image, number] if flips is not None else None
            rows.append(
                _other(found.name(number), found.name(int(found.own[image])), high, float(lower[image, number]))
                | {"change": _keep(changes, flip, values[image], most)}
            )
        if meeting is not None and math.isfinite(float(dataset["meeting_distance"].values[image])):
            names = [found.name(int(k)) for k in dataset["meeting_class"].values[image] if k >= 0]
            row = _other(f"{words.listing(names)} meet", "", float(dataset["meeting_distance"].values[image]), 0.0)
            rows.append(row | {"change": _keep(changes, meeting[image], values[image], most)})
        found_rows.append(rows)
    return found_rows, changes


def _other(name: str, own: str, high: float, low: float) -> dict[str, Any]:
    return {
        "name": name,
        "title": f"{own} → {name}" if own else name,
        "known": bracket(low, high),
        "distance": high,
        "lower": low,
        "found": words.number(high),
        "proven": f"≥ {proven(low)}" if low > 0 else "",
    }


def _keep(changes: list[np.ndarray], flip: np.ndarray | None, start: np.ndarray, most: int) -> int | None:
    if flip is None or len(changes) >= most or not np.isfinite(flip).all():
        return None
    changes.append(flip - start)
    return len(changes) - 1


def _filters(dataset: xr.Dataset, found: Boundary, kept: np.ndarray) -> list[dict[str, Any]]:
    """What the gallery can be narrowed to: a name and the places of the images it leaves."""
    n = len(found.own)
    name = (
        f"all {n:,} images, nearest flip first" if len(kept) == n else f"{len(kept):,} of {n:,} images, nearest first"
    )
    filters = [{"name": name, "calls": list(range(len(kept)))}]
    ambiguous = dataset["ambiguous"].values == 1 if "ambiguous" in dataset else np.zeros(n, bool)
    for words_of, rows in (
        ("mistakes", found.mistake),
        ("right answers", found.labelled & ~found.mistake if found.mistake.any() else np.zeros(n, bool)),
        ("ambiguous: within the uncertainty", ambiguous),
        ("exact distances", found.exact if not found.exact.all() else np.zeros(n, bool)),
        ("nothing proven", ~(found.lower > 0) & ~found.exact if (found.lower > 0).any() else np.zeros(n, bool)),
        ("no flip point found", ~found.found),
    ):
        places = np.flatnonzero(rows[kept])
        if len(places):
            filters.append({"name": f"{words_of} ({len(places):,})", "calls": places.tolist()})
    return filters


def _suspects(dataset: xr.Dataset, kept: np.ndarray) -> list[int]:
    """Places of the images whose labels are in doubt, nearest flip first."""
    if "suspicious_image" not in dataset:
        return []
    place = {int(image): k for k, image in enumerate(kept)}
    return [place[int(image)] for image in dataset["suspicious_image"].values[:_MOST_SUSPECTS] if int(image) in place]


def _direction_tiles(dataset: xr.Dataset, found: Boundary) -> dict[str, Any] | None:
    """Mean change and principal directions of each class as one sheet, or as bars; as `direction_rows` lists them."""
    rows = direction_rows(dataset, found)
    if not rows:
        return None
    mean, component = points(dataset, "direction_mean"), points(dataset, "direction_component")
    flat: list[np.ndarray] = []
    for row in rows:
        along = mean[row["class"]]
        # A direction has no sign: it is drawn as the mean change goes.
        shared = component[row["class"], : len(row["explained"])]
        flat += [along, *(one if float((one * along).sum()) >= 0 else -one for one in shared)]
    if found.kind != "picture":
        return {"bars": [bars(change, None, 6) for change in flat]}
    tiles = change_sheet(np.array(flat), 1.0)
    return tiles.plain() if tiles else None


def direction_rows(dataset: xr.Dataset, found: Boundary) -> list[dict[str, Any]]:
    """Of each class with directions: its number, name, images, what its mean change is at most, shares explained."""
    if "direction_component" not in dataset or "direction_mean" not in dataset:
        return []
    explained = np.asarray(dataset["direction_explained"].transpose("class", "component").values, float)
    mean = points(dataset, "direction_mean")
    rows = []
    counts = np.array([(found.own == number).sum() for number in range(len(explained))])
    for number in map(int, np.sort(np.argsort(-counts, kind="stable")[:_MOST_DIRECTIONS])):
        # Of a few images the last directions hold nothing but rounding.
        known = explained[number] > _LEAST_EXPLAINED
        if not np.isfinite(mean[number]).all() or not known.any() or not counts[number]:
            continue
        shares = [f"{words.tidy(100 * float(value), 2)}%" for value in explained[number][known]]
        rows.append(
            {
                "class": number,
                "name": found.name(number),
                "count": f"{int(counts[number]):,}",
                "largest": words.number(float(np.abs(mean[number]).max()), 2),
                "explained": shares,
            }
        )
    return rows


def _colours(theme: Theme) -> list[str]:
    """No change, less and more."""
    return [theme.paper, *theme.categories]
