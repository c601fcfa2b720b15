"""Which method maps a field: the one place that reads ``Landscape.method``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments.adelm_landscape import AdelmLandscape
from theodolite.instruments.certified_landscape import CertifiedLandscape
from theodolite.instruments.continuous_landscape import ContinuousNetworkLandscape
from theodolite.instruments.discrete_landscape import DiscreteNetworkLandscape
from theodolite.instruments.flood_landscape import FloodLandscape
from theodolite.instruments.landscape_findings import LandscapeFindings
from theodolite.instruments.proposals import Propose
from theodolite.instruments.watershed_landscape import WatershedLandscape
from theodolite.space import DiscreteSpace

if TYPE_CHECKING:
    from theodolite.instruments.landscape import Landscape

ENUMERABLE = 2**26  # states that "exact" enumerates; above it certifies the lowest minima


class LandscapeSampler(Protocol):
    """A method of mapping: what `run.drive` needs, and what was found at any time."""

    def plan(self) -> str:
        """What would be done, in words."""
        ...

    def init(self, generator: torch.Generator) -> Any: ...

    def step(self, state: Any, generator: torch.Generator) -> tuple[Any, Mapping[str, Any]]: ...

    def stop(self, state: Any, info: Mapping[str, Any]) -> str | None: ...

    def findings(self, state: Any, generator: torch.Generator) -> LandscapeFindings:
        """The map as far as it is known."""
        ...


def make_sampler(settings: Landscape, field: Field, propose: Propose) -> LandscapeSampler:
    """The method that ``settings`` name, resolved for this field; raises UserError where it cannot run on it."""
    discrete = isinstance(field.space, DiscreteSpace)
    enumerable = discrete and field.space.log_volume <= math.log(ENUMERABLE) + 1e-9
    method = settings.method
    if method == "auto":
        method = "exact" if enumerable or field.flip_costs is not None else "network"
    if method == "adelm":
        return AdelmLandscape(settings, field, propose)
    if method == "flood":
        return FloodLandscape(settings, field)
    if method == "network":
        kind = DiscreteNetworkLandscape if discrete else ContinuousNetworkLandscape
        return kind(settings, field, propose)
    if enumerable:
        return WatershedLandscape(settings, field)
    if field.flip_costs is not None:
        return CertifiedLandscape(settings, field)
    raise UserError(
        "method",
        "a field of at most 2^26 states, or spins with pair couplings, for 'exact'",
        f"{field.name!r} over {field.space.describe()}",
        "use method='network' or 'adelm'",
    )
