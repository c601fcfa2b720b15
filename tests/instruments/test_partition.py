"""ln Z from a density survey, against enumeration, exact systems and annealed importance sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import theodolite as th
from theodolite.errors import UserError
from theodolite.instruments.partition import log_partition
from theodolite.sampling.annealed_importance import AnnealedImportance
from theodolite.systems import ising
from theodolite.systems.mixtures import gaussian_mixture
from theodolite.systems.toy import random_table


def survey_of(field: th.Field, budget: str, seed: int = 0, **settings: object):  # noqa: ANN201
    return th.Density(seed=seed, budget=budget, **settings).measure(field, progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("rung_lambda", [-0.2, -0.44, 0.1])
def test_an_exact_survey_gives_the_exact_sum(rung_lambda: float) -> None:
    field = ising(4)
    found = log_partition(survey_of(field, "1e5 evaluations", method="enumerate"), rung_lambda)
    states = torch.cartesian_prod(*[torch.tensor([-1, 1])] * 16).reshape(-1, *field.space.shape)
    true = float(torch.logsumexp(rung_lambda * field.value(states), 0))
    assert found.whole
    assert found.low == pytest.approx(found.high)
    assert found.log_partition == pytest.approx(true, abs=1e-9)


def test_wide_bins_are_corrected_for_what_varies_within_them() -> None:
    field = random_table(0, 16)
    assert field.table is not None
    survey = survey_of(field, "1e5 evaluations", method="enumerate")
    true = float(torch.logsumexp(-field.table.double(), 0))
    assert log_partition(survey, -1.0).log_partition == pytest.approx(true, abs=0.03)


def test_a_sampled_survey_covers_the_truth_and_agrees_with_annealing() -> None:
    field = gaussian_mixture(2).field
    found = log_partition(survey_of(field, "300000 evaluations"), -1.0)
    assert found.low - 0.05 <= 0.0 <= found.high + 0.05
    annealed = AnnealedImportance(field, -1.0).run(torch.Generator().manual_seed(0))
    assert abs(annealed.log_partition - found.log_partition) < 0.15 + 2 * annealed.error


def test_a_survey_cut_off_where_the_weight_lies_is_not_whole() -> None:
    field = gaussian_mixture(2).field
    survey = survey_of(field, "300000 evaluations")
    known = np.flatnonzero(np.isfinite(survey.log_density_of_states.values))
    cut = survey.copy(deep=True)
    cut.log_density_of_states.values[known[: len(known) // 3]] = math.nan
    assert not log_partition(cut, -1.0).whole


def test_other_results_and_numbers_are_refused() -> None:
    survey = survey_of(ising(2), "1e4 evaluations", method="enumerate")
    with pytest.raises(UserError, match="rung_lambda"):
        log_partition(survey, math.inf)
    with pytest.raises(UserError, match="density survey"):
        log_partition(survey.assign_attrs(instrument="landscape"), -1.0)
