"""Algorithms 1, 2, F2 and F3 of the flip-point paper against their own claims, quadratic programs and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

import theodolite as th
from theodolite.errors import UserError
from theodolite.instruments.feed_forward import STEEPEST, FeedForward, feed_forward
from theodolite.instruments.paper_homotopy import PaperHomotopy, paper_homotopy, shares_of_the_way
from theodolite.instruments.paper_transformation import easy_network, least_tie
from theodolite.search.regions import Region
from theodolite.zoo.flip_networks import TunableErf, erf_network, small_cnn

BELOW = 1e-6


def network_of(
    widths: tuple[int, ...], seed: int, sigmas: tuple[float, ...] = (), activation: str = "erf", gain: float = 4.0
) -> th.Network:
    """A random network over [0, 1]^n whose classes share the box."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = erf_network(widths)
    for k, layer in enumerate(module):
        if isinstance(layer, nn.Linear):
            layer.weight.data *= gain if k == 0 else 1.5
            if k == 0:
                layer.bias.data = -0.5 * layer.weight.data.sum(1)
        elif activation == "erf":
            layer.sigma.data.fill_(sigmas[k // 2] if sigmas else 1.0)
        else:
            module[k] = nn.ReLU() if activation == "relu" else nn.PReLU(init=0.2)
    return th.Network(module.requires_grad_(False), th.Box((widths[0],), 0.0, 1.0))


def points(n: int, n_coordinates: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, n_coordinates), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def first_two(network: th.Network, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    top = network.all_outputs(torch.float64).value(x).topk(2).indices
    return top[:, 0], top[:, 1]


# ---------------------------------------------------------------------- the network as matrices


def test_matrices_give_the_networks_outputs_and_keep_its_sigmas():
    network = network_of((6, 9, 8, 4), 0, sigmas=(0.3, 0.7))
    layers = feed_forward(network)
    x = points(20, 6)
    torch.testing.assert_close(layers.value(x), network.all_outputs(torch.float64).value(x), rtol=1e-12, atol=1e-12)
    for tuning, sigma in zip(layers.tuning, (0.3, 0.7), strict=True):
        torch.testing.assert_close(tuning, torch.full_like(tuning, sigma), rtol=1e-6, atol=0)
    first = network.module[0]
    torch.testing.assert_close(layers.weight[0], first.weight.double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("activation", ["erf", "relu", "prelu"])
def test_the_jacobian_of_equations_11_and_12_is_that_of_autograd(activation):
    layers = feed_forward(network_of((5, 7, 6, 3), 1, sigmas=(0.4, 0.9), activation=activation))
    x = points(1, 5)[0]
    value, jacobian = layers.value_and_jacobian(x)
    torch.testing.assert_close(value, layers.value(x[None])[0])
    truth = torch.autograd.functional.jacobian(lambda y: layers.value(y[None])[0], x)
    torch.testing.assert_close(jacobian, truth)


def test_a_convolutional_network_on_grey_levels_becomes_matrices():
    network = th.Network(small_cnn(3), th.Grid((1, 28, 28), 256), embedding=th.Scale(1 / 255))
    layers = feed_forward(network)
    x = torch.randint(0, 256, (3, 784), generator=torch.Generator().manual_seed(0)).double()
    assert layers.kind == "prelu" and [len(b) for b in layers.bias] == [16 * 196, 32 * 49, 100, 3]
    assert all((slope == 0).all() for slope in layers.tuning)
    torch.testing.assert_close(layers.value(x), network.all_outputs(torch.float64).value(x), rtol=1e-10, atol=1e-10)


def test_one_output_becomes_two_classes():
    network = network_of((4, 5, 1), 2)
    x = points(6, 4)
    value = feed_forward(network).value(x)
    assert (value[:, 0] == 0).all()
    torch.testing.assert_close(value, network.all_outputs(torch.float64).value(x))


@pytest.mark.parametrize("activation", ["erf", "prelu"])
def test_the_lipschitz_bound_holds_and_is_equation_15(activation):
    layers = feed_forward(network_of((4, 6, 5, 3), 3, sigmas=(0.5, 0.8), activation=activation))
    a, b = points(2000, 4), points(2000, 4, 1)
    ratio = (layers.value(a) - layers.value(b)).abs().amax(1) / (a - b).abs().amax(1)
    bound = math.exp(layers.log_lipschitz())
    assert float(ratio.max()) <= bound
    norms = math.prod(float(weight.abs().sum(1).max()) for weight in layers.weight)
    steepness = math.prod(STEEPEST / float(t[0]) for t in layers.tuning) if activation == "erf" else 1.0
    assert bound == pytest.approx(steepness * norms, rel=1e-12)


class Branched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.two(x + torch.erf(self.one(x)))


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(4, 3),
        nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)),
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), TunableErf(), nn.Linear(4, 3)),
        Branched(),
    ],
)
def test_networks_of_another_form_are_refused(module):
    with pytest.raises(UserError, match="network"):
        feed_forward(th.Network(module, th.Box((4,), 0.0, 1.0)))


