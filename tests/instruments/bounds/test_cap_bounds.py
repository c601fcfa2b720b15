"""Proven distances against brute force, closed forms and known counterexamples."""

import pytest
import torch
from torch import nn

from tests.instruments.small_networks import FACTORIES, points_of, small_network
from theodolite.instruments.bounds.cap_bounds import CapSearch, proven_distances
from theodolite.instruments.bounds.layer_graph import layer_graph
from theodolite.instruments.bounds.linear_bounds import Surroundings
from theodolite.network import Network
from theodolite.space import Box

ORDER = {"L2": 2.0, "L1": 1.0, "Linf": torch.inf}


def problem(network, point, norm):
    graph = layer_graph(network)
    low, high = network.space.bounds()
    centre = point.reshape(-1)
    own = int(graph.outputs(centre[None])[0].argmax())
    identity = torch.eye(graph.n_outputs, dtype=torch.float64)
    others = [k for k in range(graph.n_outputs) if k != own]
    return graph, Surroundings(centre, low - centre, high - centre, norm), identity[own] - identity[others]


def samples(surroundings, n, seed):
    """Changes of all lengths within the box: half of them uniform, half near the centre."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand((n, len(surroundings.centre)), generator=generator, dtype=torch.float64)
    d = surroundings.low + (surroundings.high - surroundings.low) * u
    d[n // 2 :] *= torch.rand((n - n // 2, 1), generator=generator, dtype=torch.float64)
    return d


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("name", FACTORIES)
def test_no_counterexample_is_nearer(name, norm):
    for seed in range(1 if name in ("residual", "maximum", "average") else 2):
        network = small_network(name, seed)
        point = points_of(network, 1, seed)[0]
        graph, surroundings, rows = problem(network, point, norm)
        d = samples(surroundings, 10_000, seed)
        length = torch.linalg.vector_norm(d, ORDER[norm], dim=1)
        flipped = graph.outputs(surroundings.centre + d) @ rows.T <= 0
        nearest = torch.where(flipped, length[:, None], torch.inf).amin(0)
        upper = float(length.max())
        # The first radius lies beyond the counterexamples, as where only a far flip is known.
        for rounds in (0, 4):
            found = proven_distances(graph, surroundings, rows, upper, CapSearch(rounds=rounds, radii=5))
            assert (found <= nearest).all()
            assert (found <= upper).all()


def grid_distance(graph, surroundings, rows, norm, n=1501):
    """The nearest counterexample on a grid of the square, for one margin."""
    axes = [
        torch.linspace(float(a), float(b), n, dtype=torch.float64)
        for a, b in zip(surroundings.low, surroundings.high, strict=True)
    ]
    d = torch.cartesian_prod(*axes)
    length = torch.linalg.vector_norm(d, ORDER[norm], dim=1)
    return torch.where(graph.outputs(surroundings.centre + d) @ rows.T <= 0, length[:, None], torch.inf).amin(0)


@pytest.mark.parametrize("norm", ORDER)
def test_tightening_comes_close_to_the_truth_and_plain_bounds_less(norm):
    ratio = {0: [], 8: []}
    for seed in range(8):
        network = small_network("deep relu", seed, gain=2.5)
        graph, surroundings, rows = problem(network, points_of(network, 1, seed)[0], norm)
        truth = grid_distance(graph, surroundings, rows, norm, 301)
        nearest = float(truth.min())
        if nearest == torch.inf:
            continue
        for rounds, ratios in ratio.items():
            found = proven_distances(graph, surroundings, rows, nearest, CapSearch(rounds=rounds))
            assert float(found.min()) <= nearest
            ratios.append(float(found.min()) / nearest)
    assert len(ratio[0]) >= 5
    assert sum(ratio[8]) / len(ratio[8]) > 0.75
    assert sum(ratio[8]) > sum(ratio[0])


@pytest.mark.parametrize("norm", ORDER)
def test_linear_networks_are_exact(norm):
    network = small_network("linear", 5)
    graph, surroundings, rows = problem(network, torch.tensor([0.5, 0.5, 0.5]).double(), norm)
    layer = network.module
    bias = rows @ layer.bias.double()
    weight = rows @ layer.weight.double()
    margin = weight @ surroundings.centre + bias
    dual = {"L2": 2.0, "L1": torch.inf, "Linf": 1.0}[norm]
    free = margin / torch.linalg.vector_norm(weight, dual, dim=1)
    upper = float(free.min()) * 1.5
    wide = Surroundings(surroundings.centre, surroundings.low - 100, surroundings.high + 100, norm)
    found = proven_distances(graph, wide, rows, upper, CapSearch(tolerance=1e-6, radii=40))
    assert torch.allclose(found.min(), free.min(), rtol=1e-5)
    assert found.min() <= free.min()


def test_a_radius_with_a_counterexample_is_never_proven_however_the_search_is_stopped(monkeypatch):
    """Multipliers that are far from converged give wider intervals, not an empty cap."""
    from theodolite.instruments.bounds import linear_bounds

    kernel = linear_bounds.lowest_in_ball
    for steps in (1, 2):
        monkeypatch.setattr(linear_bounds, "lowest_in_ball", lambda *given, n=steps: kernel(*given[:-2], n, given[-1]))
        for seed in range(4):
            network = small_network("deep relu", seed, gain=1.5)
            graph, surroundings, rows = problem(network, points_of(network, 1, seed)[0], "L2")
            truth = grid_distance(graph, surroundings, rows, "L2", 301)
            for factor in (1.0, 1.3):
                upper = min(factor * float(truth.min()), 2.8)
                found = proven_distances(graph, surroundings, rows, upper, CapSearch())
                assert (found <= truth).all()


def test_rounding_is_accounted_for():
    """2^53 + x - 2^53: exact arithmetic gives x, float64 gives an even number. Neither is claimed to stay positive."""
    first, second = nn.Linear(1, 1).double(), nn.Linear(1, 2).double()
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.fill_(2.0**53)
        second.weight.copy_(torch.tensor([[1.0], [0.0]]))
        second.bias.copy_(torch.tensor([-(2.0**53), 0.0]))
    network = Network(nn.Sequential(first, nn.ReLU(), second), Box((1,), -10.0, 10.0))
    graph = layer_graph(network)
    rows = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    for x in (0.6, 3.0, 7.5):
        surroundings = Surroundings(
            torch.tensor([x]).double(), torch.tensor([-10 - x]).double(), torch.tensor([10 - x]).double()
        )
        found = float(proven_distances(graph, surroundings, rows, 9.0, CapSearch()).min())
        assert found <= max(0.0, x - 1.0)
