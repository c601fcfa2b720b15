"""The paper's homotopy: from an easy network, for which the input is a flip point, back to the network, step by step.

Source: Yousefzadeh and O'Leary 2019, "Deep Learning Interpretation: Flip Points and Homotopy Methods", Algorithms 2 and
F3; adaptive steps after appendix D.5; steps chosen by the Lipschitz bound after lines 3 and 4 of Algorithm F1. Inputs
are solved one by one, and where there is no feasible answer at the end, that is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments.feed_forward import FeedForward, feed_forward
from theodolite.instruments.paper_solver import Problem, Solved, solve_own, solve_slsqp
from theodolite.instruments.paper_transformation import easy_network
from theodolite.network import Network
from theodolite.search.flips import FLIP_TOLERANCE, Flips, no_flips
from theodolite.search.pair_flips import class_ties
from theodolite.search.pair_polish import polish
from theodolite.search.regions import Region, hull

SOLVERS = {"slsqp": solve_slsqp, "own": solve_own}
STEPS = ("uniform", "adaptive", "lipschitz")
_MOST_HALVINGS = 5  # of a uniform step, before the adaptive path is given up
_GRID = 1024  # shares at which the Lipschitz bound is looked at


@final
@dataclass(frozen=True)
class PaperHomotopy:
    """``n_steps``: eta, 1 to 15 in the paper; ``gradient_bound``: tau, 1e-7 to 1e-4 there.

    ``steps``: "uniform"; "adaptive" halves a step after which no feasible point is found and doubles the next after
    one; "lipschitz" lets ln of the Lipschitz bound change equally at every step (of ReLUs it never changes: uniform).
    ``solver``, the paper's F: "slsqp" (scipy) with at most ``max_iterations``, or "own", this package's for ties.
    ``strictly_below``: how far, in logits, all other classes must be under the two. Raises UserError for settings out
    of their ranges.
    """

    n_steps: int = 10
    gradient_bound: float = 1e-5
    steps: Literal["uniform", "adaptive", "lipschitz"] = "uniform"
    solver: Literal["slsqp", "own"] = "slsqp"
    max_iterations: int = 100
    strictly_below: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("n_steps", "max_iterations"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(name, "a whole number of at least 1", repr(value), "leave it out")
        if not 0 < self.gradient_bound < 1:
            raise UserError("gradient_bound", "a number between 0 and 1", repr(self.gradient_bound), "1e-5")
        if not (math.isfinite(self.strictly_below) and self.strictly_below > 0):
            raise UserError("strictly_below", "a number above 0", repr(self.strictly_below), "leave it out")
        for name, known in (("steps", STEPS), ("solver", tuple(SOLVERS))):
            if getattr(self, name) not in known:
                raise UserError(name, " or ".join(known), repr(getattr(self, name)), f"{known[0]!r} is the paper's")


@final
@dataclass(frozen=True)
class PaperFlips:
    """``flips``: the feasible answers, the others not found. ``last_point (image, n)`` float64: where each path ended;
    ``violation (image,)``: by how much, in logits, the tie or the lead over the others is missed there (0: not);
    ``share (image,)``: how much of the way back to the network was made (1: all); ``n_solved (image,)``: problems that
    were solved on the way; ``outcome``: an image's status in words."""

    flips: Flips
    last_point: Tensor
    violation: Tensor
    share: Tensor
    n_solved: Tensor
    outcome: tuple[str, ...]


def paper_homotopy(
    network: Network,
    inputs: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    region: Region | None = None,
    settings: PaperHomotopy | None = None,
) -> PaperFlips:
    """For every input the flip point between two classes at the end of the paper's path.

    ``inputs (image, n)`` flat in input units, ``first (image,)`` their classes, ``second (image,)`` the other ones;
    ``region``: constraints C, an L2 region, None for the hull of the space. Raises UserError for wrong shapes or
    classes, another norm, and networks that are not chains of affine layers with error functions or ReLUs.
    """
    settings = settings or PaperHomotopy()
    exact = network.all_outputs(torch.float64)
    region = hull(exact, len(inputs)) if region is None else region.to(torch.float64)
    _check(inputs, first, second, region, exact.n_coordinates, exact.n_outputs)
    layers = feed_forward(network)
    x0 = inputs.double()
    flips = no_flips(len(x0), x0.shape[1])
    last, share = x0.clone(), torch.zeros(len(x0), dtype=torch.float64)
    violation = torch.full((len(x0),), torch.nan, dtype=torch.float64)
    n_solved = torch.zeros(len(x0), dtype=torch.int64)
    ties = class_ties(exact, first, second[:, None], torch.arange(len(x0)), len(x0))
    for image in range(len(x0)):
        row = torch.tensor([image])
        i, j = int(first[image]), int(second[image])
        problem = Problem(x0[image], i, j, region.select(row), settings.strictly_below, settings.max_iterations)
        path = _follow(layers, problem, settings)
        share[image], n_solved[image] = path.share, path.n_solved
        flips.units[image] = path.units
        exactly = polish(ties.select(row), x0[row], problem.region, path.point[None], settings.strictly_below)
        last[image] = exactly.point[0]
        violation[image] = _violation(ties.outputs_at(last[row])[0], i, j)
        if bool(exactly.met[0]):
            flips.point[image], flips.target[image] = last[image], j
            flips.distance[image] = problem.region.distance(x0[row], last[row])[0]
            flips.residual[image] = exactly.residual[0]
    flips.units += ties.units
    outcome = tuple(
        _in_words(bool(found), float(reached), float(missed))
        for found, reached, missed in zip(flips.found, share, violation, strict=True)
    )
    return PaperFlips(flips, last, violation, share, n_solved, outcome)