# ---------------------------------------------------------------------- Algorithms 1 and F2


@pytest.mark.parametrize("n_outputs", [2, 3, 10])
def test_line_13_is_the_least_change(n_outputs):
    generator = torch.Generator().manual_seed(n_outputs)
    for _ in range(10):
        z = 3 * torch.randn(n_outputs, generator=generator, dtype=torch.float64)
        i, j = torch.randperm(n_outputs, generator=generator)[:2].tolist()
        change = least_tie(z, i, j, 0.01)
        after = z + change
        others = [k for k in range(n_outputs) if k not in (i, j)]
        assert float(after[i]) == pytest.approx(float(after[j]), abs=1e-14)
        start = z.numpy()
        assert all(float(after[k]) <= float(after[i]) - 0.01 + 1e-12 for k in others)
        constraints = [{"type": "eq", "fun": lambda d, z=start, i=i, j=j: (z + d)[i] - (z + d)[j]}]
        if others:
            below = {"type": "ineq", "fun": lambda d, z=start, i=i, o=others: (z + d)[i] - 0.01 - (z + d)[o]}
            constraints.append(below)
        program = minimize(
            lambda d: d @ d,
            np.zeros(n_outputs),
            jac=lambda d: 2 * d,
            constraints=constraints,
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert float(change @ change) == pytest.approx(program.fun, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("tau", "gain"), [(1e-4, 4.0), (1e-7, 4.0), (1e-1, 60.0), (0.3, 60.0)])
def test_algorithm_1_lets_gradients_flow_and_makes_the_input_a_flip_point(tau, gain):
    layers = feed_forward(network_of((6, 12, 10, 5), 4, sigmas=(0.05, 0.1), gain=gain))
    one_width, many_widths = 0, 0
    for x in points(10, 6):
        z = layers.value(x[None])[0]
        i, j = z.topk(2).indices.tolist()
        easy = easy_network(layers, x, i, j, tau, BELOW)
        y = x
        for weight, bias, sigma in zip(easy.weight, easy.bias, easy.tuning, strict=False):
            c = weight @ y + bias
            inner = STEEPEST * torch.exp(-((c / sigma) ** 2))  # with respect to c / sigma
            assert (inner >= tau * (1 - 1e-9)).all() and (inner / sigma <= 1 + 1e-12).all()
            one_width += int((sigma == sigma[0]).all())
            many_widths += int(not (sigma == sigma[0]).all())
            y = easy.activation(c, sigma)
        output = easy.value(x[None])[0]
        assert abs(float(output[i] - output[j])) <= 1e-9
        others = [k for k in range(5) if k not in (i, j)]
        assert float(output[others].max()) <= float(output[i]) - BELOW + 1e-9
        for old, new in zip(layers.weight, easy.weight, strict=True):
            assert torch.equal(old, new)
        for old, new in zip(layers.bias[:-1], easy.bias[:-1], strict=True):
            assert torch.equal(old, new)
    # Lines 5 to 10 act only where the neurons of a layer are too different for one width.
    assert (many_widths > 0) == (tau > 0.01) and one_width > 0


@pytest.mark.parametrize(("activation", "kept"), [("relu", 0.0), ("prelu", 0.2)])
def test_algorithm_f2_gives_negative_sides_a_slope(activation, kept):
    layers = feed_forward(network_of((6, 12, 10, 5), 5, activation=activation))
    for x in points(5, 6):
        i, j = layers.value(x[None])[0].topk(2).indices.tolist()
        easy = easy_network(layers, x, i, j, 0.01, BELOW)
        for alpha in easy.tuning:
            torch.testing.assert_close(alpha, torch.full_like(alpha, max(0.01, kept)))
        output = easy.value(x[None])[0]
        assert abs(float(output[i] - output[j])) <= 1e-9
        assert int((output > output[i] - BELOW + 1e-9).sum()) == 2
    lonely = FeedForward(
        "prelu", (torch.eye(2).double(),) * 2, (torch.ones(2).double(),) * 2, (torch.zeros(2).double(),)
    )
    # Without a negative number in a layer its slope stays what it is.
    assert (easy_network(lonely, torch.ones(2).double(), 0, 1, 0.01, BELOW).tuning[0] == 0).all()


# ---------------------------------------------------------------------- Algorithms 2 and F3


def check_flips(network: th.Network, x: torch.Tensor, first: torch.Tensor, second: torch.Tensor, found) -> None:
    """Every answer, and every refusal, by the network itself."""
    output = network.all_outputs(torch.float64).value(found.last_point)
    for row in range(len(x)):
        z, i, j = output[row], int(first[row]), int(second[row])
        if not bool(found.flips.found[row]):
            assert found.outcome[row].startswith("infeasible")
            assert math.isinf(float(found.flips.distance[row])) and float(found.violation[row]) > 0
            continue
        assert found.outcome[row] == "found"
        # A batch rounds its sums in another order than one row: 1e-12.
        assert -1e-12 <= float(z[j] - z[i]) <= 1e-9 + 1e-12
        assert 0 <= float(found.flips.residual[row]) <= 1e-9
        assert float(z[[k for k in range(len(z)) if k not in (i, j)]].max()) < float(z[i])
        point = found.flips.point[row]
        assert ((point >= 0) & (point <= 1)).all() and torch.equal(point, found.last_point[row])
        assert float(found.flips.distance[row]) == pytest.approx(float((point - x[row]).norm()), rel=1e-9)


@pytest.mark.parametrize(
    ("activation", "settings"),
    [
        ("erf", {}),
        ("erf", {"steps": "adaptive", "n_steps": 4}),
        ("erf", {"steps": "lipschitz", "n_steps": 5}),
        ("erf", {"solver": "own", "n_steps": 3, "max_iterations": 20}),
        ("relu", {"n_steps": 5, "gradient_bound": 0.05}),
        ("prelu", {"steps": "adaptive", "n_steps": 3, "gradient_bound": 0.3}),
    ],
)
def test_the_path_ends_at_flip_points_of_the_network_itself(activation, settings):
    network = network_of((6, 12, 10, 4), 6, sigmas=(0.4, 0.6), activation=activation)
    x = points(6, 6)
    first, second = first_two(network, x)
    found = paper_homotopy(network, x, first, second, settings=PaperHomotopy(**settings))
    check_flips(network, x, first, second, found)
    assert int(found.flips.found.sum()) >= 5
    assert (found.share == 1).all() and (found.n_solved >= 1).all() and (found.flips.units > 10).all()


def test_answers_are_no_nearer_than_brute_force_and_mostly_the_nearest():
    network = network_of((2, 10, 3), 7, sigmas=(0.3,), gain=3.0)
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 801, dtype=torch.float64)] * 2)
    labels = network.all_outputs(torch.float64).value(grid).argmax(1)
    x = points(12, 2, 3)
    first, second = first_two(network, x)
    found = paper_homotopy(network, x, first, second)
    check_flips(network, x, first, second, found)
    # Beside a tie of the two with the others below lies a point of the second class, no farther than a cell away.
    truth = torch.stack([(grid[labels == j] - p).norm(dim=1).amin() for p, j in zip(x, second, strict=True)])
    distance = found.flips.distance
    assert (distance >= truth - 2**0.5 / 800).all()
    assert float((distance <= 1.02 * truth + 2e-3).double().mean()) >= 0.7


