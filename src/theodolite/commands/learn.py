"""`theodolite learn`: the images that the flags name, and the settings by which an energy is learned from them."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import xarray
from rich.console import Console
from torch import Tensor

from theodolite.commands import survey_folder
from theodolite.commands.job import Job
from theodolite.commands.learn_arguments import LearnCommand
from theodolite.errors import UserError
from theodolite.instruments import learning_task
from theodolite.instruments.learning import Learning
from theodolite.learning.gibbs import LevelEnergy, gibbs_sweep
from theodolite.learning.recipes import recipe
from theodolite.run import duration
from theodolite.zoo.pictures import Pictures, PictureSettings, pictures_from, zoo_pictures

_TIMED_BATCHES = 20


def check(settings: LearnCommand) -> None:
    """Raise `UserError` for flags that nothing can be learned with, before any image is read."""
    _instrument_of(settings)
    _picture_settings(settings)
    if settings.labels is not None and settings.data is None:
        raise UserError("labels", "nothing without --data", str(settings.labels), "name the images that they are of")


def prepare(settings: LearnCommand, console: Console, folder: Path | None) -> LearnJob:
    """The images that the flags name; raises `UserError` for images that cannot be read or learned from."""
    chosen = _picture_settings(settings)
    if settings.data is None:
        pictures = zoo_pictures(settings.pictures, chosen)
    else:
        pictures = pictures_from(settings.data, chosen, settings.labels)
    job = LearnJob(settings, pictures)
    job.check()
    return job


@final
class LearnJob(Job):
    """Learning an energy from ``pictures``."""

    def __init__(self, settings: LearnCommand, pictures: Pictures) -> None:
        self._settings, self._pictures = settings, pictures
        self._instrument = _instrument_of(settings)

    @property
    def model_hash(self) -> str:
        """Empty: nothing is surveyed but what is learned here, and a resumed run compares its images itself."""
        return ""

    def check(self) -> None:
        """Raise `UserError` for images that the settings do not fit."""
        self._task()

    def show(self, console: Console) -> None:
        """The number of images, of each class too, and their range: black must be -1 and white 1."""
        given = self._pictures
        shape = "x".join(map(str, given.train.shape[1:]))
        low, high = float(given.train.min()), float(given.train.max())
        console.print(
            f"Learned from: {len(given.train):,} of {shape}, values {low:g} to {high:g} ({given.source}); "
            f"held out: {len(given.held_out):,}.",
            markup=False,
            soft_wrap=True,
        )
        if given.labels is not None:
            counts = torch.bincount(given.labels, minlength=len(given.classes)).tolist()
            told = ", ".join(f"{name} {count:,}" for name, count in zip(given.classes, counts, strict=True))
            console.print(f"Of each class: {told}.", markup=False, soft_wrap=True)

    def plan(self) -> str:
        task = self._task()
        seconds = task.planned_rows(self._instrument) / self._rows_a_second(task)
        return "\n".join(
            [
                self._instrument.plan(self._pictures.train),
                f"At the speed of the energy measured here: about {duration(max(1.0, seconds))}",
            ]
        )

    def save(self, folder: Path) -> None:
        """Keep the images as they were learned from: `theodolite landscape` takes them for --data."""
        images, labels = self._pictures.train.numpy(), self._known(self._pictures.labels)
        file = folder / survey_folder.IMAGES
        if labels is None:
            np.savez_compressed(file, x=images)
        else:
            np.savez_compressed(file, x=images, y=labels.numpy())

    def measure(self, folder: Path, line: str, *, resume: bool) -> xarray.Dataset:
        given = self._pictures
        _, found = self._instrument.fit(
            given.train,
            labels=given.labels,
            class_names=given.classes,
            held_out=given.held_out if len(given.held_out) else None,
            directory=folder,
            resume=resume,
            command=line,
        )
        return found

    def next_steps(self, folder: Path) -> list[str]:
        energy = folder / survey_folder.ENERGY
        flags = ["--model", str(energy), "--data", str(folder / survey_folder.IMAGES)]
        known = self._known(torch.arange(len(self._pictures.classes)))
        if self._pictures.labels is not None and known is not None:
            flags += ["--classes", ",".join(map(str, known.tolist()))]
        # Single minima of a learned energy are many and shallow; metastable basins are what it remembers.
        flags += (
            ["--method", "flood"]
            if self._pictures.train[0].numel() <= 2
            else ["--method", "adelm", "--variant", "mutual"]
        )
        flags += ["--out", str(folder / "landscape")]
        return [f"Energy: {energy}", f"Map it: theodolite landscape {shlex.join(flags)}"]

    def _known(self, labels: Tensor | None) -> Tensor | None:
        """Classes by the numbers that they are called; by their positions where their names are no numbers."""
        names = self._pictures.classes
        if labels is None or not all(name.isdecimal() for name in names):
            return labels
        return torch.tensor([int(name) for name in names])[labels]

    def _task(self) -> learning_task.LearningTask:
        given = self._pictures
        held_out = given.held_out if len(given.held_out) else None
        return learning_task.prepare(
            self._instrument, given.train, labels=given.labels, class_names=given.classes, held_out=held_out
        )

    def _rows_a_second(self, task: learning_task.LearningTask) -> float:
        """Rows of the energy with its slope, in batches as learning makes them; with Gibbs, those of one sweep."""
        rows = torch.arange(self._instrument.batch) % len(task.data.point)
        points = task.data.point[rows]
        energy = task.model.energy
        if isinstance(energy, LevelEnergy):
            begun = time.perf_counter()
            gibbs_sweep(energy, points.long(), torch.Generator().manual_seed(0))
            return len(points) * energy.rows_a_sweep / (time.perf_counter() - begun)
        task.model.energy.value_and_gradient(points)
        begun = time.perf_counter()
        for _ in range(_TIMED_BATCHES):
            task.model.energy.value_and_gradient(points)
        return _TIMED_BATCHES * len(points) / (time.perf_counter() - begun)


# -------- flags --------


def _picture_settings(settings: LearnCommand) -> PictureSettings:
    classes = None
    if settings.classes is not None:
        classes = tuple(name for name in (part.strip() for part in settings.classes.split(",")) if name)
    return PictureSettings(
        size=settings.size,
        n_train=settings.images,
        n_held_out=settings.held_out,
        classes=classes,
        colour=settings.colour,
        patches=_wholes("patch", settings.patch),
        seed=settings.seed,
    )


def _instrument_of(settings: LearnCommand) -> Learning:
    given: dict[str, Any] = {} if settings.recipe is None else dict(recipe(settings.recipe))
    for entry in dataclasses.fields(Learning):
        value = getattr(settings, entry.name)
        # A flag without a value cannot take back what a recipe says.
        if value is not None and not (entry.name == "scaled" and not value):
            given[entry.name] = _READ.get(entry.name, lambda _, text: text)(entry.name, value)
    return Learning(**given)


def _wholes(argument: str, text: str) -> tuple[int, ...]:
    """ "192,192" -> (192, 192)."""
    parts = str(text).replace(",", " ").split()
    if not parts or not all(part.isdecimal() for part in parts):
        raise UserError(argument, "whole numbers with commas between", repr(text), "for example 16,32")
    return tuple(map(int, parts))


def _betas(argument: str, text: str) -> tuple[float, ...]:
    return _numbers(argument, text, "two numbers with a comma between", "for example 0.5,0.99")


def _noise_scales(argument: str, text: str) -> tuple[float, ...]:
    return _numbers(argument, text, "numbers with commas between", "for example 0.5,1,2")


def _numbers(argument: str, text: str, expected: str, remedy: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in str(text).split(","))
    except ValueError:
        raise UserError(argument, expected, repr(text), remedy) from None


def _components(argument: str, text: str) -> int | str | None:
    """A number, None for "pixels", or "auto"."""
    if text in ("pixels", "auto"):
        return None if text == "pixels" else "auto"
    if not str(text).isdecimal():
        raise UserError(argument, "a whole number, pixels or auto", repr(text), "for example 40")
    return int(text)


def _prior(argument: str, text: str) -> str | float:
    return text if text in ("matched", "none") else _number(argument, text, "matched, none or a standard deviation")


def _step_size(argument: str, text: str) -> float | None:
    return None if text == "auto" else _number(argument, text, "auto or a number")


def _number(argument: str, text: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(argument, expected, repr(text), "leave it out for the default") from None


_READ: dict[str, Callable[[str, Any], Any]] = {
    "widths": _wholes,
    "betas": _betas,
    "noise_scales": _noise_scales,
    "components": _components,
    "prior": _prior,
    "step_size": _step_size,
}
