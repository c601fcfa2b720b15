"""Certificates against closed forms, attacks and each other, and what they say where nothing can be proven."""

import pytest
import torch
from torch import nn

from tests.instruments.small_networks import FACTORIES, points_of, small_network
from theodolite.embedding import OneHot, Scale
from theodolite.errors import UserError
from theodolite.instruments.bounds import certificates
from theodolite.instruments.bounds.certificates import distance_lower_bounds
from theodolite.instruments.bounds.layer_graph import layer_graph
from theodolite.network import Network
from theodolite.space import Box, Grid, Latent

ORDER = {"L2": 2.0, "L1": 1.0, "Linf": torch.inf}


def attacked(network, x, own, norm, seed=0, starts=3):
    """Distances ``(image, K)`` of flips found by descent of each margin from noisy starts, bisected to the boundary."""
    graph, (low, high) = layer_graph(network), network.space.bounds()
    x = x.flatten(1)
    found = torch.full((len(x), graph.n_outputs), torch.inf, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for k in range(graph.n_outputs):
        for start in range(starts):
            noise = torch.randn(x.shape, generator=generator, dtype=torch.float64) * 0.05 * start * (high - low)
            y = (x + noise).clamp(low, high)
            for _ in range(25):
                leaf = y.clone().requires_grad_(True)
                z = graph.outputs(leaf)
                margin = z.gather(1, own[:, None])[:, 0] - z[:, k]
                (slope,) = torch.autograd.grad(margin.sum(), leaf)
                step = (
                    margin.detach().clamp(min=0)[:, None] * slope / slope.square().sum(1, keepdim=True).clamp(min=1e-12)
                )
                y = (y - 1.05 * step).clamp(low, high)
            near, far = torch.zeros(len(x), 1).double(), torch.ones(len(x), 1).double()

            def flipped(t, y=y, k=k):
                z = graph.outputs(x + t * (y - x))
                return z[:, k] >= z.gather(1, own[:, None])[:, 0]

            valid = flipped(far) & (own != k)
            for _ in range(50):
                middle = (near + far) / 2
                beyond = flipped(middle)[:, None]
                near, far = torch.where(beyond, near, middle), torch.where(beyond, middle, far)
            distance = torch.linalg.vector_norm(far * (y - x), ORDER[norm], dim=1)
            found[:, k] = torch.minimum(found[:, k], torch.where(valid, distance, torch.inf))
    return found


def predicted(network, x):
    return layer_graph(network).outputs(x).argmax(1)


@pytest.mark.parametrize("name", FACTORIES)
def test_no_attack_comes_nearer_than_a_certificate(name):
    norm = ("L2", "L1", "Linf")[list(FACTORIES).index(name) % 3]
    network = small_network(name, 7)
    x = points_of(network, 2 if name in ("maximum", "residual", "linear") else 3, 3)
    own = predicted(network, x)
    by_class = attacked(network, x, own, norm)
    nearest = by_class.amin(1)
    for method in ("lipschitz", "crown", "cap"):
        for upper in (nearest, torch.full_like(nearest, torch.inf)):
            found = distance_lower_bounds(network, x, own, upper, norm=norm, method=method)
            assert (found.distance <= nearest).all()
            others = torch.ones_like(by_class, dtype=torch.bool).scatter(1, own[:, None], False)
            assert (found.by_class[others] <= by_class[others]).all()
            assert torch.isnan(found.by_class[~others]).all()
            assert (found.distance > 0).all()
            assert set(found.method) == {method}


def test_tightening_proves_more_than_one_pass_and_that_more_than_slopes():
    network = small_network("erf", 2)
    x = points_of(network, 12, 1)
    own = predicted(network, x)
    upper = attacked(network, x, own, "L2").amin(1)
    slopes, crown, cap = (
        distance_lower_bounds(network, x, own, upper, method=method).distance
        for method in ("lipschitz", "crown", "cap")
    )
    assert (cap >= crown * (1 - 0.01)).all()
    assert (cap / upper).median() > (crown / upper).median() > (slopes / upper).median()
    assert (cap / upper).median() > 0.6


@pytest.mark.parametrize("name", ["erf", "relu"])
def test_auto_is_the_larger_of_crown_and_cap(name, monkeypatch):
    network = small_network(name, 2)
    x = points_of(network, 4, 1)
    own = predicted(network, x)
    upper = attacked(network, x, own, "L2").amin(1)
    found = {
        method: distance_lower_bounds(network, x, own, upper, method=method) for method in ("crown", "cap", "auto")
    }
    assert (found["auto"].distance >= (1 - 1e-9) * found["crown"].distance).all()
    assert (found["auto"].distance >= (1 - 0.003) * found["cap"].distance).all()
    assert (found["auto"].distance <= upper).all() and set(found["auto"].method) <= {"crown", "cap"}
    if name == "erf":
        # Where the cap's own search proves nothing, what CROWN proves is kept.
        monkeypatch.setattr(certificates, "CapSearch", without_cap(certificates.CapSearch))
        kept = distance_lower_bounds(network, x, own, upper)
        assert torch.allclose(kept.distance, found["crown"].distance, rtol=1e-9) and set(kept.method) == {"crown"}


def without_cap(search):
    """`CapSearch` that tries no radius where it should tighten."""

    class Idle:
        rounds = search.rounds

        def __new__(cls, rounds, seconds):
            return search(rounds=rounds, seconds=seconds, radii=14 if rounds == 0 else 0)

    return Idle


@pytest.mark.parametrize("norm", ORDER)
def test_linear_networks_are_exact_for_each_class(norm):
    network = small_network("linear", 4)
    x = torch.tensor([[0.5, 0.5, 0.5], [0.4, 0.6, 0.5]], dtype=torch.float64)
    own = predicted(network, x)
    layer = network.module.double()
    z = x @ layer.weight.T + layer.bias
    dual = {"L2": 2.0, "L1": torch.inf, "Linf": 1.0}[norm]
    weight = layer.weight[own][:, None] - layer.weight
    truth = (z.gather(1, own[:, None]) - z) / torch.linalg.vector_norm(weight, dual, dim=2)
    # Far from the walls: distances that the box does not change.
    wide = Network(layer, Box((3,), -100.0, 100.0))
    found = distance_lower_bounds(wide, x, own, truth, norm=norm).by_class
    others = torch.ones_like(truth, dtype=torch.bool).scatter(1, own[:, None], False)
    assert torch.allclose(found[others], truth[others], rtol=1e-5)
    assert (found[others] <= truth[others]).all()


def test_the_box_confines_counterexamples():
    """z_1 - z_0 = x_0 + x_1 - 1.2 from (0.5, 0.2), where x_1 may grow to 1 but x_0 only to 0.6 = the input's edge."""
    layer = nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        layer.bias.copy_(torch.tensor([0.0, -1.2], dtype=torch.float64))
    network = Network(layer, Box((2,), 0.0, 0.6))
    x = torch.tensor([[0.5, 0.2]], dtype=torch.float64)
    corner = torch.tensor([0.1, 0.4], dtype=torch.float64).norm()  # only (0.6, 0.6) flips
    found = distance_lower_bounds(network, x, torch.tensor([0]), torch.tensor([torch.inf])).distance
    assert 0.99 * corner < found <= corner


def test_distances_are_in_units_of_the_space():
    module = small_network("relu", 3).module
    unit, bytes_ = Network(module, Box((3,), 0.0, 1.0)), Network(module, Grid((3,), 256), Scale(1 / 255))
    level = torch.tensor([[10, 200, 30], [250, 0, 128]])
    own = predicted(bytes_, level)
    far = torch.full((2,), torch.inf, dtype=torch.float64)
    small = distance_lower_bounds(unit, level.double() / 255, own, far).distance
    large = distance_lower_bounds(bytes_, level, own, far).distance
    assert torch.allclose(large, 255 * small, rtol=5e-3)
    assert (small > 0).all()


def test_without_edges_of_the_space():
    network = Network(small_network("tanh", 1).module, Latent(3))
    x = points_of(small_network("tanh"), 4)
    own = predicted(network, x)
    found = distance_lower_bounds(network, x, own, torch.full((4,), torch.inf)).distance
    generator = torch.Generator().manual_seed(0)
    d = torch.randn((20_000, 3), generator=generator, dtype=torch.float64)
    for k in range(4):
        inside = d / d.norm(dim=1, keepdim=True) * found[k] * torch.rand(20_000, 1, generator=generator)
        assert (predicted(network, x[k] + inside) == own[k]).all()
    assert (found > 0).all()


def test_a_target_alone_counts():
    network = small_network("relu", 1)
    x = points_of(network, 4, 5)
    own = predicted(network, x)
    target = torch.tensor([(int(own[0]) + 1) % 3, -1, (int(own[2]) + 2) % 3, -1])
    far = torch.full((4,), torch.inf, dtype=torch.float64)
    free = distance_lower_bounds(network, x, own, far)
    found = distance_lower_bounds(network, x, own, far, target=target)
    assert torch.equal(found.distance[[1, 3]], free.distance[[1, 3]])
    for k in (0, 2):
        assert torch.isnan(found.by_class[k]).sum() == 2
        assert found.distance[k] == found.by_class[k, target[k]]
        assert found.distance[k] >= free.distance[k] * 0.99


def test_what_cannot_be_proven_is_said_and_harms_no_other_image():
    network = small_network("relu", 2)
    x = points_of(network, 5, 2)
    own = predicted(network, x)
    alone = distance_lower_bounds(network, x[:1], own[:1], torch.tensor([torch.inf]))
    x[1, 0] = torch.nan
    x[2, 1] = 1.5
    own[3] = (own[3] + 1) % 3
    upper = torch.tensor([torch.inf, 1.0, 1.0, 1.0, 0.0])
    found = distance_lower_bounds(network, x, own, upper)
    assert found.distance[0] == alone.distance[0] > 0
    assert found.distance[1:].tolist() == [0, 0, 0, 0]
    assert "not finite" in found.method[1]
    assert "outside" in found.method[2]
    assert "own class" in found.method[3]


@pytest.mark.parametrize("method", ["auto", "crown", "lipschitz"])
def test_weights_that_are_no_numbers_prove_nothing(method):
    network = small_network("relu")
    with torch.no_grad():
        network.module[2].weight[0, 0] = torch.nan
    found = distance_lower_bounds(network, points_of(network, 2), torch.tensor([0, 1]), torch.ones(2), method=method)
    assert found.distance.tolist() == [0, 0]
    assert all("not finite" in words for words in found.method)


def test_an_unknown_layer_is_named_and_proves_nothing():
    network = Network(nn.Sequential(nn.Linear(2, 4), nn.Softmax(1), nn.Linear(4, 2)), Box((2,), 0.0, 1.0))
    found = distance_lower_bounds(network, torch.rand(2, 2), torch.tensor([0, 1]), torch.ones(2))
    assert found.distance.tolist() == [0, 0]
    assert all("Softmax" in words and words.startswith("none") for words in found.method)
    grid = Network(nn.Sequential(nn.Conv2d(4, 2, 2), nn.Flatten()), Grid((2, 2), 4), OneHot())
    found = distance_lower_bounds(grid, torch.zeros(1, 2, 2), torch.tensor([0]), torch.ones(1))
    assert found.distance.tolist() == [0]


def test_a_constant_class_and_a_tie():
    layer = nn.Linear(2, 3).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 1.0, 0.0]))
    network = Network(layer, Box((2,), 0.0, 1.0))
    x = torch.full((2, 2), 0.5, dtype=torch.float64)
    found = distance_lower_bounds(network, x, torch.tensor([0, 0]), torch.full((2,), torch.inf))
    assert found.distance.tolist() == [0, 0]
    with torch.no_grad():
        layer.bias[1] = 0.0
    safe = Network(layer, Box((2,), 0.0, 1.0))
    found = distance_lower_bounds(safe, x, torch.tensor([0, 0]), torch.full((2,), torch.inf))
    # No point of the square flips: the whole of it is proven.
    assert (found.distance >= 0.5**0.5 * (1 - 1e-9)).all()


@pytest.mark.parametrize(
    "change",
    [{"inputs": torch.zeros(2, 4)}, {"own": torch.tensor([0, 3])}, {"own": torch.tensor([0])},
     {"upper": torch.ones(3)}, {"norm": "L3"}, {"method": "magic"}],
)  # fmt: skip
def test_wrong_arguments_are_refused(change):
    given = {"inputs": torch.zeros(2, 3), "own": torch.tensor([0, 1]), "upper": torch.ones(2)} | change
    with pytest.raises(UserError) as refusal:
        distance_lower_bounds(small_network("relu"), given.pop("inputs"), given.pop("own"), given.pop("upper"), **given)
    assert refusal.value.argument == next(iter(change))
