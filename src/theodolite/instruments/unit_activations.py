"""What the units of a named layer say to inputs: activations by a hook on a copy of the network, in double precision.

Notation of Szegedy et al. 2013, "Intriguing properties of neural networks", section 3: phi(x) is the layer's vector,
e_i a unit of it, v any direction.
"""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.network import Network
from theodolite.space import DiscreteSpace

POSITIONS = ("maximum", "mean", "each")
_MOST_NAMES = 8
_MOST_BYTES = 4 * 2**30
_MOST_UNITS = 4096  # a random basis takes a time that grows with their cube
_ROWS_AT_ONCE = 256


@final
@dataclass(frozen=True)
class Activations:
    """``value (image, unit, position)`` float64; one position where the layer gives one vector an input.

    What a direction says to an input is the maximum, or the mean, of what it says at the positions: directions turn
    the channels, before positions are joined, as the units' own do.
    """

    value: Tensor
    maximum: bool
    plane: tuple[int, ...]

    @property
    def n_units(self) -> int:
        return self.value.shape[1]

    def project(self, direction: Tensor, scale: Tensor | None = None) -> Tensor:
        """``(direction, image)``: <phi(x), v> for the rows v of ``direction (direction, unit)``, the units divided by
        ``scale (unit,)`` first."""
        weight = direction if scale is None else direction / scale
        if self.value.shape[2] == 1:
            return weight @ self.value[:, :, 0].T
        parts = [self._joined(weight @ part) for part in self.value.split(_ROWS_AT_ONCE)]
        return torch.cat(parts).T.contiguous()

    def natural(self) -> Tensor:
        """``(unit, image)``: the same for the units themselves."""
        return self._joined(self.value).T.contiguous()

    def _joined(self, said: Tensor) -> Tensor:
        return said.amax(2) if self.maximum else said.mean(2)

    def spread(self) -> Tensor:
        """``(unit,)``: standard deviation over inputs and positions."""
        return self.value.transpose(1, 2).flatten(0, 1).std(0, correction=0)

    def of(self, unit: Tensor) -> Activations:
        """Those of some units alone."""
        return Activations(self.value[:, unit], self.maximum, self.plane)

    def rows(self) -> Tensor:
        """``(image and position, unit)``."""
        return self.value.transpose(1, 2).flatten(0, 1)


def layer_names(module: nn.Module) -> list[str]:
    """The layers of a module that can be named."""
    return [name for name, _ in module.named_modules() if name]


@final
class LayerReader:
    """Reads the activations of ``layer`` from a copy of the network; the network itself is left as it is.

    ``positions`` of a map ``(channel, *plane)``: "maximum" or "mean" of each channel over them, or "each" a unit of
    its own. Raises UserError for a layer that is not there (naming those nearest), that does not run exactly once, or
    whose output is not one vector or one plane a channel for every input.
    """

    def __init__(self, network: Network, layer: str, positions: str) -> None:
        names = layer_names(network.module)
        if layer not in names:
            near = difflib.get_close_matches(str(layer), names, n=_MOST_NAMES, cutoff=0.4)
            listed = ", ".join(near or names[:_MOST_NAMES]) or "none: the module has no layers with names"
            words = f"a layer of the network, such as {listed}"
            raise UserError("layer", words, repr(layer), f"choose one of its {len(names)} layers")
        self._network = network
        self.layer = layer
        self._positions = positions
        self._module = copy.deepcopy(network.module).double()
        self.evaluations = 0
        sample = network.space.draw(2, torch.Generator().manual_seed(0))
        self._check(self._raw(sample))

    @torch.no_grad()
    def read(self, inputs: Tensor) -> Activations:
        """Activations of points ``(image, *shape)`` in input units; an evaluation a row."""
        parts = [self._raw(part) for part in inputs.split(_ROWS_AT_ONCE)]
        self.evaluations += len(inputs)
        plane = tuple(parts[0].shape[2:])
        if self._positions == "mean":
            parts = [part.flatten(2).mean(2) if plane else part for part in parts]
        elif self._positions == "each":
            parts = [part.flatten(1) for part in parts]
        value = torch.cat(parts).flatten(2) if plane and self._positions == "maximum" else torch.cat(parts)[:, :, None]
        return Activations(value, self._positions == "maximum", plane)

    def n_bytes(self, n_inputs: int) -> int:
        """Memory that activations take."""
        sample = self._raw(self._network.space.draw(1, torch.Generator().manual_seed(0)))
        n_values = sample.shape[1] if self._positions == "mean" else sample[0].numel()
        return 8 * n_inputs * n_values

    def check_size(self, n_inputs: int) -> None:
        """Raise UserError where the activations of so many inputs do not fit, or there are too many units."""
        if self.n_bytes(n_inputs) > _MOST_BYTES:
            got = f"{self.n_bytes(n_inputs) / 2**30:.1f} GiB of activations"
            raise UserError("inputs", f"at most {_MOST_BYTES / 2**30:.0f} GiB", got, 'take fewer, or positions="mean"')

    @torch.no_grad()
    def _raw(self, points: Tensor) -> Tensor:
        kept: list[object] = []
        handle = self._module.get_submodule(self.layer).register_forward_hook(
            # A later layer may work in place.
            lambda _module, _inputs, output: kept.append(output.clone() if isinstance(output, Tensor) else output)
        )
        network = self._network
        try:
            given = self._embedded(points)
            self._module(given if network.preprocess is None else network.preprocess(given))
        finally:
            handle.remove()
        if len(kept) != 1:
            remedy = "give every place of the network a layer of its own, or choose another"
            raise UserError("layer", "a layer that runs once", f"{self.layer!r}, which runs {len(kept)} times", remedy)
        if not isinstance(kept[0], Tensor):
            got = f"{self.layer!r}, which gives a {type(kept[0]).__name__}"
            raise UserError("layer", "a layer whose output is a tensor", got, "choose a layer inside it")
        return kept[0]

    def _embedded(self, points: Tensor) -> Tensor:
        network, space = self._network, self._network.space
        if isinstance(space, DiscreteSpace) and not points.is_floating_point():
            table = network.embedding.table(space).double()
            return network.embedding.assemble(table[space.to_levels(points)], space)
        return network.embedding.continuous(points.double())

    def _check(self, sample: Tensor) -> None:
        if not 2 <= sample.ndim <= 5 or len(sample) != 2 or sample[0].numel() == 0:
            expected = "one vector (unit,) or one plane a channel (channel, *plane) for every input"
            got = f"{self.layer!r}, which gives shape {tuple(sample.shape)} for 2 inputs"
            raise UserError("layer", expected, got, "choose another layer")
        n_units = sample[0].numel() if self._positions == "each" else sample.shape[1]
        if n_units > _MOST_UNITS:
            got = f"{n_units:,} units of {self.layer!r}"
            remedy = (
                'use positions="maximum"' if self._positions == "each" and sample.ndim > 2 else "choose a smaller layer"
            )
            raise UserError("layer", f"at most {_MOST_UNITS:,} units, since whole bases are turned", got, remedy)
