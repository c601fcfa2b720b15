"""Pictures read back by an independent decoder, pixel by pixel."""

import base64
import struct
import zlib

import numpy as np
import pytest
import xarray as xr

from theodolite.report import images


def decode(data: bytes) -> np.ndarray:
    """Read an 8-bit PNG whose lines have no filter, checking every checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, packed, header = 8, b"", ()
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + body)
        header = struct.unpack(">IIBBBBB", body) if kind == b"IHDR" else header
        packed += body if kind == b"IDAT" else b""
        place += 12 + length
    columns, rows, depth, colour = header[:4]
    assert depth == 8
    channels = {0: 1, 2: 3}[colour]
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(rows, 1 + columns * channels)
    assert (lines[:, 0] == 0).all()
    pixels = lines[:, 1:].reshape(rows, columns, channels)
    return pixels[..., 0] if channels == 1 else pixels


def survey(points: np.ndarray, space: str, outputs: np.ndarray | None = None) -> xr.Dataset:
    axes = tuple(f"point_{axis}" for axis in range(points.ndim - 2))
    outputs = np.zeros(points.shape[:2]) if outputs is None else outputs
    return xr.Dataset(
        {
            "representative": (("level", "sample", *axes), points),
            "representative_output": (("level", "sample"), outputs),
        },
        attrs={"space": space},
    )


def sprite(shown: images.Gallery, level: int = 0) -> np.ndarray:
    address = shown.sprites[level]
    assert address is not None and address.startswith("data:image/png;base64,")
    return decode(base64.b64decode(address.partition(",")[2]))


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (28, 28), (4, 6, 3)])
def test_png_holds_the_pixels(shape):
    pixels = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(decode(images.png(pixels)), pixels)


def test_grey_images_side_by_side():
    points = np.random.default_rng(2).integers(0, 256, (2, 5, 1, 6, 4)).astype(np.uint8)
    shown = images.gallery(survey(points, "grid:1x6x4:256"))
    assert (shown.tile_width, shown.tile_height) == (4, 6)
    assert np.array_equal(sprite(shown, 1), np.concatenate(list(points[1, :, 0]), axis=1))


def test_levels_of_a_grid_fill_the_range_of_grey():
    points = np.array([[[[0, 1], [2, 3]]]])
    assert sprite(images.gallery(survey(points, "grid:2x2:4"))).tolist() == [[0, 85], [170, 255]]


def test_colour_images_keep_their_colours():
    points = np.random.default_rng(3).integers(0, 256, (1, 2, 3, 4, 4))
    pixels = sprite(images.gallery(survey(points, "grid:3x4x4:256")))
    assert np.array_equal(pixels[:, :4], np.moveaxis(points[0, 0], 0, -1))


def test_square_spins_are_drawn_as_a_square():
    points = np.array([[[1, -1, -1, 1]]])
    assert sprite(images.gallery(survey(points, "spins:4"))).tolist() == [[255, 0], [0, 255]]


def test_short_points_are_bars_as_high_as_their_values():
    points = np.array([[[0, 3, 7]]])
    pixels = sprite(images.gallery(survey(points, "grid:3:8")))
    heights = [int(column.max()) for column in np.split((pixels == pixels.max()).sum(axis=0), 3)]
    assert heights[0] < heights[1] < heights[2] == pixels.shape[0]


def test_samples_that_are_not_there_are_left_out():
    outputs = np.array([[np.nan, 2.0, np.nan, 4.0], [np.nan] * 4])
    points = np.arange(2 * 4 * 4).reshape(2, 4, 2, 2)
    shown = images.gallery(survey(points, "grid:2x2:32", outputs))
    assert shown.outputs == [[2.0, 4.0], []]
    assert shown.sprites[1] is None
    assert images.gallery(survey(points, "grid:2x2:32", outputs * np.nan)) is None


@pytest.mark.parametrize("side", [32, 96])
def test_the_byte_limit_holds_for_incompressible_images(side):
    points = np.random.default_rng(4).integers(0, 256, (20, 24, 3, side, side)).astype(np.uint8)
    shown = images.gallery(survey(points, f"grid:3x{side}x{side}:256"), byte_limit=300_000)
    assert sum(len(address) for address in shown.sprites) < 1.1 * 300_000
    assert len(shown.outputs[0]) >= 4