def test_the_way_ends_at_the_network_exactly_and_its_steps_are_as_asked():
    layers = feed_forward(network_of((6, 12, 10, 4), 8, sigmas=(0.1, 0.2)))
    x = points(1, 6)[0]
    i, j = layers.value(x[None])[0].topk(2).indices.tolist()
    easy = easy_network(layers, x, i, j, 1e-5, BELOW)
    assert easy.towards(layers, 1.0) is layers
    middle = easy.towards(layers, 0.25)
    for start, at, end in zip(easy.tuning, middle.tuning, layers.tuning, strict=True):
        torch.testing.assert_close(at, start + 0.25 * (end - start))
    uniform = shares_of_the_way(easy, layers, PaperHomotopy(n_steps=4))
    assert uniform == [0.25, 0.5, 0.75, 1.0]
    shares = [0.0, *shares_of_the_way(easy, layers, PaperHomotopy(n_steps=5, steps="lipschitz"))]
    assert shares[-1] == 1.0 and all(a < b for a, b in zip(shares[:-1], shares[1:], strict=True))
    bounds = np.array([easy.towards(layers, share).log_lipschitz() for share in shares])
    np.testing.assert_allclose(np.diff(bounds), (bounds[-1] - bounds[0]) / 5, rtol=0.02)
    relu = feed_forward(network_of((6, 12, 10, 4), 8, activation="relu"))
    gentle = easy_network(relu, x, i, j, 0.1, BELOW)
    assert shares_of_the_way(gentle, relu, PaperHomotopy(n_steps=4, steps="lipschitz")) == uniform


