"""A sparse autoencoder of one hidden layer of sigmoid units, whose features a classifier is trained on.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4.2, names a single-layer sparse
autoencoder with sigmoid units and says no more. The sparsity is the Kullback-Leibler divergence of each unit's mean
activation from a small one (Ng 2011, "Sparse autoencoder", lecture notes of CS294A).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from theodolite.errors import UserError
from theodolite.zoo.networks import initialised

_UNIT_EDGE = 1e-6  # mean activations are kept this far from 0 and 1, where the divergence is infinite


@final
@dataclass(frozen=True)
class SparseCoding:
    """Adam on half the squared error of the reconstruction, summed over pixels, plus ``sparsity_weight`` times the sum
    over units of KL(``mean_activation`` | mean activation in the batch), plus ``weight_decay`` / 2 times the squared
    weights; the rate falls as half a cosine. At least ``least_steps`` batches, however few the images.

    Raises UserError for numbers out of their ranges.
    """

    mean_activation: float = 0.1
    sparsity_weight: float = 3.0
    weight_decay: float = 3e-3
    epochs: int = 10
    least_steps: int = 1000
    batch_size: int = 200
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "least_steps", "batch_size", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(name, "a finite number above 0", repr(getattr(self, name)), "leave it out")
        for name in ("sparsity_weight", "weight_decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(name, "0 or more", repr(getattr(self, name)), "leave it out")
        if not 0 < self.mean_activation < 1:
            raise UserError("mean_activation", "between 0 and 1", repr(self.mean_activation), "0.1 is usual")


def encoder_of(x: Tensor, n_units: int, settings: SparseCoding) -> nn.Linear:
    """The linear layer before the sigmoid units of an autoencoder trained on ``x (n, pixels)`` in [0, 1]; frozen.

    Encoder and decoder have weights of their own; the decoder, sigmoid too, is thrown away.
    """
    encoder = initialised(lambda: _glorot(x.shape[1], n_units), settings.seed)
    decoder = initialised(lambda: _glorot(n_units, x.shape[1]), settings.seed)
    weights, biases = [encoder.weight, decoder.weight], [encoder.bias, decoder.bias]
    optimiser = torch.optim.Adam(
        [{"params": weights, "weight_decay": settings.weight_decay}, {"params": biases}], settings.learning_rate
    )
    epochs = epochs_for(len(x), settings.epochs, settings.least_steps, settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(settings.batch_size):
            images = x[rows]
            hidden = torch.sigmoid(encoder(images))
            error = (torch.sigmoid(decoder(hidden)) - images).square().sum(1).mean() / 2
            loss = error + settings.sparsity_weight * divergence(settings.mean_activation, hidden.mean(0)).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    return encoder.requires_grad_(False)


def divergence(wanted: float, activation: Tensor) -> Tensor:
    """KL of a unit that is on with probability ``wanted`` from one that is on with ``activation``, any shape; nats."""
    q = activation.clamp(_UNIT_EDGE, 1 - _UNIT_EDGE)
    return wanted * (math.log(wanted) - q.log()) + (1 - wanted) * (math.log(1 - wanted) - torch.log1p(-q))


def epochs_for(n_images: int, epochs: int, least_steps: int, batch_size: int) -> int:
    """``epochs``, or more where so few images make fewer than ``least_steps`` batches of them."""
    return max(epochs, math.ceil(least_steps / math.ceil(n_images / batch_size)))


def _glorot(n_in: int, n_out: int) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
