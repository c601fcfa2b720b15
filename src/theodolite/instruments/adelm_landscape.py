"""A map of metastable basins: tuning, ADELM, and the barriers between the basins' lowest minima.

Source: Hill, Nijkamp and Zhu 2019, section 4; the algorithm itself is in `adelm.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from theodolite.field import Field
from theodolite.instruments import landscape_checks
from theodolite.instruments.adelm import Adelm, AdelmState
from theodolite.instruments.barriers import pair_barriers
from theodolite.instruments.continuous_landscape import CITATIONS, computes_in_float32
from theodolite.instruments.landscape_findings import Barriers, LandscapeFindings, Members, unknown_barriers
from theodolite.instruments.proposals import ColdChains, Descent, Propose
from theodolite.instruments.tuning import phase_diagram, proposed_resolution, tune
from theodolite.sampling.attraction_diffusion import AttractionDiffusion
from theodolite.space import DiscreteSpace

if TYPE_CHECKING:
    from theodolite.instruments.landscape import Landscape

_DIMENSIONS: dict[str, tuple[str, ...]] = {
    "tune_temperature": ("tune_temperature",),
    "tune_energy": ("tune_temperature", "tune_step"),
    "tune_alpha": ("tune_alpha",),
    "tune_basins": ("tune_alpha",),
    "phase_temperature": ("phase_temperature",),
    "phase_alpha": ("phase_role", "phase_temperature"),
    "phase_barrier": ("phase_role", "phase_temperature"),
}
_BURN_IN = 0.2  # of the proposals, as in the paper
_TRIAL_PROPOSALS = 100
_SAME = 1e-3  # of the largest coordinate: minima nearer than this to each other are one
_MOST_LEAKAGE = 0.5
_MOST_SHOWN = 2000  # members kept in the result


@dataclass(frozen=True)
class AdelmLandscapeState:
    """``stage``: "tuning", "mapping", "joining" or "done". ``step`` and ``resolution`` are 0 where not yet chosen.
    ``tuning``: name -> what `tune` and `phase_diagram` measured; ``rule``: how it chose. ``latent`` ``(proposal,
    axis)``. ``barriers``: those between the basins' lowest minima, once known."""

    stage: str
    temperature: float
    alpha: float
    step: float
    resolution: float
    rule: str
    tuning: dict[str, Tensor]
    mapping: AdelmState | None
    latent: Tensor
    barriers: Barriers | None


