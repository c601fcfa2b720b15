"""Annealed importance sampling against fields whose partition function is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.sampling.annealed_importance import AnnealedImportance, effective, partition
from theodolite.space import Latent
from theodolite.systems.mixtures import gaussian_mixture
from theodolite.systems.toy import random_table


def test_intervals_cover_the_truth_of_a_table() -> None:
    field = random_table(0, 12)
    assert field.table is not None
    true = float(torch.logsumexp(-field.table.double(), 0))
    found = [
        AnnealedImportance(field, -1.0, n_particles=64).run(torch.Generator().manual_seed(seed)) for seed in range(60)
    ]
    deviation = np.array([(one.log_partition - true) / one.error for one in found])
    covered = sum(one.low <= true <= one.high for one in found)
    assert covered >= 50
    assert abs(deviation.mean()) < 0.5 and 0.7 < deviation.std() < 1.5


def test_a_normalised_density_has_log_partition_0() -> None:
    found = [
        AnnealedImportance(gaussian_mixture(2).field, -1.0).run(torch.Generator().manual_seed(seed))
        for seed in range(4)
    ]
    assert all(abs(one.log_partition) < 4 * one.error and one.trusted for one in found)


def test_a_latent_space_counts_as_a_probability() -> None:
    # E exp(-a z^2) = (1 + 2 a)^(-1/2) for each of 5 coordinates
    field = Field(Latent(5), lambda z: 1.5 * z.double().square().sum(1))
    found = AnnealedImportance(field, -1.0).run(torch.Generator().manual_seed(1))
    assert abs(found.log_partition + 2.5 * math.log(4.0)) < 4 * found.error


def test_both_signs_of_lambda() -> None:
    field = random_table(3, 10)
    assert field.table is not None
    found = AnnealedImportance(field, 0.8).run(torch.Generator().manual_seed(0))
    assert abs(found.log_partition - float(torch.logsumexp(0.8 * field.table.double(), 0))) < 4 * found.error


def test_the_mean_of_the_logarithms_lies_below() -> None:
    found = AnnealedImportance(random_table(1, 12), -2.0, per_temperature=1).run(torch.Generator().manual_seed(0))
    assert found.mean_log_weight < found.log_partition


def test_weights_that_hang_on_one_particle_are_not_trusted() -> None:
    log_weight = torch.zeros(100, dtype=torch.float64)
    assert effective(log_weight) == pytest.approx(100.0)
    assert partition(log_weight, -1.0, 2.0).log_partition == pytest.approx(2.0)
    log_weight[3] = 50.0
    assert not partition(log_weight, -1.0, 0.0).trusted


def test_a_run_in_steps_is_the_run() -> None:
    method = AnnealedImportance(random_table(0, 8), -1.0, n_particles=16)
    generator = torch.Generator().manual_seed(5)
    state = method.init(generator)
    while method.stop(state) is None:
        state, info = method.step(state, generator)
        assert 1.0 <= float(info["effective"]) <= 16.0
    assert method.estimate(state) == method.run(torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"rung_lambda": 0.0}, "rung_lambda"), ({"n_particles": 1}, "n_particles"), ({"sweeps": 0}, "sweeps")],
)
def test_settings_that_cannot_be(changed: dict[str, float], named: str) -> None:
    with pytest.raises(UserError, match=named):
        AnnealedImportance(random_table(0, 4), **{"rung_lambda": -1.0, **changed})  # type: ignore[arg-type]
