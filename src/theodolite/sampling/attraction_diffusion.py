"""Attraction-Diffusion: Markov chains drawn to a target by a magnetisation, to tell whether two minima share a basin.

Source: Hill, Nijkamp and Zhu 2019, "Building a Telescope to Look Into High-Dimensional Image Spaces", section 3 and
Algorithm 3, steps 3a and 3b (whose step b starts d* at d_1: the final distance of step a. It should be d_2, the
distance between the two minima, as here).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling import attraction_spins
from theodolite.sampling.attraction_spins import SpinLimits
from theodolite.sampling.attraction_steps import Magnetised, Method, Norm, Paths, Steps, measure, refuse_large_paths
from theodolite.space import Box, DiscreteSpace

_DRIFT_SHARE = 0.05  # of the resolution: a drift that is longer jumps over what it should feel
_LANGEVIN_ACCEPTANCE = 0.6


@final
@dataclass(frozen=True)
class Trials:
    """What trials came to, all ``(trial,)`` tensors.

    ``success``; ``closest`` distance reached; ``iterations`` made (sweeps or steps); ``highest`` value of the field
    at the points passed, start and end included (without the magnetisation); ``acceptance``: accepted share of the
    moves (of Gibbs visits, those that changed the coordinate). ``paths``: for each trial its points
    ``(point, *shape)`` in order, none where it failed; an empty tuple where paths were not kept.
    """

    success: Tensor
    closest: Tensor
    iterations: Tensor
    highest: Tensor
    acceptance: Tensor
    paths: tuple[Tensor, ...] = ()


@final
@dataclass(frozen=True)
class Chains:
    """Chains of fixed length: the last ``point`` ``(chain, *shape)``, ``energy`` ``(chain, iteration + 1)``, the value
    of the field after each iteration, the start's first, and the ``acceptance`` ``(chain,)``."""

    point: Tensor
    energy: Tensor
    acceptance: Tensor