@final
@dataclass(frozen=True)
class AdelmLandscape:
    """Algorithm 3 with what it leaves open: proposals, descents, tuning, barriers."""

    settings: Landscape
    field: Field
    propose: Propose

    def plan(self) -> str:
        tuned = self.settings.temperature is not None and self.settings.alpha is not None
        first = "" if tuned else "temperature and magnetisation tuned, then "
        return f"adelm ({self.settings.variant}), {first}{self.settings.proposals:,} proposals sorted into basins"

    def init(self, generator: torch.Generator) -> AdelmLandscapeState:
        return AdelmLandscapeState(
            "tuning",
            self.settings.temperature or 0.0,
            self.settings.alpha or 0.0,
            0.0,
            self.settings.resolution or 0.0,
            "",
            {},
            None,
            torch.empty(0, 0),
            None,
        )

    def step(
        self, state: AdelmLandscapeState, generator: torch.Generator
    ) -> tuple[AdelmLandscapeState, dict[str, Any]]:
        if state.stage == "tuning":
            state = self._tune(state, generator)
            return state, {"stage": "tuning", "temperature": state.temperature, "alpha": state.alpha}
        if state.stage == "mapping":
            return self._map(state, generator)
        return self._join(state, generator), {"stage": "joining"}

    def stop(self, state: AdelmLandscapeState, info: Mapping[str, Any]) -> str | None:
        return f"All {self.settings.proposals:,} proposals are sorted." if state.stage == "done" else None

    # ------------------------------------------------------------------ stages

    def _tune(self, state: AdelmLandscapeState, generator: torch.Generator) -> AdelmLandscapeState:
        descent = self._descent
        points = self.propose(_TRIAL_PROPOSALS, generator)[0]
        minima = descent(points)[0]
        resolution = state.resolution
        if bool((minima - minima[:1]).abs().flatten(1).amax(1).le(_SAME * minima.abs().max()).all()):
            # One minimum needs no tuning: any temperature far below the energies around it will do.
            cold = 1e-3 * float(self.field.value(points).std()) or 1.0
            resolution = resolution or float((points - minima[:1]).flatten(1).double().norm(dim=1).median()) or 1.0
            state = replace(state, temperature=state.temperature or cold, alpha=state.alpha or 1.0 / cold)
        if not isinstance(self.field.space, DiscreteSpace):
            resolution = resolution or proposed_resolution(minima, self.settings.norm or "L2")  # type: ignore[arg-type]
        if state.temperature and state.alpha:
            step = 0.0
            if not isinstance(self.field.space, DiscreteSpace):
                stepped = self._diffusion(0.0, resolution).with_tuned_step(minima, state.temperature, generator)
                step = float(stepped.step or 0.0)
            return replace(state, stage="mapping", resolution=resolution, step=step)
        tuned = tune(
            self._diffusion(0.0, resolution),
            lambda n, source: self.propose(n, source)[0],
            descent,
            generator,
            temperatures=torch.tensor([state.temperature]) if state.temperature else None,
            alphas=torch.tensor([state.alpha]) if state.alpha else None,
            n_proposals=_TRIAL_PROPOSALS,
        )
        return replace(
            state,
            stage="mapping",
            temperature=tuned.temperature,
            alpha=tuned.alpha,
            resolution=resolution,
            step=float(tuned.diffusion.step or 0.0),
            rule=tuned.rule,
            tuning={
                "tune_temperature": tuned.temperatures,
                "tune_energy": tuned.energies,
                "tune_alpha": tuned.alphas,
                "tune_basins": tuned.basins,
            },
        )

    def _map(
        self, state: AdelmLandscapeState, generator: torch.Generator
    ) -> tuple[AdelmLandscapeState, dict[str, Any]]:
        latents: list[Tensor] = []

        def propose(n: int, source: torch.Generator) -> Tensor:
            points, latent = self.propose(n, source)
            if latent is not None:
                latents.append(latent)
            return points

        mapping = self._mapping(state, propose, generator)
        inner, info = mapping.step(state.mapping or mapping.init(generator), generator)
        latent = torch.cat([state.latent.reshape(-1, latents[0].shape[1]), *latents]) if latents else state.latent
        stage = "joining" if mapping.finished(inner) else "mapping"
        return replace(state, mapping=inner, latent=latent, stage=stage), {"stage": "mapping", **info}

    def _join(self, state: AdelmLandscapeState, generator: torch.Generator) -> AdelmLandscapeState:
        found = self._found(state)
        state = replace(state, stage="done")
        if len(found.energy) < 2:
            return state
        method = self.settings.barriers or ("beam" if isinstance(self.field.space, DiscreteSpace) else "string")
        barriers = pair_barriers(
            self.field,
            found.representative,
            method,
            generator,
            temperature=state.temperature,
            diffusion=self._diffusion(state.step, state.resolution),
        )
        state = replace(state, barriers=barriers.closed)
        if not self.settings.phase_temperatures:
            return state
        around = state.temperature * torch.logspace(-1, 1, self.settings.phase_temperatures, dtype=torch.float64)
        first, second = found.representative[:2]
        step = state.step if self.settings.phase_temperatures == 1 else 0.0
        diagram = phase_diagram(self._diffusion(step, state.resolution), first, second, around, generator)
        drawn = {
            "phase_temperature": diagram.temperature,
            "phase_alpha": diagram.alpha,
            "phase_barrier": diagram.barrier,
        }
        return replace(state, tuning=state.tuning | drawn)

    @cached_property
    def _descent(self) -> Descent:
        real = not isinstance(self.field.space, DiscreteSpace)
        tolerance = 1e-3 if real and computes_in_float32(self.field) else 1e-6
        return Descent(self.field, self.settings.neighbourhood, tolerance)

    def _diffusion(self, step: float, resolution: float) -> AttractionDiffusion:
        return AttractionDiffusion(
            self.field,
            norm=self.settings.norm,  # type: ignore[arg-type]
            improvement_limit=self.settings.improvement_limit,
            resolution=resolution,
            step=step or None,
        )

    def _mapping(self, state: AdelmLandscapeState, propose: Any, generator: torch.Generator) -> Adelm:
        diffusion = self._diffusion(state.step, state.resolution)
        cold = ColdChains(diffusion, state.temperature, generator)
        burn_in = math.ceil(_BURN_IN * self.settings.proposals)
        return Adelm(
            diffusion,
            state.temperature,
            state.alpha,
            propose,
            cold if self.settings.minima == "sampling" else self._descent,
            burn_in=burn_in,
            test=self.settings.proposals - burn_in,
            variant=self.settings.variant,  # type: ignore[arg-type]
        )

    def _found(self, state: AdelmLandscapeState) -> Any:
        generator = torch.Generator()
        mapping = self._mapping(state, None, generator)
        return mapping.result(state.mapping or mapping.init(generator))

    # ------------------------------------------------------------------ the map

    def findings(self, state: AdelmLandscapeState, generator: torch.Generator) -> LandscapeFindings:
        found = self._found(state) if state.stage != "tuning" else None
        energy = found.energy.numpy() if found is not None else np.empty(0)
        n = len(energy)
        barriers = state.barriers if state.barriers is not None else unknown_barriers(energy)
        checks = [landscape_checks.stable_list(*self._last_new(state)), landscape_checks.all_joined(barriers.upper)]
        if found is not None and math.isfinite(found.leakage):
            checks.append(landscape_checks.little_leakage(found.leakage, _MOST_LEAKAGE))
        shown = slice(0, _MOST_SHOWN)
        variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        for name, values in state.tuning.items():
            variables[name] = (_DIMENSIONS[name], values.numpy())
        members = None
        if found is not None and n:
            variables |= {
                "discovered": (("proposal",), found.discovered.numpy()),
                "basins_before_consolidation": ((), np.array(found.basins_before_consolidation)),
                "basins_after_consolidation": ((), np.array(found.basins_after_consolidation)),
            }
            if math.isfinite(found.leakage):
                variables["leakage"] = ((), np.array(found.leakage))
            members = Members(
                found.member_point[shown].numpy(),
                found.member_energy[shown].numpy(),
                found.label[shown].numpy(),
                state.latent[shown].numpy() if len(state.latent) >= len(found.label) > 0 else None,
            )
        return LandscapeFindings(
            method=f"adelm ({self.settings.variant})" + (f"; {state.rule}" if state.rule else ""),
            point=found.representative.numpy() if found is not None else np.empty((0, *self.field.space.shape)),
            energy=energy,
            barriers=barriers,
            judgement=landscape_checks.judged_basins(checks, n, state.temperature, state.alpha),
            citations=CITATIONS,
            member_count=found.member_count.numpy() if found is not None else None,
            members=members,
            variables=variables,
        )

    def _last_new(self, state: AdelmLandscapeState) -> tuple[int, int]:
        if state.mapping is None or not state.mapping.n_proposals:
            return 0, 0
        discovered = state.mapping.discovered
        return len(discovered), int((discovered == discovered[-1]).nonzero()[0]) + 1
