"""Recipes: each is a set of settings that `Learning` takes, with the papers' numbers where they give them."""

import pytest

from theodolite.errors import UserError
from theodolite.instruments.learning import Learning
from theodolite.learning.recipes import recipe, recipe_names
from theodolite.learning.schedule import Schedule

NAMES = (
    "convergent",
    "thesis convergent",
    "thesis non-convergent",
    "hybrid",
    "noise-initialised",
    "expansion only",
    "contraction only",
    "plane",
    "gibbs",
)


def test_names():
    assert recipe_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_settings_of_learning(name):
    Learning(**recipe(name))


def test_rate_of_the_convergent_thesis_recipe_falls_as_its_decay_says():
    settings = recipe("thesis convergent")
    schedule, updates = Schedule.parse(settings["schedule"]), settings["updates"]
    for update in (0, 20_000, 40_000, 59_000, 99_999):
        expected = max(0.01 * 0.99995**update, 0.0005)
        assert schedule.at(update / (updates - 1))[1] == pytest.approx(expected, rel=0.01)
    assert settings["steps"] == 500 and settings["initialisation"] == "persistent"


def test_the_non_convergent_recipe_is_adam_from_noise():
    settings = recipe("thesis non-convergent")
    assert settings["schedule"] == "adam:1e-4:1e-4" and settings["initialisation"] == "noise"
    assert settings["steps"] == 100 and settings["step_size"] == 0.01


def test_the_failures_are_made_as_the_thesis_makes_them():
    assert recipe("expansion only")["initialisation"] == "noise" and recipe("expansion only")["steps"] == 5
    assert recipe("contraction only")["updates_kept"] == "contraction" and recipe("contraction only")["noise"] == 0.0


def test_a_recipe_cannot_be_changed_and_an_unknown_one_is_told():
    with pytest.raises(TypeError):
        recipe("plane")["steps"] = 3  # type: ignore[index]
    with pytest.raises(UserError, match="recipe"):
        recipe("no such")
