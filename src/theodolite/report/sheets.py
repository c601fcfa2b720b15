"""Many points as one picture: a PNG of tiles in rows, from which the page's script cuts the ones it shows."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from theodolite.report import images

_COLUMNS = 32
_LARGEST_TILE = 64 * 64


@dataclass(frozen=True)
class Sheet:
    """Tiles in reading order, 32 a row, and a caption that says how a point is drawn."""

    address: str
    columns: int
    tile_width: int
    tile_height: int
    caption: str

    def plain(self) -> dict[str, Any]:
        """As the page's script reads it."""
        return {"address": self.address, "columns": self.columns, "tile": [self.tile_width, self.tile_height]}


def tile_pixels(shape: tuple[int, ...]) -> int:
    """Pixels (times colours) of the tile of one point of `shape`, as `sheet` draws it."""
    return _tile(np.zeros(shape), 0.0, 1.0)[0].size


def sheet(points: np.ndarray, low: float, high: float) -> Sheet | None:
    """Draw points ``(n, *shape)`` with `low` black and `high` white; None where there are none.

    Tiles of more than 64 by 64 pixels are averaged down.
    """
    if not len(points):
        return None
    drawn = [_tile(np.asarray(point), low, high) for point in points]
    tiles, caption = [tile for tile, _ in drawn], drawn[0][1]
    height, width = tiles[0].shape[:2]
    columns = min(_COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    page = np.zeros((rows * height, columns * width, *tiles[0].shape[2:]), np.uint8)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        page[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return Sheet(images.data_uri(page), columns, width, height, caption)


def columns_sheet(points: np.ndarray, low: float, high: float) -> Sheet | None:
    """Points ``(n, *shape)`` as columns one pixel wide, a coordinate a pixel, first coordinate on top."""
    if not len(points):
        return None
    flat = np.asarray(points, float).reshape(len(points), -1)
    scaled = np.clip((flat - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    grey = np.round(255 * scaled).astype(np.uint8)
    columns = min(2048, len(grey))
    rows = math.ceil(len(grey) / columns)
    padded = np.zeros((rows * columns, grey.shape[1]), np.uint8)
    padded[: len(grey)] = grey
    page = padded.reshape(rows, columns, -1).transpose(0, 2, 1).reshape(-1, columns)
    return Sheet(images.data_uri(page), columns, 1, grey.shape[1], "A pixel a coordinate, the first on top.")


def _tile(point: np.ndarray, low: float, high: float) -> tuple[np.ndarray, str]:
    pixels, caption = images.picture(point, low, high)
    factor = math.ceil(math.sqrt(pixels.shape[0] * pixels.shape[1] / _LARGEST_TILE))
    factor = max(1, min(factor, *pixels.shape[:2]))
    if factor > 1:
        caption += f" Drawn {factor} times coarser than they are."
    return images.coarser(pixels, factor), caption
