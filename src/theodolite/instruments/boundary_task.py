"""What a survey of a boundary works on: inputs, labels and reference points, checked, and the outputs they are put to.

An input that will not do is kept apart with the reason in words, so that it harms no other.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.bounds.dense_layers import dense_layers
from theodolite.instruments.softening import Softening, softened
from theodolite.network import Network
from theodolite.outputs import Outputs
from theodolite.search.constraint_rules import Rules
from theodolite.search.regions import Region, hull

if TYPE_CHECKING:
    from theodolite.instruments.boundary import Boundary

# Yousefzadeh and O'Leary 2019, section 6.2, disregard changes of less than 0.5 on a scale of 0 to 255.
_CHANGE_THRESHOLD = 0.5 / 255
_LARGEST_BLOCK = 64  # images
_WORKING_ROWS = 16  # of an image: its starts and the points on their way
_NOT_FINITE = "not searched: the input is not finite"
_OUTSIDE = "not searched: the input lies outside the space"
_NO_OUTPUT = "not searched: the network's outputs are not finite here"
_REFUSALS = (_NOT_FINITE, _OUTSIDE, _NO_OUTPUT)
_OF_NO_STEP = ("budget", "uncertainty", "constraints")  # constraints count as the rules they make


@dataclass(frozen=True)
class BoundaryTask:
    """``points (image, n)`` float64 in input units, ``output (image, class)`` float64, ``own (image,)`` the class the
    network gives each, -1 where it gives none; ``refusal``: why an image is not searched, "" where it is.
    ``reference``: points ``(m, n)`` and their classes. ``pairs``: images and classes of the pairs asked for.
    ``change_threshold``: features that change by less count as unchanged, in input units. ``identity``: a hash of the
    network, inputs, labels, reference and settings that a step's result depends on."""

    network: Network
    outputs: Outputs
    exact: Outputs
    inputs: Tensor
    points: Tensor
    labels: Tensor | None
    output: Tensor
    own: Tensor
    refusal: tuple[str, ...]
    reference: tuple[Tensor, Tensor] | None
    pairs: tuple[Tensor, Tensor]
    rules: Rules | None
    norm: str
    homotopy: bool
    change_threshold: float
    identity: str
    before: int

    @property
    def units(self) -> int:
        """Forward and backward passes since the task was prepared."""
        return self.outputs.n_units + self.exact.n_units - self.before

    @property
    def usable(self) -> Tensor:
        """``(image,)`` bool: the images that are searched."""
        return torch.tensor([not words for words in self.refusal], dtype=torch.bool)

    @property
    def n_usable(self) -> int:
        return sum(not words for words in self.refusal)

    @property
    def n_classes(self) -> int:
        return self.exact.n_outputs

    @property
    def class_names(self) -> list[str]:
        return self.network.classes or [str(index) for index in range(self.n_classes)]

    @property
    def block(self) -> int:
        """Images searched in a step: a property of the network, so that no result depends on the moment."""
        return min(_LARGEST_BLOCK, max(4, self.outputs.batch_size // _WORKING_ROWS))

    def region(self, image: Tensor) -> Region:
        """Where the flip points of the images ``(k,)`` may lie, whole numbers aside."""
        if self.rules is None:
            return hull(self.exact, len(image), self.norm)
        return self.rules.region(self.points[image], self.norm)


def prepare(
    settings: Boundary, network: Network, inputs: Tensor, labels: Tensor | None, reference: Tensor | None
) -> BoundaryTask:
    """Check everything, evaluate the inputs once in float64; raises UserError for what concerns all of them."""
    if not isinstance(network, Network):
        raise UserError("network", "a Network", type(network).__name__, "wrap the module: Network(module, space)")
    inputs = surveying.points_of("inputs", inputs, network.space)
    labels = None if labels is None else surveying.labels_of(labels, len(inputs))
    outputs = network.all_outputs(surveying.precision_of(network))
    exact = network.all_outputs(torch.float64)
    _check_labels(labels, exact.n_outputs)
    rules = None
    if settings.constraints is not None and not settings.constraints.empty:
        rules = settings.constraints.rules(exact.low, exact.high, network.space.shape)
    points = inputs.flatten(1).double()
    output = exact.value(points)
    refusal = _refusals(points, output, exact)
    own = torch.tensor([-1 if words in (_NOT_FINITE, _NO_OUTPUT) else 0 for words in refusal])
    own = torch.where(own < 0, own, output.argmax(1))
    others = None if reference is None else surveying.points_of("reference", reference, network.space)
    known = None if others is None else _classified(others, exact)
    pairs = _pairs(settings, own, torch.tensor([not words for words in refusal]), exact.n_outputs)
    if rules is not None and rules.discrete and (settings.targets != "closest" or settings.meeting):
        raise UserError("targets", "closest with whole-number features", settings.targets, "leave --targets out")
    if settings.meeting > exact.n_outputs:
        raise UserError("meeting", f"at most {exact.n_outputs} classes", str(settings.meeting), "choose fewer")
    if settings.certificate == "exact":
        dense_layers(network)
    return BoundaryTask(
        network,
        outputs,
        exact,
        inputs,
        points,
        labels,
        output,
        own,
        refusal,
        known,
        pairs,
        rules,
        settings.norm,
        _wants_homotopy(settings, outputs, network),
        _CHANGE_THRESHOLD * _range(points, exact),
        _identity(settings, network, (points, labels, others), rules),
        outputs.n_units + exact.n_units,
    )


def _check_labels(labels: Tensor | None, n_classes: int) -> None:
    if labels is not None and not -1 <= int(labels.min()) <= int(labels.max()) < n_classes:
        got = f"{int(labels.min())} to {int(labels.max())}"
        raise UserError("labels", f"classes 0..{n_classes - 1}, or -1 where unknown", got, "number them as the outputs")


def _refusals(points: Tensor, output: Tensor, exact: Outputs) -> tuple[str, ...]:
    holds = torch.stack(
        [
            points.isfinite().all(1),
            ((points >= exact.low) & (points <= exact.high)).all(1),
            output.isfinite().all(1),
        ],
        1,
    )
    return tuple(next((words for words, met in zip(_REFUSALS, row, strict=True) if not met), "") for row in holds)


def _classified(reference: Tensor, exact: Outputs) -> tuple[Tensor, Tensor]:
    """Reference points and the network's classes of them; those that are no inputs are left out."""
    points = reference.flatten(1).double()
    output = exact.value(points)
    inside = ((points >= exact.low) & (points <= exact.high)).all(1)
    kept = inside & points.isfinite().all(1) & output.isfinite().all(1)
    return points[kept], output[kept].argmax(1)


def _pairs(settings: Boundary, own: Tensor, usable: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    wanted = torch.zeros((len(own), n_classes), dtype=torch.bool)
    if settings.targets == "all":
        wanted[:] = True
    elif settings.targets != "closest":
        for first, second in parse_pairs(settings.targets):
            if max(first, second) >= n_classes:
                raise UserError("targets", f"classes 0..{n_classes - 1}", f"{first}:{second}", "choose others")
            wanted[own == first, second] = True
    wanted[~usable] = False
    wanted[own >= 0, own[own >= 0]] = False
    image, other = wanted.nonzero(as_tuple=True)
    return image, other


def parse_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """ "3:5,4:9" -> ((3, 5), (4, 9)); UserError for any other text."""
    pairs = [re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", part) for part in str(text).split(",")]
    found = tuple((int(pair.group(1)), int(pair.group(2))) for pair in pairs if pair)
    if len(found) < len(pairs) or any(first == second for first, second in found):
        raise UserError("targets", "closest, all, or pairs of classes such as 3:5,4:9", repr(text), "choose one")
    return found


def _wants_homotopy(settings: Boundary, outputs: Outputs, network: Network) -> bool:
    """ "auto": where the network has activations that saturate; found by widening them and looking for a change."""
    if settings.homotopy != "auto":
        return settings.homotopy == "on"
    if settings.effort == "quick":
        return False
    x = network.space.draw(2, surveying.trial_generator()).flatten(1).to(outputs.dtype)
    return not torch.equal(softened(outputs, Softening(width=2.0)).value(x), outputs.value(x))


def _identity(settings: Boundary, network: Network, given: tuple[Tensor | None, ...], rules: Rules | None) -> str:
    names = [entry.name for entry in dataclasses.fields(settings) if entry.name not in _OF_NO_STEP]
    told = [getattr(settings, name) for name in names]
    return surveying.identity_of(
        network.hash, network.space.spec(), told, given, None if rules is None else vars(rules)
    )


def _range(points: Tensor, exact: Outputs) -> float:
    """Of the space's coordinates, or, where it has no edge, of the inputs'."""
    extent = float((exact.high - exact.low).max())
    if math.isfinite(extent):
        return extent
    known = points[points.isfinite().all(1)]
    return float(known.max() - known.min()) if len(known) else 1.0
