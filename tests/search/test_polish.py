"""Points moved onto a boundary in float64: margins to 1e-9 on the far side, near where they were, inside the region."""

import pytest
import torch

from theodolite.outputs import Outputs
from theodolite.search.margins import margins
from theodolite.search.polish import polish
from theodolite.search.regions import Region, hull


def one_margin(function, n):
    """Outputs (f, 0): class 0 leads by f."""
    bounds = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)

    def outputs(x):
        lead = function(x)
        return torch.stack((lead, torch.zeros_like(lead)), 1)

    return Outputs(outputs, (n,), *bounds, 2, dtype=torch.float64)


def random_points(rows, n, seed=0):
    return torch.rand(rows, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


FUNCTIONS = {
    "curved": lambda x: 0.3 - (x**3).mean(1),
    "steep": lambda x: 1e6 * (0.3 - (x**2).mean(1)),
    "flat": lambda x: 1e-5 * (0.3 - (x**2).mean(1)),
    "kinked": lambda x: torch.minimum(0.4 - x.mean(1), 20 * (0.5 - x.mean(1))),
    "saturated": lambda x: torch.erf(40 * (0.4 - x.mean(1))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("error", [1e-7, 1e-4, 1e-2])
def test_margins_are_met_on_the_far_side(name, error):
    outputs, n, rows = one_margin(FUNCTIONS[name], 6), 6, 40
    x0 = 0.1 * random_points(rows, n)
    way = random_points(rows, n, 1) + 0.2
    # The root on each ray by plain bisection, then moved off by the error, to either side.
    inner, outer = torch.zeros(rows, dtype=torch.float64), torch.full((rows,), 3.0, dtype=torch.float64)
    for _ in range(60):
        middle = (inner + outer) / 2
        beyond = FUNCTIONS[name](x0 + middle[:, None] * way) <= 0
        inner, outer = torch.where(beyond, inner, middle), torch.where(beyond, middle, outer)
    truth = x0 + outer[:, None] * way
    free = Region(torch.full_like(x0, -9.0), torch.full_like(x0, 9.0))
    sign = torch.where(torch.arange(rows) % 2 == 0, 1.0, -1.0).double()
    there = margins(outputs, torch.zeros(rows, dtype=torch.int64))
    polished = polish(there, free, x0, truth + (sign * error)[:, None] * (truth - x0))
    assert polished.met.all()
    value = outputs.value(polished.point)[:, 0]
    assert (value <= 0).all()
    assert (value >= -1e-9).all()
    assert torch.allclose(value, polished.margin, atol=1e-13)
    reach = 2e-4 if name == "flat" else 1e-8
    assert ((polished.point - truth).norm(dim=1) <= reach * (truth - x0).norm(dim=1)).all()
    assert there.units.max() <= 40
    assert int(there.units.sum()) == outputs.n_units - rows


def test_what_has_no_root_is_not_met_and_harms_no_other_row():
    def function(x):
        lead = 0.5 - x.mean(1)
        jump = torch.where(x.mean(1) < 0.5, 1.0, -1.0).to(x.dtype)
        kind = x[:, 0]
        return torch.where(
            kind > 0.9, jump, torch.where(kind < 0.05, lead * torch.nan, torch.where(kind < 0.1, 1.0, lead))
        )

    outputs = one_margin(function, 4)
    x = torch.full((4, 4), 0.55, dtype=torch.float64)
    x[:, 0] = torch.tensor([0.95, 0.01, 0.07, 0.5])
    x0 = x.clone()
    x0[:, 1:] = 0.1
    there = margins(outputs, torch.zeros(4, dtype=torch.int64))
    polished = polish(there, hull(outputs, 4), x0, x)
    assert polished.met.tolist() == [False, False, False, True]
    alone = polish(margins(outputs, torch.zeros(1, dtype=torch.int64)), hull(outputs, 1), x0[3:], x[3:])
    assert torch.equal(polished.point[3:], alone.point)
    assert (there.units <= 82).all()


def test_rays_bend_inside_the_region():
    """The only way on is along a face of the box."""
    outputs = one_margin(lambda x: 1.4 - x.sum(1), 2)
    x0, x = torch.tensor([[0.0, 0.2]]).double(), torch.tensor([[1.0, 0.35]]).double()
    polished = polish(margins(outputs, torch.zeros(1, dtype=torch.int64)), hull(outputs, 1), x0, x)
    assert polished.met.all()
    assert polished.point[0].tolist() == pytest.approx([1.0, 0.4], abs=1e-8)
    matrix, offset = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[0.5]]).double()
    line = Region(torch.zeros(1, 2).double(), torch.ones(1, 2).double(), matrix=matrix, offset=offset)
    x0, x = torch.tensor([[0.5, 0.0]]).double(), torch.tensor([[0.9, 0.4]]).double()
    polished = polish(margins(outputs, torch.zeros(1, dtype=torch.int64)), line, x0, x)
    assert polished.met.all()
    assert polished.point[0].tolist() == pytest.approx([0.95, 0.45], abs=1e-8)
    assert line.contains(polished.point, 1e-14).all()
