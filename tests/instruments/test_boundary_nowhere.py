"""Inputs whose answer flips nowhere in the space: proven, not merely not found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from theodolite import Boundary, Box, Network


def two_classes(lead: float) -> Network:
    """Class 0 leads class 1 by ``lead`` less twice the sum of two coordinates of [0, 1]."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(2))
        module[0].bias.zero_()
        module[2].weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
        module[2].bias.copy_(torch.tensor([lead, 0.0]))
    return Network(module, Box((2,), 0.0, 1.0))


def surveyed(network: Network, norm: str, certificate: str):
    inputs = torch.tensor([[0.0, 0.0], [0.3, 0.1]])
    survey = Boundary(effort="quick", norm=norm, certificate=certificate, budget="20 s")
    return survey.measure(network, inputs, progress=False)


@pytest.mark.parametrize("norm", ["L2", "L1", "Linf"])
@pytest.mark.parametrize("certificate", ["auto", "crown"])
def test_an_answer_that_flips_nowhere_is_proven_to(norm, certificate):
    found = surveyed(two_classes(4.001), norm, certificate)
    assert np.isinf(found.distance_lower_bound).all() and np.isinf(found.distance).all()
    assert set(found.outcome.values) == {"none: proven that the answer flips nowhere in the space"}
    assert found.verdict == "exact" and "nowhere" in str(found.verdict_sentence.item())


@pytest.mark.parametrize("norm", ["L2", "L1", "Linf"])
def test_a_flip_in_the_farthest_corner_is_no_nowhere(norm):
    found = surveyed(two_classes(3.999), norm, "auto")
    # From the first input along the diagonal, to where the sum of the coordinates is 1.9995.
    flip = np.full(2, 3.999 / 4)
    distance = {"L2": np.linalg.norm(flip), "L1": flip.sum(), "Linf": flip.max()}[norm]
    assert 0.99 * distance < found.distance_lower_bound[0] <= distance
    assert not any(words.startswith("none") for words in found.outcome.values)
