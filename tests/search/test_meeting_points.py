"""Meeting points of three and more classes against closed forms and fine grids."""

import pytest
import torch

from theodolite.errors import UserError
from theodolite.outputs import Outputs
from theodolite.search.meeting_points import meeting_points

F64 = torch.float64


def outputs_of(function, n, n_outputs, low=0.0, high=1.0, dtype=F64):
    return Outputs(function, (n,), torch.full((n,), low), torch.full((n,), high), n_outputs, dtype=dtype)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def check(exact, meetings, n_classes):
    rows = torch.isfinite(meetings.distance)
    z = exact.value(meetings.point[rows])
    tied = z.gather(1, meetings.classes[rows])
    assert tied.shape[1] == n_classes
    spread = tied.amax(1) - tied.amin(1)
    assert (spread <= 1e-9).all()
    others = z.scatter(1, meetings.classes[rows], -torch.inf).amax(1)
    assert (others <= tied.amin(1) - 1e-6 * (1 - 1e-3)).all()
    assert (meetings.residual[rows] >= spread - 1e-15).all()


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_planes_meet_where_linear_algebra_says(n_classes):
    weight = torch.randn(n_classes, 9, generator=seeded(n_classes), dtype=F64)
    bias = torch.randn(n_classes, generator=seeded(1), dtype=F64)

    def function(x):
        return x @ weight.T + bias

    exact = outputs_of(function, 9, n_classes, -torch.inf, torch.inf)
    inputs = torch.randn(6, 9, generator=seeded(2), dtype=F64)
    meetings = meeting_points(exact, exact, inputs, function(inputs).argmax(1), n_classes=n_classes, generator=seeded())
    difference = weight[1:] - weight[:1]
    gap = function(inputs)[:, 1:] - function(inputs)[:, :1]
    move = torch.linalg.lstsq(difference, -gap.T).solution.T
    assert torch.allclose(meetings.distance, move.norm(dim=1), rtol=1e-7)
    assert torch.allclose(meetings.point, inputs + move, atol=1e-6)
    assert meetings.classes.tolist() == [list(range(n_classes))] * 6
    check(exact, meetings, n_classes)


@pytest.mark.parametrize("seed", [0, 1])
def test_corners_of_the_plane_against_a_fine_grid(seed):
    """Voronoi cells, bent: the corners of a grid's classes are the meeting points."""
    centers = torch.rand(6, 2, generator=seeded(seed), dtype=F64)

    def function(x):
        bent = x + 0.05 * torch.sin(7.0 * x.flip(1))
        return -(bent[:, None] - centers[None].to(x)).square().sum(2)

    n = 801
    axis = torch.linspace(0, 1, n, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    highest = function(grid).argmax(1).reshape(n, n)
    cells = torch.stack((highest[:-1, :-1], highest[1:, :-1], highest[:-1, 1:], highest[1:, 1:]), 2).sort(2).values
    several = (cells[..., 1:] != cells[..., :-1]).sum(2) >= 2
    corner = grid.reshape(n, n, 2)[:-1, :-1][several] + 0.5 / n
    inputs = torch.rand(5, 2, generator=seeded(seed + 10), dtype=F64)
    own = function(inputs).argmax(1)
    every = torch.rand(300, 2, generator=seeded(20), dtype=F64)
    meetings = meeting_points(
        outputs_of(function, 2, 6, dtype=torch.float32),
        outputs_of(function, 2, 6),
        inputs,
        own,
        reference=(every, function(every).argmax(1)),
        generator=seeded(),
    )
    truth = torch.cdist(inputs, corner).amin(1)
    assert len(corner) >= 3
    assert torch.allclose(meetings.distance, truth, atol=2e-3)
    check(outputs_of(function, 2, 6), meetings, 3)


def test_bounds_hold_and_what_cannot_meet_is_not_found():
    def strip(x):
        return torch.stack((x[:, 0], 1.0 - x[:, 0], -5.0 + 0.0 * x[:, 0]), 1)

    exact = outputs_of(strip, 2, 3)
    inputs = torch.rand(3, 2, generator=seeded(), dtype=F64)
    meetings = meeting_points(exact, exact, inputs, strip(inputs).argmax(1), effort="quick", generator=seeded())
    assert not torch.isfinite(meetings.distance).any()
    assert (meetings.classes == -1).all()
    two = meeting_points(exact, exact, inputs, strip(inputs).argmax(1), n_classes=2, generator=seeded())
    assert torch.allclose(two.distance, (inputs[:, 0] - 0.5).abs(), atol=1e-8)
    assert two.classes.tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("n_classes", [1, 4])
def test_impossible_numbers_of_classes_are_refused(n_classes):
    exact = outputs_of(lambda x: torch.cat((x, x[:, :1]), 1), 2, 3)
    with pytest.raises(UserError, match="n_classes"):
        meeting_points(
            exact, exact, torch.rand(1, 2, dtype=F64), torch.tensor([0]), n_classes=n_classes, generator=seeded()
        )
