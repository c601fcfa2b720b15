"""Arrays from files: NumPy's `.npz`, and the IDX files that MNIST is published in; nothing is unpickled."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

import numpy as np

from theodolite.errors import UserError


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays x..., y... of an `.npz` file, or of a folder of IDX files under MNIST's names.

    Raises `UserError` naming the file where it cannot be read, is truncated, or is of another kind.
    """
    return _read_idx_folder(path) if path.is_dir() else _read_npz(path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here: numpy leaves a file open that turns out to be no whole archive.
        with path.open("rb") as file:
            opened = np.load(file, allow_pickle=False)
            if not hasattr(opened, "files"):
                raise UserError(
                    "data",
                    "an .npz file with arrays x and y",
                    f"{path}, a single array",
                    "save with np.savez",
                )
            return {key: opened[key] for key in opened.files if key.startswith(("x", "y"))}
    except UserError:
        raise
    except (
        ValueError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        AttributeError,
        TypeError,
    ) as error:
        got = f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise UserError(
            "data",
            "a readable .npz file of plain arrays, or a folder of IDX files",
            got,
            "save it again with np.savez",
        ) from error


# LeCun's IDX format: two zero bytes, a type, the number of axes, the axes (big-endian, 32 bits), the values.
IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
IDX_NAMES = {
    "x_train": "train-images",
    "y_train": "train-labels",
    "x_test": "t10k-images",
    "y_test": "t10k-labels",
}


def _read_idx_folder(folder: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for key, beginning in IDX_NAMES.items():
        files = sorted(path for path in folder.iterdir() if path.name.startswith(beginning))
        if files:
            arrays[key] = _read_idx(files[0])
    if not arrays:
        names = f"{IDX_NAMES['x_train']}-idx3-ubyte, {IDX_NAMES['y_train']}-idx1-ubyte and so on, or .gz"
        raise UserError("data", f"IDX files {names}", f"none of them in {folder}", "check the folder")
    return arrays


def _read_idx(path: Path) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError("data", "a readable gzip file", f"{path}: {error}", "download it again") from error
    axes = content[3] if len(content) > 4 else 0
    begin = 4 + 4 * axes
    if len(content) < begin or not content.startswith(b"\0\0") or content[2] not in IDX_TYPES or axes == 0:
        raise UserError("data", "an IDX file", f"{path} with another beginning", "download it again")
    shape = tuple(np.frombuffer(content, ">i4", axes, 4).tolist())
    kind = np.dtype(IDX_TYPES[content[2]])
    if len(content) - begin != int(np.prod(shape)) * kind.itemsize:
        got = f"{len(content) - begin} bytes of values in {path}"
        raise UserError(
            "data", f"{int(np.prod(shape)) * kind.itemsize} bytes for shape {shape}", got, "download it again"
        )
    return np.frombuffer(content, kind, offset=begin).reshape(shape).astype(kind.newbyteorder("="))
