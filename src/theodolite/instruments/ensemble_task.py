"""What a survey of an ensemble works on: networks of one kind, inputs with labels, and what a density survey of the
first network kept; all checked before any work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite.errors import MissingCapability, UserError
from theodolite.instruments import surveying
from theodolite.network import Network
from theodolite.outputs import Outputs
from theodolite.space import DiscreteSpace

if TYPE_CHECKING:
    from theodolite.instruments.ensemble import Ensemble

MOST_SAMPLES = 32  # representatives of a level that are looked at
_BLOCK = 64  # images searched in a step


@dataclass(frozen=True)
class Levels:
    """Representatives of a density survey: ``point (row, n)`` float64 and ``level (row,)`` the number of its level;
    ``centre (level,)`` in units of ``observable``; ``log_density (level,)``."""

    point: Tensor
    level: Tensor
    centre: np.ndarray
    log_density: np.ndarray
    observable: str


class Members:
    """The networks' probabilities together, and the cost of asking: ``n_units`` forward and backward passes.

    ``continuous``: whether they are defined between the levels of a discrete space, as searches for flips need.
    """

    def __init__(self, networks: Mapping[str, Network]) -> None:
        self.networks = tuple(networks.values())
        self.names = tuple(networks)
        self._n_evaluated = 0
        try:
            self.exact = tuple(network.all_outputs(torch.float64) for network in self.networks)
            self.search = tuple(network.all_outputs() for network in self.networks)
        except MissingCapability:
            self.exact = self.search = ()
        self.mean = mean_outputs(self.search) if self.continuous else None
        self.exact_mean = mean_outputs(self.exact) if self.continuous else None

    @property
    def continuous(self) -> bool:
        return len(self.exact) > 0

    @property
    def n_units(self) -> int:
        means = [mean.n_units * len(self.names) for mean in (self.mean, self.exact_mean) if mean is not None]
        return self._n_evaluated + sum(outputs.n_units for outputs in (*self.exact, *self.search)) + sum(means)

    def searched(self, whose: str) -> tuple[Outputs, Outputs]:
        """Outputs to search and their float64 twins, of the "single" network or of the "mean" of all."""
        if self.mean is None or self.exact_mean is None:
            raise UserError("networks", "networks defined between levels", "one-hot embeddings", "use Scale(...)")
        return (self.mean, self.exact_mean) if whose == "mean" else (next(iter(self.search)), next(iter(self.exact)))

    def log_probability(self, points: Tensor) -> Tensor:
        """``(row, member, class)`` float64 of ``points (row, n)``, which lie on the levels of a discrete space where
        nothing is defined between them."""
        if self.continuous:
            outputs = [outputs.value(points) for outputs in self.exact]
        else:
            outputs = [self._at_levels(network, points) for network in self.networks]
        return torch.stack([output.log_softmax(1) for output in outputs], 1)

    def _at_levels(self, network: Network, points: Tensor) -> Tensor:
        self._n_evaluated += len(points)
        whole = points.round().long().reshape(-1, *network.space.shape)
        with torch.no_grad():
            output = torch.cat([network.outputs(part) for part in whole.split(_BLOCK)]).double()
        return torch.cat([torch.zeros_like(output), output], 1) if output.shape[1] == 1 else output


def mean_outputs(members: tuple[Outputs, ...]) -> Outputs:
    """ln of the members' mean probability as outputs of one network, for searches of its boundary."""
    functions: list[Callable[[Tensor], Tensor]] = []

    def kept(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        functions.append(function)
        return function

    for member in members:
        member.changed(kept)

    def mean(x: Tensor) -> Tensor:
        together = torch.stack([function(x).log_softmax(1) for function in functions])
        return torch.logsumexp(together, 0) - math.log(len(functions))

    found = members[0].changed(lambda _: mean)
    found.name = "mean of the ensemble"
    return found


@dataclass(frozen=True)
class EnsembleTask:
    """``points (image, n)`` float64 in input units with ``labels (image,)``; ``scale``: the extent of the space's
    coordinates (1 where they have no edge), of which noise and distortions are shares."""

    members: Members
    points: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    scale: float
    levels: Levels | None
    before: int

    @property
    def network(self) -> Network:
        """The single network: the first member."""
        return self.members.networks[0]

    @property
    def units(self) -> int:
        """Forward and backward passes since the task was prepared."""
        return self.members.n_units - self.before

    @property
    def blocks(self) -> tuple[Tensor, ...]:
        """The images of each step of a search."""
        return torch.arange(len(self.points)).split(_BLOCK)


def prepare(
    settings: Ensemble,
    networks: Mapping[str, Network],
    inputs: Tensor,
    labels: Tensor | None,
    density: xarray.Dataset | xarray.DataTree | None,
) -> EnsembleTask:
    """Check everything; raises UserError naming what does not fit."""
    _check_networks(networks)
    single = next(iter(networks.values()))
    n_classes = max(2, single.n_outputs)
    low, high = single.space.bounds()
    points = _points(inputs, single)
    given = _labels(labels, len(points), n_classes)
    levels = None if density is None else _levels(density, networks)
    members = Members(networks)
    names = tuple(single.classes or map(str, range(n_classes)))
    scale = high - low if math.isfinite(high - low) else 1.0
    return EnsembleTask(members, points, given, names, scale, levels, members.n_units)


def _check_networks(networks: Mapping[str, Network]) -> None:
    if not isinstance(networks, Mapping) or len(networks) < 2:
        got = f"{len(networks)}" if isinstance(networks, Mapping) else type(networks).__name__
        raise UserError("networks", "two or more networks by name", got, 'give {"a": network, "b": another}')
    for name, network in networks.items():
        if not isinstance(network, Network):
            got = f"{type(network).__name__} for {name!r}"
            raise UserError("networks", "Networks", got, "wrap the modules: Network(module, space)")
    first, *others = networks
    for other in others:
        one, two = networks[first], networks[other]
        if one.space.spec() != two.space.spec():
            got = f"{first!r} on {one.space.spec()} and {other!r} on {two.space.spec()}"
            raise UserError("networks", "networks of the same inputs", got, "leave one of them out")
        if max(2, one.n_outputs) != max(2, two.n_outputs):
            got = f"{first!r} with {max(2, one.n_outputs)} and {other!r} with {max(2, two.n_outputs)}"
            raise UserError("networks", "networks with as many classes", got, "leave one of them out")
        if one.classes is not None and two.classes is not None and one.classes != two.classes:
            got = f"{first!r} with {', '.join(one.classes)} and {other!r} with {', '.join(two.classes)}"
            raise UserError("networks", "networks with the same classes in one order", got, "leave one of them out")


def _points(given: Tensor, network: Network) -> Tensor:
    points = surveying.points_of("inputs", given, network.space).flatten(1).double()
    low, high = network.space.bounds()
    bad = int((~(points.isfinite() & (points >= low) & (points <= high)).all(1)).sum())
    if bad:
        raise UserError("inputs", f"numbers in [{low:g}, {high:g}]", f"{bad} inputs with others", "leave them out")
    return points


def _labels(given: Tensor | None, n_images: int, n_classes: int) -> Tensor:
    if given is None:
        raise UserError("labels", f"{n_images} classes, one an input", "none", "calibration needs the true classes")
    labels = surveying.labels_of(given, n_images, unknown="")
    if not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        got = f"{int(labels.min())} to {int(labels.max())}"
        raise UserError("labels", f"classes 0..{n_classes - 1}", got, "number them as the outputs")
    return labels


def _levels(survey: xarray.Dataset | xarray.DataTree, networks: Mapping[str, Network]) -> Levels:
    """The representatives of the survey; UserError where it is not one of the first network."""
    if isinstance(survey, xarray.DataTree):
        if "density" not in survey.children:
            raise UserError("density", "a density survey", ", ".join(survey.children) or "nothing", "survey it first")
        survey = survey.children["density"].to_dataset()
    if not isinstance(survey, xarray.Dataset) or survey.attrs.get("instrument") != "density":
        raise UserError("density", "the result of Density", type(survey).__name__, "give what measure returned")
    if "representative" not in survey or "representative_output" not in survey:
        raise UserError("density", "a survey with representatives", "none", "survey with a budget that reaches levels")
    first, network = next(iter(networks.items()))
    if survey.attrs.get("space") != network.space.spec():
        got = f"one of {survey.attrs.get('space')}"
        raise UserError("density", f"a survey of {network.space.spec()}", got, f"survey {first!r} in its own space")
    known = str(survey.attrs.get("model_hash", ""))
    if known and known != network.hash:
        other = next((name for name, one in networks.items() if one.hash == known), None)
        got = f"one of {other!r}" if other else "one of another network"
        remedy = f"put {other!r} first" if other else f"survey {first!r}"
        raise UserError("density", f"a survey of the first network, {first!r}", got, remedy)
    axes = [f"point_{axis}" for axis in range(len(network.space.shape))]
    output = survey["representative_output"].transpose("level", "sample").values[:, :MOST_SAMPLES]
    points = survey["representative"].transpose("level", "sample", *axes).values[:, :MOST_SAMPLES]
    level, sample = np.nonzero(np.isfinite(output))
    if not len(level):
        raise UserError("density", "a survey with representatives", "none at any level", "survey it longer")
    chosen = torch.from_numpy(points[level, sample].reshape(len(level), -1).astype(np.float64))
    return Levels(
        chosen,
        torch.from_numpy(level),
        survey["level"].values.astype(np.float64),
        survey["log_density_of_states"].values.astype(np.float64),
        str(survey.attrs.get("observable", "")),
    )


def on_levels(points: Tensor, network: Network) -> Tensor:
    """The nearest points of a discrete space: whole levels of a grid, -1 or +1 of spins."""
    space = network.space
    if not isinstance(space, DiscreteSpace):
        return points
    low, high = space.bounds()
    step = (high - low) / (space.levels - 1)
    return low + step * ((points - low) / step).round()
