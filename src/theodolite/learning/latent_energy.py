"""An energy seen through a generator, U(g(z)) + reference |z|^2 / 2, as a field over the latent space.

Sources: Hill, Nijkamp and Zhu 2019, eqs. 2.13 and 5.4; the second term is the energy of the latent space's own measure
N(0, I) (appendix A of Hill 2020), without which U(g(z)) can fall for ever outside the cloud that the generator was
fitted on, and has no minima. What a landscape of it says and does not say: docs/learning.md.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.learning.generators import GeneratorNetwork
from theodolite.learning.model import EnergyModel
from theodolite.network import model_hash
from theodolite.space import Latent


def latent_field(model: EnergyModel, network: GeneratorNetwork, reference: float = 1.0) -> Field:
    """U(g(z)) + ``reference`` |z|^2 / 2 in nats over Latent(network.latent), computed in float64.

    ``network`` makes points of the energy, or images, which ``model.frame`` turns into points. Raises UserError where
    its output fits neither, for a ``reference`` that is not above 0, and where either's weights are not finite.
    """
    if not (math.isfinite(reference) and reference > 0):
        remedy = "1 is the latent space's own measure; without it the energy has no lowest point"
        raise UserError("reference", "a finite number above 0", repr(reference), remedy)
    for name, module in (("model", model), ("generator", network)):
        if not all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values()):
            raise UserError(name, "finite weights", "NaN or infinite ones", "go back to its last good checkpoint")
    to_point = points_of(model, network)
    field = model.field().pulled_back(
        Latent(network.latent),
        lambda z: to_point(z.double()),
        lambda z: 0.5 * reference * z.double().square().sum(1),
        f"{model.name} of its generator + {reference:g} |z|^2 / 2",
    )
    both = f"{model_hash(model.energy)} {model_hash(network)} {reference!r}"
    field.model_hash = hashlib.sha256(both.encode()).hexdigest()
    return field


def points_of(model: EnergyModel, network: GeneratorNetwork) -> Callable[[Tensor], Tensor]:
    """z ``(batch, latent)`` float64 -> points of the energy ``(batch, *model.energy.shape)`` float64, differentiable.

    Raises UserError naming both shapes where the generator's output is neither a point nor an image.
    """
    check_fit(model, network)
    precise = copy.deepcopy(network).double().eval().requires_grad_(False)
    if network.shape == model.energy.shape:
        return precise
    frame = copy.deepcopy(model.frame).double().eval().requires_grad_(False)
    return lambda z: frame.coordinates(precise(z))


def pictures(model: EnergyModel, network: GeneratorNetwork, z: Tensor) -> Tensor:
    """Images ``(n, *image_shape)`` float32 of latent points ``z (n, latent)``. Raises UserError as `points_of` does."""
    check_fit(model, network)
    weights = next(network.parameters())
    with torch.no_grad():
        made = network(z.to(weights)).float()
    return made if network.shape == model.frame.image_shape else model.images(made)


def check_fit(model: EnergyModel, network: GeneratorNetwork) -> None:
    """Raise UserError, naming both shapes, where the generator makes neither points of the energy nor images."""
    fits = (model.energy.shape, model.frame.image_shape)
    if network.shape not in fits:
        expected = f"outputs of the energy's shape {fits[0]}" + (f" or images {fits[1]}" if fits[0] != fits[1] else "")
        raise UserError("generator", expected, f"{network.shape}", "make a generator of that shape")
