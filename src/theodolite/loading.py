"""What comes in from outside: models (`load_model`), images and labels (`load_data`), embeddings
(`parse_embedding`).

Everything is checked here, against the space it will be used in, and refused with a `UserError` that says
what to mend. Nothing is unpickled: opening a pickle runs whatever code it holds.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from theodolite.data_files import read_arrays
from theodolite.embedding import OneHot, Scale
from theodolite.errors import UserError
from theodolite.network import model_hash
from theodolite.space import DiscreteSpace, Latent, Space, Spins

PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
FACTORY_KEY = "factory"
Labelled = tuple[Tensor, Tensor | None]


# -------- models --------


@dataclass(frozen=True)
class LoadedModel:
    """A module in eval mode, the name it was asked for by, and the sha256 of its structure and weights."""

    module: nn.Module
    name: str
    hash: str


def load_model(spec: str, weights: str | Path | None = None) -> LoadedModel:
    """A model from `pkg.mod:factory`, an exported `.pt2` program, or a `.safetensors` file that names its
    factory.

    `pkg.mod:factory`: a function without required arguments (or a module class, or a module) in the
    current folder or in an installed package; `weights`, a `.safetensors` file, replaces its parameters
    and buffers. A `.safetensors` file alone must carry `factory: pkg.mod:factory` in its metadata. A
    `.pt2` file must have been exported with a dynamic batch size. Raises `UserError` for everything else,
    pickles included.
    """
    suffix = Path(spec).suffix.lower()
    if suffix in PICKLES and ":" not in spec:
        raise _refuse_pickle("model", spec)
    if suffix == ".pt2":
        if weights is not None:
            raise UserError(
                "weights", "no weights beside a .pt2 file, which holds its own", str(weights), "leave it out"
            )
        return _loaded(_load_exported(_existing("model", spec)), Path(spec).stem)
    if suffix == ".safetensors":
        if weights is not None:
            raise UserError(
                "model",
                "pkg.mod:factory beside weights",
                repr(spec),
                "name the function that builds the model",
            )
        return _loaded(_build(_factory_in(spec), Path(spec)), Path(spec).stem)
    return _loaded(_build(spec, weights), spec)


def _loaded(module: nn.Module, name: str) -> LoadedModel:
    return LoadedModel(module, name, model_hash(module))


def _build(spec: str, weights: str | Path | None) -> nn.Module:
    factory = _attribute(spec)
    if isinstance(factory, nn.Module):
        module: object = factory
    elif callable(factory):
        module = _call(factory, spec)
    else:
        raise UserError(
            "model",
            "a function that returns a torch module",
            f"{spec} = {factory!r:.60}",
            "name a function or a module class",
        )
    if not isinstance(module, nn.Module):
        raise UserError(
            "model",
            "a function that returns one torch.nn.Module",
            f"{type(module).__name__} from {spec}",
            "return the module alone",
        )
    if weights is not None:
        _load_weights(module, weights)
    return module.eval()


def _attribute(spec: str) -> Any:
    name, _, path = spec.partition(":")
    if not path or not name or "/" in name or name.endswith(".py"):
        raise UserError(
            "model",
            "pkg.mod:factory, a .pt2 file or a .safetensors file",
            repr(spec),
            "for a function make() in models.py of the current folder write models:make",
        )
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(missing + "."):
            remedy = f"run it from the folder that holds {name.split('.')[0]}, or install that package"
        else:
            remedy = f"install {missing}, which {name} imports"
        raise UserError("model", f"an importable module {name}", f"no module named {missing}", remedy) from error
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise UserError("model", f"a module {name} that imports", got, f"mend {name} first") from error
    finally:
        sys.path.remove(here)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            remedy = f"it has {', '.join(near[:8])}" if near else "check its spelling"
            raise UserError("model", f"a function {path} in {name}", "nothing of that name", remedy) from None
    return found


def _call(factory: Callable[[], object], spec: str) -> object:
    try:
        return factory()
    except Exception as error:
        raise UserError(
            "model",
            f"{spec}() to return a module without being given anything",
            f"{type(error).__name__}: {error}",
            "write a function without required arguments that builds the model",
        ) from error


def _load_weights(module: nn.Module, weights: str | Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _existing("weights", weights)
    if path.suffix.lower() != ".safetensors":
        raise _refuse_pickle("weights", str(path))
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError("weights", "a readable .safetensors file", f"{path}: {error}", "save it again") from error
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - own.keys())
    shapes = [k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape]
    if missing or unexpected or shapes:
        said = [f"{len(missing)} missing (such as {missing[0]})"] if missing else []
        said += [f"{len(unexpected)} unknown (such as {unexpected[0]})"] if unexpected else []
        said += [f"{k} of shape {tuple(tensors[k].shape)} for {tuple(own[k].shape)}" for k in sorted(shapes)[:1]]
        raise UserError(
            "weights",
            f"the tensors of the model in {path}",
            "; ".join(said),
            "check model and weights go together",
        )
    module.load_state_dict(tensors)


def _factory_in(spec: str) -> str:
    from safetensors import SafetensorError, safe_open

    path = _existing("model", spec)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError("model", "a readable .safetensors file", f"{path}: {error}", "save it again") from error
    if FACTORY_KEY not in metadata:
        raise UserError(
            "model",
            "a function that builds the network, since .safetensors holds weights alone",
            str(path),
            f"use --model pkg.mod:factory --weights {path}",
        )
    return metadata[FACTORY_KEY]


class ExportedModule(nn.Module):
    """A torch.export program as a module in eval mode; its mode was fixed when it was exported."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        for part in self.modules():
            part.training = False

    def train(self, mode: bool = True) -> ExportedModule:
        if mode:
            raise UserError("model", "an exported program in eval mode", "train mode", "train before exporting")
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.program(x)


