"""Weights as plain tensors, and one optimiser's step on them: what a pure update needs of torch's optimisers.

A module is a workspace: an update puts its weights in, changes them there, and takes copies out, so that a state can be
kept, saved and gone on with bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

Tensors = tuple[Tensor, ...]
Moments = tuple[dict[str, Tensor], ...]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are learned, in the module's order."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def weights_of(module: nn.Module) -> Tensors:
    """Copies of the learned parameters."""
    return tuple(parameter.detach().clone() for parameter in trainable(module))


@torch.no_grad()
def put(module: nn.Module, weights: Sequence[Tensor]) -> None:
    """Set the learned parameters to copies of ``weights``, in the module's order."""
    for parameter, tensor in zip(trainable(module), weights, strict=True):
        parameter.copy_(tensor)


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every number in every tensor is."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def largest(tensors: Sequence[Tensor]) -> float:
    """The largest absolute value among all numbers; 0 where there are none."""
    return max((float(tensor.abs().max()) for tensor in tensors), default=0.0)


@final
class Optimiser:
    """Adam (Kingma and Ba 2015) or plain gradient descent over a module's learned parameters.

    ``moments``: those of an earlier optimiser of the same kind to go on from; empty: it begins.
    """

    def __init__(
        self, kind: str, module: nn.Module, moments: Moments = (), betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self._parameters = trainable(module)
        self._optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(self._parameters, lr=0.0)
            if kind == "sgd"
            else torch.optim.Adam(self._parameters, lr=0.0, betas=betas, fused=True)
        )
        for parameter, kept in zip(self._parameters, moments, strict=False):
            self._optimiser.state[parameter] = {name: tensor.clone() for name, tensor in kept.items()}

    def step(self, gradients: Sequence[Tensor], rate: float) -> None:
        """Move the parameters against ``gradients``."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def moments(self) -> Moments:
        """Copies of what the optimiser remembers, a mapping a parameter; empty mappings where it remembers nothing."""
        return tuple(
            {
                name: tensor.detach().clone()
                for name, tensor in self._optimiser.state.get(parameter, {}).items()
                if isinstance(tensor, Tensor)
            }
            for parameter in self._parameters
        )
