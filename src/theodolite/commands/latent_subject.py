"""A field seen through a generator: the energy of what a latent vector becomes, U(g(z))."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from theodolite.commands.arguments import LandscapeCommand
from theodolite.commands.subject import Loaded, Names
from theodolite.errors import UserError
from theodolite.learning import latent_energy
from theodolite.learning.generators import GeneratorNetwork, is_generator, load_generator
from theodolite.learning.model import is_energy, load_energy
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
    saved = _saved_generator(settings)
    if saved is not None and settings.latent not in (None, saved.latent):
        raise UserError("latent", f"{saved.latent}, that of the generator", str(settings.latent), "leave it out")
    if saved is not None and loaded.learned is not None:
        return _of_learned(loaded, saved)
    latent = settings.latent if saved is None else saved.latent
    if latent is None or latent < 1:
        raise UserError("latent", "the dimensions of the latent space", str(settings.latent), "for example --latent 8")
    given = saved if saved is not None else load_model(settings.generator, settings.generator_weights).module
    module = copy.deepcopy(given).eval().requires_grad_(False)
    shape = loaded.field.space.shape
    space = Latent(latent)
    try:
        made = module(space.draw(2, torch.Generator().manual_seed(settings.seed)))
    except (RuntimeError, ValueError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise UserError("generator", f"a network that takes (batch, {latent})", got, "check --latent") from error
    if tuple(made.shape[1:]) != shape:
        raise UserError(
            "generator", f"outputs of shape (batch, {', '.join(map(str, shape))})", str(tuple(made.shape)), "check it"
        )
    precision = next((p.dtype for p in module.parameters()), torch.float32)
    to_image = loaded.picture or (lambda points: points)

    def to_point(z: Tensor) -> Tensor:
        return module(z.to(precision))

    energy = loaded.field
    name = f"{energy.name} of {settings.generator}"
    field = energy.pulled_back(space, to_point, lambda z: 0.5 * z.double().square().sum(1), name)
    return replace(
        loaded,
        field=field,
        network=None,
        learned=None,
        sets={},
        picture=lambda z: to_image(to_point(z)),
        names=_through(loaded.namer, to_point),
    )


def _saved_generator(settings: LandscapeCommand) -> GeneratorNetwork | None:
    """What `learning.generators.save_generator` wrote, or the generator that an energy was learned with; None where
    the flags name neither."""
    path = str(settings.generator)
    learned = is_energy(path)
    if not learned and not is_generator(path):
        return None
    if settings.generator_weights is not None:
        got = str(settings.generator_weights)
        raise UserError("generator_weights", "nothing beside a saved generator", got, "leave it out")
    found = load_energy(path).generator if learned else load_generator(path)
    if found is None:
        raise UserError("generator", "an energy that learned with a generator", path, "fit a generator, and save it")
    return found


def _of_learned(loaded: Loaded, network: GeneratorNetwork) -> Loaded:
    """A learned energy through a generator of its points or of its images."""
    if loaded.learned is None:
        return loaded
    model = loaded.learned.model
    field = latent_energy.latent_field(model, network)
    to_point = latent_energy.points_of(model, network)
    return replace(
        loaded,
        field=field,
        learned=None,
        sets={},
        picture=lambda z: latent_energy.pictures(model, network, z),
        names=_through(loaded.namer, lambda z: to_point(z.double())),
    )


def _through(names: Names | None, to_point: Callable[[Tensor], Tensor]) -> Names | None:
    """Names of latent vectors: those of the points that they become."""
    if names is None:
        return None

    def named(z: Tensor) -> list[str]:
        with torch.no_grad():
            return names(to_point(z))

    return named
