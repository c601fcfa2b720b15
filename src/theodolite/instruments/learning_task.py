"""What learning works on: images that vary, the coordinates an energy is learned in, the energy, and the noisy data.

Everything is checked before any update.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.learning import optimiser
from theodolite.learning.bank import ChainStarts, NoisyData
from theodolite.learning.energy import Energy, MLPEnergy
from theodolite.learning.frame import Frame, PixelFrame, PrincipalFrame
from theodolite.learning.gibbs import GibbsDynamics, LevelEnergy, LevelFrame
from theodolite.learning.maximum_likelihood import Dynamics, LangevinDynamics, Limits, MaximumLikelihood
from theodolite.learning.model import EnergyModel
from theodolite.learning.networks import network_energy, network_generator, with_prior
from theodolite.learning.partner import Partner
from theodolite.learning.schedule import Schedule
from theodolite.learning.score_matching import ScoreMatching
from theodolite.learning.wrapped import ModuleEnergy, ScaledEnergy
from theodolite.network import model_hash
from theodolite.space import Box, Grid, Space

if TYPE_CHECKING:
    from theodolite.instruments.learning import Learning

_AUTO_COMPONENTS, _AUTO_ABOVE = 40, 64
_FIRST_STEP = 0.3  # of the least deviation of the noisy data: where an adapted step begins
_MOST_AXES = 3  # of an image: channels, rows, columns
_ROOM = 1.5  # of the data's half range: how far the space reaches beyond them
_ROOM_NOISE = 6.0  # standard deviations of the noise beside
_LEVELS = 8  # grey values: Hill, Nijkamp and Zhu 2019, section 5.3


@dataclass
class Counter:
    """Rows of the energy evaluated so far in this run; counted here since chains bypass a Field."""

    rows: int = 0


@final
@dataclass(frozen=True)
class LearningTask:
    """``images (n, *image_shape)`` and ``held_out`` float32; ``model``: energy (a workspace with its first weights),
    frame and space; ``data``: the images' coordinates and their noise; ``labels (n,)``, ``truth`` ln q: or None;
    ``class_names``: of the labels there are, in order; ``likelihood`` and ``matching``: the updates; ``sentence``: the
    energy in words; ``explained``: share of the images' variance in the frame; ``identity``: a hash of everything that
    the result depends on; ``counter``: of the work done."""

    images: Tensor
    held_out: Tensor | None
    labels: Tensor | None
    class_names: tuple[str, ...]
    truth: Callable[[Tensor], Tensor] | None
    model: EnergyModel
    data: NoisyData
    likelihood: MaximumLikelihood
    matching: ScoreMatching
    sentence: str
    explained: float
    identity: str
    counter: Counter = field(default_factory=Counter)

    def planned_rows(self, settings: Learning) -> int:
        """Rows of the energy that a whole run evaluates, about."""
        chains = min(settings.long_chains, len(self.images))
        return (
            self.matching.evaluations(settings.warm_updates)
            + self.likelihood.evaluations(settings.updates)
            + 2 * chains * settings.long_steps * _rows_a_step(self.model.energy)
        )


def prepare(
    settings: Learning,
    images: Tensor,
    *,
    labels: Tensor | None = None,
    class_names: Sequence[str] = (),
    held_out: Tensor | None = None,
    energy: nn.Module | None = None,
    truth: Callable[[Tensor], Tensor] | None = None,
) -> LearningTask:
    """Check everything and make the energy; raises UserError for what does not fit."""
    points = _images("images", images)
    if len(points) < 2:
        raise UserError("images", "at least two", str(len(points)), "a density is not learned from one image")
    if bool((points == points[0]).all()):
        raise UserError("images", "images that differ", f"{len(points):,} that are all alike", "give others")
    classes = None if labels is None else surveying.labels_of(labels, len(points))
    names = _class_names(classes, class_names)
    frame = _frame(settings, points, dense=energy is None and settings.energy == "mlp")
    # Over grey levels, too, the network and its prior see grey values.
    grey = NoisyData(points if isinstance(frame, LevelFrame) else frame.coordinates(points), settings.data_noise)
    network = _network(settings, grey, energy)
    # The prior's own shape is not scaled: it stands beside the network in nats.
    whole = with_prior(_scaled(settings, network), settings.prior, grey)
    data, box = grey, _box(grey)
    space: Space = box
    if isinstance(frame, LevelFrame):
        whole = LevelEnergy(whole, frame.levels, frame.low, frame.high)
        data = NoisyData(frame.coordinates(points).float(), settings.data_noise / whole.step, frame.levels)
        space = Grid(frame.shape, frame.levels)
    partner = _partner(settings, data)
    taught = None if partner is None else partner.network
    model = EnergyModel(whole, frame, space, data.noise, "learned energy", taught)
    step_size = _first_step(settings, whole, data)
    scale = 2 / settings.step_size**2 if settings.scaled and settings.step_size else 1.0
    # One level is the least that a chain on levels moves.
    reach = whole.step if isinstance(whole, LevelEnergy) else step_size
    limits = Limits.of(grey, reach, scale, optimiser.weights_of(whole))
    if isinstance(whole, LevelEnergy):
        limits = replace(limits, away=math.inf)
    likelihood = MaximumLikelihood(
        energy=whole,
        data=data,
        # Where a generator starts the chains there is no bank, and nothing else is drawn from.
        starts=ChainStarts(
            "data" if partner is not None else settings.initialisation, settings.bank_start, settings.rejuvenation
        ),
        dynamics=_dynamics(settings, whole),
        schedule=Schedule.parse(settings.schedule),
        limits=limits,
        step_size=step_size,
        updates=settings.updates,
        batch=settings.batch,
        betas=settings.betas,
        average=settings.average,
        updates_kept=settings.updates_kept,
        scale=scale,
        partner=partner,
    )
    kept = None if held_out is None else _held_out(held_out, points, frame, box)
    return LearningTask(
        images=points,
        held_out=kept,
        labels=classes,
        class_names=names,
        truth=_truth(truth, data),
        model=model,
        data=data,
        likelihood=likelihood,
        # Score matching needs the energy between the levels, and noise that was not rounded.
        matching=ScoreMatching(
            whole, replace(data, levels=None), settings.warm_updates, settings.batch, largest_weight=limits.weight
        ),
        sentence=_sentence(settings, network, frame, energy is not None),
        explained=float(frame.explained) if isinstance(frame, PrincipalFrame) else 1.0,
        identity=surveying.identity_of(settings.identity, points, classes, kept, model_hash(whole)),
    )


def _class_names(labels: Tensor | None, given: Sequence[str]) -> tuple[str, ...]:
    """The name of every label that there is, in their order; the labels themselves where none are given."""
    if labels is None:
        return ()
    kinds = [int(kind) for kind in labels.unique()]
    if not given:
        return tuple(map(str, kinds))
    if kinds[0] < 0 or kinds[-1] >= len(given):
        got = f"{len(given)} for labels {kinds[0]} to {kinds[-1]}"
        raise UserError("class_names", "one a label, which count from 0", got, "name every class")
    return tuple(str(given[kind]) for kind in kinds)


def _images(argument: str, given: Tensor) -> Tensor:
    """``given`` as float32 ``(n, *shape)``."""
    if not isinstance(given, Tensor):
        try:
            given = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(argument, "a tensor of images", type(given).__name__, "stack them on axis 0") from error
    if not 2 <= given.ndim <= _MOST_AXES + 1 or given.numel() == 0:
        expected = "(n, *shape) with n on axis 0 and 1 to 3 axes an image"
        raise UserError(argument, expected, f"shape {tuple(given.shape)}", "put the batch on axis 0 and reshape each")
    if given.is_complex() or given.dtype == torch.bool:
        raise UserError(argument, "real numbers", str(given.dtype), "give grey values as numbers")
    points = given.detach().cpu().to(torch.float32)
    bad = int((~points.isfinite()).sum())
    if bad:
        raise UserError(argument, "finite numbers", f"{bad:,} that are not", "leave such images out")
    return points


def _held_out(given: Tensor, images: Tensor, frame: Frame, box: Box) -> Tensor:
    kept = _images("held_out", given)
    if kept.shape[1:] != images.shape[1:]:
        expected = f"images of shape {tuple(images.shape[1:])}, as those learned from"
        raise UserError("held_out", expected, f"{tuple(kept.shape[1:])}", "prepare both alike")
    near = kept if isinstance(frame, LevelFrame) else frame.coordinates(kept)
    outside = int((~box.contains(near)).sum())
    if outside:
        low, high = float(images.min()), float(images.max())
        expected = f"images like those learned from, whose values lie from {low:g} to {high:g}"
        got = f"{outside:,} far from them, values from {float(kept.min()):g} to {float(kept.max()):g}"
        raise UserError("held_out", expected, got, "scale both alike")
    return kept


def _frame(settings: Learning, points: Tensor, *, dense: bool) -> Frame:
    """``dense``: the energy is an MLP, which any coordinates will do; others are made for images."""
    if settings.dynamics == "gibbs":
        return LevelFrame(points.shape[1:], settings.levels or _LEVELS, float(points.min()), float(points.max()))
    components = settings.components
    if components == "auto":
        many = points[0].numel() > _AUTO_ABOVE and len(points) > _AUTO_COMPONENTS
        components = _AUTO_COMPONENTS if dense and many else None
    return PixelFrame(points.shape[1:]) if components is None else PrincipalFrame.of(points, int(components))


def _network(settings: Learning, data: NoisyData, given: nn.Module | None) -> Energy:
    if given is None:
        return network_energy(settings.energy, settings.widths, settings.activation, data, settings.seed)
    if not isinstance(given, nn.Module):
        raise UserError("energy", "a module", type(given).__name__, "give (batch, *shape) -> (batch,)")
    shape = tuple(data.mean.shape)
    if isinstance(given, LevelEnergy):
        raise UserError("energy", "one over grey values", "one over grey levels", "give its inner energy")
    if isinstance(given, Energy):
        if given.shape != shape:
            raise UserError("energy", f"one over points of shape {shape}", str(given.shape), "match the components")
        return copy.deepcopy(given)
    return ModuleEnergy(copy.deepcopy(given), shape)


def _scaled(settings: Learning, network: Energy) -> Energy:
    if not settings.scaled or settings.step_size is None:
        return network
    return ScaledEnergy(network, settings.step_size)


def _partner(settings: Learning, data: NoisyData) -> Partner | None:
    """The generator that learns along, where chains start from one; its points carry the noise of the data."""
    if settings.initialisation != "generator":
        return None
    deviation = settings.data_noise or _FIRST_STEP * data.spread
    network = network_generator(settings.latent, data, settings.seed)
    return Partner(network, deviation, settings.steps, max(1, settings.updates))


def _dynamics(settings: Learning, energy: Energy) -> Dynamics:
    if isinstance(energy, LevelEnergy):
        return GibbsDynamics(settings.steps, energy.rows_a_sweep)
    adapts = settings.dynamics == "mala" and settings.step_size is None
    return LangevinDynamics(settings.steps, settings.dynamics == "mala", settings.noise, adapts)


def _first_step(settings: Learning, energy: Energy, data: NoisyData) -> float:
    """Of Langevin chains, in input units; NaN for chains on levels, which have none."""
    if isinstance(energy, LevelEnergy):
        return math.nan
    return settings.step_size or _FIRST_STEP * float(data.deviation.min()) or _FIRST_STEP * data.spread


def _rows_a_step(energy: Energy) -> int:
    return energy.rows_a_sweep if isinstance(energy, LevelEnergy) else 1


def _box(data: NoisyData) -> Box:
    """A box that holds the noisy data with room around them."""
    low, high = float(data.point.min()), float(data.point.max())
    middle, half = (low + high) / 2, (high - low) / 2
    reach = _ROOM * half + _ROOM_NOISE * data.noise
    return Box(tuple(data.mean.shape), round(middle - reach, 3), round(middle + reach, 3))


def _truth(truth: Callable[[Tensor], Tensor] | None, data: NoisyData) -> Callable[[Tensor], Tensor] | None:
    if truth is not None and data.mean.numel() > 2:
        got = f"points of {data.mean.numel()}"
        raise UserError("truth", "a density of one or two coordinates", got, "leave it out: no grid is that large")
    if truth is not None and data.levels is not None:
        raise UserError("truth", "nothing with gibbs", "a density", "leave it out: grey levels have none")
    return truth


def _sentence(settings: Learning, network: Energy, frame: Frame, given: bool) -> str:
    """The energy in words."""
    n_weights = sum(parameter.numel() for parameter in network.parameters())
    name = "given module" if given else settings.energy
    widths = network.widths if isinstance(network, MLPEnergy) else settings.widths or ()
    sizes = "" if given else f" {'-'.join(map(str, (*widths, 1)))} {settings.activation}"
    prior = {"matched": " plus the Gaussian of the noisy data", "none": ""}.get(
        str(settings.prior), f" plus |x|^2 / (2 {settings.prior}^2)"
    )
    over = (
        f"{frame.shape[0]} principal components"
        if isinstance(frame, PrincipalFrame)
        else f"{'x'.join(map(str, frame.shape))} coordinates"
    )
    if isinstance(frame, LevelFrame):
        over += f" of {frame.levels} grey levels"
    return f"{name}{sizes} ({n_weights:,} weights){prior}, over {over}"
