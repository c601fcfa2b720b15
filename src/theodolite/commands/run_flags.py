"""What every survey takes on the command line; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFlags:
    """What every survey takes beside its subject."""

    budget: str = "5 min"
    """Time or evaluations: "60 s", "5 min", "2 h", "4e6 evaluations"."""

    seed: int = 0
    """The same seed and evaluations give the same numbers."""

    out: Path = Path("survey")
    """New folder for survey.zarr, checkpoint.pt, settings.toml and report.html."""

    dry_run: bool = False
    """Print what would be done and how long it would take; write nothing."""

    overwrite: bool = False
    """Replace the survey in the folder of --out."""

    config: Path | None = None
    """A TOML file that says the same as flags; flags beside it win."""
