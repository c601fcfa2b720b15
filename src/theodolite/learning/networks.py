"""The energies that one can ask for by name, with fresh weights drawn from a seed, and the prior they are tilted by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from theodolite.errors import UserError
from theodolite.learning import convolutions
from theodolite.learning.bank import NoisyData
from theodolite.learning.energy import Energy, GaussianEnergy, MLPEnergy, SumEnergy
from theodolite.learning.generators import MLPGenerator

WIDTHS = (128, 128)
GENERATOR_WIDTHS = (256, 256)
ENERGIES = ("mlp", "conv", "deepframe", "nonlocal")
_FIRST_SHARE = 0.1  # of the usual weights of an MLP's last layer: learning begins near the prior


Module = TypeVar("Module", bound=nn.Module)


def network_energy(kind: str, widths: Sequence[int] | None, activation: str, data: NoisyData, seed: int) -> Energy:
    """The network ``kind`` over the coordinates of ``data``, its weights drawn from ``seed``; an MLP sees coordinates
    less their mean over their deviation. ``widths``: None for those of the default MLP, or as published. Raises
    UserError for a kind that does not fit the points' shape."""
    shape = tuple(data.mean.shape)
    if kind == "mlp":
        sizes = WIDTHS if widths is None else widths
        # A coordinate that neither varies nor has noise is told apart by its mean alone.
        deviation = torch.where(data.deviation > 0, data.deviation, 1.0)
        energy = _drawn(lambda: MLPEnergy(shape, sizes, activation, data.mean, deviation), seed)
        last = energy.layers[-1]
        if isinstance(last, nn.Linear):
            with torch.no_grad():
                last.weight.mul_(_FIRST_SHARE)
        return energy
    return _drawn(lambda: convolutions.by_name(kind, shape, widths, activation), seed)


def _drawn(make: Callable[[], Module], seed: int) -> Module:
    """``make()`` with its weights drawn from ``seed``; torch's global generator, from which they come, is left as it
    was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def network_generator(latent: int, data: NoisyData, seed: int) -> MLPGenerator:
    """A generator of ``latent`` numbers for points like those of ``data``, its weights drawn from ``seed``."""
    shape, spread = tuple(data.mean.shape), data.spread
    return _drawn(
        lambda: MLPGenerator(latent, shape, GENERATOR_WIDTHS, output="linear", centre=data.mean, spread=spread), seed
    )


def with_prior(network: Energy, prior: str | float, data: NoisyData) -> Energy:
    """``network`` plus the Gaussian of the noisy data ("matched"), plus |x|^2 / (2 prior^2) (a number, eq. 3.10), or as
    it is ("none"). Raises UserError for a matched prior where a coordinate neither varies nor has noise."""
    if prior == "none":
        return network
    if prior == "matched":
        constant = int((data.deviation == 0).sum())
        if constant:
            got = f"{constant} that never change, and no noise"
            raise UserError("prior", "coordinates that vary, or data_noise above 0", got, "give data_noise")
        return SumEnergy([GaussianEnergy(network.shape, data.mean, data.deviation), network])
    return SumEnergy([GaussianEnergy(network.shape, 0.0, float(prior)), network])
