"""Noisy data and chain starts: moments, slots that are drawn once, rejuvenation by its probability."""

import pytest
import torch

from theodolite.learning.bank import ChainStarts, NoisyData


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n=500, noise=0.5):
    return NoisyData(torch.randn((n, 3), generator=generator(1)) * torch.tensor([0.1, 1.0, 3.0]) + 2.0, noise)


def test_noisy_data_have_the_variance_of_both():
    one = data()
    drawn = one.draw(60_000, generator())
    assert torch.allclose(drawn.std(0), one.deviation, rtol=0.02)
    assert torch.allclose(one.deviation**2, one.point.var(0, unbiased=False) + 0.25, rtol=1e-5)
    assert torch.allclose(drawn.mean(0), one.mean, atol=0.05)


def test_without_noise_points_are_the_data():
    one = data(noise=0.0)
    drawn = one.draw(200, generator())
    assert (drawn[:, None] == one.point).all(2).any(1).all()


def test_noise_is_as_wide_as_the_data_are_on_average():
    one = data()
    blank = one.blank(60_000, generator())
    assert torch.allclose(blank.std(0), torch.full((3,), one.spread), rtol=0.02)
    assert one.spread**2 == pytest.approx(float(one.deviation.square().mean()), rel=1e-5)


def test_a_bank_has_one_slot_an_image_near_it():
    one = data(noise=0.1)
    bank = ChainStarts().bank(one, generator())
    assert bank.shape == one.point.shape
    assert float((bank - one.point).std()) == pytest.approx(0.1, rel=0.05)
    away = ChainStarts(bank_start="noise").bank(one, generator())
    assert float((away - one.point).std()) > 1.0
    assert len(ChainStarts("data").bank(one, generator())) == 0


def test_slots_are_drawn_once_and_hold_what_is_returned():
    one, starts = data(), ChainStarts()
    bank = starts.bank(one, generator())
    point, slot = starts.draw(one, bank, 100, generator())
    assert len(slot.unique()) == 100
    assert torch.equal(point, bank[slot])
    assert len(starts.draw(one, bank, 10_000, generator())[1]) == len(bank)


@pytest.mark.parametrize("initialisation", ["data", "noise"])
def test_chains_that_are_not_kept_have_no_slots(initialisation):
    one, starts = data(), ChainStarts(initialisation)
    point, slot = starts.draw(one, starts.bank(one, generator()), 64, generator())
    assert point.shape == (64, 3) and len(slot) == 0


def test_rejuvenation_renews_its_share():
    one, starts = data(n=4000), ChainStarts(rejuvenation=0.25)
    bank = starts.bank(one, generator())
    point, slot = starts.draw(one, bank, 4000, generator())
    share = float((point != bank[slot]).any(1).double().mean())
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
