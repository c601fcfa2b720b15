"""Exact ties: one-sided to 1e-9, others strictly below, also where Newton's steps only jump from side to side."""

import torch

from theodolite.outputs import Outputs
from theodolite.search.pair_flips import class_ties
from theodolite.search.pair_polish import polish
from theodolite.search.regions import hull

F64 = torch.float64


def polished(function, n_outputs, point, second=1):
    exact = Outputs(function, (2,), torch.full((2,), -1.0), torch.full((2,), 1.0), n_outputs, dtype=F64)
    point = torch.tensor(point, dtype=F64)
    n_rows = len(point)
    zeros = torch.zeros(n_rows, dtype=torch.int64)
    ties = class_ties(exact, zeros, torch.full((n_rows, 1), second), torch.arange(n_rows), n_rows)
    return exact, ties, polish(ties, torch.zeros_like(point), hull(exact, n_rows), point)


def test_newton_that_jumps_between_both_sides_is_halved():
    def root(x):
        # Newton's step from t leads to -t, for ever.
        gap = x[:, 0].sign() * x[:, 0].abs().sqrt()
        return torch.stack((torch.zeros_like(gap), gap), 1)

    _, _, result = polished(root, 2, [[0.01, 0.3], [-0.02, 0.3]])
    assert result.met.all()
    assert ((result.residual >= 0) & (result.residual <= 1e-9)).all()
    assert ((result.point[:, 0] >= 0) & (result.point[:, 0] <= 1e-18)).all()


def test_other_classes_are_pushed_below():
    def three(x):
        return torch.stack((0 * x[:, 0], x[:, 0] + x[:, 1] ** 2, x[:, 1]), 1)

    # On the tie already, but the third class leads, or ties too.
    exact, _, result = polished(three, 3, [[-0.01, 0.1], [0.0, 0.0], [-1e-6, -1e-3]])
    z = exact.value(result.point)
    assert result.met.all()
    assert ((z[:, 1] - z[:, 0] >= 0) & (z[:, 1] - z[:, 0] <= 1e-9)).all()
    assert (z[:, 2] <= z[:, 0] - 1e-6).all()
    assert torch.allclose(result.point[2], torch.tensor([-1e-6, -1e-3], dtype=F64), atol=1e-8)


def test_what_cannot_tie_is_not_met_and_nan_harms_no_other_row():
    def apart(x):
        return torch.stack((0 * x[:, 0], x[:, 0] + torch.where(x[:, 1] > 0.5, torch.nan, -2.0 * (x[:, 1] > 0))), 1)

    _, _, result = polished(apart, 2, [[0.1, -0.5], [0.1, 0.25], [0.1, 0.75]])
    assert result.met.tolist() == [True, False, False]
    assert abs(float(result.point[0, 0])) <= 1e-9