@final
@dataclass(frozen=True)
class AttractionDiffusion:
    """How trials are made on a field; every trial has its own start, target, temperature and alpha.

    ``norm``: None takes "L1" on discrete spaces and "L2" on real ones. ``method``: None takes "gibbs" on discrete
    spaces (sweeps of single-site heat bath; compiled where the field has ``flip_costs``, elsewhere
    n_coordinates * (levels - 1) evaluations a sweep) and "langevin" on real ones (Langevin with a Metropolis
    decision, one evaluation a step). "component" is component-wise Metropolis on any space (n_coordinates
    evaluations a sweep), "metropolis" a random walk of all coordinates of a real space. A sweep or a step is one
    iteration. On a `Box` moves are reflected by the walls, which leaves the density exact.

    A trial succeeds as soon as its distance to the target is at most ``resolution`` (delta, in input units), and
    fails after ``improvement_limit`` (M) iterations in a row that came no closer, or ``max_iterations`` in all. Sweeps
    stop in their middle where the target is reached; improvement is judged after whole sweeps.

    ``step``: standard deviation of the moves in input units, required on real spaces (`with_tuned_step` finds one).
    Langevin steps h are shortened so that the drift of the magnetisation, h^2 alpha / 2, is at most
    ``largest_drift`` in input units (None: a twentieth of the resolution): longer drifts jump onto the target
    through the barriers they should measure. ``threads``: None takes torch's, for the compiled trials; it changes no
    number.

    On a `Latent` space the field alone weighs; add |z|^2 / 2 to it where the reference measure should hold chains.

    Raises UserError: a setting out of its range, or a method that does not fit the space.
    """

    field: Field
    norm: Norm | None = None
    method: Method | None = None
    improvement_limit: int = 100
    resolution: float = 0.0
    step: float | None = None
    largest_drift: float | None = None
    max_iterations: int = 100_000
    threads: int | None = None

    def __post_init__(self) -> None:
        discrete = isinstance(self.field.space, DiscreteSpace)
        if self.norm not in (None, "L1", "L2"):
            raise UserError("norm", "'L1' or 'L2'", repr(self.norm), "None takes the default of the space")
        fitting = (None, "gibbs", "component") if discrete else (None, "component", "metropolis", "langevin")
        if self.method not in fitting:
            names = " or ".join(repr(name) for name in fitting if name)
            raise UserError("method", f"{names} on {self.field.space.spec()}", repr(self.method), "leave it out")
        for name in ("improvement_limit", "max_iterations"):
            if getattr(self, name) < 1:
                raise UserError(name, "at least 1 iteration", str(getattr(self, name)), "100 is the papers' limit")
        if not (math.isfinite(self.resolution) and (self.resolution > 0 or (discrete and self.resolution == 0))):
            expected = "a distance of 0 or more" if discrete else "a distance above 0"
            raise UserError(
                "resolution", expected, f"{self.resolution:g}", "a quarter of the distance between minima is a start"
            )
        for name in ("step", "largest_drift"):
            given = getattr(self, name)
            if given is not None and not (math.isfinite(given) and given > 0):
                raise UserError(name, "a length above 0 in input units", f"{given:g}", "None chooses it")

    @property
    def chosen_norm(self) -> Norm:
        return self.norm or ("L1" if isinstance(self.field.space, DiscreteSpace) else "L2")

    @property
    def chosen_method(self) -> Method:
        return self.method or ("gibbs" if isinstance(self.field.space, DiscreteSpace) else "langevin")

    @property
    def compiled(self) -> bool:
        """Whether trials run in compiled code, where they depend on nothing but their keys."""
        return self.field.flip_costs is not None and self.chosen_method == "gibbs"

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances ``(batch,)`` float64 between points ``(batch, *shape)``, in the norm of the magnetisation."""
        return measure((first - second).flatten(1), self.chosen_norm)

    def run_trials(
        self,
        start: Tensor,
        target: Tensor,
        temperature: Tensor | float,
        alpha: Tensor | float,
        generator: torch.Generator,
        *,
        keep_paths: bool = False,
        keys: np.ndarray | None = None,
    ) -> Trials:
        """Trials from ``start`` to ``target`` ``(trial, *shape)`` at temperatures and alphas ``(trial,)`` or numbers.

        ``keys`` ``(trial,)`` uint64 are the seeds of compiled trials (drawn from the generator where None), whose
        results then depend on nothing else; other trials take their random numbers from the generator in the order
        of the batch. Finished trials leave the batch.

        Raises UserError: a temperature that is not above 0, a negative or non-finite alpha, shapes that do not fit,
        paths over 2 GB; FieldError: points outside the space, a non-finite value.
        """
        ensemble = self._ensemble(start, target, temperature, alpha)
        if self.compiled:
            return self._run_compiled(start, ensemble, generator, keep_paths, keys)
        steps = self._steps()
        walkers = steps.start(start, ensemble, self.resolution)
        paths = Paths(keep_paths, len(start), walkers.point)
        n = len(start)
        ids, closest, stale = torch.arange(n), walkers.distance.clone(), torch.zeros(n, dtype=torch.int64)
        success, iterations = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
        nearest, highest, accepted = torch.zeros((3, n), dtype=torch.float64)
        iteration = 0
        while True:
            reached = walkers.distance <= self.resolution
            finished = reached | (stale >= self.improvement_limit)
            if iteration >= self.max_iterations:
                finished.fill_(True)
            if bool(finished.any()):
                out = ids[finished]
                success[out], iterations[out] = reached[finished], iteration
                nearest[out], highest[out] = closest[finished], walkers.highest[finished]
                accepted[out] = walkers.accepted[finished]
                left = (~finished).nonzero()[:, 0]
                ids, closest, stale, walkers = ids[left], closest[left], stale[left], walkers.select(left)
                if not len(ids):
                    break
            walkers = steps.iterate(walkers, generator, paths, ids)
            iteration += 1
            improved = walkers.distance < closest
            stale = torch.where(improved, 0, stale + 1)
            closest = torch.minimum(closest, walkers.distance)
        acceptance = accepted / (iterations * steps.moves).clamp(min=1)
        return Trials(success, nearest, iterations, highest, acceptance, paths.collect(success, self.field.space.shape))

    def run_chains(
        self,
        start: Tensor,
        target: Tensor,
        temperature: Tensor | float,
        alpha: Tensor | float,
        n_iterations: int,
        generator: torch.Generator,
    ) -> Chains:
        """Chains of ``n_iterations`` that do not stop at their targets; alpha 0 leaves the field as it is.

        Arguments and errors as in `run_trials`.
        """
        ensemble = self._ensemble(start, target, temperature, alpha)
        steps = self._steps()
        moves = max(1, n_iterations * steps.moves)
        if self.compiled:
            flip_costs = self.field.require("flip_costs")
            away, row = self._penalties(ensemble)
            found = attraction_spins.run_spin_chains(
                flip_costs,
                start.numpy(),
                ensemble.target.numpy(),
                ensemble.temperature.numpy(),
                away,
                row,
                attraction_spins.drawn_keys(len(start), generator),
                n_iterations,
            )
            spins, energy, flips = map(torch.from_numpy, (found.spins, found.energy, found.flips))
            return Chains(spins.to(start.dtype), energy, flips / moves)
        walkers, unkept = steps.start(start, ensemble, -1.0), Paths(False, 0, start)
        energy = torch.empty((len(start), n_iterations + 1), dtype=torch.float64)
        energy[:, 0] = walkers.value
        for t in range(n_iterations):
            walkers = steps.iterate(walkers, generator, unkept, torch.arange(0))
            energy[:, t + 1] = walkers.value
        return Chains(walkers.point.reshape(start.shape), energy, walkers.accepted / moves)

    def with_tuned_step(
        self, points: Tensor, temperature: float, generator: torch.Generator, n_iterations: int = 200
    ) -> AttractionDiffusion:
        """The same settings with a step at which about .6 of the unmagnetised moves from ``points`` (batch, *shape)
        are accepted: steps of falling lengths are tried until the acceptance is there.

        Raises UserError on a discrete space, which needs no step.
        """
        space = self.field.space
        if isinstance(space, DiscreteSpace):
            raise UserError("field", "a field on a real space", f"one on {space.spec()}", "discrete moves have no step")
        step = 0.3 * (space.high - space.low) if isinstance(space, Box) else 1.0
        n_each = max(10, n_iterations // 20)
        while step > 1e-9:
            trial = dataclasses.replace(self, step=step)
            chains = trial.run_chains(points, points, temperature, 0.0, n_each, generator)
            if float(chains.acceptance.mean()) >= _LANGEVIN_ACCEPTANCE:
                return trial
            points, step = chains.point, step / 1.5
        raise UserError("temperature", "chains that move", f"{temperature:g}, where none does", "raise it")

    # ------------------------------------------------------------------ checks and shared numbers

    def _ensemble(
        self, start: Tensor, target: Tensor, temperature: Tensor | float, alpha: Tensor | float
    ) -> Magnetised:
        shape = (len(start), *self.field.space.shape)
        if tuple(start.shape) != shape or tuple(target.shape) != shape:
            got = f"shapes {tuple(start.shape)} and {tuple(target.shape)}"
            raise UserError("start, target", f"points of shape {shape}", got, "give one target for each start")
        for name, points in (("start", start), ("target", target)):
            if not bool(self.field.space.contains(points).all()):
                expected = f"points of {self.field.space.describe()}"
                raise UserError(name, expected, "some outside", "clip or scale them to the space")
        if not isinstance(self.field.space, DiscreteSpace) and self.step is None:
            raise UserError("step", "a step length on a real space", "None", "call with_tuned_step on some minima")
        return Magnetised(
            target.flatten(1),
            checked_temperature(temperature).expand(len(start)).contiguous(),
            checked_alpha(alpha).expand(len(start)).contiguous(),
            self.chosen_norm,
        )

    def _steps(self) -> Steps:
        largest_drift = self.largest_drift or _DRIFT_SHARE * self.resolution
        return Steps(self.field, self.chosen_method, self.chosen_norm, self.step, largest_drift)

    # ------------------------------------------------------------------ compiled trials

    def _penalties(self, ensemble: Magnetised) -> tuple[np.ndarray, np.ndarray]:
        """`penalty_steps` of each distinct alpha, and the row of each trial."""
        distinct, row = np.unique(ensemble.alpha.numpy(), return_inverse=True)
        n = self.field.space.n_coordinates
        table = [attraction_spins.penalty_steps(n, float(alpha), ensemble.norm) for alpha in distinct]
        return np.stack(table) if table else np.zeros((0, n + 1)), row

    def _run_compiled(
        self,
        start: Tensor,
        ensemble: Magnetised,
        generator: torch.Generator,
        keep_paths: bool,
        keys: np.ndarray | None,
    ) -> Trials:
        flip_costs = self.field.require("flip_costs")
        away, row = self._penalties(ensemble)
        stop = attraction_spins.differing(self.resolution, ensemble.norm)
        limits = SpinLimits(self.improvement_limit, stop, self.max_iterations)
        target, temperature = ensemble.target.numpy(), ensemble.temperature.numpy()
        if keys is None:
            keys = attraction_spins.drawn_keys(len(start), generator)
        found = attraction_spins.run_spin_trials(
            flip_costs,
            start.numpy(),
            target,
            temperature,
            away,
            row,
            keys,
            limits,
            self.threads or torch.get_num_threads(),
        )
        paths = []
        if keep_paths:
            refuse_large_paths(8 * start.shape[1] * int(found.flips[found.success].sum()))
            for k in range(len(start)):
                sites = np.zeros(0, np.int32)
                if found.success[k]:
                    sites = attraction_spins.replay_trial(
                        flip_costs,
                        start[k].numpy(),
                        target[k],
                        float(temperature[k]),
                        away[row[k]],
                        keys[k],
                        int(found.flips[k]),
                        limits,
                    )
                paths.append(_flipped_path(start[k], sites) if found.success[k] else start[k][None][:0])
        closest = 2.0 * torch.from_numpy(found.closest).double()
        moves = np.maximum(found.sweeps, 1) * start.shape[1]
        return Trials(
            torch.from_numpy(found.success),
            closest if ensemble.norm == "L1" else (2.0 * closest).sqrt(),
            torch.from_numpy(found.sweeps),
            torch.from_numpy(found.highest),
            torch.from_numpy(found.flips / moves),
            tuple(paths),
        )


def checked_temperature(temperature: Tensor | float) -> Tensor:
    """Temperatures as float64; UserError unless all are finite and above 0."""
    tensor = torch.as_tensor(temperature, dtype=torch.float64)
    if not bool((torch.isfinite(tensor) & (tensor > 0)).all()):
        raise UserError(
            "temperature", "finite numbers above 0, in units of the field", _extremes(tensor), "tune() proposes one"
        )
    return tensor


def checked_alpha(alpha: Tensor | float) -> Tensor:
    """Magnetisations as float64; UserError unless all are finite and at least 0."""
    tensor = torch.as_tensor(alpha, dtype=torch.float64)
    if not bool((torch.isfinite(tensor) & (tensor >= 0)).all()):
        raise UserError(
            "alpha", "finite numbers of at least 0, in 1 / distance", _extremes(tensor), "tune() proposes one"
        )
    return tensor


def _extremes(tensor: Tensor) -> str:
    flat = tensor.reshape(-1)
    return f"{float(flat[0]):g}" if len(flat) == 1 else f"{float(flat.min()):g} to {float(flat.max()):g}"


def _flipped_path(start: Tensor, sites: np.ndarray) -> Tensor:
    """The states ``(len(sites) + 1, n)`` of flips one after another."""
    path = start.repeat(len(sites) + 1, 1)
    flips = torch.ones_like(path)
    flips[torch.arange(1, len(path)), torch.from_numpy(sites.astype(np.int64))] = -1
    return path * flips.cumprod(0)
