"""What a survey of a boundary refuses, before any work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from theodolite import Boundary, Constraints, Latent, Network, UserError
from theodolite.run import Budget

N_FEATURES, N_CLASSES = 6, 4


def network():
    return Network(nn.Linear(N_FEATURES, N_CLASSES), Latent(N_FEATURES))


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"effort": "high"}, "effort"),
        ({"norm": "L3"}, "norm"),
        ({"targets": "nearest"}, "targets"),
        ({"targets": "3:3"}, "targets"),
        ({"targets": "3"}, "targets"),
        ({"certificate": "proof"}, "certificate"),
        ({"homotopy": "maybe"}, "homotopy"),
        ({"meeting": 2}, "meeting"),
        ({"uncertainty": -1.0}, "uncertainty"),
        ({"constraints": "fixed=0"}, "constraints"),
        ({"budget": "soon"}, "budget"),
        ({"targets": "all", "norm": "L1"}, "norm"),
        ({"meeting": 3, "norm": "Linf"}, "norm"),
        ({"certificate": "exact", "norm": "L1"}, "certificate"),
    ],
)
def test_wrong_settings_are_refused(settings, argument):
    with pytest.raises(UserError) as refused:
        Boundary(**settings)
    assert refused.value.argument == argument
    assert Boundary(budget="1 h").budget == str(Budget.parse("1 h"))


@pytest.mark.parametrize(
    ("settings", "given", "argument"),
    [
        ({}, {"inputs": torch.zeros(3, 5)}, "inputs"),
        ({}, {"inputs": torch.zeros(0, N_FEATURES)}, "inputs"),
        ({}, {"labels": torch.zeros(4)}, "labels"),
        ({}, {"labels": torch.tensor([0, 1, N_CLASSES])}, "labels"),
        ({}, {"labels": torch.tensor([0, 1, -2])}, "labels"),
        ({}, {"labels": torch.tensor([0, 1, 0.5])}, "labels"),
        ({}, {"reference": torch.zeros(3, 5)}, "reference"),
        ({}, {"network": nn.Linear(N_FEATURES, N_CLASSES)}, "network"),
        ({"targets": "0:9"}, {}, "targets"),
        ({"meeting": N_CLASSES + 1}, {}, "meeting"),
        ({"targets": "all", "constraints": Constraints(whole=[0])}, {}, "targets"),
        ({"constraints": Constraints(low=1.0, high=0.0)}, {}, "constraints"),
    ],
)
def test_wrong_input_is_refused_before_any_work(settings, given, argument, tmp_path):
    surveyed = given.pop("network", network())
    with pytest.raises(UserError) as refused:
        Boundary(**settings).measure(
            surveyed, **{"inputs": torch.zeros(3, N_FEATURES), **given}, directory=tmp_path, progress=False
        )
    assert refused.value.argument == argument
    assert not list(tmp_path.iterdir())
