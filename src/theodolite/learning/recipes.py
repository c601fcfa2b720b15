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
    # deviation is .15; ours is .1, whose bias is less (variances grow by epsilon^2 / (4 deviation^2)). No Metropolis
    # correction: while a rate of 5e-3 still makes cliffs, corrected chains stand still on them and learning runs away.
    "plane": {
        "widths": (128, 128, 128),
        "activation": "leaky_relu",
        "components": None,
        "data_noise": 0.0,
        "warm_updates": 0,
        "updates": 2500,
        "schedule": "adam:5e-3:1e-4",
        "dynamics": "langevin",
        "step_size": 0.1,
        "steps": 15,
        "average": 0.99,
        "long_steps": 2000,
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
