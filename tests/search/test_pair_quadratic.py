"""The step of the penalty method: no point is cheaper, proven by its dual, also where cuts are parallel."""

import pytest
import torch

from theodolite.search.pair_quadratic import Cuts, box_maximum, cheapest


def random_problem(n_rows, n_cuts, n, seed, price):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cuts = normal(n_rows, n_cuts, n)
    cuts = cuts / cuts.norm(dim=2, keepdim=True)
    most = price * torch.rand(n_rows, n_cuts, generator=generator, dtype=torch.float64)
    least = torch.cat((-most[:, :1], torch.zeros_like(most[:, 1:])), 1)
    center = 0.5 + 0.5 * normal(n_rows, n)
    return center, Cuts(cuts, 0.5 * normal(n_rows, n_cuts), least, most)


def cost(center, cuts, point):
    miss = torch.einsum("rcn,rn->rc", cuts.normal, point) - cuts.offset
    miss = torch.where(cuts.least < 0, miss.abs(), miss.clamp(min=0.0))
    return (point - center).square().sum(1) / 2 + (cuts.most * miss).sum(1)


def dual(center, cuts, low, high, multiplier):
    """A lower bound of the cost of every point, whatever the multipliers within their bounds."""
    wish = center - torch.einsum("rc,rcn->rn", multiplier, cuts.normal)
    point = wish.clamp(low, high)
    slope = torch.einsum("rcn,rn->rc", cuts.normal, point) - cuts.offset
    return (point - center).square().sum(1) / 2 + (multiplier * slope).sum(1)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("n_cuts", "n", "price"), [(1, 3, 2.0), (4, 12, 2.0), (9, 40, 50.0)])
def test_the_point_is_proven_cheapest(n_cuts, n, price, parallel):
    center, cuts = random_problem(200, n_cuts, n, 0, price)
    if parallel:
        mixed = cuts.normal[:, :1] + 1e-2 * cuts.normal
        cuts = Cuts(mixed / mixed.norm(dim=2, keepdim=True), cuts.offset, cuts.least, cuts.most)
    low, high = torch.zeros_like(center), torch.ones_like(center)
    point, multiplier = cheapest(center, cuts, low, high, torch.zeros_like(cuts.offset))
    assert ((point >= low) & (point <= high)).all()
    assert ((multiplier >= cuts.least) & (multiplier <= cuts.most)).all()
    bound = dual(center, cuts, low, high, multiplier)
    excess = cost(center, cuts, point) - bound
    assert (excess >= -1e-9 * (1 + bound)).all()
    assert (excess <= 1e-6 * (1 + bound)).all()


def test_without_price_the_center_is_kept_and_free_equalities_are_met():
    center, cuts = random_problem(50, 3, 10, 1, 1.0)
    low, high = torch.full_like(center, -torch.inf), torch.full_like(center, torch.inf)
    nothing = torch.zeros_like(cuts.offset)
    point, _ = cheapest(center, Cuts(cuts.normal, cuts.offset, nothing, nothing), low, high, nothing)
    assert torch.equal(point, center)
    endless = torch.full_like(cuts.offset, torch.inf)
    point, _ = cheapest(center, Cuts(cuts.normal, cuts.offset, -endless, endless), low, high, nothing)
    truth = center - (
        torch.linalg.pinv(cuts.normal) @ (torch.einsum("rcn,rn->rc", cuts.normal, center) - cuts.offset)[:, :, None]
    ).squeeze(2)
    assert torch.allclose(point, truth, atol=1e-9)


def test_box_maximum_is_the_best_within_its_bounds():
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(300, 4, 4, generator=generator, dtype=torch.float64)
    curvature = root @ root.transpose(1, 2) + 1e-3 * torch.eye(4, dtype=torch.float64)
    slope = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    least = -torch.rand(300, 4, generator=generator, dtype=torch.float64)
    most = torch.rand(300, 4, generator=generator, dtype=torch.float64)
    d = box_maximum(curvature, slope, least, most)
    rest = slope - (curvature @ d[:, :, None])[:, :, 0]
    # Karush, Kuhn and Tucker: no coordinate can move uphill.
    uphill = torch.where(d < most, rest, 0.0).clamp(min=0.0) + torch.where(d > least, -rest, 0.0).clamp(min=0.0)
    assert ((d >= least) & (d <= most)).all()
    assert (uphill <= 1e-5).all()
