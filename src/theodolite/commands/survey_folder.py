"""The folder of a survey: survey.zarr, checkpoint.pt, settings.toml, report.html and, from the zoo,
model.safetensors, or the folder models where there are several; of learning energy.safetensors and images.npz.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from theodolite.commands.arguments import Survey
from theodolite.errors import UserError
from theodolite.result import STORE, to_toml

SETTINGS = "settings.toml"
CHECKPOINTS = {
    "density": "checkpoint.pt",
    "landscape": "landscape.checkpoint.pt",
    "boundary": "boundary.checkpoint.pt",
    "stability": "stability.checkpoint.pt",
    "lipschitz": "lipschitz.checkpoint.pt",
    "units": "units.checkpoint.pt",
    "ensemble": "ensemble.checkpoint.pt",
    "learn": "learning.checkpoint.pt",
}
REPORT = "report.html"
WEIGHTS = "model.safetensors"
MODELS = "models"  # the weights of several networks, one file each
ENERGY = "energy.safetensors"  # what was learned
IMAGES = "images.npz"  # what it was learned from
# What a survey leaves in its folder, and so all that --overwrite may remove.
FILES = (STORE, SETTINGS, *CHECKPOINTS.values(), REPORT, WEIGHTS, MODELS, ENERGY, IMAGES)
# Settings that say how the command was given, not what is surveyed.
PASSING = ("out", "dry_run", "overwrite", "config")


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise `UserError` where `folder` exists, unless it holds a survey that `overwrite` allows to be
    replaced.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not overwrite:
        raise UserError("out", "a new folder", f"{folder}, which exists", "choose another --out, or add --overwrite")
    if not folder.is_dir() or (any(folder.iterdir()) and not any((folder / name).exists() for name in FILES)):
        raise UserError("overwrite", "the folder of an earlier survey", str(folder), "choose another --out")


def create(folder: Path, overwrite: bool) -> None:
    """Make the folder, without what an earlier survey left there where `overwrite` says so."""
    check_free(folder, overwrite)
    for name in FILES:
        old = folder / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            "out", "a folder that can be made", f"{folder}: {error.strerror}", "choose another --out"
        ) from error


def write_settings(command: str, settings: Survey, folder: Path, model_hash: str) -> None:
    """Save the resolved settings, paths made absolute, as TOML that `--config` takes as well."""
    table: dict[str, object] = {"command": command, "model_hash": model_hash or None}
    for entry in dataclasses.fields(settings):
        value = getattr(settings, entry.name)
        if entry.name not in PASSING:
            table[entry.name] = str(value.absolute()) if isinstance(value, Path) else value
    (folder / SETTINGS).write_text(to_toml(table), encoding="utf-8")
