"""What a survey command is between its flags and its report: loaded, shown, planned, measured.

Every such command is a module with two functions: ``check(settings)`` raises `UserError` for flags that cannot be,
before anything is loaded; ``prepare(settings, console, folder)`` loads and checks the rest and gives a `Job`.
``folder`` is that of an earlier run whose weights take the place of training, or None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import xarray
from rich.console import Console

from theodolite.commands import predictions, survey_folder
from theodolite.commands.arguments import ModelFlags
from theodolite.commands.subject import Loaded, save_zoo_weights


class Job(ABC):
    """One survey; nothing is written before `save` and `measure`."""

    @property
    @abstractmethod
    def model_hash(self) -> str:
        """Of the network or networks surveyed; a resumed run must have the same."""

    @abstractmethod
    def show(self, console: Console) -> None:
        """Print what the network says about the data, so that wrong preprocessing is seen before the survey."""

    @abstractmethod
    def plan(self) -> str:
        """What would be done and how long it would take, in words."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Keep the weights of networks trained on the spot; for others, nothing."""

    @abstractmethod
    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        """Survey into ``folder``, or go on there; ``line`` is the command as it was given."""

    def next_steps(self, folder: Path) -> list[str]:
        """Sentences printed last: what else lies in ``folder``, and what can be made of it."""
        return []


class LoadedJob(Job):
    """A survey of one network or system, ``loaded`` as the flags ``subject`` say."""

    def __init__(self, subject: ModelFlags, seed: int, loaded: Loaded) -> None:
        self._subject, self._seed, self._loaded = subject, seed, loaded

    @property
    def model_hash(self) -> str:
        return self._loaded.field.model_hash

    def show(self, console: Console) -> None:
        predictions.show(self._loaded, self._seed, console)
        console.print(f"Space: {self._loaded.field.space.describe()}", markup=False)

    def save(self, folder: Path) -> None:
        save_zoo_weights(self._subject, self._loaded, folder / survey_folder.WEIGHTS)


def kept_weights(folder: Path | None) -> Path | None:
    """The weights that an earlier run kept in its folder, if any."""
    if folder is None or not (folder / survey_folder.WEIGHTS).exists():
        return None
    return folder / survey_folder.WEIGHTS
