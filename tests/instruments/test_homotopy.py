"""Softened networks by their formulas, and homotopies against boundaries that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import theodolite as th
from theodolite.errors import UserError
from theodolite.instruments.homotopy import Homotopy, homotopy_starts
from theodolite.instruments.softening import Softening, softened
from theodolite.search.closest_flips import closest_flips
from theodolite.search.margins import Margins
from theodolite.search.regions import Region

WIDTH, SLOPE = 3.0, 0.2
C = torch.linspace(-4, 4, 17, dtype=torch.float64)


class Steep(nn.Module):
    """Outputs 0 and erf((w . x - offset) / sigma): the boundary is a plane, and where it is far no slope is left."""

    def __init__(self, w: torch.Tensor, offset: float, sigma: float) -> None:
        super().__init__()
        self.w, self.offset, self.sigma = nn.Parameter(w), offset, sigma

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.erf((x @ self.w - self.offset) / self.sigma)
        return torch.stack([torch.zeros_like(z), z], 1)


def random_network(seed: int, activation: type[nn.Module] = nn.Tanh) -> th.Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(6, 12), activation(), nn.Linear(12, 12), activation(), nn.Linear(12, 4))
    for layer in module:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 3
            # Inputs in [0, 1] and what sigmoids make of them are centred, so that no class has all points.
            layer.bias.data = -0.5 * layer.weight.data.sum(1)
    return th.Network(module, th.Box((6,), 0.0, 1.0))


@pytest.mark.parametrize(
    ("called", "truth"),
    [
        (torch.erf, lambda c: torch.special.erf(c / WIDTH)),
        (nn.Sigmoid(), lambda c: 1 / (1 + torch.exp(-c / WIDTH))),
        (functional.tanh, lambda c: torch.sinh(c / WIDTH) / torch.cosh(c / WIDTH)),
        (lambda c: c.clone().tanh_(), lambda c: torch.sinh(c / WIDTH) / torch.cosh(c / WIDTH)),
        (nn.Hardtanh(), lambda c: (c / WIDTH).clamp(-1, 1)),
        (nn.ReLU(), lambda c: torch.where(c > 0, c, SLOPE * c)),
        (lambda c: nn.ReLU(inplace=True)(c.clone()), lambda c: torch.where(c > 0, c, SLOPE * c)),
        (lambda c: c.clone().relu_(), lambda c: torch.where(c > 0, c, SLOPE * c)),
        (nn.LeakyReLU(0.1), lambda c: torch.where(c > 0, c, (0.1 + 0.9 * SLOPE) * c)),
        (lambda c: functional.leaky_relu(input=c), lambda c: torch.where(c > 0, c, (0.01 + 0.99 * SLOPE) * c)),
        (nn.PReLU(init=0.25).double(), lambda c: torch.where(c > 0, c, (0.25 + 0.75 * SLOPE) * c)),
        (nn.GELU(), functional.gelu),
        (lambda c: c.clamp(0, 1), lambda c: c.clamp(0, 1)),
    ],
)
def test_activations_are_softened_by_their_formulas(called, truth):
    with torch.no_grad():
        with Softening(WIDTH, SLOPE):
            found = called(C)
        torch.testing.assert_close(found, truth(C), rtol=1e-12, atol=1e-12)
        plain = called(C)
        with Softening(1.0, 0.0):
            assert torch.equal(called(C), plain)


def test_gradients_are_those_of_the_softened_function():
    c = C.clone().requires_grad_(True)
    with Softening(WIDTH):
        y = torch.erf(c)
    y.sum().backward()
    slope = 2 / (WIDTH * math.sqrt(math.pi)) * torch.exp(-((C / WIDTH) ** 2))
    torch.testing.assert_close(c.grad, slope)


def test_an_exported_program_is_softened_too():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Sigmoid()).eval()
    x = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(module, (x,)).module()
    with torch.no_grad(), Softening(WIDTH, SLOPE) as softening:
        assert softening.n_changed == 0
        torch.testing.assert_close(program(x), module(x))
        assert softening.n_changed == 4


def test_softened_outputs_follow_the_softening_and_count_apart():
    plain = random_network(0).all_outputs(torch.float64)
    softening = Softening()
    gentler = softened(plain, softening)
    x = torch.rand(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(gentler.value(x), plain.value(x))
    softening.width = 50.0
    ray = gentler.value(torch.stack([x[0] + t * (x[1] - x[0]) for t in (0.0, 0.5, 1.0)]))
    bend = (ray[0] - 2 * ray[1] + ray[2]).abs().max()
    assert float(bend) < 1e-3 * float((ray[0] - ray[2]).abs().max())  # nearly linear
    assert plain.n_units == 5 and gentler.n_units == 8


def test_a_steep_plane_is_found_from_where_no_slope_is_left():
    w = torch.tensor([3.0, -1.0, 2.0])
    network = th.Network(Steep(w, 1.5, 0.06), th.Box((3,), 0.0, 1.0))
    x = torch.tensor([[0.1, 0.9, 0.2], [0.3, 0.4, 0.1], [0.5, 0.2, 0.9], [0.2, 0.5, 0.3]])
    outputs = network.all_outputs()
    own = outputs.value(x).argmax(1)
    _, slope = outputs.gradient(x, lambda z, _: torch.tensor([[-1.0, 1.0]]).expand(len(z), 2))
    assert (slope == 0).all()  # descents have nothing to go by
    found = homotopy_starts(network, x, own)
    away = (x.double() @ w.double() - 1.5) / w.double().norm()
    nearest = x.double() - away[:, None] * w.double() / w.double().norm()
    assert ((nearest >= 0) & (nearest <= 1)).all()
    torch.testing.assert_close(found.distance.amin(1).double(), away.abs(), rtol=1e-2, atol=1e-3)
    assert (found.distance.amin(1) >= away.abs() * (1 - 1e-5)).all()


def test_a_linear_network_is_followed_without_change():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = nn.Linear(8, 3)
    network = th.Network(module, th.Box((8,), -9.0, 9.0))
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    z = network.outputs(x)
    own = z.argmax(1)
    normal = module.weight[own][:, None] - module.weight
    planes = (z.gather(1, own[:, None]) - z) / normal.norm(dim=2).clamp(min=1e-9)
    truth = planes.scatter(1, own[:, None], torch.inf).amin(1)
    found = homotopy_starts(network, x, own)
    # A plane, not always that of the nearest class; and never nearer.
    others = torch.isclose(found.distance[:, :, None], planes[:, None].float(), rtol=1e-3).any(2)
    assert others.all()
    assert (found.distance.amin(1) >= truth * (1 - 1e-5)).all()
    assert float(torch.isclose(found.distance.amin(1), truth, rtol=1e-3).double().mean()) >= 0.8


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid, nn.ReLU, nn.PReLU])
def test_points_lie_on_the_far_side_in_the_region_and_the_network_stays(activation):
    network = random_network(5, activation)
    before = [p.clone() for p in network.module.parameters()]
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(2))
    outputs = network.all_outputs()
    own = outputs.value(x).argmax(1)
    low, high = torch.zeros(30, 6, dtype=torch.float64), torch.ones(30, 6, dtype=torch.float64)
    low[:, 2] = high[:, 2] = x[:, 2].double()  # a feature that must stay
    region = Region(low, high)
    found = homotopy_starts(network, x, own, region=region)
    assert found.point.shape == (30, 2, 6) and found.point.dtype == torch.float32
    flipped = torch.isfinite(found.distance)
    assert float(flipped.any(1).double().mean()) > 0.7
    margins = Margins(outputs, torch.arange(30), own, torch.full_like(own, -1), torch.zeros_like(own))
    for path in range(2):
        assert region.contains(found.point[:, path].double()).all()
        assert (margins.value(found.point[:, path])[flipped[:, path]] <= 1e-5).all()
    measured = (found.point - x[:, None]).norm(dim=2)
    torch.testing.assert_close(found.distance[flipped], measured[flipped])
    for old, new in zip(before, network.module.parameters(), strict=True):
        assert torch.equal(old, new)
    assert torch.equal(outputs.value(x).argmax(1), own)


def test_units_are_the_passes_that_the_network_made():
    network = random_network(1)
    rows = []
    network.module.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    x = torch.rand(7, 6, generator=torch.Generator().manual_seed(0))
    own = network.all_outputs().value(x).argmax(1)
    rows.clear()
    found = homotopy_starts(network, x, own)
    forward = sum(rows)
    assert forward < int(found.units.sum()) < 2 * forward
    assert (found.units > 8 * 20).all()


def test_images_do_not_influence_each_other():
    network = random_network(4)
    x = torch.rand(9, 6, generator=torch.Generator().manual_seed(3))
    own = network.all_outputs().value(x).argmax(1)
    settings = Homotopy(n_stages=3, n_steps=2, n_last_steps=2)
    together = homotopy_starts(network, x, own, homotopy=settings)
    for row in range(3):
        alone = homotopy_starts(network, x[row : row + 1], own[row : row + 1], homotopy=settings)
        torch.testing.assert_close(alone.point[0], together.point[row], rtol=1e-3, atol=1e-4)
        assert int(alone.units[0]) == int(together.units[row])


def test_a_target_class_is_reached():
    network = random_network(6)
    exact = network.all_outputs(torch.float64)
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(4))
    z = exact.value(x.double())
    own, target = z.argmax(1), z.topk(2).indices[:, 1]
    found = homotopy_starts(network, x, own, target=target)
    for path in range(2):
        output = exact.value(found.point[:, path].double())
        margin = (output.gather(1, own[:, None]) - output.gather(1, target[:, None]))[:, 0]
        assert (margin[torch.isfinite(found.distance[:, path])] <= 1e-5).all()


def test_starts_from_a_homotopy_find_what_the_walk_alone_does_not():
    w = torch.tensor([3.0, -1.0, 2.0])
    network = th.Network(Steep(w, 1.5, 0.06), th.Box((3,), 0.0, 1.0))
    outputs, exact = network.all_outputs(), network.all_outputs(torch.float64)
    x = torch.tensor([[0.1, 0.9, 0.2], [0.3, 0.4, 0.1], [0.2, 0.5, 0.3]])
    own = exact.value(x.double()).argmax(1)
    plain = closest_flips(outputs, exact, x, own, effort="quick", generator=torch.Generator().manual_seed(0))
    starts = homotopy_starts(network, x, own).point
    both = closest_flips(
        outputs, exact, x, own, starts=starts, effort="quick", generator=torch.Generator().manual_seed(0)
    )
    assert not plain.found.all() and both.found.all()
    away = (x.double() @ w.double() - 1.5).abs() / w.double().norm()
    torch.testing.assert_close(both.distance, away, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("argument", "settings"),
    [
        ("n_stages", {"n_stages": 0}),
        ("width", {"width": 1.0}),
        ("slope", {"slope": 1.5}),
        ("leads", {"leads": ()}),
        ("leads", {"leads": (0.0,)}),
    ],
)
def test_settings_without_meaning_are_refused(argument, settings):
    with pytest.raises(UserError) as error:
        Homotopy(**settings)
    assert error.value.argument == argument


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(UserError, match="inputs"):
        homotopy_starts(random_network(0), torch.rand(3, 5), torch.zeros(3, dtype=torch.long))
    with pytest.raises(UserError, match="width"):
        Softening(0.0)
    with pytest.raises(UserError, match="slope"):
        Softening(1.0, -0.1)
