"""Long runs: they sample the energy they are given, from data and from noise; blocks make no difference."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning import long_runs
from theodolite.learning.energy import Energy, GaussianEnergy
from theodolite.learning.long_runs import LongRuns, LongRunState
from theodolite.learning.mixture import MixtureEnergy


def run(energy: Energy, points: Tensor, settings: LongRuns, seed: int = 0) -> LongRunState:
    generator = torch.Generator().manual_seed(seed)
    state = long_runs.init(energy, points, settings, generator)
    while not long_runs.finished(settings, state):
        state = long_runs.step(energy, settings, state, generator)
    return state


def test_both_runs_reach_the_gaussian() -> None:
    """Started narrow and elsewhere, and from noise cooled: in the end the exact mean, variance and mean energy."""
    energy = GaussianEnergy((3,), mean=[1.0, -2.0, 0.5], deviation=[0.5, 1.0, 2.0])
    generator = torch.Generator().manual_seed(1)
    settings = LongRuns(steps=1500, chains=300, n_states=3)
    state = run(energy, 0.1 * torch.randn(300, 3, generator=generator), settings)
    for found in (state.data, state.noise):
        pooled = found.kept().flatten(0, 1)
        error = 4 / 300**0.5
        scaled = (pooled - energy.mean) * energy.precision.sqrt()
        assert scaled.mean(0).abs().max() < error
        assert (scaled.var(0) - 1).abs().max() < error * 2**0.5
        assert abs(float(found.energies[-1].mean()) - 1.5) < error * 1.5**0.5
        assert 0.4 < found.acceptance[-1] < 0.8
    assert state.evaluations == 2 * 300 * (1 + 1500)


def test_noise_finds_the_weights_that_data_were_not_started_at() -> None:
    """All data chains begin in one mode of weight .2: after the run both starts give it its weight."""
    energy = MixtureEnergy([0.2, 0.8], [[-1.5, 0.0], [1.5, 0.0]], np.stack([0.5 * np.eye(2)] * 2))
    points = torch.tensor([-1.5, 0.0]) + 0.1 * torch.randn(400, 2, generator=torch.Generator().manual_seed(3))
    state = run(energy, points, LongRuns(steps=1500, chains=400, n_states=1))
    for found in (state.data, state.noise):
        assert float((found.point[:, 0] < 0).double().mean()) == pytest.approx(0.2, abs=4 * (0.16 / 400) ** 0.5)


def test_step_is_pure_and_resumable() -> None:
    """A state can be gone on with twice, and gives the same both times and as a run without interruption."""
    energy = GaussianEnergy((2,))
    settings = LongRuns(steps=130, chains=5, block=20, n_states=2)
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(4)
    state = long_runs.init(energy, points, settings, generator)
    for _ in range(3):
        state = long_runs.step(energy, settings, state, generator)
    middle, kept = generator.get_state(), state
    ends = []
    for _ in range(2):
        generator.set_state(middle)
        state = kept
        while not long_runs.finished(settings, state):
            state = long_runs.step(energy, settings, state, generator)
        ends.append(state)
    whole = run(energy, points, settings, seed=4)
    for other in (ends[1], whole):
        for name in ("data", "noise"):
            mine, its = getattr(ends[0], name), getattr(other, name)
            assert torch.equal(mine.point, its.point)
            assert torch.equal(mine.trace(), its.trace())
            assert torch.equal(mine.kept(), its.kept())
            assert mine.step_size == its.step_size
    assert whole.done == 7 == whole.data.trace().shape[1]
    assert whole.data.kept().shape == (5, 2, 2)
    assert torch.equal(whole.data.kept()[:, -1], whole.data.point)
    assert long_runs.step(energy, settings, whole, generator) is whole


def test_step_size_is_frozen_after_the_adaptation() -> None:
    energy = GaussianEnergy((2,))
    settings = LongRuns(steps=400, chains=20, block=20)
    generator = torch.Generator().manual_seed(0)
    state = long_runs.init(energy, torch.randn(20, 2, generator=generator), settings, generator)
    sizes = []
    while not long_runs.finished(settings, state):
        state = long_runs.step(energy, settings, state, generator)
        sizes.append((state.data.step_size, state.noise.step_size))
    assert len({data for data, _ in sizes[1:]}) == 1
    assert len({noise for _, noise in sizes[7:]}) == 1
    assert len({noise for _, noise in sizes[:8]}) == 8
    assert [settings.temperature(block) for block in (0, 4, 8, 19)] == pytest.approx([30, 30**0.5, 1, 1])


class _Broken(Energy):
    shape = (2,)

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), torch.nan)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), torch.full_like(x, torch.nan)

    def spec(self) -> dict[str, object]:
        return {}


def test_numbers_that_are_not_finite_end_the_run() -> None:
    state = run(_Broken(), torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), LongRuns(chains=4))
    assert state.diverged
    assert state.done == 0


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"steps": 0}, "long steps"),
        ({"chains": 1}, "long chains"),
        ({"hottest": 0.5}, "hottest"),
        ({"cooling_share": 0.9}, "cooling_share"),
        ({"n_states": 0}, "long n_states"),
    ],
)
def test_settings_that_make_no_run(change: dict, argument: str) -> None:
    with pytest.raises(UserError) as caught:
        replace(LongRuns(), **change)
    assert caught.value.argument == argument


def test_too_few_points() -> None:
    with pytest.raises(UserError, match="points"):
        long_runs.init(GaussianEnergy((2,)), torch.zeros(3, 2), LongRuns(chains=4), torch.Generator())
