"""Train a classifier on its images and on changing pools of adversarial examples, of the input and of hidden layers.

Source: Szegedy et al. 2013, "Intriguing properties of neural networks", section 4.2 (reviewed by Komati 2022, section
5): examples made at a layer's output train the layers above it. The paper alternates between pools; here every batch
holds some of each, so that the share is the same at all times. Dropout is that of Srivastava et al. 2014, applied to
layer outputs while training alone.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from theodolite.errors import UserError
from theodolite.zoo.adversarial_pools import Layers, Pool, PoolRecord, cut_into_layers, empty_pool, refresh
from theodolite.zoo.flip_networks import FlipTraining
from theodolite.zoo.stability_networks import decay_penalty


@final
@dataclass(frozen=True)
class PoolTraining:
    """How `train_with_pools` trains.

    ``training``: epochs, batches, rate and seed, as `flip_networks.fit` uses them. ``weight_decays``: a lambda for
    each linear layer, first to last: lambda / 2 times its squared weights are added to the loss, biases free, by the
    same `stability_networks.decay_penalty` as the networks of the tables; empty: none. ``dropout`` and
    ``input_dropout``: share of hidden activations and of inputs that are left out at each step.

    ``pools``: layers with a pool, 0 the input, k the output of the k-th activation. ``share``: of the examples in
    every batch, split evenly over the pools; the batch keeps its originals. ``pool_size``: slots of a pool, of which
    the part ``refreshed`` is replaced at each epoch, from the epoch after ``warm_up`` on. ``amplification``: factor
    on the minimal change, 1 puts examples on the boundary. Raises UserError for numbers out of their ranges.
    """

    training: FlipTraining = FlipTraining()
    weight_decays: tuple[float, ...] = ()
    dropout: float = 0.0
    input_dropout: float = 0.0
    pools: tuple[int, ...] = (0, 1, 2)
    share: float = 0.2
    pool_size: int = 2000
    refreshed: float = 0.25
    warm_up: int = 2
    amplification: float = 1.0
    n_newton_steps: int = 3

    def __post_init__(self) -> None:
        for name in ("dropout", "input_dropout", "share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(name, "a share from 0 to below 1", repr(getattr(self, name)), "0 leaves it out")
        if not 0 < self.refreshed <= 1:
            raise UserError("refreshed", "a share above 0, up to 1", repr(self.refreshed), "a quarter is usual")
        if not (math.isfinite(self.amplification) and self.amplification >= 1):
            raise UserError("amplification", "1 or more", repr(self.amplification), "1 is the minimal change")
        if self.warm_up < 0:
            raise UserError("warm_up", "0 epochs or more", repr(self.warm_up), "leave it out")
        for name in ("pool_size", "n_newton_steps"):
            if getattr(self, name) < 1:
                raise UserError(name, "1 or more", repr(getattr(self, name)), "leave it out")
        if any(not (math.isfinite(decay) and decay >= 0) for decay in self.weight_decays):
            raise UserError("weight_decays", "numbers of 0 or more", repr(self.weight_decays), "one a linear layer")
        if len(set(self.pools)) != len(self.pools) or any(layer < 0 for layer in self.pools):
            raise UserError("pools", "different layers, 0 the input", repr(self.pools), "for example (0, 1, 2)")
        if self.share > 0 and not self.pools:
            raise UserError("share", "0 where there is no pool", repr(self.share), "name the layers in pools")


@final
@dataclass(frozen=True)
class PoolTrainingResult:
    """``losses`` of every batch (nats, penalty included), ``records`` of every refreshing, the ``pools`` as they were
    at the end, ``seconds``."""

    losses: tuple[float, ...] = field(repr=False)
    records: tuple[PoolRecord, ...] = field(repr=False)
    pools: tuple[Pool, ...] = field(repr=False)
    seconds: float


def train_with_pools(
    module: nn.Module, x: Tensor, y: Tensor, settings: PoolTraining, *, low: float = 0.0, high: float = 1.0
) -> PoolTrainingResult:
    """Train ``module`` in place on inputs ``(n, ...)`` in [``low``, ``high``] of classes ``(n,)``; leaves it frozen.

    With a share of 0, no dropout and no penalty the weights are, number for number, those of `flip_networks.fit`: what
    draws dropout and examples never touches the order of the batches. Raises UserError, before any step, for a module
    that cannot be cut, layers it has not, a wrong number of decays, labels that do not fit or inputs out of range.
    """
    layers = cut_into_layers(module, low, high)
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    n_outputs = _checked(layers, linear, x, y, settings)
    training = settings.training
    order = torch.Generator().manual_seed(training.seed)
    seeds = torch.randint(2**62, (2,), generator=torch.Generator().manual_seed(training.seed)).tolist()
    dropping, drawing = (torch.Generator().manual_seed(seed) for seed in seeds)
    optimiser = torch.optim.Adam(module.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.epochs)
    pools = [empty_pool(layers, layer, x) for layer in sorted(settings.pools)] if settings.share > 0 else []
    losses: list[float] = []
    records: list[PoolRecord] = []
    begun = time.perf_counter()
    module.train().requires_grad_(True)
    for epoch in range(training.epochs):
        if epoch >= settings.warm_up:
            for position, pool in enumerate(pools):
                pools[position], record = refresh(
                    pool,
                    layers,
                    x,
                    y,
                    size=settings.pool_size,
                    part=settings.refreshed,
                    amplification=settings.amplification,
                    n_newton_steps=settings.n_newton_steps,
                    n_outputs=n_outputs,
                    epoch=epoch,
                    generator=drawing,
                )
                records.append(record)
        for rows in torch.randperm(len(y), generator=order).split(training.batch_size):
            drawn = _drawn(pools, len(rows), settings.share, drawing)
            output = _mixed_outputs(layers, x[rows], drawn, settings, dropping)
            labels = torch.cat((y[rows], *(label for _, _, label in drawn)))
            loss = functional.cross_entropy(output, labels)
            if settings.weight_decays:
                loss = loss + decay_penalty(linear, settings.weight_decays)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        schedule.step()
    module.eval().requires_grad_(False)
    return PoolTrainingResult(tuple(losses), tuple(records), tuple(pools), time.perf_counter() - begun)


def _drawn(
    pools: list[Pool], n_originals: int, share: float, generator: torch.Generator
) -> list[tuple[int, Tensor, Tensor]]:
    """Layer, points and labels of the examples of a batch, rising in layer."""
    filled = [pool for pool in pools if len(pool.label)]
    if not filled:
        return []
    n_examples = round(n_originals * share / (1 - share))
    # Dealt out in turn from a random pool, so that few examples over many pools favour none.
    first = int(torch.randint(len(filled), (1,), generator=generator))
    drawn = []
    for place, pool in enumerate(filled):
        turn = (place - first) % len(filled)
        n_here = (n_examples - turn + len(filled) - 1) // len(filled)
        slots = torch.randint(len(pool.label), (n_here,), generator=generator)
        drawn.append((pool.layer, pool.point[slots], pool.label[slots]))
    return drawn


def _mixed_outputs(
    layers: Layers,
    x: Tensor,
    drawn: list[tuple[int, Tensor, Tensor]],
    settings: PoolTraining,
    generator: torch.Generator,
) -> Tensor:
    """Outputs of the originals, then of the examples, which join them at the layer they were made for."""
    joining = {layer: point for layer, point, _ in drawn}
    for layer, block in enumerate(layers.blocks):
        if layer in joining:
            x = torch.cat((x, joining[layer]))
        x = dropped(x, settings.dropout if layer else settings.input_dropout, generator)
        x = block(x)
    return x


def dropped(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """``x`` with a random ``share`` of its numbers set to 0 and the others raised so that the mean stays."""
    if share == 0:
        return x
    return x * (torch.rand(x.shape, generator=generator) >= share) / (1 - share)


@torch.no_grad()
def _checked(layers: Layers, linear: list[nn.Linear], x: Tensor, y: Tensor, settings: PoolTraining) -> int:
    if settings.share > 0 and max(settings.pools) >= len(layers.blocks):
        remedy = "0 is the input, k the output of the k-th activation"
        raise UserError("pools", f"layers 0 to {len(layers.blocks) - 1}", repr(settings.pools), remedy)
    if settings.weight_decays and len(settings.weight_decays) != len(linear):
        got = str(len(settings.weight_decays))
        raise UserError("weight_decays", f"{len(linear)} numbers", got, "give one a linear layer, first to last")
    if len(x) == 0 or y.shape != (len(x),):
        raise UserError("y", f"a class for each of {len(x)} inputs, one or more", str(tuple(y.shape)), "shape (n,)")
    low, high = layers.ranges[0]
    if not bool(((x >= low) & (x <= high)).all()):
        got = f"{float(x.min()):g} to {float(x.max()):g}"
        raise UserError("x", f"inputs from {low:g} to {high:g}", got, "scale them, or state low and high")
    n_outputs = layers.activations(x[:1], len(layers.blocks)).shape[1]
    if int(y.min()) < 0 or int(y.max()) >= n_outputs:
        got = f"{int(y.min())} to {int(y.max())}"
        raise UserError("y", f"classes 0 to {n_outputs - 1}", got, "build the network with an output a class")
    return n_outputs
