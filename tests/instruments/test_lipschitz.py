"""The survey of slopes: bounds above every slope, against exact answers, with layers that nothing is known of."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import theodolite as th
from tests.instruments.small_networks import ErfNetwork, points_of, small_network
from theodolite.errors import UserError
from theodolite.instruments.bounds.lipschitz_bounds import local_bounds
from theodolite.instruments.lipschitz import CHECKPOINT
from theodolite.result import validate

POWER = {"L2": 2.0, "L1": 1.0, "Linf": math.inf}
NAMES = ("relu", "erf", "residual", "maximum", "average", "branches", "one output", "prelu")


def surveyed(network, inputs=None, **settings):
    return validate(th.Lipschitz(**settings).measure(network, inputs, progress=False))


@pytest.mark.parametrize(("name", "norm"), [*itertools.product(NAMES, ["L2"]), ("erf", "L1"), ("residual", "Linf")])
def test_every_slope_lies_below_its_bound_and_the_pair_attains_its_own(name, norm):
    network = small_network(name)
    found = surveyed(network, points_of(network, 2), norm=norm, radius=(0.05, 0.3))
    assert found.verdict.item() == "proven", found.verdict_sentence.item()
    assert (found.measured_slope <= found.lipschitz_upper_bound).all()
    assert (found.operator_norm <= found.lipschitz_upper_bound * (1 + 1e-12)).all()
    assert (found.lipschitz_upper_bound <= found.operator_norm * (1 + 1e-6)).all()
    assert (found.frame_lower_bound <= found.measured_slope * (1 + 1e-5)).all()
    assert 0 < float(found.network_slope) <= float(found.network_upper_bound)
    assert (found.local_slope <= found.local_upper_bound).all()
    assert (found.local_upper_bound <= found.network_upper_bound * (1 + 1e-12)).all()
    pair = torch.as_tensor(found.network_pair.values).flatten(1)
    outputs = network.all_outputs(torch.float64, classify=False)
    assert bool(((pair >= outputs.low) & (pair <= outputs.high)).all())
    value = outputs.value(pair)
    change = [float(torch.linalg.vector_norm(ends[1] - ends[0], POWER[norm])) for ends in (value, pair)]
    assert float(found.network_slope) == pytest.approx(change[0] / change[1], rel=1e-6)
    assert float(found.network_slope) <= change[0] / change[1] * (1 + 1e-12)


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_no_random_pair_beats_the_bound_and_few_beat_the_search(norm):
    for name in ("relu", "erf"):
        network = small_network(name, seed=2)
        found = surveyed(network, norm=norm)
        outputs = network.all_outputs(torch.float64, classify=False)
        x, y = points_of(network, 4000, 1).flatten(1), points_of(network, 4000, 2).flatten(1)
        y = torch.where(torch.arange(4000)[:, None] % 2 == 0, y, x + 1e-3 * (y - x))
        change = torch.linalg.vector_norm(outputs.value(y) - outputs.value(x), POWER[norm], dim=1)
        slope = change / torch.linalg.vector_norm(y - x, POWER[norm], dim=1)
        assert float(slope.max()) <= float(found.network_upper_bound)
        assert float(slope.max()) <= float(found.network_slope) * (1 + 1e-6)


def test_a_linear_network_is_known_exactly():
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    weight = layer.weight.detach().double() / 255
    network = th.Network(layer, th.Grid((6,), 256), embedding=th.Scale(1 / 255))
    for norm, order in (("L2", 2), ("L1", 1), ("Linf", math.inf)):
        truth = float(torch.linalg.matrix_norm(weight, order))
        found = surveyed(network, norm=norm)
        assert truth * (1 - 1e-12) <= float(found.network_upper_bound) <= truth * (1 + 1e-9)
        assert float(found.network_slope) == pytest.approx(truth, rel=1e-6)


def test_shapes_are_those_of_the_paper_and_frames_say_why_they_are_zero():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, groups=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 40), nn.LeakyReLU(0.2)
    )
    found = surveyed(th.Network(module, th.Box((3, 11, 11), 0, 1)))
    assert list(found["shape"].values) == ["3x5x5x8", "8x4x4", "8x4x4 to 8x2x2", "32x40", "40"]
    assert list(found.kind.values) == ["convolution", "ReLU", "maximum pool", "linear", "leaky ReLU"]
    bounds, proof = found.frame_lower_bound.values, list(found.frame_proof.values)
    assert bounds[0] == 0 and proof[0] == "0: fewer outputs than inputs"
    assert bounds[1] == 0 and proof[1] == "0: flat somewhere"
    weight = module[4].weight.detach().double()
    assert bounds[3] == pytest.approx(float(torch.linalg.svdvals(weight)[-1]), rel=1e-9)
    assert bounds[4] == pytest.approx(0.2)


def test_the_bound_of_equation_15():
    torch.manual_seed(1)
    module = ErfNetwork([5, 7, 6, 4])
    found = surveyed(th.Network(module, th.Box((5,), 0, 1)))
    truth = float(module.scale)
    for layer, sigma in zip(module.layers, module.sigma.tolist(), strict=True):
        truth *= 2 / (math.sqrt(math.pi) * sigma) * float(layer.weight.detach().double().abs().sum(1).max())
    truth *= float(module.out.weight.detach().double().abs().sum(1).max())
    assert float(found.erf_upper_bound) == pytest.approx(truth, rel=1e-6)
    assert "Flip Points" in found.attrs["citations"]
    assert math.isnan(float(surveyed(small_network("relu")).erf_upper_bound))


class Odd(nn.Module):
    """Code that cannot be traced, with a function that nothing is known of."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, x):
        y = self.norm(self.first(x))
        return self.last(y if float(y.detach().sum()) < 1e9 else -y)


