"""Score matching against energies whose slope of noisy data is known, and its ends."""

import dataclasses

import torch

from tests.learning.quadratic import Quadratic, gaussian_data, generator
from theodolite.learning.bank import ChainStarts
from theodolite.learning.energy import GaussianEnergy
from theodolite.learning.maximum_likelihood import LangevinDynamics, Limits, MaximumLikelihood
from theodolite.learning.schedule import Schedule
from theodolite.learning.score_matching import ScoreMatching


def learner(energy, data):
    dynamics = LangevinDynamics(5, True, adapts=True)
    limits = Limits.of(data, 0.3)
    return MaximumLikelihood(energy, data, ChainStarts(), dynamics, Schedule.parse("adam:1e-2:1e-3"), limits, 0.3, 100)


def test_the_slope_of_noisy_gaussian_data_is_found():
    data, energy = gaussian_data(), Quadratic(3)
    matching = ScoreMatching(energy, data, 600, 256, Schedule.parse("adam:3e-2:1e-3"))
    state = matching.step(learner(energy, data).init(generator()), generator(), 600)
    log_precision, mean = state.weights
    assert torch.allclose(log_precision.exp() ** -0.5, data.deviation, rtol=0.06)
    assert torch.allclose(mean, data.mean, atol=0.15)
    assert state.warm_updates == 600 and state.phase == -1 and state.moments == ()


def test_the_loss_of_the_truth_is_its_minimum():
    # E |sigma dU - e|^2 / n of a Gaussian of variance v (noise included) is the mean of (v - sigma^2) / v.
    data = gaussian_data()
    energy = Quadratic(3)
    with torch.no_grad():
        energy.mean.copy_(data.mean)
        energy.log_precision.copy_(-2 * data.deviation.log())
    matching = ScoreMatching(energy, data, 200, 2000, Schedule.parse("adam:1e-9:1e-9"))
    state = matching.step(learner(energy, data).init(generator()), generator(), 60)
    expected = float(((data.deviation**2 - 0.25) / data.deviation**2).mean())
    error = float(state.warm_traces.std()) / 60**0.5
    assert abs(float(state.warm_traces.mean()) - expected) < 4 * error


def test_blocks_do_not_change_what_is_learned():
    data, energy = gaussian_data(), Quadratic(3)
    matching = ScoreMatching(energy, data, 30)
    first = learner(energy, data).init(generator())
    one, source = first, generator(5)
    for n in (7, 1, 22):
        one = matching.step(one, source, n)
    whole = matching.step(first, generator(5), 30)
    assert all(torch.equal(a, b) for a, b in zip(one.weights, whole.weights, strict=True))
    assert torch.equal(one.warm_traces, whole.warm_traces)


def test_absurd_rates_are_caught_and_the_last_good_weights_kept():
    data, energy = gaussian_data(), Quadratic(3)
    start = learner(energy, data).init(generator())
    state = ScoreMatching(energy, data, 100, 64, Schedule.parse("sgd:1e6:1e6")).step(start, generator(), 50)
    assert "score matching" in state.diverged and state.warm_updates <= 50
    assert all(torch.equal(a, b) for a, b in zip(state.good[1], start.weights, strict=True))
    again = ScoreMatching(energy, data, 100).step(state, generator(), 50)
    assert again is state


def test_an_energy_without_weights_is_left_as_it_is():
    data = gaussian_data()
    energy = GaussianEnergy((3,), data.mean, data.deviation)
    state = learner(energy, data).init(generator())
    assert state.weights == ()
    assert dataclasses.replace(state).updates == 0
