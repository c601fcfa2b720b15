"""What a survey of stability works on: networks that take the same inputs and tell the same classes, inputs, labels.

Everything is checked before any search; which inputs each network has right is known from here on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import surveying
from theodolite.instruments.transfer import right
from theodolite.network import Network
from theodolite.outputs import Outputs

if TYPE_CHECKING:
    from theodolite.instruments.stability import Stability

_LARGEST_BLOCK = 64  # images
_WORKING_ROWS = 16  # of an image in a walk: its starts and the points on their way
_DESCENDING_TOGETHER = 256  # images of a block of L-BFGS, which is a row an image
_LARGEST_RANGE = 0.1  # of the space's range: what Szegedy et al. 2013 amplify to, on grey levels from 0 to 1


@dataclass(frozen=True)
class StabilityTask:
    """``points (image, n)`` float64 in input units, ``labels (image,)``, -1 where unknown; a network each: ``outputs``
    for the search, ``exact`` in float64; ``(network, image, ...)``: ``output (..., class)`` float64, ``right`` bool:
    answers the label, ``asked``: the class the example shall have, -1 for any, -2 for none to make.

    ``amplify``: distortions of the amplified rows; ``noise``: standard deviations, None where they follow from what is
    found. ``identity``: a hash of everything that the attacks depend on; ``block``: images of a step; ``before``: units
    spent when the task was made.
    """

    names: tuple[str, ...]
    networks: tuple[Network, ...]
    outputs: tuple[Outputs, ...]
    exact: tuple[Outputs, ...]
    inputs: Tensor
    points: Tensor
    labels: Tensor
    output: Tensor
    right: Tensor
    asked: Tensor
    amplify: tuple[float, ...]
    noise: tuple[float, ...] | None
    identity: str
    block: int
    before: int

    @property
    def units(self) -> int:
        """Forward and backward passes since the task was prepared, of all networks."""
        return _units(self.outputs) + _units(self.exact) - self.before

    @property
    def n_classes(self) -> int:
        return self.exact[0].n_outputs

    @property
    def class_names(self) -> list[str]:
        named = next((network.classes for network in self.networks if network.classes), None)
        return named or [str(index) for index in range(self.n_classes)]

    @property
    def low(self) -> Tensor:
        """``(n,)``, the lower edge of the box."""
        return self.exact[0].low

    @property
    def high(self) -> Tensor:
        return self.exact[0].high

    def known(self, network: int) -> tuple[Tensor, Tensor]:
        """The inputs with the classes that a network gives them, from which searches may start."""
        return self.points, self.output[network].argmax(1)

    def schedule(self) -> list[tuple[int, Tensor]]:
        """Steps of the survey: a network and a block of images each. All networks take a block before the next is
        begun, so that a budget spent early leaves them the same images."""
        blocks = torch.arange(len(self.points)).split(self.block)
        steps = [(k, rows[self.right[k, rows]]) for rows in blocks for k in range(len(self.networks))]
        return [(k, rows) for k, rows in steps if len(rows)]


def prepare(settings: Stability, networks: Mapping[str, Network], inputs: Tensor, labels: Tensor) -> StabilityTask:
    """Check everything and evaluate the inputs once in float64; raises UserError for what does not fit."""
    names, given = _networks(networks)
    exact = tuple(network.all_outputs(torch.float64) for network in given)
    _check_alike(names, given, exact)
    points = _points(inputs, given[0], exact[0])
    classes = _labels(labels, len(points), exact[0].n_outputs)
    outputs = tuple(network.all_outputs(surveying.precision_of(network)) for network in given)
    output = torch.stack([one.value(points) for one in exact])
    correct = torch.stack([right(one, classes) for one in output])
    asked = torch.where(correct, _asked(settings, output, classes), -2)
    amplify = settings.distortions("amplify")
    return StabilityTask(
        names=names,
        networks=given,
        outputs=outputs,
        exact=exact,
        inputs=torch.as_tensor(inputs),
        points=points,
        labels=classes,
        output=output,
        right=correct,
        asked=asked,
        amplify=_tenth(exact[0]) if amplify is None else amplify,
        noise=settings.distortions("noise"),
        identity=surveying.identity_of(names, [one.hash for one in given], settings.identity, points, classes),
        block=_block(settings, outputs),
        before=_units(outputs) + _units(exact),
    )


def _networks(networks: Mapping[str, Network]) -> tuple[tuple[str, ...], tuple[Network, ...]]:
    if not isinstance(networks, Mapping) or not networks:
        got = "none" if isinstance(networks, Mapping) else type(networks).__name__
        raise UserError("networks", "at least one network by name", got, "for example {'softmax': network}")
    for name, network in networks.items():
        if not isinstance(name, str) or not name.strip():
            raise UserError("networks", "names that are text", repr(name), "name each network")
        if not isinstance(network, Network):
            got = f"{type(network).__name__} for {name!r}"
            raise UserError("networks", "a Network for each name", got, "wrap the module: Network(module, space)")
    return tuple(networks), tuple(networks.values())


def _check_alike(names: tuple[str, ...], networks: tuple[Network, ...], exact: tuple[Outputs, ...]) -> None:
    """An example of one network must be an input of all others, and mean the same classes to them."""

    def refuse(what: str, first: int, first_words: str, other: int, other_words: str) -> None:
        got = f"{names[first]!r} {first_words}, {names[other]!r} {other_words}"
        raise UserError("networks", f"the same {what} of all networks", got, "survey those that are alike")

    shape, edges = networks[0].space.shape, (exact[0].low[0].item(), exact[0].high[0].item())
    named = next((k for k, network in enumerate(networks) if network.classes), 0)
    for k, (network, outputs) in enumerate(zip(networks, exact, strict=True)):
        if network.space.shape != shape:
            refuse("shape of inputs", 0, f"takes {shape}", k, f"takes {network.space.shape}")
        here = (outputs.low[0].item(), outputs.high[0].item())
        if here != edges:
            words = [f"takes {low:g} to {high:g}" for low, high in (edges, here)]
            refuse("range of inputs", 0, words[0], k, words[1])
        if outputs.n_outputs != exact[0].n_outputs:
            refuse("number of classes", 0, f"has {exact[0].n_outputs}", k, f"has {outputs.n_outputs}")
        if network.classes and network.classes != networks[named].classes:
            words = [f"names them {', '.join(one.classes or [])}" for one in (networks[named], network)]
            refuse("classes in the same order", named, words[0], k, words[1])
    if exact[0].n_outputs < 2:
        raise UserError("networks", "at least two classes", "one", "name them: Network(..., classes=[...])")


def _points(inputs: Tensor, network: Network, exact: Outputs) -> Tensor:
    flat = surveying.points_of("inputs", inputs, network.space).flatten(1).double()
    inside = ((flat >= exact.low) & (flat <= exact.high) & flat.isfinite()).all(1)
    if not bool(inside.all()):
        first = int((~inside).nonzero()[0, 0])
        box = f"finite inputs in [{exact.low[0].item():g}, {exact.high[0].item():g}]"
        extent = f"{flat[first].min().item():g} to {flat[first].max().item():g}"
        got = f"{int((~inside).sum()):,} that are not, the first number {first}: {extent}"
        raise UserError("inputs", box, got, "scale the inputs, or widen the space")
    return flat


def _labels(labels: Tensor, n_images: int, n_classes: int) -> Tensor:
    if labels is None:
        raise UserError(
            "labels", f"{n_images}, one an input", "none", "transfer is counted on right answers: give them"
        )
    given = surveying.labels_of(labels, n_images)
    if not -1 <= int(given.min()) <= int(given.max()) < n_classes:
        got = f"{int(given.min())} to {int(given.max())}"
        raise UserError("labels", f"classes 0..{n_classes - 1}, or -1 where unknown", got, "number them as the outputs")
    if int(given.max()) < 0:
        raise UserError("labels", "the class of at least one input", "-1 for all", "give the labels that are known")
    return given


def _asked(settings: Stability, output: Tensor, labels: Tensor) -> Tensor:
    """``(network, image)``: the class that the example shall have; -1 for any. Random classes are drawn once an
    image, so that all networks are asked for the same."""
    n_networks, n_images, n_classes = output.shape
    if settings.targets == "next":
        others = output.scatter(2, labels.clamp(min=0)[None, :, None].expand(n_networks, -1, 1), -torch.inf)
        return others.argmax(2)
    if settings.targets == "random":
        generator = torch.Generator().manual_seed(settings.seed)
        shift = torch.randint(1, n_classes, (n_images,), generator=generator)
        return ((labels.clamp(min=0) + shift) % n_classes).expand(n_networks, -1)
    return torch.full((n_networks, n_images), -1)


def _tenth(exact: Outputs) -> tuple[float, ...]:
    extent = float((exact.high - exact.low).max())
    return (_LARGEST_RANGE * extent,) if extent < torch.inf else ()


def _block(settings: Stability, outputs: tuple[Outputs, ...]) -> int:
    """Images attacked in a step: a property of the networks, so that no result depends on the moment."""
    smallest = min(one.batch_size for one in outputs)
    if settings.method == "l-bfgs":
        return min(_DESCENDING_TOGETHER, max(4, smallest))
    return min(_LARGEST_BLOCK, max(4, smallest // _WORKING_ROWS))


def _units(outputs: tuple[Outputs, ...]) -> int:
    return sum(one.n_units for one in outputs)
