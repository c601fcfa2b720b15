"""The generator's half of cooperative learning: where an energy's chains start, and what it learns from where they end.

Sources: Hill 2020 (PhD thesis, UCLA), appendix A, Algorithm 4, steps 1, 3 and 5; Hill, Nijkamp and Zhu 2019, Algorithm
2; Xie, Lu, Gao and Wu 2018 ("MCMC teaching").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.generator_fit import follow, revised_latents
from theodolite.learning.generators import GeneratorNetwork
from theodolite.learning.langevin import adapted
from theodolite.learning.optimiser import Moments, Tensors, all_finite, put, weights_of
from theodolite.learning.schedule import Schedule

TRACES = ("error", "latent_acceptance", "latent_step_size")
_ADAPTATION = 0.1  # of ln step_size, per update and unit of acceptance: chains that lag behind teach a smaller spread
_FIRST_STEP = 0.3
_LONGEST_STEP = 1.5  # of latent chains, whose law is at widest N(0, I)


@final
@dataclass(frozen=True)
class PartnerState:
    """``weights`` and ``moments`` of the generator, ``step_size`` of its latent chains, ``traces (update, 3)`` float64,
    columns as in TRACES (the error in input units, a coordinate)."""

    weights: Tensors
    moments: Moments
    step_size: float
    traces: Tensor = field(default_factory=lambda: torch.empty((0, len(TRACES)), dtype=torch.float64))

    @property
    def sane(self) -> bool:
        """Whether all that was learned is finite."""
        return all_finite(self.weights) and (not len(self.traces) or math.isfinite(float(self.traces[-1, 0])))


@final
@dataclass(frozen=True)
class Partner:
    """``network`` (a workspace: its weights are those of the state in work), taught once an update.

    ``deviation``: tau of eq. A.1, in input units; ``steps`` K of Metropolis-corrected Langevin in the latent space,
    whose step is adapted; ``schedule`` of the weights over ``updates``.
    """

    network: GeneratorNetwork
    deviation: float
    steps: int
    updates: int
    schedule: str = "adam:1e-3:1e-4"

    def __post_init__(self) -> None:
        Schedule.parse(self.schedule, "generator schedule")
        if not (math.isfinite(self.deviation) and self.deviation > 0):
            raise UserError("deviation", "a finite number above 0", repr(self.deviation), "that of the data's noise")
        for name in ("steps", "updates"):
            if getattr(self, name) < 1:
                raise UserError(name, "1 or more", str(getattr(self, name)), "raise it")

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError where the generator makes no points of ``shape``, the energy's; it names both."""
        if self.network.shape != shape:
            expected = f"a generator of the energy's shape {shape}"
            raise UserError("generator", expected, f"{self.network.shape}", "make it for the points of the energy")

    def init(self) -> PartnerState:
        """Before the first update, from the network's present weights."""
        return PartnerState(weights_of(self.network), (), _FIRST_STEP)

    def draw(self, state: PartnerState, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Step 1: points ``(n, *shape)`` and the latent vectors ``(n, latent)`` they were made of."""
        put(self.network, state.weights)
        latent = torch.randn((n, self.network.latent), generator=generator)
        with torch.no_grad():
            return self.network(latent), latent

    def taught(self, state: PartnerState, latent: Tensor, points: Tensor, generator: torch.Generator) -> PartnerState:
        """Steps 3 and 5: ``latent (n, latent)`` revised under p(z | points), then one update of the weights.

        ``points (n, *shape)``: where the chains that began at the latent vectors' own points ended.
        """
        put(self.network, state.weights)
        revised, moves = revised_latents(
            self.network, points, latent, self.deviation, state.step_size, self.steps, generator
        )
        rate = Schedule.parse(self.schedule).at(len(state.traces) / self.updates)[1]
        moments, error = follow(self.network, points, revised, self.deviation, state.moments, rate)
        row = torch.tensor([[error, moves.acceptance, state.step_size]], dtype=torch.float64)
        step_size = min(_LONGEST_STEP, adapted(state.step_size, moves.acceptance, _ADAPTATION))
        return PartnerState(weights_of(self.network), moments, step_size, torch.cat((state.traces, row)))
