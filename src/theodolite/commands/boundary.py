"""`theodolite boundary`: which inputs of the data are looked at, from which others searches start, and what they are
put to.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray
from torch import Tensor

from theodolite.commands.arguments import BoundaryCommand, Subject
from theodolite.commands.rate import measure_rate
from theodolite.commands.subject import DIGIT_ENERGY, Loaded
from theodolite.errors import UserError
from theodolite.instruments.boundary import Boundary
from theodolite.instruments.boundary_task import prepare
from theodolite.network import Network
from theodolite.run import duration
from theodolite.search.constraints import parse_constraints

_MOST_REFERENCES = 10_000  # points that searches may start from


@dataclass(frozen=True)
class Chosen:
    """``inputs (image, *shape)`` with ``labels (image,)`` or None; ``reference (m, *shape)`` or None: other points."""

    network: Network
    inputs: Tensor
    labels: Tensor | None
    reference: Tensor | None


def subject_of(settings: BoundaryCommand) -> Subject:
    """The network and its data, with an observable for the table of predictions."""
    if settings.model is None:
        raise UserError("model", "--model", "none", "for example --model pkg.mod:factory")
    if settings.model == DIGIT_ENERGY:
        raise UserError("model", "a network with classes", DIGIT_ENERGY, "choose another")
    shared = {entry.name for entry in dataclasses.fields(Subject)} & {e.name for e in dataclasses.fields(settings)}
    return Subject(**{name: getattr(settings, name) for name in shared}, observable="energy")


def instrument_of(settings: BoundaryCommand) -> Boundary:
    """The instrument that the flags describe; raises `UserError` where there is no such thing."""
    if settings.images < 1:
        raise UserError("images", "at least 1", str(settings.images), "leave it out for 100")
    shared = {entry.name for entry in dataclasses.fields(Boundary)} - {"constraints"}
    constraints = None if settings.constraints is None else parse_constraints(settings.constraints)
    return Boundary(**{name: getattr(settings, name) for name in shared}, constraints=constraints)


def check(settings: BoundaryCommand, loaded: Loaded) -> None:
    """Raise `UserError` for flags that do not fit the network or the data."""
    chosen = choose(settings, loaded)
    prepare(instrument_of(settings), chosen.network, chosen.inputs, chosen.labels, None)


def measure(settings: BoundaryCommand, loaded: Loaded, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
    """Survey the chosen inputs into ``folder``."""
    chosen = choose(settings, loaded)
    return instrument_of(settings).measure(
        chosen.network,
        chosen.inputs,
        chosen.labels,
        reference=chosen.reference,
        directory=folder,
        resume=resume,
        command=line,
    )


def plan(settings: BoundaryCommand, loaded: Loaded) -> str:
    """What would be done and how long the search takes here."""
    chosen = choose(settings, loaded)
    instrument = instrument_of(settings)
    rate = measure_rate(loaded.field, settings.seed)
    # A row with its gradient is a forward and a backward pass.
    passes = 2 * (rate.gradient or rate.value)
    seconds = instrument.search_passes(chosen.network, chosen.inputs) / passes
    reference = 0 if chosen.reference is None else len(chosen.reference)
    return "\n".join(
        [
            instrument.plan(chosen.network, chosen.inputs),
            f"Reference points: {reference:,}",
            f"Search at the speed measured here: about {duration(max(1.0, seconds))}, certificates apart",
        ]
    )


def choose(settings: BoundaryCommand, loaded: Loaded) -> Chosen:
    """The inputs that the flags name, drawn by the seed, and the training data, or what was not drawn, as reference."""
    if loaded.network is None or not loaded.sets:
        raise UserError("data", "a file of inputs", "none", "give --data FILE")
    names = list(loaded.sets)
    name = settings.data_set or ("test" if "test" in names else names[0])
    if name not in names:
        raise UserError("data_set", f"one of {', '.join(names)}", repr(name), "choose a set of --data")
    inputs, labels = loaded.sets[name]
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(settings.seed))
    drawn, others = order[: settings.images], order[settings.images :]
    reference = loaded.sets["train"][0] if "train" in names and name != "train" else inputs[others]
    if len(reference) > _MOST_REFERENCES:
        some = torch.randperm(len(reference), generator=torch.Generator().manual_seed(settings.seed))
        reference = reference[some[:_MOST_REFERENCES]]
    return Chosen(
        loaded.network,
        inputs[drawn],
        None if labels is None else labels[drawn],
        reference if len(reference) else None,
    )