def shares_of_the_way(easy: FeedForward, layers: FeedForward, settings: PaperHomotopy) -> list[float]:
    """Rising to 1: how far back towards the network each step leads."""
    uniform = [(k + 1) / settings.n_steps for k in range(settings.n_steps)]
    if settings.steps != "lipschitz":
        return uniform
    grid = np.linspace(0.0, 1.0, _GRID + 1)
    bounds = np.array([easy.towards(layers, float(share)).log_lipschitz() for share in grid])
    travelled = np.concatenate([[0.0], np.abs(np.diff(bounds)).cumsum()])
    if not travelled[-1] > 0:
        return uniform
    return [*np.interp(np.array(uniform[:-1]) * travelled[-1], travelled, grid).tolist(), 1.0]


@dataclass
class _Path:
    point: Tensor
    share: float
    n_solved: int
    units: int


def _follow(layers: FeedForward, problem: Problem, settings: PaperHomotopy) -> _Path:
    """Lines 2 to 9 of Algorithm 2 or F3."""
    x, i, j = problem.x, problem.first, problem.second
    easy = easy_network(layers, x, i, j, settings.gradient_bound, settings.strictly_below)
    path = _Path(x, 0.0, 0, 1)
    if not bool(torch.isfinite(easy.value(x[None])).all()):
        return path
    solver = SOLVERS[settings.solver]

    def attempt(share: float) -> Solved:
        solved = solver(easy.towards(layers, share), problem, path.point)
        path.n_solved += 1
        path.units += solved.units
        return solved

    if settings.steps != "adaptive":
        for share in shares_of_the_way(easy, layers, settings):
            # An infeasible point is the next start all the same: only the last network's answer counts.
            path.point, path.share = attempt(share).point, share
        return path
    step = 1 / settings.n_steps
    least = step * 0.5**_MOST_HALVINGS
    while path.share < 1 and step >= least:
        share = path.share + step
        share = 1.0 if share > 1 - least / 2 else share
        solved = attempt(share)
        if solved.feasible:
            path.point, path.share = solved.point, share
        step = 2 * step if solved.feasible else step / 2
    return path


def _violation(output: Tensor, first: int, second: int) -> float:
    """By how much the tie is missed, or the others are not 1e-9 below."""
    lead = float(output[first] - output[second])
    others = torch.ones(len(output), dtype=torch.bool)
    others[[first, second]] = False
    clearance = float(output[[first, second]].min() - output[others].max()) if bool(others.any()) else math.inf
    missed = max(lead, -lead - FLIP_TOLERANCE, FLIP_TOLERANCE - clearance, 0.0)
    return missed if math.isfinite(missed) else math.inf


def _in_words(found: bool, share: float, violation: float) -> str:
    if found:
        return "found"
    if share < 1:
        return f"infeasible: the path was lost {share:.1%} of the way back to the network"
    return f"infeasible: the tie or the lead over the other classes is missed by {violation:.1e} logits"


def _check(inputs: Tensor, first: Tensor, second: Tensor, region: Region, n_coordinates: int, n_outputs: int) -> None:
    if inputs.ndim != 2 or inputs.shape[1] != n_coordinates:
        expected = f"inputs (image, {n_coordinates})"
        raise UserError("inputs", expected, f"{tuple(inputs.shape)}", "flatten each input")
    for argument, classes in (("first", first), ("second", second)):
        inside = len(classes) == len(inputs) and bool(((classes >= 0) & (classes < n_outputs)).all())
        if not inside:
            expected = f"a class 0..{n_outputs - 1} for each of {len(inputs)} inputs"
            raise UserError(argument, expected, f"{classes.tolist()}", "take it from the network's outputs")
    if bool((first == second).any()):
        raise UserError("second", "a class other than the first", "the same", "choose another")
    if region.norm != "L2":
        raise UserError("region", "the norm L2, as in the paper", region.norm, "closest_flips takes others")
