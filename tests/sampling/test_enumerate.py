"""Enumeration against Beale's exact Ising counts and against counting by hand."""

import itertools

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling.enumerate import Enumeration, tabulate
from theodolite.space import Box, Grid
from theodolite.systems.ising import ising
from theodolite.systems.ising_exact import ising_counts

SUM_OF_SQUARES = Field(
    Grid((2, 2), 3), lambda x: (x.double() ** 2).flatten(1).sum(1) - 3.25, name="sum of squares"
)


def run(sampler):
    generator = torch.Generator().manual_seed(0)
    state = sampler.init(generator)
    while not sampler.finished(state):
        state, _ = sampler.step(state, generator)
    return state, sampler.estimate(state)


def test_ising_counts_are_exact():
    _, estimate = run(Enumeration(ising(4)))
    centres = (estimate.level_edges[1:] + estimate.level_edges[:-1]) / 2
    found = {
        round(e): round(float(np.exp(s)))
        for e, s in zip(centres, estimate.log_density_of_states, strict=True)
        if s >= 0
    }
    assert found == {energy: count for energy, count in ising_counts(4).items() if count}
    assert (estimate.log_density_error == 0).all()
    assert np.isneginf(estimate.log_density_of_states[1])


@pytest.mark.parametrize("batch", [1, 7, 1024])
def test_counts_by_hand_for_any_batch(batch):
    _, estimate = run(Enumeration(SUM_OF_SQUARES, bin_width=2.0, batch=batch))
    values = [sum(v * v for v in point) - 3.25 for point in itertools.product(range(3), repeat=4)]
    expected, _ = np.histogram(values, estimate.level_edges)
    assert (estimate.n_samples == expected).all()
    assert estimate.n_samples.sum() == 81
    assert np.allclose(np.exp(estimate.log_density_of_states), expected)


def test_table_has_coordinate_0_as_least_significant_digit():
    field = Field(Grid((3,), 4), lambda x: (x.double() * torch.tensor([1.0, 10.0, 100.0])).sum(1))
    table = tabulate(field, batch=5)
    assert table.shape == (64,)
    assert table[1 + 2 * 4 + 3 * 16] == 1 + 20 + 300
    looked_up = Field(field.space, field.value, table=table)
    assert (
        run(Enumeration(looked_up, 50.0))[1].n_samples == run(Enumeration(field, 50.0))[1].n_samples
    ).all()
    assert looked_up.evaluations == 0
    assert field.evaluations == 128


def test_unfinished_enumeration_claims_nothing():
    sampler = Enumeration(ising(4), batch=64, batches_per_step=1)
    generator = torch.Generator()
    state, info = sampler.step(sampler.init(generator), generator)
    estimate = sampler.estimate(state)
    assert info["enumerated"] == 64 / 2**16
    assert np.isinf(estimate.log_density_error).all()
    assert not np.isneginf(estimate.log_density_of_states).any()


@pytest.mark.parametrize("space", [Grid((1, 28, 28), 256), Box((2,), 0.0, 1.0)])
def test_what_cannot_be_enumerated_is_refused(space):
    with pytest.raises(UserError, match="use method"):
        Enumeration(Field(space, lambda x: x.double().flatten(1).sum(1)), bin_width=1.0)
