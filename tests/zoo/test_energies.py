"""The digit energy: what U is, that its minima are digits inside the box, that weights come back the same."""

from __future__ import annotations

import pytest
import torch

from theodolite.errors import UserError
from theodolite.loading import load_model
from theodolite.search.minimise import distinct, minimise
from theodolite.zoo.datasets import bundled_digits, toy_images
from theodolite.zoo.energies import (
    BOUND,
    EnergyTraining,
    digit_classifier,
    digit_energy,
    energy_field,
    small_images,
)


@pytest.fixture(scope="module")
def digits():
    return bundled_digits((0, 1, 2, 3))


@pytest.fixture(scope="module")
def trained(digits):
    """A quarter of the default training: enough for the map, and 3 s."""
    heard = []
    energy = digit_energy(digits, 0, EnergyTraining(batches=500), progress=heard.append)
    assert heard == [line for line in heard if line.startswith("training, batch ")] and len(heard) == 2
    return energy


def test_images_keep_black_white_and_their_place():
    levels = torch.zeros((2, 1, 28, 28), dtype=torch.int64)
    levels[1, 0, :14] = 255
    small = small_images(levels)
    assert small.shape == (2, 1, 16, 16) and small.dtype == torch.float32
    torch.testing.assert_close(small[0], torch.full((1, 16, 16), -1.0))
    torch.testing.assert_close(small[1, 0, :7], torch.ones(7, 16))
    torch.testing.assert_close(small[1, 0, 9:], -torch.ones(7, 16))


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_the_energy_is_the_spring_less_the_log_sum_exp(sigma):
    module = digit_classifier()
    field = energy_field(module, sigma)
    x = field.space.draw(5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = module(x).double()
    expected = ((x.double() + 1.0) ** 2).sum((1, 2, 3)) / (2 * sigma**2) - logits.exp().sum(1).log()
    torch.testing.assert_close(field.value(x), expected, rtol=1e-6, atol=1e-6)
    assert module.training and field.value(x).dtype == torch.float64


def test_the_energy_is_smooth_to_float64():
    torch.manual_seed(0)
    field = energy_field(digit_classifier())
    x = field.space.draw(3, torch.Generator().manual_seed(1)).double()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradient = field.value_and_gradient(x)[1]
    step = 1e-5
    slope = (field.value(x + step * direction) - field.value(x - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope, rtol=1e-6, atol=1e-6)


def test_minima_from_noise_and_from_data_are_the_same_few_digits(trained):
    assert trained.accuracy > 0.95
    data = trained.data[:40].double()
    noise = trained.field.space.draw(40, torch.Generator().manual_seed(0)).double()
    end = minimise(trained.field, torch.cat([data, noise]))
    assert bool(end.converged.all())
    kept, label = distinct(end.point, end.energy, 0.1)
    assert 4 <= len(kept) <= 12
    words = trained.words(end.point[kept])
    assert sorted(set(words)) == ["0", "1", "2", "3"]
    # Where a minimum was reached more than a few times, it was reached from both kinds of start.
    from_data, from_noise = (torch.bincount(part, minlength=len(kept)) for part in (label[:40], label[40:]))
    for digit in range(4):
        of_digit = torch.tensor([word == str(digit) for word in words])
        assert int(from_data[of_digit].sum()) > 0 and int(from_noise[of_digit].sum()) > 0
    assert float(end.point.abs().max()) < 0.9 * BOUND
    # A recognisable minimum lies nearer to the images of its own digit than to those of the others.
    flat, images = end.point[kept].flatten(1).clamp(-1, 1), trained.data.double().flatten(1)
    means = torch.stack([images[trained.labels == k].mean(0) for k in range(4)])
    correlation = torch.corrcoef(torch.cat([flat, means]))[: len(kept), len(kept) :]
    assert [str(k) for k in correlation.argmax(1).tolist()] == words


def test_saved_weights_give_the_same_energy_without_training(trained, digits, tmp_path):
    path = tmp_path / "weights.safetensors"
    trained.save(path)
    again = digit_energy(digits, 5, weights=path)
    x = trained.field.space.draw(3, torch.Generator().manual_seed(3))
    assert torch.equal(again.field.value(x), trained.field.value(x))
    assert again.accuracy == trained.accuracy and again.field.model_hash == trained.field.model_hash
    module = load_model(str(path)).module
    assert torch.equal(module(trained.data[:2]), trained.module(trained.data[:2]))


def test_the_seed_decides_the_weights(digits):
    weights = []
    for seed in (1, 1, 2):
        module = digit_energy(digits, seed, EnergyTraining(batches=3)).module
        weights.append(torch.cat([p.flatten() for p in module.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.allclose(weights[0], weights[2])


def test_wrong_input_is_refused(digits, trained, tmp_path):
    with pytest.raises(UserError, match="28 x 28"):
        digit_energy(toy_images(digits))
    path = tmp_path / "weights.safetensors"
    trained.save(path)
    with pytest.raises(UserError, match="2 classes"):
        digit_energy(bundled_digits((0, 1)), weights=path)
    with pytest.raises(UserError, match="weights"):
        digit_energy(digits, weights=tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="sigma"):
        energy_field(trained.module, 0.0)


@pytest.mark.parametrize("wrong", [{"batches": 0}, {"noise": -1.0}, {"learning_rate": float("nan")}])
def test_training_settings_without_meaning_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        EnergyTraining(**wrong)
