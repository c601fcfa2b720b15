"""`theodolite stability`: which networks are attacked, on which inputs of the data, and what they are put to."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
import xarray
from rich.console import Console
from torch import Tensor

from theodolite.commands.arguments import StabilityCommand
from theodolite.commands.classifier import Chosen, check_images, choose_inputs
from theodolite.commands.job import Job
from theodolite.commands.networks import (
    Named,
    check_networks,
    hash_of,
    load_networks,
    networks_of,
    save_networks,
    show_networks,
)
from theodolite.errors import UserError
from theodolite.instruments import stability_task
from theodolite.instruments.stability import Stability
from theodolite.network import Network
from theodolite.run import duration

_TIMED_ROWS = 32


def check(settings: StabilityCommand) -> None:
    """Raise `UserError` for flags that no stability can be surveyed with."""
    check_networks(settings)
    check_images(settings.images)
    _instrument_of(settings)


def prepare(settings: StabilityCommand, console: Console, folder: Path | None) -> StabilityJob:
    """The networks and the inputs that the flags name; raises `UserError` for flags that do not fit these."""
    named = load_networks(settings, settings.seed, console, folder)
    first = next((one.loaded for one in named if one.loaded.sets), named[0].loaded)
    chosen = choose_inputs(first, settings.data_set, settings.images, settings.seed)
    if chosen.labels is None:
        raise UserError("data", "inputs with labels", f"none in {chosen.set_name!r}", "give x and y in --data")
    stability_task.prepare(_instrument_of(settings), networks_of(named), chosen.inputs, chosen.labels)
    return StabilityJob(settings, named, chosen, chosen.labels)


@final
class StabilityJob(Job):
    """A survey of the networks on the chosen inputs by `Stability`."""

    def __init__(self, settings: StabilityCommand, named: Sequence[Named], chosen: Chosen, labels: Tensor) -> None:
        self._settings, self._named, self._chosen, self._labels = settings, named, chosen, labels

    @property
    def model_hash(self) -> str:
        return hash_of(self._named)

    def show(self, console: Console) -> None:
        show_networks(self._named, self._chosen.inputs, self._labels, console)

    def plan(self) -> str:
        given = networks_of(self._named), self._chosen.inputs, self._labels
        instrument = _instrument_of(self._settings)
        passes = instrument.search_passes(*given)
        seconds = passes / len(self._named) * sum(_seconds_a_pass(one.network, given[1]) for one in self._named)
        return "\n".join(
            [
                instrument.plan(*given),
                f"At the speed of the networks measured here: at least {duration(max(1.0, seconds))}",
            ]
        )

    def save(self, folder: Path) -> None:
        save_networks(self._named, folder)

    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        return _instrument_of(self._settings).measure(
            networks_of(self._named),
            self._chosen.inputs,
            self._labels,
            directory=folder,
            resume=resume,
            command=line,
        )


def _instrument_of(settings: StabilityCommand) -> Stability:
    return Stability(**{entry.name: getattr(settings, entry.name) for entry in dataclasses.fields(Stability)})


def _seconds_a_pass(network: Network, inputs: Tensor) -> float:
    """Of one row forward or backward, in the batches that an attack makes."""
    outputs = network.all_outputs(torch.float32)
    points = inputs[:_TIMED_ROWS].flatten(1).to(outputs.dtype)
    lead = torch.zeros((len(points), outputs.n_outputs))
    lead[:, 0] = 1.0
    best = float("inf")
    for _ in range(3):
        before, units = time.perf_counter(), outputs.n_units
        outputs.gradient(points, lambda output, rows: lead[: len(output)].to(output.dtype))
        best = min(best, (time.perf_counter() - before) / (outputs.n_units - units))
    return best
