"""What commands that look at a classifier share: the network that the flags name, and some inputs of its data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from theodolite.commands.arguments import ModelFlags, Subject
from theodolite.commands.job import kept_weights
from theodolite.commands.subject import DIGIT_ENERGY, Loaded, load
from theodolite.errors import UserError
from theodolite.network import Network


@dataclass(frozen=True)
class Chosen:
    """``inputs (image, *shape)`` with ``labels (image,)`` or None; ``others (m, *shape)``: inputs of the same set that
    were not drawn."""

    network: Network
    inputs: Tensor
    labels: Tensor | None
    others: Tensor
    set_name: str


def load_classifier(flags: ModelFlags, seed: int, console: Console, folder: Path | None) -> Loaded:
    """The network and its data, with an observable for the table of predictions; ``folder``: of an earlier run."""
    if flags.model is None:
        raise UserError("model", "--model", "none", "for example --model pkg.mod:factory")
    if flags.model == DIGIT_ENERGY:
        raise UserError("model", "a network with classes", DIGIT_ENERGY, "choose another")
    shared = {entry.name for entry in dataclasses.fields(ModelFlags)}
    subject = Subject(**{name: getattr(flags, name) for name in shared}, observable="energy")
    return load(subject, seed, console, kept_weights(folder))


def check_images(images: int) -> None:
    """Raise `UserError` for no inputs at all."""
    if images < 1:
        raise UserError("images", "at least 1", str(images), "leave it out for a good number")


def choose_inputs(loaded: Loaded, data_set: str | None, images: int, seed: int) -> Chosen:
    """``images`` inputs of the set named, drawn by ``seed``; None names the set "test", or the first."""
    if loaded.network is None or not loaded.sets:
        raise UserError("data", "a file of inputs", "none", "give --data FILE")
    names = list(loaded.sets)
    name = data_set or ("test" if "test" in names else names[0])
    if name not in names:
        raise UserError("data_set", f"one of {', '.join(names)}", repr(name), "choose a set of --data")
    inputs, labels = loaded.sets[name]
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    drawn = order[:images]
    return Chosen(
        loaded.network, inputs[drawn], None if labels is None else labels[drawn], inputs[order[images:]], name
    )
