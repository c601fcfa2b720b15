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
from theodolite.commands.classifier import check_images
from theodolite.commands.networks import (
    Named,
    NetworksJob,
    check_networks,
    choose_labelled,
    load_networks,
    networks_of,
)
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
    inputs, labels = choose_labelled(named, settings.data_set, settings.images, settings.seed)
    stability_task.prepare(_instrument_of(settings), networks_of(named), inputs, labels)
    return StabilityJob(settings, named, inputs, labels)


@final
class StabilityJob(NetworksJob):
    """A survey of the networks on the chosen inputs by `Stability`."""

    def __init__(self, settings: StabilityCommand, named: Sequence[Named], inputs: Tensor, labels: Tensor) -> None:
        super().__init__(named, inputs, labels)
        self._settings = settings

    def plan(self) -> str:
        given = self.networks, self._inputs, self._labels
        instrument = _instrument_of(self._settings)
        passes = instrument.search_passes(*given)
        seconds = passes / len(self._named) * sum(_seconds_a_pass(one.network, given[1]) for one in self._named)
        return "\n".join(
            [
                instrument.plan(*given),
                f"At the speed of the networks measured here: at least {duration(max(1.0, seconds))}",
            ]
        )

    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        return _instrument_of(self._settings).measure(
            self.networks,
            self._inputs,
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