def test_unknown_layers_are_rows_with_reasons():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3), nn.Softmax(1))
    network = th.Network(module, th.Box((4,), 0, 1))
    found = surveyed(network, points_of(network, 2), radius=0.1)
    assert list(found.layer.values) == ["0", "1", "2", "3", "4"]
    assert found.verdict.item() == "in part" and "1, 4" in found.verdict_sentence.item()
    assert np.isinf(found.lipschitz_upper_bound.values).tolist() == [False, True, False, False, True]
    assert list(found.proof.values[[1, 4]]) == ["LayerNorm", "Softmax"]
    assert found.kind.values[2] == "GELU" and float(found.lipschitz_upper_bound[2]) == pytest.approx(1.1289, abs=1e-4)
    assert math.isinf(found.network_upper_bound) and np.isinf(found.local_upper_bound.values).all()
    assert float(found.network_slope) > 0 and (found.local_slope > 0).all()
    odd = surveyed(th.Network(Odd(), th.Box((4,), 0, 1)))
    known = dict(zip(odd.layer.values.tolist(), odd.lipschitz_upper_bound.values.tolist(), strict=True))
    assert math.isfinite(known["first"]) and math.isfinite(known["last"]) and math.isinf(known["norm"])
    assert "traced" in " ".join(odd.proof.values)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_weights_that_are_not_finite_are_no_exception(bad):
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    nn.init.constant_(module[2].weight, bad)
    found = surveyed(th.Network(module, th.Box((4,), 0, 1)))
    assert found.verdict.item() == "in part"
    assert math.isfinite(found.lipschitz_upper_bound.values[0]) and math.isinf(found.lipschitz_upper_bound.values[2])
    assert math.isinf(found.network_upper_bound)


def test_the_same_seed_gives_the_same_numbers_and_a_run_is_resumed(tmp_path):
    network = small_network("erf")
    inputs = points_of(network, 3)
    settings = th.Lipschitz(seed=4, radius=(0.1,), budget="1e9 evaluations")
    first, again = (settings.measure(network, inputs, progress=False) for _ in range(2))
    names = [name for name in first.variables if first[name].dtype.kind == "f"]
    for name in names:
        np.testing.assert_array_equal(first[name].values, again[name].values)
    short = th.Lipschitz(seed=4, radius=(0.1,), budget="1 evaluation")
    cut = short.measure(network, inputs, directory=tmp_path, progress=False)
    assert (tmp_path / CHECKPOINT).exists()
    assert float(cut.check_value[list(cut.check_name.values).index("every pair searched")]) > 0
    assert np.isfinite(cut.lipschitz_upper_bound.values).all()
    whole = settings.measure(network, inputs, directory=tmp_path, resume=True, progress=False)
    for name in names:
        np.testing.assert_array_equal(first[name].values, whole[name].values)


def test_a_spent_budget_leaves_bounds_by_sums():
    torch.manual_seed(0)
    network = th.Network(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3)), th.Box((20,), 0, 1))
    found = surveyed(network, budget="1e-9 s")
    full = surveyed(network)
    assert found.verdict.item() == "in part"
    assert (found.lipschitz_upper_bound >= full.lipschitz_upper_bound).all()
    assert np.isfinite(found.network_upper_bound)


def test_bounds_in_balls_hold_every_jacobian_in_them():
    network = small_network("erf", seed=3)
    outputs = network.all_outputs(torch.float64)
    centre = points_of(network, 3)
    eye = torch.eye(outputs.n_outputs, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for radius, (norm, order) in itertools.product((0.01, 0.1), (("L2", 2), ("L1", 1), ("Linf", math.inf))):
        bound = local_bounds(network, centre, radius, norm)
        for image in range(3):
            step = torch.randn((200, 3), generator=generator, dtype=torch.float64)
            step = radius * step / torch.linalg.vector_norm(step, POWER[norm], dim=1, keepdim=True)
            _, jacobian = outputs.rows(centre[image].flatten() + step, lambda z, index: eye.expand(len(z), -1, -1))
            assert float(torch.linalg.matrix_norm(jacobian, order).max()) <= float(bound[image])


def test_wrong_input_is_refused_before_any_work():
    network = small_network("relu")
    with pytest.raises(UserError, match="norm"):
        th.Lipschitz(norm="L3")
    for radius in (0.0, -1.0, math.inf, (0.1, math.nan)):
        with pytest.raises(UserError, match="radius"):
            th.Lipschitz(radius=radius)
    with pytest.raises(UserError, match="budget"):
        th.Lipschitz(budget="soon")
    with pytest.raises(UserError, match="radius"):
        th.Lipschitz(radius=0.1).measure(network)
    with pytest.raises(UserError, match="network"):
        th.Lipschitz().measure(nn.Linear(2, 2))
    for inputs in (torch.zeros((2, 5)), torch.zeros((0, 3)), torch.full((1, 3), 7.0), torch.full((1, 3), math.nan)):
        with pytest.raises(UserError, match="inputs"):
            th.Lipschitz().measure(network, inputs)
