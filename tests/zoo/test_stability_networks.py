"""The networks of the stability tables: the paper's numbers, minima that are minima, decays that decay, same seed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from theodolite.errors import UserError
from theodolite.zoo import stability_networks
from theodolite.zoo.autoencoder import SparseCoding, divergence, encoder_of, epochs_for
from theodolite.zoo.datasets import bundled_digits, subset
from theodolite.zoo.flip_networks import TEN_DIGITS, grey_images, share_right
from theodolite.zoo.stability_networks import (
    CROSS_MODEL,
    CROSS_TRAINING_SET,
    STABILITY_RECIPES,
    decay_penalty,
    minimise_all_at_once,
    sigmoid_network,
    train_stability_network,
    training_part,
)


@pytest.fixture(scope="module")
def digits():
    return subset(bundled_digits(TEN_DIGITS), 600)


@pytest.fixture(scope="module")
def softmaxes(digits):
    return {name: train_stability_network(name, digits) for name in ("softmax1", "softmax2", "softmax3")}


def test_every_network_of_both_tables_has_a_recipe_and_layers_for_its_decays():
    assert set(STABILITY_RECIPES) == {*CROSS_MODEL, *CROSS_TRAINING_SET}
    # The architecture as the paper names it, after the last letter; softmax is one layer of 10.
    widths = {
        "N100-100-10": [100, 100, 10],
        "N200-200-10": [200, 200, 10],
        "AE400-10": [400, 10],
        "M1'": [123, 456, 10],
    }
    for name, recipe in STABILITY_RECIPES.items():
        module = recipe.factory()
        linear = [layer for layer in module if isinstance(layer, nn.Linear)]
        sigmoids = [layer for layer in module if isinstance(layer, nn.Sigmoid)]
        expected = widths.get(name, [10] if name.startswith("softmax") else [100, 100, 10])
        assert [layer.out_features for layer in linear] == expected and len(sigmoids) == len(linear) - 1
        assert len(recipe.decays) == (1 if recipe.coding else len(linear))
        assert module(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_a_sigmoid_network_is_its_formula():
    network = sigmoid_network((3, 4, 2)).double()
    x = torch.rand(5, 1, 3, dtype=torch.float64)
    first, last = network[1], network[3]
    hidden = 1 / (1 + torch.exp(-(x[:, 0] @ first.weight.T + first.bias)))
    torch.testing.assert_close(network(x), hidden @ last.weight.T + last.bias)


def test_the_softmax_is_the_minimum_that_scipy_finds(digits):
    """The objective in numpy: mean cross-entropy and lambda / 2 times the squared weights, biases free."""
    some = subset(digits, 60)
    trained = train_stability_network("softmax2", some).module[-1]
    x = grey_images(some.x_train).flatten(1).double().numpy()
    y = some.y_train.numpy()

    def objective(parameters):
        weight, bias = parameters[:7840].reshape(10, 784), parameters[7840:]
        z = x @ weight.T + bias
        top = z.max(1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(z - top).sum(1))
        share = np.exp(z - log_sum[:, None])
        share[np.arange(len(y)), y] -= 1
        slope = np.concatenate([(share.T @ x / len(y) + 0.01 * weight).ravel(), share.mean(0)])
        return (log_sum - z[np.arange(len(y)), y]).mean() + 0.005 * (weight**2).sum(), slope

    found = minimize(objective, np.zeros(7850), jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9})
    ours = np.concatenate([trained.weight.double().numpy().ravel(), trained.bias.double().numpy()])
    assert objective(ours)[0] == pytest.approx(found.fun, abs=1e-6)
    np.testing.assert_allclose(ours[:7840], found.x[:7840], atol=2e-3)


def test_more_decay_gives_smaller_weights_and_more_mistakes_in_training(softmaxes):
    weights = [float(subject.module[-1].weight.norm()) for subject in softmaxes.values()]
    right = [subject.train_accuracy for subject in softmaxes.values()]
    assert weights[0] > weights[1] > weights[2] and right[0] > right[1] > right[2]


def test_minimising_all_at_once_solves_a_quadratic():
    matrix = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    wanted = torch.tensor([1.0, -2.0], dtype=torch.float64)
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    slope = minimise_all_at_once([x], lambda: x @ matrix @ x / 2 - wanted @ x, 50)
    torch.testing.assert_close(x.detach(), torch.linalg.solve(matrix, wanted))
    assert slope < 1e-6


def test_the_penalty_counts_each_layer_once_and_no_biases():
    layers = [nn.Linear(2, 3), nn.Linear(3, 1)]
    with torch.no_grad():
        for layer, value in zip(layers, (2.0, 3.0), strict=True):
            layer.weight.fill_(value)
            layer.bias.fill_(1000.0)
    # 6 weights of 2, 3 weights of 3: 0.1 / 2 * 24 + 0.01 / 2 * 27.
    assert float(decay_penalty(layers, (0.1, 0.01)).detach()) == pytest.approx(1.2 + 0.135)


def test_sigmoid_networks_learn_and_decay_reaches_training(digits, monkeypatch):
    monkeypatch.setattr(stability_networks, "_LEAST_STEPS", 300)
    subject = train_stability_network("N100-100-10", digits)
    assert subject.train_accuracy > 0.97 and subject.test_accuracy > 0.8
    assert subject.train_accuracy == share_right(subject.module, subject.x_train, subject.y_train)
    again = train_stability_network("N100-100-10", digits)
    other = train_stability_network("N100-100-10", digits, seed=1)
    for name, tensor in subject.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name])
    assert not torch.equal(subject.module[1].weight, other.module[1].weight)
    # What the decay changes: the same training under a far larger lambda of the first layer alone.
    recipe = STABILITY_RECIPES["N100-100-10"]
    heavy = stability_networks.replace(recipe, decays=(0.01, 1e-6, 1e-6))
    monkeypatch.setitem(STABILITY_RECIPES, "N100-100-10", heavy)
    small = train_stability_network("N100-100-10", digits)
    assert float(small.module[1].weight.norm()) < 0.7 * float(subject.module[1].weight.norm())


def test_networks_of_halves_are_trained_on_disjoint_halves(digits, monkeypatch):
    monkeypatch.setattr(stability_networks, "_LEAST_STEPS", 20)
    parts = [training_part(digits, part) for part in ("first half", "second half")]
    assert torch.equal(torch.cat([part.x_train for part in parts]), digits.x_train)
    assert torch.equal(torch.cat([part.y_train for part in parts]), digits.y_train)
    for name, part in (("M1", parts[0]), ("M1'", parts[0]), ("M2", parts[1])):
        assert torch.equal(train_stability_network(name, digits).x_train, grey_images(part.x_train))


def test_weights_are_read_instead_of_trained(digits, softmaxes, tmp_path):
    subject = softmaxes["softmax3"]
    subject.save(tmp_path / "softmax3.safetensors")
    read = train_stability_network("softmax3", digits, weights=tmp_path / "softmax3.safetensors")
    assert torch.equal(read.module[-1].weight, subject.module[-1].weight)
    assert read.test_accuracy == subject.test_accuracy
    with pytest.raises(UserError, match="weights"):
        train_stability_network("N100-100-10", digits, weights=tmp_path / "softmax3.safetensors")


def test_what_does_not_fit_is_refused_before_training(digits):
    with pytest.raises(UserError, match="softmax1"):
        train_stability_network("softmax4", digits)
    with pytest.raises(UserError, match="ten classes"):
        train_stability_network("softmax1", bundled_digits((0, 1)))
    with pytest.raises(UserError, match="first half"):
        training_part(digits, "third half")
    refused: list[dict[str, Any]] = [{"mean_activation": 1.0}, {"epochs": 0}, {"weight_decay": -1.0}]
    for wrong in refused:
        with pytest.raises(UserError, match=next(iter(wrong))):
            SparseCoding(**wrong)


def test_the_divergence_is_that_of_coins():
    activation = torch.tensor([0.1, 0.25, 0.9], dtype=torch.float64)
    expected = [0.1 * math.log(0.1 / q) + 0.9 * math.log(0.9 / (1 - q)) for q in activation.tolist()]
    torch.testing.assert_close(divergence(0.1, activation), torch.tensor(expected, dtype=torch.float64))
    assert bool(divergence(0.1, torch.tensor([0.0, 1.0])).isfinite().all())


def test_the_autoencoder_keeps_its_features_sparse(digits):
    x = grey_images(digits.x_train).flatten(1)

    def activation(weight):
        settings = SparseCoding(epochs=1, least_steps=150, batch_size=100, sparsity_weight=weight)
        return float(torch.sigmoid(encoder_of(x, 30, settings)(x)).mean())

    assert abs(activation(100.0) - 0.1) < 0.05 < abs(activation(0.0) - 0.1)


@pytest.mark.parametrize(("n_images", "expected"), [(60_000, 20), (4_000, 94), (1, 3000)])
def test_few_images_are_shown_more_often(n_images, expected):
    assert epochs_for(n_images, 20, 3000, 128) == expected


def test_the_example_of_the_guide_runs(capsys):
    guide = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", guide, re.DOTALL | re.MULTILINE)
    (example,) = [block for block in blocks if "train_stability_network" in block]
    exec(compile(example, "data.md", "exec"), {})
    # Fewer images than the paper's 60,000: the error is larger, but of the same kind.
    error = float(re.search(r"test error (\S+)%, the paper's 20.0%", capsys.readouterr().out)[1])
    assert 15 < error < 30
