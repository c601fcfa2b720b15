"""The verdict: it trusts equilibrium and catches each way of not being there."""

import numpy as np
import pytest

from theodolite.instruments import verdict

RUNGS = np.linspace(-2.0, 2.0, 41)


def evidence(value: np.ndarray, **changes) -> verdict.Evidence:
    n = len(RUNGS)
    settings = {
        "value": value,
        "rung_lambda": RUNGS,
        "swap_rate": np.full(n - 1, 0.4),
        "acceptance": np.full((len(value), n), 0.5),
        "small": np.zeros((len(value), n), dtype=bool),
        "log_partition": 0.5 * RUNGS**2,
        "log_partition_error": np.full(n, 0.05),
        "level": np.linspace(-2.5, 2.5, 20),
        "log_density": np.linspace(1.0, 50.0, 20),
        "log_density_error": np.full(20, 0.1),
        "log_volume": 60.0,
        "discrete": True,
    }
    return verdict.Evidence(**{**settings, **changes})


def equilibrium(seed: int, n_ladders: int = 3, n_steps: int = 600) -> np.ndarray:
    """Independent samples of unit Gaussians whose mean is lambda: variance 1 = slope 1."""
    return np.random.default_rng(seed).normal(RUNGS, 1.0, (n_ladders, n_steps, len(RUNGS)))


def failed(judged: verdict.Verdict) -> set[str]:
    return {check.name for check in judged.checks if check.passed is not None and not check.passed.all()}


def test_equilibrium_converges_in_nearly_every_run():
    words = [verdict.judge(evidence(equilibrium(seed))).word for seed in range(60)]
    assert words.count("converged") >= 57


def test_a_ladder_stuck_elsewhere_fails_from_there_outwards():
    value = equilibrium(1)
    value[0, :, 33:] -= 2.0
    judged = verdict.judge(evidence(value))
    assert judged.word == "not converged"
    assert "starts agree within the spread" in failed(judged)
    assert judged.trusted[:24].all() and not judged.trusted[33:].any()
    assert "above" in judged.sentence


def test_frozen_chains_fail_by_their_fluctuations():
    value = equilibrium(2)
    centre = value.mean(1, keepdims=True)
    value = centre + 0.4 * (value - centre)
    assert "fluctuations match the slope" in failed(verdict.judge(evidence(value)))


def test_drift_fails():
    value = equilibrium(3) + np.linspace(-0.6, 0.6, 600)[None, :, None]
    assert "no drift" in failed(verdict.judge(evidence(value)))


def test_rare_swaps_cut_off_what_lies_beyond_them():
    swap_rate = np.full(40, 0.4)
    swap_rate[36] = 0.05
    judged = verdict.judge(evidence(equilibrium(4), swap_rate=swap_rate))
    assert failed(judged) == {"neighbours swap"}
    assert judged.trusted[:37].all() and not judged.trusted[37:].any()


def test_rejected_moves_of_the_least_size_fail_where_samples_are_few():
    acceptance, small = np.full((3, 41), 0.5), np.zeros((3, 41), dtype=bool)
    acceptance[1, 40], small[1, 40] = 0.1, True
    sticky = np.repeat(equilibrium(5, n_steps=20), 30, axis=1)
    assert "proposals are accepted" in failed(verdict.judge(evidence(sticky, acceptance=acceptance, small=small)))


def test_estimators_that_disagree_fail():
    judged = verdict.judge(evidence(equilibrium(6), log_partition=0.5 * RUNGS**2 + 3.0 * (RUNGS > 1)))
    assert "two estimators agree" in failed(judged)


@pytest.mark.parametrize("density", [62.0, -2.0])
def test_impossible_counts_fail_from_there_outwards(density: float):
    changed = np.linspace(1.0, 50.0, 20)
    changed[16] = density
    judged = verdict.judge(evidence(equilibrium(7), log_density=changed))
    assert "counts are possible" in failed(judged)
    assert judged.trusted[:30].all() and not judged.trusted[38:].any()


def test_one_ladder_leaves_agreement_untested():
    judged = verdict.judge(evidence(equilibrium(8, n_ladders=1)))
    assert next(check for check in judged.checks if check.name.startswith("starts")).passed is None


def test_a_second_field_that_was_not_declared_is_reported_as_not_tested():
    judged = verdict.judge(evidence(equilibrium(9)))
    assert judged.checks[-1].passed is None and "not tested" in judged.checks[-1].sentence
