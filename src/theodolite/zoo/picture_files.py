"""Images out of image files: read, cropped to squares of one size, or cut into windows (the patches of a texture).

Read by Pillow, in the extra "pictures" and in that of the demo; colours are kept only where asked for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from theodolite.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_DEEP_MODES = ("I", "F")  # more than 8 bits a value, whose white differs from file to file


def image_files(folder: Path) -> list[Path]:
    """The image files in ``folder`` and below it, by name. Raises UserError where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        expected = f"a folder of image files ({', '.join(SUFFIXES)}) or of MNIST's IDX files"
        raise UserError("data", expected, f"{folder}, which has none", "check the folder")
    return found


def read_image(path: Path, colour: bool = False) -> Tensor:
    """The image ``(channels, rows, columns)`` uint8: 3 channels where ``colour``, else 1; turned upright as its camera
    says.

    Raises UserError where Pillow is missing, and for a file that is no whole image of 8 bits a value.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        remedy = 'pip install "theodolite[pictures]"'
        raise UserError("data", "Pillow, which reads image files", "no such package", remedy) from None
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(_DEEP_MODES):
                raise UserError("data", "images of 8 bits a value", f"mode {opened.mode} in {path}", "convert it")
            upright = ImageOps.exif_transpose(opened)
            values = np.array(upright.convert("RGB" if colour else "L"))
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        got = f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise UserError("data", "a readable image file", got, "mend it or take it away") from error
    return torch.from_numpy(values).reshape(*values.shape[:2], -1).permute(2, 0, 1).contiguous()


def resized(images: Tensor, size: int) -> Tensor:
    """``(n, channels, rows, columns)`` float -> the central square of each at ``size x size``, antialiased, bilinear.

    Raises UserError where a side has fewer than ``size`` pixels: more pixels than were seen would be invented.
    """
    rows, columns = images.shape[-2:]
    side = min(rows, columns)
    if side < size:
        got = f"{rows} x {columns}"
        raise UserError("size", f"at most {side}, the smaller side of an image of {got}", str(size), "give a smaller")
    top, left = (rows - side) // 2, (columns - side) // 2
    square = images[..., top : top + side, left : left + side]
    return square if side == size else _resampled(square, size)


def windows(image: Tensor, patch: int, size: int, n: int, generator: torch.Generator) -> Tensor:
    """``n`` square windows of ``patch`` pixels a side, anywhere in ``image (channels, rows, columns)``, resampled to
    ``(n, channels, size, size)`` float. Raises UserError where the image is smaller than a window."""
    rows, columns = image.shape[-2:]
    if min(rows, columns) < patch:
        got = f"{rows} x {columns} pixels"
        raise UserError("patch", f"at most {min(rows, columns)} in an image of {got}", str(patch), "give a smaller")
    top = torch.randint(0, rows - patch + 1, (n,), generator=generator).tolist()
    left = torch.randint(0, columns - patch + 1, (n,), generator=generator).tolist()
    cut = torch.stack([image[:, y : y + patch, x : x + patch] for y, x in zip(top, left, strict=True)]).float()
    return cut if patch == size else _resampled(cut, size)


def _resampled(square: Tensor, size: int) -> Tensor:
    return functional.interpolate(square, (size, size), mode="bilinear", antialias=True)
