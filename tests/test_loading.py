"""Models, data and embeddings from outside: read as they were written, or refused in one line."""

from __future__ import annotations

import gzip
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from theodolite.embedding import OneHot, Scale
from theodolite.errors import UserError
from theodolite.loading import choose_classes, fit, load_data, load_model, parse_embedding
from theodolite.network import Network
from theodolite.space import Box, Grid, Latent, Spins

FACTORIES = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
    def forward(self, x):
        return self.layer(x.flatten(1))

def make(): return Small()
def needs(width): return nn.Linear(width, 1)
def pair(): return Small(), "extra"
def broken(): raise RuntimeError("no such file: weights")
ready = Small()
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with models.py in it."""
    (tmp_path / "models_here.py").write_text(FACTORIES)
    (tmp_path / "fails.py").write_text("import a_package_that_is_not_there")
    (tmp_path / "wrong.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("models_here", "fails", "wrong"):
        sys.modules.pop(name, None)


def refused(call, *parts):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


# -------- models --------


def test_a_factory_of_the_current_folder(folder):
    path = list(sys.path)
    loaded = load_model("models_here:make")
    assert isinstance(loaded.module, nn.Module) and not loaded.module.training
    assert loaded.name == "models_here:make" and len(loaded.hash) == 64
    assert sys.path == path
    for spec in ("models_here:Small", "models_here:ready", "theodolite.zoo.networks:ToyCNN"):
        assert isinstance(load_model(spec).module, nn.Module)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("nowhere:make", ["no module named nowhere", "folder"]),
        ("fails:make", ["install a_package_that_is_not_there"]),
        ("wrong:make", ["ZeroDivisionError"]),
        ("models_here:made", ["made", "make"]),
        ("models_here:number", ["function"]),
        ("models_here:needs", ["needs()", "width"]),
        ("models_here:pair", ["tuple", "module alone"]),
        ("models_here:broken", ["no such file: weights"]),
        ("models_here.py:make", ["models:make"]),
        ("models_here", ["pkg.mod:factory"]),
    ],
)
def test_what_is_no_factory_is_refused(folder, spec, parts):
    refused(lambda: load_model(spec), "model", *parts)


def test_weights_replace_the_parameters(folder):
    original = load_model("models_here:make")
    save_file(original.module.state_dict(), "w.safetensors")
    again = load_model("models_here:make", "w.safetensors")
    assert again.hash == original.hash
    assert load_model("models_here:make").hash != original.hash
    save_file(original.module.state_dict(), "named.safetensors", metadata={"factory": "models_here:make"})
    assert load_model("named.safetensors").hash == original.hash
    refused(lambda: load_model("w.safetensors"), "--weights w.safetensors")


def test_weights_that_do_not_fit_are_refused(folder):
    save_file({"layer.weight": torch.zeros(2, 5), "other": torch.zeros(1)}, "w.safetensors")
    parts = ("1 missing", "layer.bias", "1 unknown", "other", "(2, 5) for (2, 4)")
    refused(lambda: load_model("models_here:make", "w.safetensors"), *parts)
    refused(lambda: load_model("models_here:make", "gone.safetensors"), "weights", "existing file")
    whole = (folder / "w.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(lambda: load_model("models_here:make", "cut.safetensors"), "weights", "readable")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl"])
def test_pickles_are_refused_unopened(folder, suffix):
    class Trap:
        def __reduce__(self):
            return (open, ("sprung", "w"))

    (folder / f"model{suffix}").write_bytes(pickle.dumps(Trap()))
    refused(lambda: load_model(f"model{suffix}"), "pickle", "safetensors")
    refused(lambda: load_model("models_here:make", f"model{suffix}"), "weights", "pickle")
    assert not (folder / "sprung").exists()


def test_an_exported_program_becomes_a_network(folder):
    module = load_model("models_here:make").module
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (torch.zeros(3, 1, 2, 2),), dynamic_shapes=({0: batch},))
    torch.export.save(program, "small.pt2")
    network = Network(load_model("small.pt2").module, Grid((1, 2, 2), 5))
    x = torch.randint(0, 5, (7, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.outputs(x), module(x.float()))
    _, gradient = network.logit(1).value_and_gradient(x)
    torch.testing.assert_close(gradient[0].flatten().float(), module.layer.weight[1])
    (folder / "cut.pt2").write_bytes((folder / "small.pt2").read_bytes()[:100])
    refused(lambda: load_model("cut.pt2"), "model", "torch.export.save")
    refused(lambda: load_model("small.pt2", "w.safetensors"), "weights")


# -------- embeddings --------


def test_embeddings_are_read():
    assert parse_embedding("scale:1/255") == Scale(1 / 255)
    assert parse_embedding("scale:1/255:-0.5") == Scale(1 / 255, -0.5)
    assert parse_embedding("scale:2e-2") == Scale(0.02)
    assert parse_embedding("onehot") == OneHot()
    assert parse_embedding("none") is None


@pytest.mark.parametrize("text", ["", "scale", "scale:0", "scale:1/0", "scale:a", "onehot:3", "scale:1:2:3"])
def test_other_embeddings_are_refused(text):
    refused(lambda: parse_embedding(text), "embedding", "scale:1/255")


# -------- data --------


@pytest.mark.parametrize("shape", [(6, 1, 4, 5), (6, 4, 5), (6, 20), (6, 4, 5, 1)])
def test_one_channel_in_any_layout(tmp_path, shape):
    values = np.arange(120, dtype=np.uint8).reshape(6, 4, 5)
    np.savez(tmp_path / "d.npz", x=values.reshape(shape), y=np.arange(6))
    x, y = load_data(tmp_path / "d.npz", Grid((1, 4, 5), 120))["data"]
    assert x.dtype == torch.int64 and y is not None and y.tolist() == list(range(6))
    assert np.array_equal(x.numpy()[:, 0], values)


def test_three_channels_last_become_first(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3))
    np.savez(tmp_path / "d.npz", x_train=values, x_test=values[:2], y_test=np.array([[3], [1]]))
    sets = load_data(tmp_path / "d.npz", Grid((3, 4, 6), 256))
    assert sorted(sets) == ["test", "train"] and sets["train"][1] is None
    assert np.array_equal(sets["train"][0].numpy(), values.transpose(0, 3, 1, 2))
    assert sets["test"][1].tolist() == [3, 1]


def test_points_take_the_type_of_the_space():
    assert fit(torch.tensor([[0.0, 1.0]]), Grid((2,), 2)).dtype == torch.int64
    assert fit(torch.tensor([[0, 1]]), Box((2,), 0.0, 1.0)).dtype == torch.float32
    assert fit(torch.tensor([[-1.0, 1.0]]), Spins(2)).tolist() == [[-1, 1]]
    assert fit(torch.tensor([[-7.5, 1.0]]), Latent(2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "space", "parts"),
    [
        (torch.zeros(2, 3, 3), Grid((1, 4, 4), 2), ["shape (1, 4, 4)", "(3, 3)"]),
        (torch.zeros(2, 27), Grid((3, 3, 3), 2), ["shape"]),
        (torch.full((2, 4), 256), Grid((4,), 256), ["0 to 255", "256"]),
        (torch.full((2, 4), -1), Grid((4,), 256), ["-1"]),
        (torch.full((2, 4), 0.4), Grid((4,), 256), ["multiply by 255"]),
        (torch.full((2, 4), 200.0), Box((4,), 0.0, 1.0), ["divide by 255"]),
        (torch.tensor([[0, 1]]), Spins(2), ["-1 or +1", "2 * x - 1"]),
        (torch.tensor([[float("nan"), 1.0]]), Box((2,), 0.0, 1.0), ["1 that are not"]),
    ],
)
def test_points_outside_the_space_are_refused(x, space, parts):
    refused(lambda: fit(x, space, "data"), "data", *parts)


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"x": np.zeros((4, 3)), "y": np.arange(5)}, ["5 y for 4 x"]),
        ({"x_test": np.zeros((4, 3)), "y_test": np.zeros((4, 2))}, ["y_test", "(4, 2)"]),
        ({"x": np.zeros((4, 3)), "y": np.full(4, 0.5)}, ["class number"]),
        ({"x": np.zeros((4, 3)), "y": np.full(4, -1)}, ["-1"]),
        ({"x": np.zeros((0, 3))}, ["(0, 3)"]),
        ({"x": np.array([["a"]])}, ["numbers"]),
        ({"y": np.arange(5)}, ["x_train"]),
        ({"x": np.array([[None]])}, ["readable"]),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, parts):
    np.savez(tmp_path / "d.npz", **arrays)
    refused(lambda: load_data(tmp_path / "d.npz"), "data", "d.npz", *parts)


def test_files_that_are_no_npz_are_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((50, 10)))
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("x,y")
    np.save(tmp_path / "one.npy", np.zeros((4, 3)))
    for name in ("cut.npz", "text.npz", "one.npy", "gone.npz"):
        refused(lambda name=name: load_data(tmp_path / name), "data", name)


def idx(values, kind=8):
    return bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape) + values.tobytes()


def test_idx_folders_plain_and_gzipped(tmp_path):
    x = np.random.default_rng(1).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    y = np.arange(6, dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(x))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y)))
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx(x[:2]))
    (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(idx(y[:2]))
    sets = load_data(tmp_path, Grid((1, 28, 28), 256))
    assert np.array_equal(sets["train"][0].numpy()[:, 0], x) and sets["train"][1].tolist() == y.tolist()
    assert len(sets["test"][0]) == 2
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(x)[:-1])
    refused(lambda: load_data(tmp_path), "train-images", "bytes")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"PNG")
    refused(lambda: load_data(tmp_path), "IDX")
    (tmp_path / "empty").mkdir()
    refused(lambda: load_data(tmp_path / "empty"), "none of them")


def test_classes_are_chosen_and_numbered():
    x = torch.arange(6).reshape(6, 1)
    sets = choose_classes({"test": (x, torch.tensor([7, 2, 0, 7, 2, 1]))}, (2, 7))
    assert sets["test"][0].flatten().tolist() == [0, 1, 3, 4]
    assert sets["test"][1].tolist() == [1, 0, 1, 0]
    refused(lambda: choose_classes({"test": (x, torch.zeros(6, dtype=torch.int64))}, (0, 4)), "classes", "4")
    refused(lambda: choose_classes({"test": (x, None)}, (0, 4)), "classes", "add an array y")
