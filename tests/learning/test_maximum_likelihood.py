"""Maximum likelihood against Gaussian families, whose optimum is the moments of the noisy data, and its failures."""

import math

import pytest
import torch

from tests.learning.quadratic import Quadratic, gaussian_data, generator
from theodolite.learning import optimiser
from theodolite.learning.bank import ChainStarts, NoisyData
from theodolite.learning.energy import MLPEnergy
from theodolite.learning.langevin import Moves
from theodolite.learning.maximum_likelihood import (
    TRACES,
    LangevinDynamics,
    Limits,
    MaximumLikelihood,
)
from theodolite.learning.schedule import Schedule


def learner(energy, data, schedule="adam:3e-2:3e-3", **options):
    chosen = {
        "starts": ChainStarts(),
        "dynamics": LangevinDynamics(5, True, adapts=True),
        "limits": Limits.of(data, 0.5),
        "step_size": 0.5,
        "updates": 400,
        "batch": 256,
        "average": 0.98,
    } | options
    return MaximumLikelihood(energy, data, schedule=Schedule.parse(schedule), **chosen)


@pytest.mark.parametrize("initialisation", ["persistent", "data", "noise"])
def test_the_moments_of_noisy_data_are_learned(initialisation):
    data, energy = gaussian_data(), Quadratic(3)
    dynamics = LangevinDynamics({"persistent": 5, "data": 15, "noise": 30}[initialisation], True, adapts=True)
    one = learner(energy, data, starts=ChainStarts(initialisation), dynamics=dynamics, updates=250)
    state = one.step(one.init(generator()), generator(1), 250)
    log_precision, mean = state.average
    assert torch.allclose(log_precision.exp() ** -0.5, data.deviation, rtol=0.12)
    assert torch.allclose(mean, data.mean, atol=0.25)
    assert not state.diverged and state.updates == 250


def test_adam_then_descent():
    data, energy = gaussian_data(), Quadratic(3)
    one = learner(energy, data, "adam:3e-2:1e-2:0.5,sgd:3e-2:3e-3:0.5")
    state = one.step(one.init(generator()), generator(1), 400)
    used = state.traces[:, TRACES.index("optimiser")]
    assert used[:199].eq(0).all() and used[201:].eq(1).all()
    assert state.phase == 1 and all(not moment for moment in state.moments)
    assert torch.allclose(state.average[0].exp() ** -0.5, data.deviation, rtol=0.12)


class Still:
    """Chains that stay where they start."""

    steps, adapts = 1, False

    def moved(self, energy, point, step_size, generator):
        return point, Moves(1.0, 0.0)


def test_the_first_update_is_the_gradient_of_algorithm_1():
    # U = exp(a) (x - m)^2 / 2: dU/dm = -exp(a) (x - m); of plain descent with rate g, m moves by g times the
    # difference of the means (data less chains) at precision 1.
    data, energy = gaussian_data(), Quadratic(3)
    one = learner(energy, data, "sgd:0.25:0.25", dynamics=Still())
    state = one.init(generator())
    bank = state.bank
    after = one.step(state, generator(7), 1)
    source = generator(7)
    slot = torch.randperm(len(bank), generator=source)[:256]
    drawn = data.draw(256, source)
    difference = drawn.mean(0) - bank[slot].mean(0)
    assert torch.allclose(after.weights[1], 0.25 * difference, atol=1e-5)
    energy_difference = float(0.5 * (drawn.square().sum(1).mean() - bank[slot].square().sum(1).mean()))
    assert float(after.traces[0, 0]) == pytest.approx(energy_difference, rel=1e-4, abs=1e-4)


def test_chains_are_written_back_in_place():
    data, energy = gaussian_data(), Quadratic(3)
    one = learner(energy, data)
    before = one.init(generator())
    after = one.step(before, generator(1), 1)
    moved = (after.bank != before.bank).any(1)
    slot = torch.randperm(len(before.bank), generator=generator(1))[:256]
    assert 0 < int(moved.sum()) <= 256
    assert set(moved.nonzero()[:, 0].tolist()) <= set(slot.tolist())
    assert float((after.bank - before.bank).abs().max()) < 5


@pytest.mark.parametrize("schedule", ["adam:1e-2:1e-3", "adam:1e-2:1e-3:0.4,sgd:1e-3:1e-4:0.6"])
def test_blocks_do_not_change_what_is_learned(schedule):
    data = gaussian_data()
    energy = MLPEnergy((3,), (16,))
    one = learner(energy, data, schedule, updates=40)
    first = one.init(generator())
    parts, source = first, generator(5)
    for n in (1, 9, 6, 24):
        parts = one.step(parts, source, n)
    whole = one.step(first, generator(5), 40)
    for name in ("weights", "average"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(parts, name), getattr(whole, name), strict=True))
    assert torch.equal(parts.bank, whole.bank) and parts.step_size == whole.step_size
    assert torch.equal(parts.traces, whole.traces)
    assert parts.good_at <= parts.updates and parts.updates - parts.good_at <= 25


def test_a_step_leaves_its_state_as_it_was():
    data = gaussian_data()
    energy = MLPEnergy((3,), (16,))
    one = learner(energy, data)
    state = one.step(one.init(generator()), generator(1), 3)
    kept = [tensor.clone() for tensor in (*state.weights, *state.average, state.bank)]
    one.step(state, generator(2), 5)
    assert all(torch.equal(a, b) for a, b in zip(kept, (*state.weights, *state.average, state.bank), strict=True))
    for moment in state.moments:
        assert float(moment["step"]) == 3


