"""Theodolite surveys a trained neural network as a scalar field over its whole input space.

The public names below are loaded when they are first used, so that ``import theodolite`` and
``theodolite --help`` need neither torch nor xarray.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theodolite.embedding import OneHot as OneHot
    from theodolite.embedding import Scale as Scale
    from theodolite.errors import UserError as UserError
    from theodolite.field import Field as Field
    from theodolite.instruments.boundary import Boundary as Boundary
    from theodolite.instruments.density import Density as Density
    from theodolite.instruments.ensemble import Ensemble as Ensemble
    from theodolite.instruments.landscape import Landscape as Landscape
    from theodolite.instruments.learning import Learning as Learning
    from theodolite.instruments.lipschitz import Lipschitz as Lipschitz
    from theodolite.instruments.stability import Stability as Stability
    from theodolite.instruments.units import Units as Units
    from theodolite.learning.model import EnergyModel as EnergyModel
    from theodolite.learning.model import load_energy as load_energy
    from theodolite.network import Network as Network
    from theodolite.report.page import write_report as report
    from theodolite.result import open_survey as open_survey
    from theodolite.search.constraints import Constraints as Constraints
    from theodolite.space import Box as Box
    from theodolite.space import Grid as Grid
    from theodolite.space import Latent as Latent
    from theodolite.space import Spins as Spins

__version__ = "0.1.0"

_HOMES = {
    "Boundary": "theodolite.instruments.boundary",
    "Box": "theodolite.space",
    "Constraints": "theodolite.search.constraints",
    "Density": "theodolite.instruments.density",
    "EnergyModel": "theodolite.learning.model",
    "Ensemble": "theodolite.instruments.ensemble",
    "Field": "theodolite.field",
    "Grid": "theodolite.space",
    "Landscape": "theodolite.instruments.landscape",
    "Latent": "theodolite.space",
    "Learning": "theodolite.instruments.learning",
    "Lipschitz": "theodolite.instruments.lipschitz",
    "Network": "theodolite.network",
    "OneHot": "theodolite.embedding",
    "Scale": "theodolite.embedding",
    "Spins": "theodolite.space",
    "Units": "theodolite.instruments.units",
    "Stability": "theodolite.instruments.stability",
    "UserError": "theodolite.errors",
    "load_energy": "theodolite.learning.model",
    "open_survey": "theodolite.result",
}

__all__ = [
    "Boundary",
    "Box",
    "Constraints",
    "Density",
    "EnergyModel",
    "Ensemble",
    "Field",
    "Grid",
    "Landscape",
    "Latent",
    "Learning",
    "Lipschitz",
    "Network",
    "OneHot",
    "Scale",
    "Spins",
    "Stability",
    "Units",
    "UserError",
    "__version__",
    "load_energy",
    "open_survey",
    "report",
]


def __getattr__(name: str) -> Any:
    if name == "report":
        return importlib.import_module("theodolite.report")
    if name not in _HOMES:
        raise AttributeError(f"module 'theodolite' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Report(ModuleType):
    """`theodolite.report`: a package that, called, writes a report: ``report(survey, "report.html")``."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from theodolite.report.page import write_report

        return write_report(*arguments, **options)


class _Theodolite(ModuleType):
    """Makes `theodolite.report` callable whichever import loads it first: the import system sets it here."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "report" and isinstance(value, ModuleType):
            value.__class__ = _Report
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Theodolite
