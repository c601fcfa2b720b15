"""Training learns the bundled digits, stops where told and gives the same weights for the same seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from theodolite.errors import UserError
from theodolite.zoo.datasets import bundled_digits, subset, toy_images
from theodolite.zoo.networks import NoiseAugmentedResNet, PaperCNN, ToyCNN, initialised
from theodolite.zoo.training import TrainingSettings, accuracy, predicted_classes, train


@pytest.fixture(scope="module")
def toy():
    return toy_images(bundled_digits())


def test_the_toy_network_learns_its_images(toy):
    module = initialised(ToyCNN, 0)
    result = train(module, toy, TrainingSettings(epochs=10, learning_rate=3e-3))
    assert result.test_accuracy >= 0.98 and result.epochs == 10
    assert sum(result.losses[-16:]) < 0.2 * sum(result.losses[:16])
    assert not module.training
    assert result.test_accuracy == accuracy(module, toy.x_test, toy.y_test)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(toy):
    weights = []
    for seed in (1, 1, 2):
        module = initialised(ToyCNN, 1)
        train(module, subset(toy, 200), TrainingSettings(epochs=1, seed=seed))
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_training_stops_at_the_stated_accuracy(toy):
    settings = TrainingSettings(epochs=50, learning_rate=3e-3, stop_accuracy=0.9)
    result = train(initialised(ToyCNN, 0), toy, settings)
    assert 0.9 <= result.test_accuracy < 1.0 and result.epochs < 50


def test_the_paper_cnn_learns_on_a_few_digits():
    digits = subset(bundled_digits(), 60)
    module = initialised(PaperCNN, 0)
    result = train(module, digits, TrainingSettings(epochs=10, learning_rate=1e-2, batch_size=15))
    assert sum(result.losses[-4:]) < 0.5 * sum(result.losses[:4])
    assert result.train_accuracy > 0.9 and result.test_accuracy > 0.75


def test_noise_changes_the_training_and_more_outputs_are_trained(toy):
    digits = subset(bundled_digits((0, 1, 2)), 20)
    losses = []
    for noise in (0.0, 0.5):
        module = initialised(lambda: NoiseAugmentedResNet(outputs=3, channels=4), 0)
        losses.append(train(module, digits, TrainingSettings(epochs=1, noise=noise)).losses)
    assert losses[0] != losses[1]
    assert predicted_classes(torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])).tolist() == [1, 0]
    assert predicted_classes(torch.tensor([[-1.0], [1.0]])).tolist() == [0, 1]


def test_networks_that_do_not_fit_are_refused(toy):
    with pytest.raises(UserError, match="input planes"):
        train(initialised(lambda: PaperCNN(levels=4), 0), toy, TrainingSettings())
    with pytest.raises(UserError, match="outputs"):
        train(initialised(lambda: ToyCNN(outputs=3), 0), toy, TrainingSettings())
    with pytest.raises(UserError, match="first layer"):
        train(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 1)), toy, TrainingSettings())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": -1.0}, {"noise": -0.1}, {"batch_size": 0}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        replace(TrainingSettings(), **wrong)


def test_batch_normalisation_is_settled_after_a_few_steps(toy):
    class Normalised(torch.nn.Sequential):
        def __init__(self):
            stem = torch.nn.Conv2d(2, 3, 3, padding=1)
            stem.weight.data *= 0.01
            rest = (torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(75, 1))
            super().__init__(stem, *rest)

    module = initialised(Normalised, 0)
    result = train(module, toy, TrainingSettings(epochs=2, learning_rate=1e-2))
    hidden = module[0](torch.nn.functional.one_hot(toy.x_train[:500, 0], 2).permute(0, 3, 1, 2).float())
    normalised = module[1](hidden).detach()
    scale, shift = module[1].weight.detach(), module[1].bias.detach()
    torch.testing.assert_close(normalised.mean((0, 2, 3)), shift, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(normalised.std((0, 2, 3)), scale.abs(), atol=5e-2, rtol=5e-2)
    assert result.test_accuracy > 0.9
