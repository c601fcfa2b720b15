"""An energy that `Learning` saved, as commands survey it: the model, and images in its coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.generators import is_generator
from theodolite.learning.model import EnergyModel, is_energy, load_energy
from theodolite.learning.naming import name_points
from theodolite.loading import Labelled
from theodolite.zoo.pictures import PictureSettings, pictures_from

_SET = "images"


@dataclass(frozen=True)
class Learned:
    """``model``; ``sets``: name -> (points ``(n, *shape)``, labels or None); ``classes``: the labels' names; ``named``:
    points -> labels ``(n,)``, by a classifier of the images, None where they have no labels of two classes."""

    model: EnergyModel
    sets: dict[str, Labelled]
    classes: tuple[str, ...]
    named: Callable[[Tensor], Tensor] | None


def holds_energy(model: str) -> bool:
    """Whether ``model`` is the file of a learned energy.

    Raises UserError for a .safetensors file that is missing or broken, or holds a generator, which is no model.
    """
    path = Path(model)
    if path.suffix.lower() != ".safetensors":
        return False
    if not path.exists():
        raise UserError("model", "an existing file", model, "check the path")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        got = f"{model}: {str(error).splitlines()[0]}"
        raise UserError("model", "a whole .safetensors file", got, "restore it, or learn anew") from error
    if is_generator(path):
        raise UserError("model", "an energy or a network", f"{model}, a generator", "give it as --generator")
    return is_energy(path)


def load_learned(path: Path, data: Path | None, classes: tuple[str, ...] | None, seed: int) -> Learned:
    """The energy in ``path``, and up to 2,000 of the images in ``data``, drawn by ``seed``, as its coordinates.

    Images are read and resized as for learning (`zoo.pictures`); ``classes``: names of those kept, None: all. Raises
    UserError for an unreadable file, and for images that do not fit what was learned from.
    """
    model = load_energy(path)
    if data is None:
        if classes is not None:
            raise UserError("classes", "images to choose from", "no --data", "give --data, or leave --classes out")
        return Learned(model, {}, (), None)
    shape = model.frame.image_shape
    settings = PictureSettings(n_held_out=0, classes=classes, seed=seed)
    if len(shape) == 3:
        settings = PictureSettings(shape[-1], n_held_out=0, classes=classes, colour=shape[0] == 3, seed=seed)
    found = pictures_from(data, settings)
    points = _coordinates(model, found.train, str(data))
    labels, named = found.labels, None
    if labels is not None and len(labels.unique()) > 1:
        named = name_points(points, labels, model.data_noise, seed)
    return Learned(model, {_SET: (points, labels)}, found.classes, named)


def _coordinates(model: EnergyModel, images: Tensor, where: str) -> Tensor:
    shape = tuple(images.shape[1:])
    if shape != model.frame.image_shape:
        expected = f"images of shape {model.frame.image_shape}, as learned from"
        raise UserError("data", expected, f"{shape} in {where}", "give those that it was learned from, or alike")
    if not bool(torch.isfinite(images).all()):
        raise UserError("data", "finite values", f"others in {where}", "remove or repair those images")
    points = model.points(images)
    inside = model.space.contains(points)
    if not bool(inside.any()):
        got = f"none of {len(inside)} inside in {where}, whose values run from "
        got += f"{float(images.min()):g} to {float(images.max()):g}"
        raise UserError("data", f"points of {model.space.describe()}", got, "scale them as those learned from")
    low, high = model.space.bounds()
    return points.clamp(low, high) if points.is_floating_point() else points
