"""What ties and what stays below, against the definitions and autograd."""

import torch

from theodolite.outputs import Outputs
from theodolite.search.pair_ties import Ties

GENERATOR = torch.Generator().manual_seed(0)
HIDDEN = torch.randn(7, 3, generator=GENERATOR, dtype=torch.float64)
LAST = torch.randn(5, 7, generator=GENERATOR, dtype=torch.float64)


def network(x):
    return torch.tanh(x @ HIDDEN.T) @ LAST.T


def make(base, tied, value=0.0, side=1.0):
    n_rows = len(base)
    edge = torch.full((3,), torch.inf)
    return Ties(
        Outputs(network, (3,), -edge, edge, 5, dtype=torch.float64),
        torch.arange(n_rows),
        torch.tensor(base),
        torch.tensor(tied),
        torch.full((n_rows,), value, dtype=torch.float64),
        torch.full((n_rows,), side, dtype=torch.float64),
        torch.zeros(n_rows, dtype=torch.int64),
    )


def test_gaps_and_excesses_are_differences_of_outputs():
    ties = make([0, 3], [[1, 2], [4, 0]])
    z = ties.outputs_at(torch.randn(2, 3, generator=GENERATOR, dtype=torch.float64))
    assert torch.equal(ties.gaps(z), torch.stack((z[0, [1, 2]] - z[0, 0], z[1, [4, 0]] - z[1, 3])))
    excess = ties.excesses(z)
    assert excess[0].isfinite().tolist() == [False, False, False, True, True]
    assert excess[1].isfinite().tolist() == [False, True, True, False, False]
    assert torch.equal(excess[1, 1:3], z[1, 1:3] - z[1, 3])


def test_a_level_has_one_gap_and_nothing_below():
    ties = make([-1, -1], [[2], [0]], value=0.7, side=-1.0)
    z = ties.outputs_at(torch.randn(2, 3, generator=GENERATOR, dtype=torch.float64))
    assert torch.equal(ties.gaps(z), torch.stack((0.7 - z[0, 2:3], 0.7 - z[1, 0:1])))
    assert not ties.excesses(z).isfinite().any()


def test_rows_are_gradients_of_gaps_and_excesses_and_cost_what_they_say():
    for ties in (make([0, 3], [[1, 2], [4, 0]], side=-1.0), make([-1, -1], [[2, 1], [0, 3]], value=0.2)):
        x = torch.randn(2, 3, generator=GENERATOR, dtype=torch.float64)
        other = torch.tensor([[-1, 4], [-1, -1]])
        _, rows = ties.rows_at(x, other)

        def conditions(point, ties=ties):
            z = network(point)
            return torch.cat((ties.gaps(z), z - ties._base_of(z)[:, None]), 1)

        slope = torch.autograd.functional.jacobian(lambda point: conditions(point).sum(0), x).permute(1, 0, 2)
        assert torch.allclose(rows[:, :2], slope[:, :2])
        assert torch.allclose(rows[0, 3], slope[0, 2 + 4])
        assert not rows[0, 2].any() and not rows[1, 2:].any()
        assert ties.units.tolist() == [4, 3]
        assert ties.outputs.n_units == 7
