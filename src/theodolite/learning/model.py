"""A learned energy with what it was learned over: the thing that `Learning` returns, saves, and a survey maps."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.field import Field, LevelDifferences
from theodolite.learning.energy import Energy, build
from theodolite.learning.frame import Frame, build_frame
from theodolite.learning.generators import GeneratorNetwork, build_generator
from theodolite.learning.gibbs import LevelEnergy
from theodolite.network import model_hash
from theodolite.space import Space, parse_space

FORMAT = "theodolite energy 1"


@final
class EnergyModel(nn.Module):
    """``energy`` U over the coordinates of ``frame``, in nats; points lie in ``space``, of the coordinates' shape.

    ``data_noise``: the standard deviation of the Gaussian noise that was added to the coordinates of the data (in
    levels where they are grey levels), so that what was learned is the density of noisy data. ``generator``: the
    network that learned along (`cooperative.py`), which makes points of the energy, or None. Raises UserError where the
    shapes do not fit together.
    """

    def __init__(
        self,
        energy: Energy,
        frame: Frame,
        space: Space,
        data_noise: float = 0.0,
        name: str = "energy",
        generator: GeneratorNetwork | None = None,
    ) -> None:
        super().__init__()
        if not energy.shape == frame.shape == space.shape:
            got = f"{energy.shape}, {frame.shape} and {space.shape}"
            raise UserError("energy, frame, space", "one shape", got, "make the energy over the frame's coordinates")
        if generator is not None and generator.shape != energy.shape:
            expected = f"a generator of the energy's shape {energy.shape}"
            raise UserError("generator", expected, f"{generator.shape}", "make it for the points of the energy")
        self.energy, self.frame, self.space = energy, frame, space
        self.generator = generator
        self.data_noise, self.name = float(data_noise), name

    def forward(self, x: Tensor) -> Tensor:
        """U ``(batch,)`` of coordinates ``(batch, *shape)``."""
        return self.energy(x)

    def points(self, images: Tensor) -> Tensor:
        """Coordinates ``(n, *shape)`` of images ``(n, *image_shape)``."""
        with torch.no_grad():
            return self.frame.coordinates(images.to(torch.float32))

    def images(self, points: Tensor) -> Tensor:
        """Images ``(n, *image_shape)`` float32 of coordinates ``(n, *shape)``."""
        with torch.no_grad():
            return self.frame.images(points.to(torch.float32))

    def field(self) -> Field:
        """U as a field over ``space``; on real spaces in float64: descents end where the gradient is 1e-6."""
        energy = copy.deepcopy(self.energy).eval().requires_grad_(False)
        known = {"name": self.name, "model_name": self.name, "model_hash": model_hash(self.energy), "batch_size": 2048}
        if isinstance(energy, LevelEnergy):
            inner, shape = energy.inner, energy.shape
            differences = LevelDifferences(energy.grey[:, None], lambda grey: inner(grey.reshape(-1, *shape)))
            return Field(self.space, energy, module=energy, level_differences=differences, **known)
        precise = energy.double()
        return Field(self.space, lambda x: precise(x.double()), module=precise, **known)

    def save(self, path: str | Path) -> None:
        """Write structure and weights as safetensors, which `load_energy` reads."""
        described = {
            "energy": self.energy.spec(),
            "frame": self.frame.spec(),
            "space": self.space.spec(),
            "data_noise": self.data_noise,
            "name": self.name,
            "generator": None if self.generator is None else dict(self.generator.spec()),
        }
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, path, metadata={"format": FORMAT, "model": json.dumps(described)})


def is_energy(path: str | Path) -> bool:
    """Whether the file is one that `EnergyModel.save` wrote."""
    try:
        with safe_open(path, framework="pt") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def load_energy(path: str | Path) -> EnergyModel:
    """Read what `EnergyModel.save` wrote. Raises UserError naming a missing, corrupt or foreign file."""
    if not is_energy(path):
        raise UserError("energy", "a .safetensors file of a learned energy", str(path), "learn one: theodolite learn")
    with safe_open(path, framework="pt") as opened:
        described = json.loads(opened.metadata()["model"])
    generator = described.get("generator")
    model = EnergyModel(
        build(described["energy"]),
        build_frame(described["frame"]),
        parse_space(described["space"]),
        described["data_noise"],
        described["name"],
        None if generator is None else build_generator(generator),
    )
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        got = f"{path}: {str(error).splitlines()[0]}"
        raise UserError("energy", "weights that fit its structure", got, "restore the file, or learn anew") from error
    return model.eval()
