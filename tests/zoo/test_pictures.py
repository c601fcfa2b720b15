"""Images to learn from: what is read, cropped, cut, split and refused, against images made for it."""

from __future__ import annotations

import gzip
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from theodolite.errors import UserError
from theodolite.zoo.datasets import bundled_digits
from theodolite.zoo.energies import small_images
from theodolite.zoo.pictures import PictureSettings, pictures_from, zoo_pictures

SMALL = PictureSettings(size=8, n_train=30, n_held_out=10)


def image_file(path, value=0, rows=20, columns=12, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (columns, rows), value).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes in subfolders: dark images of 10 and bright ones of 200."""
    for k in range(10):
        image_file(tmp_path / "images" / "dark" / f"{k}.png", 10)
        image_file(tmp_path / "images" / "bright" / f"{k}.png", 200)
    return tmp_path / "images"


def test_shipped_digits_are_those_of_the_classifiers_landscape_split_by_the_seed():
    made = zoo_pictures("digits")
    assert made.train.shape == (1600, 1, 16, 16) and made.held_out.shape == (400, 1, 16, 16)
    digits = bundled_digits((0, 1, 2, 3))
    expected = small_images(digits.x_train).flatten(1)
    found = made.train.flatten(1)
    assert torch.equal(found[found.sum(1).argsort()], expected[expected.sum(1).argsort()])
    assert made.classes == ("0", "1", "2", "3") and set(made.labels.tolist()) == {0, 1, 2, 3}
    again, other = zoo_pictures("digits"), zoo_pictures("digits", PictureSettings(seed=1))
    assert torch.equal(made.train, again.train) and not torch.equal(made.train, other.train)


def test_spots_and_stripes_are_what_they_are_called():
    made = zoo_pictures("spots-and-stripes", PictureSettings(n_train=200, n_held_out=50))
    assert made.train.shape == (200, 1, 16, 16) and made.held_out.shape == (50, 1, 16, 16)
    assert 80 <= int(made.labels.sum()) <= 120
    # Along an upright stripe little changes; a spot changes as much both ways.
    along, across = made.train.diff(dim=2).abs().mean((1, 2, 3)), made.train.diff(dim=3).abs().mean((1, 2, 3))
    upright = along / across
    assert float(upright[made.labels == 1].mean()) < 0.5 < 0.8 < float(upright[made.labels == 0].mean()) < 1.2
    assert float(made.train.min()) >= -1 and float(made.train.max()) <= 1 and float(made.train.std()) > 0.5
    only = zoo_pictures("spots-and-stripes", PictureSettings(n_train=20, n_held_out=0, classes=("stripes",)))
    assert only.classes == ("stripes",) and set(only.labels.tolist()) == {0} and len(only.held_out) == 0


def test_files_in_subfolders_are_classes_cropped_and_scaled(folder):
    made = pictures_from(folder, SMALL)
    assert made.train.shape == (16, 1, 8, 8) and made.held_out.shape == (4, 1, 8, 8)
    assert made.classes == ("bright", "dark")
    grey = torch.tensor([200 / 127.5 - 1, 10 / 127.5 - 1])
    assert torch.allclose(made.train.mean((1, 2, 3)), grey[made.labels], atol=1e-6)
    dark = pictures_from(folder, PictureSettings(size=8, classes=("dark",)))
    assert len(dark.train) == 8 and float(dark.train.max()) < -0.9 and set(dark.labels.tolist()) == {0}


def test_the_central_square_is_kept(tmp_path):
    values = np.zeros((30, 10), np.uint8)
    values[10:20] = 255
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "b.png")
    made = pictures_from(tmp_path, SMALL)
    assert torch.allclose(made.train, torch.ones(()))
    assert made.labels is None and made.classes == ()


def test_colours_are_kept_only_where_asked_for(tmp_path):
    for name in "ab":
        image_file(tmp_path / f"{name}.jpg", (255, 0, 0), mode="RGB")
    red = pictures_from(tmp_path, PictureSettings(size=8, colour=True)).train
    assert red.shape == (2, 3, 8, 8) and torch.allclose(red[0].mean((1, 2)), torch.tensor([1.0, -1, -1]), atol=0.02)
    grey = pictures_from(tmp_path, SMALL).train
    assert grey.shape == (2, 1, 8, 8) and abs(float(grey.mean()) - (2 * 0.299 - 1)) < 0.02
    np.savez(tmp_path / "colour.npz", x=np.tile(np.array([255, 0, 0], np.uint8), (5, 9, 9, 1)))
    assert torch.allclose(pictures_from(tmp_path / "colour.npz", SMALL).train, grey[:1], atol=0.02)


def test_labels_of_a_file_follow_the_names_of_the_images(tmp_path):
    for k in range(10):
        image_file(tmp_path / "images" / f"{k}.png", 25 * k)
    (tmp_path / "labels.txt").write_text("\n".join(["10"] * 5 + ["9"] * 5) + "\n")
    made = pictures_from(tmp_path / "images", SMALL, tmp_path / "labels.txt")
    assert made.classes == ("9", "10")
    assert torch.equal(made.labels == 1, made.train.mean((1, 2, 3)) < -0.1)
    (tmp_path / "labels.txt").write_text("a\n" * 9)
    with pytest.raises(UserError, match=r"labels: expected 10, one an image, got 9 in .*labels.txt"):
        pictures_from(tmp_path / "images", SMALL, tmp_path / "labels.txt")


def idx(values):
    head = bytes([0, 0, 8, values.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes())


def test_idx_files_give_train_and_test_of_the_classes(tmp_path):
    labels = np.arange(50) % 10
    for stem, part in (("train", labels), ("t10k", labels[:20])):
        images = np.tile((part * 25)[:, None, None], (1, 28, 28))
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(idx(part))
    made = pictures_from(tmp_path, PictureSettings(size=16, classes=("7", "2")))
    assert made.train.shape == (10, 1, 16, 16) and made.held_out.shape == (4, 1, 16, 16)
    assert made.classes == ("7", "2")
    ink = torch.tensor([7.0, 2.0]) * 25 / 127.5 - 1
    assert torch.allclose(made.train.mean((1, 2, 3)), ink[made.labels], atol=1e-5)
    assert set(np.round(made.held_out.mean((1, 2, 3)).numpy(), 3)) == set(np.round(ink.numpy(), 3))
    assert pictures_from(tmp_path).classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("x", "mean"),
    [
        (np.full((6, 9, 9), 255, np.uint8), 1.0),
        (np.full((6, 81), 0, np.int64), -1.0),
        (np.full((6, 1, 9, 9), 0.75), 0.5),
        (np.full((6, 1, 9, 9), -0.25), -0.25),
    ],
)
def test_grey_levels_and_fractions_are_brought_to_one_range(tmp_path, x, mean):
    np.savez(tmp_path / "images.npz", x=x)
    made = pictures_from(tmp_path / "images.npz", SMALL)
    assert made.train.shape[1:] == (1, 8, 8) and torch.allclose(made.train, torch.full((), mean))
    assert len(made.train) == 5 and len(made.held_out) == 1


def test_points_stay_as_they_are(tmp_path):
    x = np.random.default_rng(0).normal(0, 10, (40, 2))
    np.savez(tmp_path / "points.npz", x=x)
    made = pictures_from(tmp_path / "points.npz", PictureSettings(n_held_out=5))
    assert made.train.shape == (35, 2) and made.held_out.shape == (5, 2)
    both = torch.cat([made.train, made.held_out])
    assert torch.equal(
        both[both[:, 0].argsort()], torch.from_numpy(np.sort(x, 0)).float()[:, :1].new_tensor(x[x[:, 0].argsort()])
    )


def test_windows_to_learn_and_to_hold_out_lie_apart_and_scales_are_classes(tmp_path):
    values = np.zeros((64, 200), np.uint8)
    values[:, 160:] = 255
    Image.fromarray(values).save(tmp_path / "wall.png")
    made = pictures_from(tmp_path / "wall.png", PictureSettings(size=8, n_train=41, n_held_out=20, patches=(8, 16)))
    assert float(made.train.max()) == -1.0 and float(made.held_out.min()) == 1.0
    assert made.classes == ("8 pixels", "16 pixels") and sorted(torch.bincount(made.labels).tolist()) == [20, 21]
    single = pictures_from(tmp_path / "wall.png", PictureSettings(size=8, n_train=5, n_held_out=0, patches=(32,)))
    assert single.labels is None and single.held_out.shape == (0, 1, 8, 8)


def test_a_window_is_a_part_of_the_texture(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 60), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "noise.png")
    made = pictures_from(tmp_path / "noise.png", PictureSettings(size=8, n_train=6, n_held_out=3, patches=(8,)))
    parts = {values[r : r + 8, c : c + 8].tobytes() for r in range(13) for c in range(53)}
    for window in torch.cat([made.train, made.held_out]):
        assert ((window[0] + 1) * 127.5).round().numpy().astype(np.uint8).tobytes() in parts


def test_textures_of_scikit_image(monkeypatch):
    shipped = types.ModuleType("skimage.data")
    shipped.brick = lambda: np.tile(np.arange(128, dtype=np.uint8) * 2, (128, 1))
    package = types.ModuleType("skimage")
    package.data = shipped
    monkeypatch.setitem(sys.modules, "skimage", package)
    monkeypatch.setitem(sys.modules, "skimage.data", shipped)
    made = zoo_pictures("brick", PictureSettings(n_train=10, n_held_out=4))
    assert made.train.shape == (10, 1, 16, 16) and bool((made.train.diff(dim=3) > 0).all())
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(UserError, match=r"theodolite\[pictures\]"):
        zoo_pictures("brick")


def broken(path):
    path.mkdir()
    image_file(path / "whole.png")
    (path / "broken.png").write_bytes((path / "whole.png").read_bytes()[:40])


def deep(path):
    path.mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((20, 20), np.uint16)).save(path / f"{name}.png")


def notes(path):
    path.mkdir()
    (path / "notes.txt").write_text("no image")


def small(path):
    path.mkdir()
    for name in "ab":
        image_file(path / f"{name}.png", rows=6)


@pytest.mark.parametrize(
    ("make", "settings", "words"),
    [
        (lambda path: None, {}, "data: expected an existing file or folder"),
        (notes, {}, "which has none"),
        (broken, {}, r"readable image file, got .*broken\.png"),
        (deep, {}, r"8 bits a value, got mode I;16 in .*\.png"),
        (small, {}, r"size: expected at most 6.*\(.*[ab]\.png\)"),
        (small, {"size": 4, "classes": ("a",)}, "classes: expected labels"),
    ],
)
def test_folders_that_will_not_do_are_refused(tmp_path, make, settings, words):
    make(tmp_path / "images")
    with pytest.raises(UserError, match=words):
        pictures_from(tmp_path / "images", PictureSettings(**{"size": 8, **settings}))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((4, 1, 9, 9), 2.5), "values from 2.5 to 2.5"),
        (np.full((4, 1, 9, 9), 256), "values from 256 to 256"),
        (np.full((4, 1, 9, 9), np.nan), "finite"),
        (np.zeros((4, 5, 9, 9)), r"one or three channels.*\(5, 9, 9\)"),
        (np.zeros((4, 1, 5, 5)), "size: expected at most 5"),
    ],
)
def test_arrays_that_will_not_do_are_refused(tmp_path, x, words):
    np.savez(tmp_path / "images.npz", x=x)
    with pytest.raises(UserError, match=words):
        pictures_from(tmp_path / "images.npz", SMALL)


def test_a_texture_too_small_for_its_windows_is_refused(tmp_path):
    image_file(tmp_path / "wall.png", rows=40, columns=50)
    with pytest.raises(UserError, match="patch: expected at most 25"):
        pictures_from(tmp_path / "wall.png", PictureSettings(patches=(32,)))
    with pytest.raises(UserError, match="labels"):
        pictures_from(tmp_path / "wall.png", PictureSettings(patches=(8,)), tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, "size"),
        ({"n_train": 1}, "images"),
        ({"n_held_out": -1}, "held_out"),
        ({"classes": ("a", "a")}, "classes"),
        ({"classes": ()}, "classes"),
        ({"patches": ()}, "patch"),
        ({"patches": (2,)}, "patch"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UserError, match=f"^{words}"):
        PictureSettings(**settings)


def test_names_that_there_are_not_are_refused():
    with pytest.raises(UserError, match="digits, spots-and-stripes"):
        zoo_pictures("faces")
    with pytest.raises(UserError, match="digits 0..9"):
        zoo_pictures("digits", PictureSettings(classes=("spots",)))
    with pytest.raises(UserError, match="spots, stripes"):
        zoo_pictures("spots-and-stripes", PictureSettings(classes=("1",)))