@pytest.mark.parametrize("steps", ["uniform", "adaptive"])
def test_a_class_that_never_leads_is_reported_infeasible_and_harms_no_other(steps):
    network = network_of((6, 12, 10, 4), 6, sigmas=(0.4, 0.6))
    x = points(4, 6)
    first, second = first_two(network, x)
    settings = PaperHomotopy(n_steps=2, steps=steps, max_iterations=40)
    plain = paper_homotopy(network, x[:1], first[:1], second[:1], settings=settings)
    last = network.module[-1]
    spare = int(({0, 1, 2, 3} - {int(first[0]), int(second[0])}).pop())
    hopeless = (first != spare) & (torch.arange(4) > 0)
    last.bias.data[spare] = -1e3
    second = torch.where(hopeless, spare, second)
    x = torch.cat([x, x[:1]])
    x[3, 0] = math.nan
    found = paper_homotopy(
        network, x[:4], first, torch.where(first == second, (first + 1) % 4, second), settings=settings
    )
    assert bool(plain.flips.found[0]) and bool(found.flips.found[0])
    torch.testing.assert_close(found.flips.point[0], plain.flips.point[0], rtol=0, atol=1e-6)
    bad = hopeless.clone()
    bad[3] = True
    assert not found.flips.found[bad].any()
    for row in bad.nonzero()[:, 0].tolist():
        assert found.outcome[row].startswith("infeasible") and float(found.violation[row]) > 100
        assert (float(found.share[row]) < 1) == (steps == "adaptive" or row == 3)


def test_constraints_are_kept():
    network = network_of((6, 12, 10, 3), 9, sigmas=(0.5, 0.6))
    x = points(5, 6)
    first, second = first_two(network, x)
    low, high = torch.zeros(5, 6).double(), torch.ones(5, 6).double()
    low[:, 1] = high[:, 1] = x[:, 1]
    matrix = torch.ones(1, 6).double()
    region = Region(low, high, "L2", matrix, x.sum(1, keepdim=True))
    free = paper_homotopy(network, x, first, second)
    found = paper_homotopy(network, x, first, second, region=region)
    check_flips(network, x, first, second, found)
    kept = found.flips.found
    assert kept.sum() >= 2
    assert torch.equal(found.flips.point[kept][:, 1], x[kept][:, 1])
    torch.testing.assert_close(found.flips.point[kept].sum(1), x[kept].sum(1), rtol=0, atol=1e-9)
    assert (found.flips.distance[kept] >= free.flips.distance[kept] * (1 - 1e-6)).double().mean() >= 0.5


@pytest.mark.parametrize(
    ("argument", "settings"),
    [
        ("n_steps", {"n_steps": 0}),
        ("gradient_bound", {"gradient_bound": 1.0}),
        ("steps", {"steps": "large"}),
        ("solver", {"solver": "ipopt"}),
        ("strictly_below", {"strictly_below": 0.0}),
    ],
)
def test_settings_without_meaning_are_refused(argument, settings):
    with pytest.raises(UserError) as error:
        PaperHomotopy(**settings)
    assert error.value.argument == argument


def test_wrong_inputs_and_classes_are_refused():
    network = network_of((6, 8, 3), 0)
    x, zero, one = points(2, 6), torch.zeros(2).long(), torch.ones(2).long()
    for argument, arguments in (
        ("inputs", (x[:, :5], zero, one)),
        ("first", (x, zero[:1], one)),
        ("second", (x, zero, one + 2)),
        ("second", (x, zero, zero)),
    ):
        with pytest.raises(UserError) as error:
            paper_homotopy(network, *arguments)
        assert error.value.argument == argument
    everywhere = Region(torch.zeros(2, 6).double(), torch.ones(2, 6).double(), "L1")
    with pytest.raises(UserError, match="L2"):
        paper_homotopy(network, x, zero, one, region=everywhere)