def _load_exported(path: Path) -> nn.Module:
    try:
        program = torch.export.load(path)
    except Exception as error:
        got = f"{path}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'unreadable'}"
        raise UserError("model", "a program saved by torch.export.save", got, "export and save it again") from error
    return ExportedModule(program.module())


def _refuse_pickle(argument: str, path: str) -> UserError:
    return UserError(
        argument,
        "no pickle, since opening one runs any code inside it",
        path,
        "save the weights with safetensors.torch.save_file(model.state_dict(), FILE) and use "
        "--model pkg.mod:factory --weights FILE, or save the whole model with torch.export.save as .pt2",
    )


def _existing(argument: str, path: str | Path) -> Path:
    found = Path(path)
    if not found.exists():
        raise UserError(argument, "an existing file", str(path), "check the path")
    return found


# -------- embeddings --------


def parse_embedding(text: str) -> OneHot | Scale | None:
    """`onehot`, `scale:1/255`, `scale:1/255:-0.5` (factor, offset) or `none` -> what `Network` takes."""
    kind, *numbers = text.strip().lower().split(":")
    if kind == "none" and not numbers:
        return None
    if kind == "onehot" and not numbers:
        return OneHot()
    if kind == "scale" and 1 <= len(numbers) <= 2:
        try:
            factor, offset = [float(Fraction(number)) for number in [*numbers, "0"][:2]]
        except (ValueError, ZeroDivisionError):
            factor = 0.0
        if factor != 0.0:
            return Scale(factor, offset)
    raise UserError(
        "embedding",
        "onehot, scale:FACTOR, scale:FACTOR:OFFSET or none",
        repr(text),
        "for grey values / 255 write scale:1/255",
    )


# -------- data --------


def load_data(path: str | Path, space: Space | None = None) -> dict[str, Labelled]:
    """Named sets of inputs and labels from an `.npz` file or a folder of MNIST's IDX files (gzipped or not).

    `.npz`: arrays `x` and `y` make the set "data", `x_train` and `y_train` the set "train", `x_test`,
    `y_test` "test", and so on for any name; labels may be missing. Returns name -> (x, y): x `(n, ...)`,
    int64 or float32; y `(n,)` int64 or None. With a `space` the points are brought to its shape and type
    by `fit`, which refuses what does not belong. Raises `UserError` naming the file and what is wrong with
    it.
    """
    source = _existing("data", path)
    arrays = read_arrays(source)
    sets: dict[str, Labelled] = {}
    for key, x in arrays.items():
        if key != "x" and not key.startswith("x_"):
            continue
        name = key.removeprefix("x").removeprefix("_") or "data"
        sets[name] = _labelled(x, arrays.get("y" + key[1:]), key, source)
    if not sets:
        found = ", ".join(arrays) or "nothing"
        raise UserError(
            "data", f"arrays x, y or x_train, y_train, x_test, y_test in {source}", found, "rename the arrays"
        )
    if space is None:
        return sets
    return {name: (fit(x, space, f"data {name!r} in {source}"), y) for name, (x, y) in sets.items()}


