"""Points as pictures: PNGs of many tiles, small enough to travel inside the page."""

import base64
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import xarray as xr

_MOST_SAMPLES = 24
_FEWEST_SAMPLES = 4
_LARGEST_SIDE = 64
_BAR_HEIGHT = 24
_MOST_BARS = 63
_STRIP_SIDE = 48
_GROUND = 128


@dataclass(frozen=True)
class Gallery:
    """The pictures of a survey: a level's sprite holds its inputs side by side, left to right."""

    sprites: list[str | None]
    outputs: list[list[float]]
    tile_width: int
    tile_height: int
    caption: str


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 pixels, (rows, columns) grey or (rows, columns, 3) colour, as a PNG (RFC 2083)."""
    rows, columns = pixels.shape[:2]
    flat = np.ascontiguousarray(pixels, dtype=np.uint8).reshape(rows, -1)
    # Every scan line starts with its filter: 0, none.
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), flat], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines, 6)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def data_uri(pixels: np.ndarray) -> str:
    """The picture as a `data:` address, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def gallery(dataset: xr.Dataset, byte_limit: int = 4_000_000) -> Gallery | None:
    """Sprites of each level's representatives, at most about `byte_limit` bytes in all.

    Reads `representative` (level, sample, point_*) and `representative_output` (level, sample). Samples are
    dropped first (24 down to 4 a level), then pictures made coarser. None where nothing was kept.
    """
    if "representative" not in dataset or "representative_output" not in dataset:
        return None
    points = dataset["representative"]
    outputs = np.asarray(dataset["representative_output"].transpose("level", "sample").values, float)
    if not np.isfinite(outputs).any():
        return None
    axes = sorted((str(dim) for dim in points.dims if str(dim).startswith("point_")), key=lambda d: int(d[6:]))
    points = points.transpose("level", "sample", *axes)
    kept = [np.flatnonzero(np.isfinite(row))[:_MOST_SAMPLES] for row in outputs]
    low, high = value_range(str(dataset.attrs.get("space", "")), np.asarray(points.values, float)[np.isfinite(outputs)])
    shape = points.shape[2:]
    trial, caption = picture(np.zeros(shape), low, high)
    n_levels = sum(len(row) > 0 for row in kept)
    allowed = byte_limit * 3 // 4 // max(n_levels * trial.size, 1)
    n_samples = max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, allowed))
    factor = max(math.ceil(max(trial.shape[:2]) / _LARGEST_SIDE), math.ceil(math.sqrt(n_samples / max(allowed, 0.1))))
    factor = max(1, min(factor, *trial.shape[:2]))
    sprites: list[str | None] = []
    shown: list[list[float]] = []
    for level, row in enumerate(kept):
        row = row[:n_samples]
        values = np.asarray(points.isel(level=level, sample=row).values, float) if len(row) else np.empty(0)
        tiles = [coarser(picture(np.asarray(value), low, high)[0], factor) for value in values]
        sprites.append(data_uri(np.concatenate(tiles, axis=1)) if tiles else None)
        shown.append([float(outputs[level, index]) for index in row])
    small = coarser(trial, factor)
    if factor > 1:
        caption += f" Drawn {factor} times coarser than they are."
    return Gallery(sprites, shown, small.shape[1], small.shape[0], caption)


def value_range(space: str, values: np.ndarray) -> tuple[float, float]:
    """The values drawn black and white: a discrete space's lowest and highest level, else nearly all of `values`."""
    kind, _, rest = space.partition(":")
    if kind == "grid" and rest.rpartition(":")[2].isdigit():
        return 0.0, float(rest.rpartition(":")[2]) - 1.0
    if kind == "spins":
        return -1.0, 1.0
    low, high = np.nanquantile(values, [0.01, 0.998])
    return float(low), float(high)


def picture(point: np.ndarray, low: float, high: float) -> tuple[np.ndarray, str]:
    """One point as uint8 pixels, (rows, columns) or (rows, columns, 3), and a caption that says how it is drawn."""
    scaled = np.clip((np.asarray(point, float) - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    grey = np.round(255 * scaled).astype(np.uint8)
    if grey.ndim == 3 and grey.shape[0] == 1:
        grey = grey[0]
    if grey.ndim == 3 and grey.shape[0] == 3:
        return np.moveaxis(grey, 0, -1), "Drawn in their own colours."
    if grey.ndim == 2:
        return grey, "Black is the lowest value drawn, white the highest."
    if grey.ndim == 3:
        return np.concatenate(list(grey), axis=1), "Channels side by side; black lowest, white highest."
    flat = grey.reshape(-1)
    side = math.isqrt(flat.size)
    spins = {low, high} == {-1.0, 1.0}
    if side * side == flat.size and side > 1 and (spins or flat.size > _MOST_BARS):
        words = "Black is spin down, white spin up." if spins else "Black lowest, white highest."
        return flat.reshape(side, side), f"{words} Coordinates in reading order, {side} a row."
    if flat.size <= _MOST_BARS and not spins:
        heights = np.round(scaled.reshape(-1) * (_BAR_HEIGHT - 1)).astype(int) + 1
        filled = np.arange(_BAR_HEIGHT)[::-1, None] < heights[None, :]
        # Bars a few pixels wide with a gap between them keep the picture about twice as wide as high.
        wide = np.repeat(filled, max(2, 2 * _BAR_HEIGHT // flat.size), axis=1)
        wide[:, :: max(2, 2 * _BAR_HEIGHT // flat.size)] = False
        return np.where(wide, 200, 20).astype(np.uint8), "One bar a coordinate, as high as its value."
    columns = math.ceil(math.sqrt(flat.size))
    # Grey says that nothing is there, which black would not where it is a spin.
    padded = np.full(math.ceil(flat.size / columns) * columns, 128 if spins else 0, np.uint8)
    padded[: flat.size] = flat
    colours = "black is spin down, white spin up, grey no spin" if spins else "black lowest, white highest"
    return padded.reshape(-1, columns), f"Coordinates in reading order, {columns} a row; {colours}."


def strip(points: np.ndarray, low: float, high: float, columns: int, largest_side: int = _STRIP_SIDE) -> np.ndarray:
    """Points ``(n, *shape)`` as one picture, `columns` in a line, a pixel of grey between them.

    Tiles of a longer side than `largest_side` are averaged down; the last line is filled with grey.
    """
    tiles = [picture(point, low, high)[0] for point in points]
    factor = max(1, math.ceil(max(tiles[0].shape[:2]) / largest_side))
    tiles = [coarser(tile, min(factor, *tile.shape[:2])) for tile in tiles]
    height, width = tiles[0].shape[:2]
    n_lines = math.ceil(len(tiles) / columns)
    shape = (n_lines * (height + 1) - 1, columns * (width + 1) - 1, *tiles[0].shape[2:])
    page = np.full(shape, _GROUND, np.uint8)
    for place, tile in enumerate(tiles):
        line, column = divmod(place, columns)
        top, left = line * (height + 1), column * (width + 1)
        page[top : top + height, left : left + width] = tile
    return page


def coarser(pixels: np.ndarray, factor: int) -> np.ndarray:
    """The picture with `factor` by `factor` pixels averaged into one."""
    if factor == 1:
        return pixels
    rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
    cut = pixels[: rows * factor, : columns * factor].astype(float)
    blocks = cut.reshape(rows, factor, columns, factor, *pixels.shape[2:])
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)
