"""Maximum likelihood of a generator by alternating back-propagation, with one latent vector kept for each image.

X ~ N(g(Z), deviation^2 I), Z ~ N(0, I): Langevin chains sample p(Z | X), and the weights follow the mean slope of the
joint energy there. Source: Hill 2020 (PhD thesis, UCLA), appendix A, eqs. A.1-A.3; Han, Lu, Zhu and Wu 2016.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.energy import Energy, Spec, by_autograd
from theodolite.learning.generators import GeneratorNetwork
from theodolite.learning.langevin import LangevinSettings, Moves, adapted, langevin, start
from theodolite.learning.optimiser import Moments, Optimiser, Tensors, all_finite, put, trainable, weights_of
from theodolite.learning.schedule import Schedule

STARTS = ("prior", "principal")
_ADAPTATION = 0.05  # how fast a step follows its acceptance, an update
_FIRST_STEP = 0.1
_LONGEST_STEP = 1.5  # beyond it MALA of N(0, I) itself is refused


@final
@dataclass(frozen=True)
class GeneratorSettings:
    """How a generator is fitted.

    ``deviation``: tau of eq. A.1, in input units. ``steps`` K of Langevin an update, Metropolis-corrected, of
    ``step_size`` epsilon (None: adapted to acceptance .6). ``start``: the latent vectors begin as draws of N(0, I)
    ("prior") or as the images' leading principal components, scaled to variance 1 ("principal"). Raises UserError for
    anything else.
    """

    deviation: float = 0.3
    updates: int = 2000
    batch: int = 256
    steps: int = 10
    step_size: float | None = None
    schedule: str = "adam:2e-3:1e-4"
    start: str = "prior"

    def __post_init__(self) -> None:
        Schedule.parse(self.schedule)
        for name in ("deviation", "step_size"):
            number = getattr(self, name)
            if number is not None and not (math.isfinite(number) and number > 0):
                raise UserError(name, "a finite number above 0", repr(number), "leave it out")
        for name in ("updates", "batch", "steps"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise UserError(name, "a whole number, 1 or more", repr(number), "leave it out")
        if self.start not in STARTS:
            raise UserError("start", f"one of {', '.join(STARTS)}", repr(self.start), "choose one")


@final
class LatentPosterior(Energy):
    """|x - g(z)|^2 / (2 deviation^2) + |z|^2 / 2 over z: row k of z belongs to row k of ``points (row, *shape)``."""

    def __init__(self, network: GeneratorNetwork, points: Tensor, deviation: float) -> None:
        super().__init__()
        self.shape = (network.latent,)
        self.network, self.points, self.deviation = network, points, deviation

    def forward(self, z: Tensor) -> Tensor:
        misfit = (self.points - self.network(z)).flatten(1).square().sum(1)
        return misfit / (2 * self.deviation**2) + 0.5 * z.square().sum(1)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return by_autograd(self, x)

    def spec(self) -> Spec:
        raise UserError("energy", "an energy that can be saved", "a posterior of latent vectors", "save its generator")


@dataclass(frozen=True)
class GeneratorState:
    """``latent (image, latent)``, one vector an image; ``error (updates,)``: root mean square of x - g(z) over pixels
    before each update, NaN from ``update`` on; ``outcome`` "" or "diverged" (the weights are those before)."""

    weights: Tensors
    moments: Moments
    latent: Tensor
    step_size: float
    update: int
    error: Tensor
    outcome: str


@final
@dataclass(frozen=True)
class GeneratorLearner:
    """``step`` makes one update of ``network`` (a workspace that it writes to) from ``points (image, *shape)``."""

    settings: GeneratorSettings
    network: GeneratorNetwork
    points: Tensor

    def init(self, generator: torch.Generator) -> GeneratorState:
        if self.settings.start == "principal":
            latent = principal_latents(self.points, self.network.latent)
        else:
            latent = torch.randn((len(self.points), self.network.latent), generator=generator)
        return GeneratorState(
            weights_of(self.network),
            (),
            latent,
            self.settings.step_size or _FIRST_STEP,
            0,
            torch.full((self.settings.updates,), math.nan),
            "",
        )

    def step(self, state: GeneratorState, generator: torch.Generator) -> tuple[GeneratorState, dict[str, Any]]:
        settings, network = self.settings, self.network
        rows = torch.randperm(len(self.points), generator=generator)[: settings.batch]
        points = self.points[rows]
        put(network, state.weights)
        revised, moves = revised_latents(
            network, points, state.latent[rows], settings.deviation, state.step_size, settings.steps, generator
        )
        rate = Schedule.parse(settings.schedule).at(state.update / settings.updates)[1]
        moments, error = follow(network, points, revised, settings.deviation, state.moments, rate)
        weights = weights_of(network)
        if not (math.isfinite(error) and all_finite(weights)):
            put(network, state.weights)
            return replace(state, outcome="diverged"), {"outcome": "diverged"}
        latent, errors = state.latent.clone(), state.error.clone()
        latent[rows], errors[state.update] = revised, error
        step_size = state.step_size
        if settings.step_size is None:
            step_size = min(_LONGEST_STEP, adapted(step_size, moves.acceptance, _ADAPTATION))
        after = GeneratorState(weights, moments, latent, step_size, state.update + 1, errors, "")
        return after, {"update": after.update, "error": error, "acceptance": moves.acceptance}

    def finished(self, state: GeneratorState) -> bool:
        return bool(state.outcome) or state.update >= self.settings.updates


@final
@dataclass(frozen=True)
class FittedGenerator:
    """``network`` in eval mode; ``latent (image, latent)``: a draw of p(z | x) for each image; ``error (update,)`` in
    input units; ``outcome`` "fitted", or "diverged" (the network is the last good one)."""

    network: GeneratorNetwork
    latent: Tensor
    error: Tensor
    outcome: str


def fit_generator(
    network: GeneratorNetwork, points: Tensor, settings: GeneratorSettings, generator: torch.Generator
) -> FittedGenerator:
    """A copy of ``network`` fitted to ``points (image, *shape)``: data, or long-run samples of a frozen energy.

    Raises UserError for points of another shape than the network's, fewer than two, or numbers that are not finite.
    """
    learner = GeneratorLearner(settings, copy.deepcopy(network).train(), checked_points(network, points))
    state = learner.init(generator)
    while not learner.finished(state):
        state, _ = learner.step(state, generator)
    fitted = learner.network.eval()
    put(fitted, state.weights)
    return FittedGenerator(fitted, state.latent, state.error[: state.update], state.outcome or "fitted")


def infer_latents(
    network: GeneratorNetwork,
    points: Tensor,
    deviation: float,
    generator: torch.Generator,
    *,
    steps: int = 500,
    latent: Tensor | None = None,
) -> Tensor:
    """Draws ``(row, latent)`` of p(z | x) for ``points (row, *shape)``: ``steps`` of MALA, its step adapted on the way
    through the first half, from ``latent`` (None: from N(0, I)). Raises UserError as `fit_generator` does."""
    points = checked_points(network, points)
    z = torch.randn((len(points), network.latent), generator=generator) if latent is None else latent
    step_size, done, part = _FIRST_STEP, 0, 10
    while done < steps:
        z, moves = revised_latents(network, points, z, deviation, step_size, min(part, steps - done), generator)
        done += part
        if done <= steps // 2:
            step_size = min(_LONGEST_STEP, adapted(step_size, moves.acceptance, 4 * _ADAPTATION))
    return z


# ------------------------------------------------------------------ the two phases, which cooperative learning shares


def revised_latents(
    network: GeneratorNetwork,
    points: Tensor,
    latent: Tensor,
    deviation: float,
    step_size: float,
    steps: int,
    generator: torch.Generator,
) -> tuple[Tensor, Moves]:
    """``latent (row, latent)`` after ``steps`` of MALA under p(z | x), eq. A.2, and what the chains did."""
    posterior = LatentPosterior(network, points, deviation)
    chains, moves = langevin(posterior, start(posterior, latent), LangevinSettings(step_size), steps, generator)
    return chains.point, moves


def follow(
    network: GeneratorNetwork, points: Tensor, latent: Tensor, deviation: float, moments: Moments, rate: float
) -> tuple[Moments, float]:
    """One update of the network's weights, eq. A.3; the moments after it, and the root mean square error before."""
    optimiser = Optimiser("adam", network, moments)
    squares = (points - network(latent)).flatten(1).square()
    loss = squares.sum(1).mean() / (2 * deviation**2)
    optimiser.step(torch.autograd.grad(loss, trainable(network)), rate)
    return optimiser.moments(), math.sqrt(float(squares.detach().mean()))


def principal_latents(points: Tensor, latent: int) -> Tensor:
    """The ``latent`` leading principal components of ``points (image, *shape)``, each of variance 1; axes that are
    missing or carry nothing are 0."""
    flat = points.flatten(1).double()
    left, values, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    scores = torch.zeros(len(flat), latent, dtype=torch.float64)
    used = min(latent, left.shape[1])
    carried = values[:used] > 1e-9 * values[0].clamp(min=1e-300)
    scores[:, :used] = left[:, :used] * carried * math.sqrt(len(flat))
    return scores.to(points.dtype)


def checked_points(network: GeneratorNetwork, points: Tensor) -> Tensor:
    """``points`` as float32; UserError where they are not what the network makes."""
    points = torch.as_tensor(points)
    if tuple(points.shape[1:]) != network.shape or len(points) < 2:
        expected = f"two or more points of the generator's shape {network.shape}"
        raise UserError("points", expected, f"shape {tuple(points.shape)}", "make the generator for their shape")
    if not bool(points.isfinite().all()):
        raise UserError("points", "finite numbers", f"{int((~points.isfinite()).sum())} that are not", "leave them out")
    return points.to(torch.float32)
