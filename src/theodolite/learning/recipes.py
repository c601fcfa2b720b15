"""Named settings of `Learning`: the papers' own, ours that converge, and the ways of failing that one can ask for.

A recipe is a mapping of settings; what it leaves out stays at its default: ``Learning(**recipe("plane"), seed=1)``.
Sources: Hill 2020 (PhD thesis, UCLA), section 3.1 (tuning), section 3.2.1.2 (images: L, rates), section 3.3 (noise
initialised), section 3.4.2 (Adam, then SGD), section 3.5 (failures); docs/learning.md for ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from theodolite.errors import UserError

Recipe = Mapping[str, Any]

# The thesis trains on images with pixels in [-1, 1]: epsilon .01 (section 3.1.1), data noise 2 epsilon (eq. 3.1), the
# energy scaled by epsilon^2 / 2 (eqs. 3.2-3.5), no prior, no averaging, one persistent chain an image begun at noise.
_THESIS: dict[str, Any] = {
    "energy": "deepframe",
    "widths": (32,),
    "activation": "relu",
    "components": None,
    "data_noise": 0.02,
    "prior": "none",
    "scaled": True,
    "warm_updates": 0,
    "batch": 100,
    "initialisation": "persistent",
    "bank_start": "noise",
    "dynamics": "langevin",
    "noise": 1.0,
    "step_size": 0.01,
    "average": 0.0,
}
_ADAM = {"betas": (0.9, 0.999)}  # Adam's own defaults, which the thesis keeps

_RECIPES: dict[str, dict[str, Any]] = {
    "convergent": {},
    # .01 falling by .99995 an update reaches .0005 after 60,000, and stays there.
    "thesis convergent": {
        **_THESIS,
        "steps": 500,
        "updates": 100_000,
        "schedule": "sgd:0.01:0.0005:0.6,sgd:0.0005:0.0005:0.4",
    },
    "thesis non-convergent": {
        **_THESIS,
        **_ADAM,
        "initialisation": "noise",
        "steps": 100,
        "updates": 100_000,
        "schedule": "adam:1e-4:1e-4",
    },
    # Half of the updates for Adam, half for SGD; L = 100.
    "hybrid": {
        **_THESIS,
        **_ADAM,
        "steps": 100,
        "updates": 100_000,
        "schedule": "adam:1e-4:1e-4:0.5,sgd:0.0005:0.0005:0.5",
    },
    "noise-initialised": {
        **_THESIS,
        **_ADAM,
        "initialisation": "noise",
        "steps": 100,
        "updates": 100_000,
        "schedule": "adam:1e-4:1e-4",
    },
    # Five steps from noise never reach the data's energy, so that updates become expansions by themselves. To skip the
    # others (updates_kept) would make none at all where the first weights happen to put the data above the noise.
    "expansion only": {
        **_THESIS,
        **_ADAM,
        "initialisation": "noise",
        "steps": 5,
        "updates": 10_000,
        "schedule": "adam:1e-4:1e-4",
    },
    "contraction only": {
        **_THESIS,
        **_ADAM,
        "noise": 0.0,
        "steps": 100,
        "updates_kept": "contraction",
        "updates": 10_000,
        "schedule": "adam:1e-4:1e-4",
    },
    # One or two coordinates, whose data have a density and need no noise. Thesis 3.2.1.1: epsilon .125 where the least
    # deviation is .15. Corrected, since uncorrected chains widen variances by epsilon^2 / (4 deviation^2). The step is
    # fixed, about as wide as the narrowest part: one that follows the acceptance shrinks or jumps while a rate of 5e-3
    # makes cliffs, and so does learning with Adam's betas of .5, .99. Leaky units bend sharply, where SiLU blurs.
    "plane": {
        "widths": (128, 128, 128),
        "activation": "leaky_relu",
        "components": None,
        "data_noise": 0.0,
        "warm_updates": 0,
        "updates": 3500,
        "schedule": "adam:5e-3:1e-4",
        "betas": (0.9, 0.999),
        "batch": 400,
        "dynamics": "mala",
        "step_size": 0.2,
        "steps": 5,
        "average": 0.999,
        "long_steps": 2000,
        "long_chains": 1000,
    },
    # Grey levels by Gibbs sampling (Hill, Nijkamp and Zhu 2019, section 5.3: 8 levels, 10 sweeps an update of a ConvNet
    # for 300 epochs), at a size for a few minutes of one core: a sweep of 256 pixels costs .6 ms a chain.
    "gibbs": {
        "widths": (64, 64),
        "components": None,
        "data_noise": 0.3,
        "warm_updates": 500,
        "updates": 350,
        "schedule": "adam:1e-3:5e-5",
        "batch": 128,
        "dynamics": "gibbs",
        "levels": 8,
        "steps": 1,
        "average": 0.98,
        "long_steps": 120,
        "long_chains": 100,
    },
}


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes, the default settings first."""
    return tuple(_RECIPES)


def recipe(name: str) -> Recipe:
    """Settings of that name, read-only. Raises UserError for a name that there is not."""
    if name not in _RECIPES:
        raise UserError("recipe", f"one of {', '.join(_RECIPES)}", repr(name), "choose one")
    return MappingProxyType(_RECIPES[name])
