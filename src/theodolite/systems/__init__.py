"""Fields whose density of states, or landscape, is known exactly: what every method is tested against."""

from collections.abc import Callable
from typing import Any

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.systems.chains import Chains, rough_chains, rough_settings, smooth_chains, smooth_settings
from theodolite.systems.chains_exact import exact_log_density_of_states
from theodolite.systems.continuous import (
    box_linear,
    box_linear_log_density_of_states,
    latent_linear,
    latent_linear_log_density_of_states,
)
from theodolite.systems.ising import ising
from theodolite.systems.ising_exact import ising_counts, ising_log_density_of_states
from theodolite.systems.linear import linear, linear_logit, linear_logit_scale, linear_logit_weights
from theodolite.systems.linear_exact import linear_log_counts, linear_log_density_of_states
from theodolite.systems.mixtures import gaussian_mixture, mixture_surface
from theodolite.systems.spin_glass import pair_spin_field, spin_glass
from theodolite.systems.surfaces import (
    KnownMinima,
    KnownSaddles,
    Surface,
    mueller_brown,
    quartic_wells,
    rough_basins,
    surface,
)
from theodolite.systems.toy import random_table, table_field, table_log_density_of_states

__all__ = [
    "Chains",
    "KnownMinima",
    "KnownSaddles",
    "Surface",
    "box_linear",
    "box_linear_log_density_of_states",
    "exact_log_density_of_states",
    "gaussian_mixture",
    "ising",
    "ising_counts",
    "ising_log_density_of_states",
    "latent_linear",
    "latent_linear_log_density_of_states",
    "linear",
    "linear_log_counts",
    "linear_log_density_of_states",
    "linear_logit",
    "linear_logit_scale",
    "linear_logit_weights",
    "mixture_surface",
    "mueller_brown",
    "pair_spin_field",
    "parse_system",
    "quartic_wells",
    "random_table",
    "rough_basins",
    "rough_chains",
    "rough_settings",
    "smooth_chains",
    "smooth_settings",
    "spin_glass",
    "surface",
    "table_field",
    "table_log_density_of_states",
]


def parse_system(text: str) -> Field:
    """The field a text such as "ising:12" names.

    The names: ising:SIDE[:FIELD], spin_glass:N[:SEED], linear:SEED (a 28 x 28 linear logit), chains:smooth,
    chains:rough, table:SEED (12 bits), box:N (sum of N uniforms), latent:DIM (a slope of a Gaussian),
    surface:mueller-brown, surface:rough, surface:quartic-DIM, mixture:DIM[:SEED] (energies of Gaussian mixtures).

    Raises:
        UserError: an unknown name, or an argument that does not fit it.
    """
    name, _, argument = text.strip().partition(":")
    if name not in _SYSTEMS:
        raise UserError("system", f"one of {', '.join(_FORMS)}", repr(text), "see theodolite.systems")
    build = _SYSTEMS[name]
    try:
        return build(argument)
    except (KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        form = next(form for form in _FORMS if form.startswith(f"{name}:"))
        raise UserError("system", form, repr(text), "see theodolite.systems") from None


def _parts(argument: str, first: Callable[[str], Any], second: Callable[[str], Any]) -> tuple[Any, ...]:
    head, _, tail = argument.partition(":")
    return (first(head), second(tail)) if tail else (first(head),)


_FORMS = (
    "ising:SIDE[:FIELD]",
    "spin_glass:N[:SEED]",
    "linear:SEED",
    "chains:smooth|rough",
    "table:SEED",
    "box:N",
    "latent:DIM",
    "surface:mueller-brown|rough|quartic-DIM",
    "mixture:DIM[:SEED]",
)
_SYSTEMS: dict[str, Callable[[str], Field]] = {
    "ising": lambda argument: ising(*_parts(argument, int, float)),
    "spin_glass": lambda argument: spin_glass(*_parts(argument, int, int)),
    "linear": lambda argument: linear_logit(int(argument)),
    "chains": lambda argument: {"smooth": smooth_chains, "rough": rough_chains}[argument](),
    "table": lambda argument: random_table(int(argument)),
    "box": lambda argument: box_linear(int(argument)),
    "latent": lambda argument: latent_linear(int(argument)),
    "surface": lambda argument: surface(argument).field,
    "mixture": lambda argument: gaussian_mixture(*_parts(argument, int, int)).field,
}
