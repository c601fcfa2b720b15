"""A field seen through a generator: the energy of what a latent vector becomes, U(g(z))."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from theodolite.commands.arguments import LandscapeCommand
from theodolite.commands.subject import Loaded
from theodolite.errors import UserError
from theodolite.loading import load_model
from theodolite.space import Latent


def in_latent_space(settings: LandscapeCommand, loaded: Loaded) -> Loaded:
    """`loaded` with its field over the latent space of the generator named, or as it is where none is named.

    The energy is U(g(z)) + |z|^2 / 2: U alone can fall for ever outside the cloud that the generator was trained
    on, and then has no minima (Hill, Nijkamp and Zhu 2019, eq. 5.4, with the reference measure of the latent space).

    Raises UserError: flags without the others, or a generator whose outputs are no inputs of the network.
    """
    if settings.generator is None:
        for name in ("generator_weights", "latent"):
            if getattr(settings, name) is not None:
                raise UserError(name, "nothing without --generator", str(getattr(settings, name)), "name the generator")
        return loaded
    if settings.latent is None or settings.latent < 1:
        raise UserError("latent", "the dimensions of the latent space", str(settings.latent), "for example --latent 8")
    module = (
        copy.deepcopy(load_model(settings.generator, settings.generator_weights).module).eval().requires_grad_(False)
    )
    shape = loaded.field.space.shape
    space = Latent(settings.latent)
    try:
        made = module(space.draw(2, torch.Generator().manual_seed(settings.seed)))
    except (RuntimeError, ValueError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise UserError(
            "generator", f"a network that takes (batch, {settings.latent})", got, "check --latent"
        ) from error
    if tuple(made.shape[1:]) != shape:
        raise UserError(
            "generator", f"outputs of shape (batch, {', '.join(map(str, shape))})", str(tuple(made.shape)), "check it"
        )
    precision = next((p.dtype for p in module.parameters()), torch.float32)

    def to_point(z: Tensor) -> Tensor:
        return module(z.to(precision))

    energy = loaded.field
    name = f"{energy.name} of {settings.generator}"
    field = energy.pulled_back(space, to_point, lambda z: 0.5 * z.double().square().sum(1), name)
    return replace(loaded, field=field, network=None, sets={})
