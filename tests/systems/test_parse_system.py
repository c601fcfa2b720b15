"""The texts that name a system."""

import pytest

from theodolite.errors import UserError
from theodolite.space import Box, Grid, Latent, Spins
from theodolite.systems import parse_system


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("ising:12", Spins(144)),
        ("linear:0", Grid((28, 28), 256)),
        ("chains:smooth", Grid((1, 28, 28), 256)),
        ("chains:rough", Grid((1, 28, 28), 256)),
        ("table:3", Grid((12,), 2)),
        ("box:4", Box((4,), 0.0, 1.0)),
        ("latent:5", Latent(5)),
    ],
)
def test_names(text, space):
    assert parse_system(text).space == space


@pytest.mark.parametrize("text", ["potts:3", "ising", "ising:x", "chains:odd", "", "linear:"])
def test_unknown_texts_name_the_forms(text):
    with pytest.raises(UserError, match="ising:SIDE|linear:SEED|chains:smooth") as caught:
        parse_system(text)
    assert caught.value.argument == "system"


def test_a_known_name_with_an_impossible_size():
    with pytest.raises(UserError, match="side"):
        parse_system("ising:1")
