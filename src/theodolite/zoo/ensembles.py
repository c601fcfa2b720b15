"""Deep ensembles: the same network trained several times, apart in nothing but the seed.

Source: Lakshminarayanan, Pritzel and Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles", section 2.4: initial weights and the order of the data differ, every member sees all of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from theodolite.errors import UserError
from theodolite.network import Network
from theodolite.zoo.datasets import Digits, bundled_digits
from theodolite.zoo.flip_networks import TEN_DIGITS, FlipSubject, train_dense, train_small_cnn


class Recipe(Protocol):
    """How a network of the zoo is trained on digits, by a seed."""

    def __call__(self, digits: Digits, seed: int) -> FlipSubject: ...


RECIPES: dict[str, Recipe] = {
    "dense": lambda digits, seed: train_dense((50, 50), digits, seed),
    "conv": lambda digits, seed: train_small_cnn(digits, seed),
}


def train_members(
    members: int = 5,
    recipe: str | Recipe = "dense",
    digits: Digits | None = None,
    seed: int = 0,
    *,
    told: Callable[[FlipSubject], None] | None = None,
) -> tuple[FlipSubject, ...]:
    """``members`` networks of one recipe, "dense", "conv" or a function of digits and seed, with seeds from ``seed``
    on; ``told`` hears of each as it is trained. Raises UserError for fewer than two members or an unknown recipe.
    """
    if isinstance(members, bool) or members < 2:
        raise UserError("members", "2 or more", str(members), "leave it out for 5")
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise UserError("recipe", f"one of {', '.join(RECIPES)}, or a function", repr(recipe), "choose one")
    train = RECIPES[recipe] if isinstance(recipe, str) else recipe
    digits = digits or bundled_digits(TEN_DIGITS)
    found = []
    for number in range(members):
        found.append(train(digits, seed + number))
        if told is not None:
            told(found[-1])
    return tuple(found)


def as_networks(subjects: tuple[FlipSubject, ...]) -> dict[str, Network]:
    """What `Ensemble` measures: the members by name, "member 1" first."""
    return {f"member {number}": subject.network() for number, subject in enumerate(subjects, start=1)}
