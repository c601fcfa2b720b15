"""Names of points: against the best that any classifier can do, and refusals."""

from __future__ import annotations

import pytest
import torch

from theodolite.errors import UserError
from theodolite.learning.naming import name_points


def test_names_are_nearly_as_good_as_the_best_possible():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (900,), generator=generator) * 2  # labels 0, 2, 4: they need not be 0, 1, 2
    centres = torch.zeros(5, 2, 3)
    centres[0, 0, 0], centres[2, 1, 1], centres[4, 0, 2] = 3.0, 3.0, 3.0
    points = centres[labels] + 0.5 * torch.randn((900, 2, 3), generator=generator)
    named = name_points(points, labels, noise=0.5)
    fresh = torch.randint(0, 3, (3000,), generator=generator) * 2
    noisy = centres[fresh] + 0.7 * torch.randn((3000, 2, 3), generator=generator)
    found = named(noisy)
    best = torch.cdist(noisy.flatten(1), centres.flatten(1)).argmin(1)  # equal round Gaussians: the nearest centre
    assert found.dtype == torch.int64 and set(found.tolist()) == {0, 2, 4}
    assert float((found == best).double().mean()) > 0.97
    assert torch.equal(named(centres[[0, 2, 4]].double()), torch.tensor([0, 2, 4]))
    assert torch.equal(found, name_points(points, labels, noise=0.5)(noisy))


@pytest.mark.parametrize("labels", [torch.zeros(6, dtype=torch.int64), torch.arange(5)])
def test_labels_that_name_nothing_are_refused(labels):
    with pytest.raises(UserError, match="labels"):
        name_points(torch.zeros(6, 2), labels, 0.1)
