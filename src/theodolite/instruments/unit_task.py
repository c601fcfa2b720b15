"""What a survey of units works on: inputs and labels, checked, and the activations of the layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from theodolite.errors import MissingCapability, UserError
from theodolite.instruments import surveying
from theodolite.instruments.unit_activations import Activations, LayerReader
from theodolite.instruments.unit_statistics import resolved, top_inputs
from theodolite.network import Network
from theodolite.outputs import Outputs
from theodolite.space import DiscreteSpace

if TYPE_CHECKING:
    from theodolite.instruments.units import Units

SCALINGS = ("raw", "standardised")
_CONSTANT = 1e-9  # of the largest spread: a unit that spreads less says the same of every input


@dataclass(frozen=True)
class UnitTask:
    """``inputs (image, *shape)`` with compact labels ``label (image,)``, positions in ``class_names``; ``kept
    (image,)``: their places among the inputs given. ``activations`` of all units, ``living (unit,)`` bool: those that
    vary; ``outputs``, ``exact``: None where the network has no continuous inputs, or no classes. ``flipped (flip,)``:
    the inputs whose closest flip points are searched."""

    network: Network
    reader: LayerReader
    outputs: Outputs | None
    exact: Outputs | None
    inputs: Tensor
    label: Tensor
    kept: Tensor
    class_names: tuple[str, ...]
    predicted: Tensor
    labels_given: bool
    activations: Activations
    living: Tensor
    top: tuple[int, ...]
    flipped: Tensor

    @property
    def evaluations(self) -> int:
        """Rows evaluated so far, searches of flip points included."""
        searched = sum(part.n_units for part in (self.outputs, self.exact) if part is not None)
        return self.reader.evaluations + searched

    @cached_property
    def turned(self) -> Activations:
        """Activations of the living units: those whose space is turned."""
        return self.activations.of(self.living)

    @cached_property
    def natural(self) -> Tensor:
        """``(unit, image)``: what every unit says to every input."""
        return self.activations.natural()

    @cached_property
    def spread(self) -> Tensor:
        """``(unit,)``: standard deviation of ``natural`` over the inputs."""
        return self.natural.std(1, correction=0)

    @cached_property
    def _living_spread(self) -> Tensor:
        return self.turned.spread()

    @cached_property
    def resolved(self) -> Tensor:
        """``(unit, top)`` bool: living units whose k most exciting inputs are a set of their own."""
        return torch.stack([self.living & resolved(self.natural, k) for k in self.top], 1)

    @cached_property
    def most_exciting(self) -> Tensor:
        """``(unit, rank)`` inputs, most exciting first."""
        return top_inputs(self.natural, max(self.top))

    def scale(self, scaling: str) -> Tensor | None:
        """What the living units are divided by before they are turned."""
        return None if scaling == "raw" else self._living_spread


def prepare(settings: Units, network: Network, inputs: Tensor, labels: Tensor | None) -> UnitTask:
    """Check everything, then read the layer; raises UserError for what will not do."""
    if not isinstance(network, Network):
        raise UserError("network", "a Network", type(network).__name__, "wrap the module: Network(module, space)")
    if settings.layer is None:
        layers = ", ".join(name for name, _ in network.module.named_modules() if name)
        raise UserError("layer", f"one of {layers}", "none", "name the layer whose units are surveyed")
    reader = LayerReader(network, settings.layer, settings.positions)
    inputs = _points(inputs, network)
    given = None if labels is None else _labels(labels, len(inputs))
    kept = torch.arange(len(inputs)) if given is None else (given >= 0).nonzero()[:, 0]
    inputs = inputs[kept]
    top = tuple(sorted(set(settings.top)))
    if top[-1] >= len(inputs):
        got = f"{top[-1]:,} of {len(inputs):,} inputs with a label"
        raise UserError("top", "fewer than there are inputs", got, "choose smaller sets, or give more inputs")
    reader.check_size(len(inputs))
    predicted = network.predictions(inputs)[0]
    known = predicted if given is None else given[kept]
    classes, label = known.unique(return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            "labels" if given is not None else "inputs",
            "two classes or more, without which purity and entropy have no meaning",
            f"only class {int(classes[0])}" + ("" if given is not None else " predicted for every input"),
            "give inputs of several classes" + ("" if given is not None else ", or labels"),
        )
    activations = reader.read(inputs)
    if not bool(activations.value.isfinite().all()):
        raise UserError("inputs", "finite activations", f"others in {settings.layer!r}", "look for inputs or weights")
    spread = activations.spread()
    living = spread > _CONSTANT * spread.max()
    if int(living.sum()) < 2:
        got = f"{int(living.sum())} of {len(living)} in {settings.layer!r}"
        raise UserError("layer", "two units or more that vary over the inputs", got, "choose another layer or inputs")
    outputs, exact = _outputs(network)
    names = network.classes or []
    task = UnitTask(
        network=network,
        reader=reader,
        outputs=outputs,
        exact=exact,
        inputs=inputs,
        label=label,
        kept=kept,
        class_names=tuple(names[k] if k < len(names) else str(k) for k in classes.tolist()),
        predicted=predicted,
        labels_given=given is not None,
        activations=activations,
        living=living,
        top=tuple(settings.top),
        flipped=torch.zeros(0, dtype=torch.int64),
    )
    return task if outputs is None else _with_flipped(task, settings.flips)


def _with_flipped(task: UnitTask, n: int) -> UnitTask:
    """The first ``n`` inputs met on reading every living unit's most exciting input, then every one's second, ..."""
    met = dict.fromkeys(task.most_exciting[task.living].T.flatten().tolist())
    return replace(task, flipped=torch.tensor(list(met)[:n], dtype=torch.int64))


def _outputs(network: Network) -> tuple[Outputs | None, Outputs | None]:
    """For searches of flip points; None where the network has no classes, or reads whole levels alone."""
    if network.n_outputs == 1 and network.classes is None:
        return None, None
    try:
        return network.all_outputs(), network.all_outputs(torch.float64)
    except MissingCapability:
        return None, None


def _points(given: Tensor, network: Network) -> Tensor:
    space = network.space
    points = surveying.points_of("inputs", given, space)
    low, high = space.bounds()
    inside = (points.isfinite() & (points >= low) & (points <= high)).flatten(1).all(1)
    if not bool(inside.all()):
        n_outside = int((~inside).sum())
        got = f"{n_outside:,} of {len(points):,} outside, or not finite"
        raise UserError("inputs", f"points of {space.spec()}", got, "leave them out, or check the scale of the data")
    if isinstance(space, DiscreteSpace) and points.is_floating_point() and bool((points == points.round()).all()):
        return points.to(space.dtype)
    return points


def _labels(given: Tensor, n_inputs: int) -> Tensor:
    labels = surveying.labels_of(given, n_inputs)
    if int(labels.min()) < -1:
        raise UserError("labels", "classes from 0, or -1 where unknown", str(int(labels.min())), "number them from 0")
    return labels
