"""The networks flip points are looked for in: the paper's table and formulas, learning, the same seed."""

from __future__ import annotations

import math

import pytest
import torch

from theodolite.errors import UserError
from theodolite.zoo.datasets import bundled_digits, subset
from theodolite.zoo.flip_networks import (
    ERF_WIDTHS,
    FlipTraining,
    TunableErf,
    dense_network,
    erf_network,
    small_cnn,
    train_dense,
    train_erf,
    train_small_cnn,
)


@pytest.fixture(scope="module")
def three_digits():
    return subset(bundled_digits((0, 1, 2)), 300)


@pytest.mark.parametrize(("name", "first", "last"), [("MNIST", 100, 10), ("CIFAR-10", 2500, 2)])
def test_table_a1_has_twelve_hidden_layers_of_error_functions(name, first, last):
    widths = ERF_WIDTHS[name]
    assert len(widths) == 14 and (widths[0], widths[-1]) == (first, last)
    network = erf_network(widths)
    assert sum(isinstance(layer, TunableErf) for layer in network) == 12
    # Counted by hand: a weight a pair of neurons of neighbouring layers, a bias a neuron, a sigma a hidden layer.
    expected = sum(a * b + b for a, b in zip(widths[:-1], widths[1:], strict=True)) + 12
    assert sum(p.numel() for p in network.parameters()) == expected


def test_the_erf_layer_is_equation_7():
    layer = TunableErf(0.4).double()
    c = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    y = layer(c)
    y.sum().backward()
    for value, slope, at in zip(y.tolist(), c.grad.tolist(), c.tolist(), strict=True):
        sigma = layer.sigma.item()
        assert value == pytest.approx(math.erf(at / sigma), abs=1e-12)
        assert slope == pytest.approx(2 / (sigma * math.sqrt(math.pi)) * math.exp(-((at / sigma) ** 2)), abs=1e-12)


@pytest.mark.parametrize("network", [dense_network(), small_cnn()])
def test_networks_of_images_give_ten_logits_a_row(network):
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    together, alone = network(x), network(x[1:2])
    assert together.shape == (3, 10)
    torch.testing.assert_close(together[1:2], alone)


def test_a_small_erf_network_learns_its_features_and_the_way_back(three_digits):
    found = train_erf(three_digits, training=FlipTraining(epochs=25), widths=(30, 40, 40, 3))
    assert found.train_accuracy > 0.97 and found.test_accuracy > 0.9
    assert found.space.contains(found.x_test).all()
    assert all(abs(float(layer.sigma) - 1) > 1e-3 for layer in found.module if isinstance(layer, TunableErf))
    images = three_digits.x_test[:4].double() / 255
    torch.testing.assert_close(found.wavelets.images(found.x_test[:4], like=images), images, rtol=0, atol=1e-6)
    labels, _ = found.network().predictions(found.x_test)
    assert float((labels == found.y_test).double().mean()) == pytest.approx(found.test_accuracy)


def test_the_scaling_is_part_of_the_first_layer(three_digits):
    found = train_erf(three_digits, training=FlipTraining(epochs=1), widths=(30, 20, 3))
    first, inner = found.module[0], found.module[1:]
    coefficients = found.x_test * found.wavelets.scale + found.wavelets.low
    weight = first.weight / found.wavelets.scale
    bias = first.bias - found.wavelets.low * weight.sum(1)
    torch.testing.assert_close(inner(coefficients @ weight.T + bias), found.module(found.x_test), rtol=1e-4, atol=1e-5)
    assert [type(layer) for layer in found.module] == [torch.nn.Linear, TunableErf, torch.nn.Linear]


def test_relu_networks_learn_and_the_same_seed_gives_the_same_weights(three_digits):
    settings = FlipTraining(epochs=6, batch_size=16)
    weights = []
    for seed in (1, 1, 2):
        found = train_dense((16,), three_digits, seed, settings)
        assert found.test_accuracy > 0.85 and found.space.shape == (1, 28, 28)
        weights.append(torch.cat([p.flatten() for p in found.module.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    convolutional = train_small_cnn(three_digits, training=settings)
    assert convolutional.test_accuracy > 0.9 and convolutional.classes == ("0", "1", "2")


def test_training_leaves_the_global_generator_alone(three_digits):
    before = torch.get_rng_state()
    train_dense((4,), three_digits, 0, FlipTraining(epochs=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": math.nan}, {"weight_decay": -1.0}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FlipTraining(**wrong)


def test_widths_that_fit_nothing_are_refused(three_digits):
    with pytest.raises(UserError, match="widths"):
        train_erf(three_digits, widths=(30, 20, 10))
    with pytest.raises(UserError, match="widths"):
        dense_network((784,))
    with pytest.raises(UserError, match="widths"):
        erf_network((10, 0, 2))


def test_saved_weights_take_the_place_of_training(three_digits, tmp_path):
    settings = FlipTraining(epochs=1)
    for train in (
        lambda weights: train_dense((5,), three_digits, 0, settings, weights=weights),
        lambda weights: train_small_cnn(three_digits, 0, settings, weights=weights),
        lambda weights: train_erf(three_digits, 0, settings, (20, 10, 3), weights=weights),
    ):
        made = train(None)
        made.save(tmp_path / "weights.safetensors")
        read = train(tmp_path / "weights.safetensors")
        assert torch.equal(read.module(read.x_test), made.module(made.x_test))
        assert read.test_accuracy == made.test_accuracy
    with pytest.raises(UserError, match="weights"):
        train_dense((6,), three_digits, weights=tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="weights"):
        train_dense((6,), three_digits, weights=tmp_path / "none.safetensors")
