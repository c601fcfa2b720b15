"""Networks of the zoo as commands load them."""

import io

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from theodolite.commands.arguments import Subject
from theodolite.commands.subject import DIGIT_CLASSIFIERS, Loaded, load, save_zoo_weights
from theodolite.zoo.networks import initialised


@pytest.mark.parametrize("model", DIGIT_CLASSIFIERS)
def test_saved_weights_take_the_place_of_training(model, tmp_path):
    settings = Subject(model=model)
    told = io.StringIO()
    module = initialised(DIGIT_CLASSIFIERS[model].factory, 3)
    first = tmp_path / "first.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, first)
    loaded = load(settings, 0, Console(file=told), first)
    assert told.getvalue() == ""
    assert loaded.network is not None and loaded.network.n_outputs == 10
    x, y = loaded.sets["test"]
    assert x.shape[1:] == loaded.network.space.shape and len(x) == len(y)
    assert torch.allclose(loaded.network.outputs(x[:5]), module.eval()(x[:5]).detach(), atol=1e-6)
    assert bool(((x >= 0) & (x <= 1)).all())
    again = tmp_path / "again.safetensors"
    save_zoo_weights(settings, loaded, again)
    assert reloaded(settings, again).network.hash == loaded.network.hash


def reloaded(settings: Subject, path) -> Loaded:
    return load(settings, 1, Console(file=io.StringIO()), path)