def choose_classes(sets: dict[str, Labelled], classes: tuple[int, ...]) -> dict[str, Labelled]:
    """Only the inputs whose label is in `classes`, labelled by their position in it, 0..len(classes)-1."""
    chosen: dict[str, Labelled] = {}
    for name, (x, y) in sets.items():
        if y is None:
            raise UserError("classes", f"labels in the data set {name!r}", "none", "add an array y to the file")
        for label in classes:
            if not bool((y == label).any()):
                present = ", ".join(map(str, y.unique().tolist()[:12]))
                raise UserError(
                    "classes",
                    f"labels found in the data set {name!r} ({present})",
                    str(label),
                    "choose others",
                )
        keep = torch.isin(y, torch.tensor(classes))
        position = torch.zeros(int(y.max()) + 1, dtype=torch.int64)
        position[list(classes)] = torch.arange(len(classes))
        chosen[name] = (x[keep], position[y[keep]])
    return chosen


def fit(x: Tensor, space: Space, argument: str = "data") -> Tensor:
    """Points `x` as the space holds them, `(n, *space.shape)` of `space.dtype`.

    Besides its own shape it takes (n, rows, columns) and (n, rows * columns) for one channel, and (n,
    rows, columns, channels) for channels first. Raises `UserError` where the shape, the type or the range
    of the values is not the space's.
    """
    shaped = _to_shape(x, space, argument)
    low, high = float(shaped.min()), float(shaped.max())
    if shaped.is_floating_point() and not bool(torch.isfinite(shaped).all()):
        count = int((~torch.isfinite(shaped)).sum())
        raise UserError(argument, "finite numbers", f"{count} that are not", "remove or repair those inputs")
    got = f"values from {low:g} to {high:g}"
    if isinstance(space, DiscreteSpace):
        expected = "spins of -1 or +1" if isinstance(space, Spins) else f"whole numbers from 0 to {space.levels - 1}"
        if shaped.is_floating_point() and bool((shaped != shaped.round()).any()):
            remedy = (
                f"multiply by {space.levels - 1} and round" if low >= 0 and high <= 1 else "give the levels themselves"
            )
            raise UserError(argument, expected, f"fractions, {got}", remedy)
        shaped = shaped.to(space.dtype)
        if not bool(space.contains(shaped).all()):
            remedy = "write 2 * x - 1" if isinstance(space, Spins) and low == 0 else "correct the values or the space"
            raise UserError(argument, expected, got, remedy)
        return shaped
    shaped = shaped.to(space.dtype)
    if not isinstance(space, Latent) and not bool(space.contains(shaped).all()):
        remedy = "divide by 255" if high > 1 and high <= 255 else "correct the values or the space"
        raise UserError(argument, f"values inside {space.spec()}", got, remedy)
    return shaped


def _to_shape(x: Tensor, space: Space, argument: str) -> Tensor:
    shape, own = tuple(space.shape), tuple(x.shape[1:])
    if own == shape:
        return x
    if len(shape) == 3 and own == (*shape[1:], shape[0]):
        return x.permute(0, 3, 1, 2).contiguous()
    one_channel = len(shape) == 1 or shape[0] == 1
    if one_channel and (own == shape[1:] or own == (space.n_coordinates,)):
        return x.reshape(len(x), *shape)
    raise UserError(
        argument,
        f"inputs of shape {shape}",
        f"{own}",
        "give a space of the data's shape, or reshape the data",
    )


def _labelled(x: np.ndarray, y: np.ndarray | None, key: str, source: Path) -> Labelled:
    if x.ndim < 2 or len(x) == 0:
        raise UserError("data", f"{key} of shape (n, ...) in {source}", f"shape {x.shape}", "put the inputs on axis 0")
    if x.dtype.kind not in "buif":
        raise UserError("data", f"numbers in {key} of {source}", str(x.dtype), "save plain numbers")
    points = torch.from_numpy(x.astype(np.float32 if x.dtype.kind == "f" else np.int64))
    if y is None:
        return points, None
    label_key = "y" + key[1:]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "buif" or (y.dtype.kind == "f" and bool((y != np.round(y)).any())):
        got = f"{y.dtype} of shape {y.shape}"
        raise UserError(
            "data", f"one class number an input in {label_key} of {source}", got, "give labels 0, 1, 2, ..."
        )
    if len(y) != len(x):
        raise UserError(
            "data",
            f"as many labels as inputs in {source}",
            f"{len(y)} {label_key} for {len(x)} {key}",
            "match them",
        )
    if len(y) and y.min() < 0:
        raise UserError(
            "data",
            f"labels 0, 1, 2, ... in {label_key} of {source}",
            str(y.min()),
            "number the classes from 0",
        )
    return points, torch.from_numpy(y.astype(np.int64))
