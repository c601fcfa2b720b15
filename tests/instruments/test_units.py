"""Units of networks whose units are known, every layer that there is, bad input, and interrupted runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from theodolite import Box, Grid, Latent, Network, OneHot, Scale, Units, UserError, open_survey
from theodolite.instruments.unit_activations import LayerReader
from theodolite.instruments.unit_statistics import random_basis
from theodolite.zoo.flip_networks import small_cnn
from theodolite.zoo.networks import PaperCNN, initialised

N, N_CLASSES = 160, 8
QUICK = {"permutations": 99, "top": (10,), "n_random": 4, "flips": 0}


def clusters(seed=0, noise=0.3):
    """Points around the axes of a space of eight dimensions, and which axis."""
    source = torch.Generator().manual_seed(seed)
    label = torch.arange(N) % N_CLASSES
    return torch.eye(N_CLASSES)[label] + noise * torch.randn((N, N_CLASSES), generator=source), label


def turned(weight, activation=None):
    """A linear layer of these weights before a classifier that turns back."""
    first, last = nn.Linear(N_CLASSES, len(weight), bias=False), nn.Linear(len(weight), N_CLASSES, bias=False)
    with torch.no_grad():
        first.weight.copy_(weight)
        last.weight.copy_(torch.linalg.pinv(weight))
    return nn.Sequential(first, activation or nn.Identity(), last)


def measured(module, inputs, labels=None, space=None, layer="0", **settings):
    network = Network(module, space or Latent(N_CLASSES))
    return Units(layer=layer, **{**QUICK, **settings}).measure(network, inputs, labels, progress=False)


# -------- the claim --------


def test_units_that_are_classes_mean_more():
    x, y = clusters()
    survey = measured(turned(torch.eye(N_CLASSES)), x, y)
    assert survey.claim.item() == "units mean more" and survey.verdict.item() == "complete"
    assert survey.p_value.sel(against=survey.against == "random, raw").values.max() == 0.02
    assert (survey.standardised_difference_low[:2, 0] > 0).all() and (survey.exceeds_low[:2] > 0.5).all()
    expected = [np.argsort(-x[:, unit].numpy(), kind="stable")[:10].tolist() for unit in range(N_CLASSES)]
    assert survey.unit_image.values.tolist() == expected
    assert survey.unit_value.values == pytest.approx(np.sort(x.double().numpy(), axis=0)[::-1][:10].T)
    share = [np.bincount(y.numpy()[rows]).max() / 10 for rows in expected]
    assert survey.unit_purity.values[:, 0] == pytest.approx(share)
    assert survey.unit_class.values[:, 0].tolist() == list(range(N_CLASSES))


def test_units_turned_away_from_the_classes_mean_less():
    x, y = clusters(noise=0.1)
    hadamard = torch.tensor([[1.0]])
    for _ in range(3):
        hadamard = torch.cat((torch.cat((hadamard, hadamard), 1), torch.cat((hadamard, -hadamard), 1)))
    survey = measured(turned(hadamard / 8**0.5), x, y)
    assert survey.claim.item() == "units mean less"
    assert survey.difference.values[:2, 0].max() < 0


def test_rejections_of_randomly_turned_units_are_rare():
    """The null holds with raw units, and the claim asks more than that."""
    p_value, claims = [], []
    for seed in range(40):
        x, y = clusters(seed)
        weight = random_basis(N_CLASSES, torch.Generator().manual_seed(1000 + seed)).float()
        survey = measured(turned(weight), x, y, seed=seed, permutations=99)
        p_value.append(float(survey.p_value[0, 0, 0]))
        claims.append(survey.claim.item())
    assert np.mean(np.array(p_value) <= 0.1) <= 0.1 + 3 * (0.09 / 40) ** 0.5
    assert np.mean([claim in ("units mean more", "units mean less") for claim in claims]) <= 0.15
    assert 0.3 < np.mean(p_value) < 0.7


def test_labels_of_the_network_itself():
    x, y = clusters(noise=0.05)
    survey = measured(turned(torch.eye(N_CLASSES)), x)
    assert survey.attrs["labels"] == "predicted by the network" and survey.label.values.tolist() == y.tolist()
    assert int(survey.check_passed[list(survey.check_name.values).index("labels are true classes")]) == -1


def test_inputs_without_a_label_are_left_out():
    x, y = clusters()
    y[::4] = -1
    survey = measured(turned(torch.eye(N_CLASSES)), x, y)
    kept = (y >= 0).nonzero()[:, 0]
    assert survey.given_image.values.tolist() == kept.tolist()
    assert [survey.class_name.values[k] for k in survey.label.values] == [str(k) for k in y[kept].tolist()]


# -------- what is compared --------


def test_order_of_the_data_and_scale_of_units_change_nothing_they_should_not():
    x, y = clusters()
    weight = torch.randn((12, N_CLASSES), generator=torch.Generator().manual_seed(3))
    survey = measured(turned(weight), x, y)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(4))
    again = measured(turned(weight), x[order], y[order])
    assert np.array_equal(order.numpy()[again.unit_image.values], survey.unit_image.values)
    for name in ("unit_purity", "p_value", "basis_mean", "random_purity", "standardised_difference"):
        assert again[name].values == pytest.approx(survey[name].values, nan_ok=True), name
    louder = measured(turned(weight * torch.logspace(-2, 2, 12)[:, None]), x, y)
    assert np.array_equal(louder.unit_image.values, survey.unit_image.values)
    assert louder.basis_mean.values[:, 1] == pytest.approx(survey.basis_mean.values[:, 1])
    assert not np.allclose(louder.basis_mean.values[:, 0], survey.basis_mean.values[:, 0])


def test_a_common_offset_of_the_activations_changes_nothing():
    """Centring does not matter: an offset adds the same number to what a direction says to every input."""
    x, y = clusters()
    module = turned(torch.eye(N_CLASSES))
    before = measured(module, x, y)
    module[0].bias = nn.Parameter(torch.full((N_CLASSES,), 7.0))
    after = measured(module, x, y)
    for name in ("unit_image", "random_image", "basis_mean", "p_value"):
        assert after[name].values == pytest.approx(before[name].values), name


def test_the_listed_directions():
    x, y = clusters()
    survey = measured(turned(torch.eye(N_CLASSES)), x, y, n_random=5)
    for kind, n in (("random", 5), ("principal", 6)):
        direction = survey[f"{kind}_direction"].values
        assert direction.shape == (n, N_CLASSES) and np.linalg.norm(direction, axis=1) == pytest.approx(np.ones(n))
        said = direction @ x.double().numpy().T
        assert survey[f"{kind}_value"].values == pytest.approx(-np.sort(-said, axis=1)[:, :10])
        assert np.array_equal(survey[f"{kind}_image"].values, np.argsort(-said, axis=1)[:, :10])
    centred = x.double().numpy() - x.double().numpy().mean(0)
    variance = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    assert survey.principal_explained.values[::2] == pytest.approx(variance[:3] / variance.sum())
    assert np.abs(survey.principal_direction.values[::2] + survey.principal_direction.values[1::2]).max() == 0
    assert survey.random_size_share.sum("size").values == pytest.approx(np.ones((2, 1)))


def test_dead_and_rarely_active_units_are_told_and_left_out():
    x, y = clusters()
    weight = torch.eye(N_CLASSES)
    weight[2] = 0.0
    module = turned(weight, nn.ReLU())
    module[0].bias = nn.Parameter(torch.zeros(N_CLASSES))
    module[0].bias.data[5] = -1.4  # excited by a handful of inputs alone
    survey = measured(module, x, y, layer="1")
    assert survey.unit_living.values.tolist() == [1, 1, 0, 1, 1, 1, 1, 1]
    assert np.isnan(survey.unit_purity.values[[2, 5], 0]).all() and (survey.unit_class.values[[2, 5], 0] == -1).all()
    assert np.isfinite(np.delete(survey.unit_purity.values, [2, 5])).all()
    assert (survey.random_direction.values[:, 2] == 0).all()
    assert survey.claim.item() == "undecided"  # six units are too few
    assert survey.check_passed.values[list(survey.check_name.values).index("units with a top set")] == 0


# -------- layers --------


def test_activations_are_those_of_the_layer():
    module = initialised(small_cnn, 0)
    network = Network(module, Box((1, 28, 28), 0, 1))
    x = torch.rand((5, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    planes = module.double()[:3](x.double()).detach()
    source = torch.Generator().manual_seed(1)
    direction = random_basis(32, source)[:4]
    applied = torch.einsum("vc,nchw->nvhw", direction, planes)
    for positions, joined in (("maximum", applied.amax((2, 3))), ("mean", applied.mean((2, 3)))):
        read = LayerReader(network, "2", positions).read(x)
        assert torch.allclose(read.project(direction), joined.T, atol=1e-12)
        own = planes.amax((2, 3)) if positions == "maximum" else planes.mean((2, 3))
        assert torch.allclose(read.natural(), own.T, atol=1e-12)
        scaled = read.project(direction, torch.full((32,), 2.0, dtype=torch.float64))
        assert torch.allclose(scaled, joined.T / 2, atol=1e-12)
    each = LayerReader(network, "2", "each").read(x)
    assert torch.allclose(each.natural(), planes.flatten(1).T) and each.n_units == 32 * 49
    assert all(not layer._forward_hooks for layer in network.module.modules())


@pytest.mark.parametrize("positions", ["maximum", "mean"])
def test_a_convolution_that_is_read_as_whole_levels(positions):
    network = Network(initialised(PaperCNN, 0), Grid((1, 28, 28), 256), OneHot(), classes=["0", "1"])
    x = network.space.draw(24, torch.Generator().manual_seed(0))
    names = [name for name, layer in network.module.named_modules() if isinstance(layer, nn.Conv2d)]
    survey = Units(layer=names[1], positions=positions, top=(5,), permutations=3, n_random=2).measure(
        network, x, torch.arange(24) % 2, progress=False
    )
    assert survey.attrs["positions"] == positions and survey.sizes["flip"] == 0
    assert survey.claim.item() == "undecided" and survey.shown_input.dtype == np.int16


@pytest.mark.parametrize("layer", ["1", "2", "3"])
def test_every_layer_of_a_dense_network(layer):
    source = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.Sigmoid(), nn.Linear(9, 3))
    network = Network(module, Grid((1, 4, 4), 16), Scale(1 / 15), classes=["a", "b", "c"])
    x = network.space.draw(60, source)
    survey = Units(layer=layer, top=(5, 9), permutations=20, n_random=3, flips=6).measure(
        network, x, torch.arange(60) % 3, progress=False
    )
    assert survey.sizes["unit"] == (3 if layer == "3" else 9) and survey.sizes["flip"] == 6
    assert survey.class_name.values.tolist() == ["a", "b", "c"]


# -------- steadiness --------


def test_steadiness_of_a_linear_network_in_closed_form():
    x, y = clusters()
    survey = measured(turned(torch.eye(N_CLASSES)), x, y, flips=40)
    image = survey.flip_image.values
    assert len(set(image)) == 40 == survey.sizes["flip"]
    ranked = survey.unit_image.values.T.ravel()
    assert image.tolist() == list(dict.fromkeys(ranked.tolist()))[:40]
    before = x.double().numpy()
    ordered = np.sort(before, axis=1)
    # The output is the input: the two largest meet half way.
    assert survey.flip_distance.values == pytest.approx((ordered[image, -1] - ordered[image, -2]) / 2**0.5, rel=1e-6)
    after = survey.flip_point.values
    change = np.abs(after - before[image]) / before.std(0)
    assert survey.unit_change.values == pytest.approx(change.mean(0))
    assert ((survey.unit_change_low <= survey.unit_change) & (survey.unit_change <= survey.unit_change_high)).all()
    for unit in range(N_CLASSES):
        column = before[:, unit]
        top = np.argsort(-column)
        tried = [place for place, row in enumerate(image) if row in top[:10]]
        left = [after[place, unit] < column[top[10]] for place in tried]
        assert int(survey.unit_leaving_count[unit]) == len(tried) > 0
        assert float(survey.unit_leaving[unit]) == pytest.approx(np.mean(left))
    noise = survey.unit_noise_change.values * before.std(0)
    expected = survey.flip_distance.values.mean() * np.sqrt(2 / np.pi / N_CLASSES)
    assert noise.mean() == pytest.approx(expected, rel=0.2)


# -------- runs --------


def test_runs_can_be_cut_and_resumed(tmp_path):
    x, y = clusters()
    module = turned(torch.eye(N_CLASSES))
    settings = {"permutations": 40, "flips": 40}
    whole = measured(module, x, y, **settings)
    network = Network(module, Latent(N_CLASSES))
    cut = Units(layer="0", **{**QUICK, **settings}, budget="300 evaluations")
    first = cut.measure(network, x, y, directory=tmp_path, progress=False)
    assert first.verdict.item() == "incomplete" and "Incomplete" in first.verdict_sentence.item()
    longer = Units(layer="0", **{**QUICK, **settings}, budget="1e6 evaluations")
    second = longer.measure(network, x, y, directory=tmp_path, resume=True, progress=False)
    assert second.verdict.item() == "complete"
    for name in whole.data_vars:
        if whole[name].dtype.kind == "f":
            assert second[name].values == pytest.approx(whole[name].values, nan_ok=True), name
    kept = open_survey(tmp_path)["units"].to_dataset()
    assert kept.claim.item() == second.claim.item()
    with pytest.raises(UserError, match="without a survey"):
        cut.measure(network, x, y, directory=tmp_path, progress=False)


def test_plan_says_what_would_be_done():
    x, y = clusters()
    plan = Units(layer="0", **QUICK).plan(Network(turned(torch.eye(N_CLASSES)), Latent(N_CLASSES)), x, y)
    assert "8 units, 8 of which vary" in plan and "160 of 8 classes" in plan and "99" in plan


# -------- bad input --------


class Tuple(nn.Module):
    def forward(self, x):
        return x, x


class Odd(nn.Module):
    """Layers whose outputs are no vectors: a tuple, one number for all, and one that runs twice."""

    def __init__(self):
        super().__init__()
        self.first, self.both, self.mixed = nn.Linear(N_CLASSES, 4), Tuple(), nn.Flatten(0)
        self.twice, self.unused, self.last = nn.ReLU(), nn.Linear(2, 2), nn.Linear(4, 3)

    def forward(self, x):
        x = self.twice(self.first(x))
        self.both(x)
        self.mixed(x)
        return self.last(self.twice(x))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("fist", "such as first"),
        (None, "one of first, both, mixed"),
        ("both", "gives a tuple"),
        ("mixed", "shape"),
        ("twice", "runs 2 times"),
        ("unused", "runs 0 times"),
    ],
)
def test_layers_that_will_not_do(layer, words):
    with pytest.raises(UserError, match="layer") as error:
        measured(Odd(), *clusters(), layer=layer)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": torch.zeros(3)}, "labels: expected 160"),
        ({"labels": torch.zeros(N)}, "two classes or more"),
        ({"labels": torch.full((N,), -3)}, "classes from 0"),
        ({"labels": torch.full((N,), 0.5)}, "whole numbers"),
        ({"inputs": torch.zeros((N, 3))}, "inputs: expected points of shape"),
        ({"inputs": torch.full((N, N_CLASSES), torch.nan)}, "not finite"),
        ({"top": (10, N)}, "top: expected fewer"),
    ],
)
def test_data_that_will_not_do(change, words):
    x, y = clusters()
    given = {"inputs": x, "labels": y, **change}
    with pytest.raises(UserError, match=words):
        measured(turned(torch.eye(N_CLASSES)), **given)


@pytest.mark.parametrize(
    "settings",
    [
        {"top": 0}, {"top": ()}, {"top": (5, 5)}, {"top": (2.5,)}, {"n_random": 0}, {"permutations": 0}, {"flips": -1},
        {"positions": "sum"}, {"budget": "soon"},
    ],
)  # fmt: skip
def test_settings_that_will_not_do(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        Units(layer="0", **settings)


def test_networks_that_answer_one_class_alone_need_labels():
    module = nn.Linear(N_CLASSES, 3)
    module.bias.data = torch.tensor([1e6, 0.0, 0.0])
    with pytest.raises(UserError, match="predicted for every input"):
        measured(nn.Sequential(nn.Linear(N_CLASSES, N_CLASSES), module), clusters()[0])
    with pytest.raises(UserError, match="two units or more"):
        measured(nn.Sequential(nn.Linear(N_CLASSES, 1), nn.Linear(1, 3)), *clusters())