def test_a_fixed_step_stays_and_an_adapted_one_finds_its_acceptance():
    data, energy = gaussian_data(), Quadratic(3)
    fixed = learner(energy, data, dynamics=LangevinDynamics(5, True), step_size=0.2)
    assert fixed.step(fixed.init(generator()), generator(1), 10).step_size == 0.2
    free = learner(
        energy, data, step_size=5.0, limits=Limits.of(data, 5.0), dynamics=LangevinDynamics(10, True, adapts=True)
    )
    state = free.step(free.init(generator()), generator(1), 150)
    assert abs(float(state.traces[-40:, 2].mean()) - 0.6) < 0.06


def test_the_weights_average_is_the_recursion():
    data, energy = gaussian_data(), Quadratic(3)
    one = learner(energy, data, average=0.9)
    state = one.init(generator())
    mean, source = state.weights[1].clone(), generator(1)
    for _ in range(5):
        state = one.step(state, source, 1)
        mean = 0.9 * mean + 0.1 * state.weights[1]
    assert torch.allclose(state.average[1], mean, atol=1e-6)
    none = learner(energy, data, average=0.0)
    state = none.step(none.init(generator()), generator(1), 5)
    assert all(torch.equal(a, b) for a, b in zip(state.average, state.weights, strict=True))


@pytest.mark.parametrize("kept", ["expansion", "contraction"])
def test_only_the_updates_asked_for_are_made(kept):
    data, energy = gaussian_data(), Quadratic(3)
    with torch.no_grad():
        energy.mean.copy_(data.mean)
        energy.log_precision.copy_(-2 * data.deviation.log())
    one = learner(energy, data, "sgd:1e-3:1e-3", updates_kept=kept)
    state, source, made = one.init(generator()), generator(1), 0
    for _ in range(60):
        after = one.step(state, source, 1)
        changed = any(not torch.equal(a, b) for a, b in zip(after.weights, state.weights, strict=True))
        difference = float(after.traces[-1, 0])
        assert changed == (difference < 0 if kept == "expansion" else difference > 0)
        state, made = after, made + changed
    assert 0 < made < 60


def test_the_scale_divides_the_gradient():
    data, energy = gaussian_data(), Quadratic(3)
    plain = learner(energy, data, "sgd:1e-3:1e-3")
    scaled = learner(energy, data, "sgd:1:1", scale=1000.0)
    state = plain.init(generator())
    one, other = plain.step(state, generator(1), 1), scaled.step(state, generator(1), 1)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one.weights, other.weights, strict=True))


class Broken(Quadratic):
    """NaN after some evaluations."""

    def __init__(self, n, after):
        super().__init__(n)
        self.left = after

    def forward(self, x):
        self.left -= 1
        return super().forward(x) * (math.nan if self.left < 0 else 1.0)


def test_an_energy_that_turns_to_nan_ends_learning():
    data = gaussian_data()
    energy = Broken(3, 10)
    one = learner(energy, data, "adam:1e-3:1e-3", dynamics=LangevinDynamics(2, True, adapts=False))
    state, source = one.init(generator()), generator(1)
    for _ in range(3):
        state = one.step(state, source, 20)
    assert "not a finite number" in state.diverged and state.updates < 50
    assert all(torch.isfinite(tensor).all() for tensor in state.good[1])
    assert one.step(state, source, 20) is state


@pytest.mark.parametrize(
    ("schedule", "dynamics"),
    [
        ("adam:100:100", LangevinDynamics(5, True, adapts=True)),
        ("sgd:1e6:1e6", LangevinDynamics(5, True, adapts=True)),
        ("sgd:1e9:1e9", LangevinDynamics(5, False)),
    ],
)
def test_absurd_rates_are_caught_within_50_updates(schedule, dynamics):
    data = gaussian_data()
    torch.manual_seed(0)
    energy = MLPEnergy((3,), (16, 16))
    one = learner(energy, data, schedule, dynamics=dynamics)
    state, source = one.init(generator()), generator(1)
    for _ in range(3):
        state = one.step(state, source, 20)
    assert state.diverged and state.updates <= 50
    assert optimiser.all_finite(state.good[1])


def test_learning_that_goes_well_is_not_called_diverged():
    # 40 coordinates with a first energy far from the data: differences of hundreds of nats are no divergence.
    data = NoisyData(torch.randn((500, 40), generator=generator(3)) + 5.0, 0.3)
    energy = Quadratic(40)
    one = learner(energy, data, "adam:0.3:1e-2", updates=200, average=0.9)
    state = one.step(one.init(generator()), generator(1), 200)
    assert float(state.traces[0, 0]) > 100 or float(state.traces[:, 0].abs().max()) > 20
    assert not state.diverged
    assert torch.allclose(state.average[1], data.mean, atol=0.4)


def test_a_short_run_has_a_chain_a_slot_at_most():
    data, energy = gaussian_data(), Quadratic(3)
    one = learner(energy, data)
    state = one.init(generator())
    assert len(one.short_run(state, 100, generator())) == 100
    assert len(one.short_run(state, 10**6, generator())) == len(state.bank)
