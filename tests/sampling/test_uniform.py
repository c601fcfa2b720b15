"""Plain Monte Carlo against exact counts: its intervals must cover."""

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling.uniform import Uniform, wilson_log_error
from theodolite.space import Box
from theodolite.systems.ising import ising
from theodolite.systems.ising_exact import ising_counts


def test_intervals_cover_the_exact_ising_counts():
    exact = {energy: np.log(float(count)) for energy, count in ising_counts(4).items() if count}
    covered = []
    for seed in range(60):
        sampler, generator = Uniform(ising(4)), torch.Generator().manual_seed(seed)
        state = sampler.init(generator)
        for _ in range(4):
            state, _ = sampler.step(state, generator)
        estimate = sampler.estimate(state)
        centres = (estimate.level_edges[1:] + estimate.level_edges[:-1]) / 2
        # levels whose expected count is at least 10: below it a level is often absent, and its interval
        # conditional on having been seen
        for centre, log_density, error in zip(
            centres, estimate.log_density_of_states, estimate.log_density_error, strict=True
        ):
            truth = exact.get(round(centre), -np.inf)
            if truth > np.log(10 / 4096 * 2**16):
                covered.append(abs(log_density - truth) <= 1.96 * error)
    assert 0.93 <= np.mean(covered) <= 0.99


def test_volume_of_a_box_is_absolute():
    field = Field(Box((2,), 0.0, 2.0), lambda x: x[:, 0].double())
    sampler, generator = Uniform(field, bin_width=0.5), torch.Generator().manual_seed(0)
    state, _ = sampler.step(sampler.init(generator), generator)
    estimate = sampler.estimate(state)
    assert estimate.level_edges.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert (np.abs(estimate.log_density_of_states) < 3 * estimate.log_density_error).all()
    assert np.isclose(np.exp(estimate.log_density_of_states).sum(), 4.0)


def test_a_step_leaves_its_state_alone():
    sampler, generator = Uniform(ising(4), batch=8), torch.Generator().manual_seed(0)
    first, _ = sampler.step(sampler.init(generator), generator)
    before = first.counts.copy()
    sampler.step(first, generator)
    assert (first.counts == before).all()


def test_wilson_error_of_one_and_none():
    error = wilson_log_error(np.array([0, 1, 100]), 1000)
    assert np.isinf(error[0])
    # Wilson 95% for 1 of 1000: 0.000177 to 0.00564
    assert error[1] == pytest.approx(np.log(0.00564 / 0.001) / 1.96, rel=0.01)
    assert error[2] == pytest.approx(np.sqrt(0.9 / 100), rel=0.05)


def test_a_bin_width_is_needed():
    with pytest.raises(UserError, match="bin_width"):
        Uniform(Field(Box((2,), 0.0, 2.0), lambda x: x[:, 0].double())).init(torch.Generator())
