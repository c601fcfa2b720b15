"""What flip points tell, against direct counts, scikit-learn, singular values and known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from theodolite.instruments import flip_statistics as told


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_values", [3, 10_000])
def test_auroc_counts_pairs(n_values):
    random = np.random.default_rng(1)
    score = random.integers(0, n_values, 80).astype(float)
    score[:3] = np.inf
    mistake = random.random(80) < 0.3
    wrong, right = score[mistake][:, None], score[~mistake][None]
    counted = ((wrong < right) + 0.5 * (wrong == right)).mean()
    assert told.auroc(score, mistake) == pytest.approx(counted, abs=1e-12)
    finite = np.where(np.isinf(score), 1e9, score)
    assert told.auroc(score, mistake) == pytest.approx(roc_auc_score(mistake, -finite), abs=1e-12)


def test_trust_is_unknown_without_mistakes_or_without_right_answers():
    score = {"distance": np.arange(4.0)}
    for mistake in (np.zeros(4, dtype=bool), np.ones(4, dtype=bool)):
        found = told.trust(score, mistake, generator())
        assert np.isnan([found.auroc, found.low, found.high, found.lead, found.lead_low, found.lead_high]).all()
        assert math.isnan(told.auroc(score["distance"], mistake))


def test_trust_of_a_perfect_score_and_of_its_reverse():
    score = np.arange(20.0)
    mistake = score < 5
    found = told.trust({"right": score, "reversed": -score}, mistake, generator())
    assert found.auroc.tolist() == [1.0, 0.0] == found.low.tolist() == found.high.tolist()
    assert found.lead.tolist() == [0.0, 1.0] == found.lead_low.tolist() == found.lead_high.tolist()


def test_bootstrap_intervals_cover_a_known_auroc(monkeypatch):
    monkeypatch.setattr(told, "_RESAMPLES", 400)
    # Two normal distributions a distance d apart have the AUROC Phi(d / sqrt 2).
    apart, n_mistakes, n_correct, n_trials = 1.0, 40, 160, 200
    truth = 0.5 * (1 + math.erf(apart / 2))
    random = np.random.default_rng(5)
    mistake = np.arange(n_mistakes + n_correct) < n_mistakes
    covered = 0
    for trial in range(n_trials):
        score = random.normal(size=len(mistake)) + np.where(mistake, 0.0, apart)
        found = told.trust({"score": score}, mistake, generator(trial))
        covered += int(found.low[0] <= truth <= found.high[0])
    # Percentile intervals of 40 mistakes cover a little less than 95%; three standard errors below are 90%.
    assert 0.90 <= covered / n_trials <= 0.99


@pytest.mark.parametrize(("apart", "in_common"), [((1.2, 0.8), 0.8), ((1.0, 1.0), 0.5)])
def test_bootstrap_intervals_cover_a_known_difference_of_two_scores(apart, in_common, monkeypatch):
    monkeypatch.setattr(told, "_RESAMPLES", 400)
    n_mistakes, n_correct, n_trials = 40, 160, 200
    truth = 0.5 * (math.erf(apart[0] / 2) - math.erf(apart[1] / 2))
    random = np.random.default_rng(6)
    mistake = np.arange(n_mistakes + n_correct) < n_mistakes
    covered, widths, apart_widths = 0, [], []
    for trial in range(n_trials):
        noise = random.normal(size=(3, len(mistake)))
        scores = {
            name: math.sqrt(in_common) * noise[0] + math.sqrt(1 - in_common) * own + np.where(mistake, 0.0, shift)
            for name, own, shift in zip(("one", "other"), noise[1:], apart, strict=True)
        }
        found = told.trust(scores, mistake, generator(trial))
        assert found.lead.tolist() == [0.0, found.auroc[0] - found.auroc[1]]
        covered += int(found.lead_low[1] <= truth <= found.lead_high[1])
        widths.append(found.lead_high[1] - found.lead_low[1])
        apart_widths.append(math.hypot(*(found.high - found.low)))
    assert 0.90 <= covered / n_trials <= 0.99
    # Var(a - b) = Var(a) + Var(b) - 2 Cov(a, b): what two intervals apart cannot know.
    assert np.mean(widths) < math.sqrt(1 - 0.8 * in_common) * np.mean(apart_widths)


def test_resamples_are_the_same_for_every_score_and_seed(monkeypatch):
    random = np.random.default_rng(2)
    score, mistake = random.normal(size=60), random.random(60) < 0.4
    once = told.trust({"one": score, "other": score}, mistake, generator(3))
    assert once.low[0] == once.low[1] and once.high[0] == once.high[1]
    assert not np.any([once.lead, once.lead_low, once.lead_high])
    assert once.low[0] < once.auroc[0] < once.high[0]
    monkeypatch.setattr(told, "_RESAMPLED_AT_ONCE", 1000)
    again = told.trust({"one": score}, mistake, generator(3))
    assert again.high[0] == pytest.approx(once.high[0], abs=0.02)
    assert told.trust({"one": score}, mistake, generator(4)).low[0] != again.low[0]


def test_the_true_class_is_ranked_by_distance():
    distance = np.array(
        [
            [np.nan, 0.3, 0.2, np.inf],
            [np.nan, 0.3, 0.2, np.inf],
            [np.nan, 0.20001, 0.20002, 0.5],
            [np.nan, 0.1, 0.2, np.inf],
            [np.nan, 0.1, 0.2, 0.3],
            [np.nan, 0.1, 0.2, 0.3],
        ]
    )
    label = np.array([2, 1, 2, 3, 0, -1])
    assert told.true_class_rank(distance, np.zeros(6, dtype=int), label).tolist() == [1, 2, 1, 0, 0, 0]


def test_directions_are_singular_vectors_of_the_changes():
    random = np.random.default_rng(0)
    change = random.normal(size=(30, 6)) * np.array([5, 3, 1, 1, 1, 1]) + 0.5
    predicted = np.repeat([0, 2], 15)
    found = told.directions(change, predicted, 4, 3)
    assert found.mean.shape == (4, 6) and found.component.shape == (4, 3, 6)
    assert np.isnan(found.mean[[1, 3]]).all() and np.isnan(found.explained[[1, 3]]).all()
    for index in (0, 2):
        rows = change[predicted == index]
        assert found.mean[index] == pytest.approx(rows.mean(0))
        values, vectors = np.linalg.eigh(rows.T @ rows)
        assert found.explained[index] == pytest.approx(values[::-1][:3] / values.sum())
        for component, vector in zip(found.component[index], vectors.T[::-1], strict=False):
            assert abs(component @ vector) == pytest.approx(1.0)
            assert component @ found.mean[index] >= 0


def test_few_changes_have_few_directions():
    found = told.directions(np.array([[0.0, 3.0, 4.0], [0.0, 0.0, 0.0]]), np.array([0, 1]), 2, 3)
    assert found.component[0, 0] == pytest.approx([0, 0.6, 0.8]) and found.explained[0, 0] == pytest.approx(1.0)
    assert np.isnan(found.component[0, 1:]).all() and np.isnan(found.component[1]).all()
    assert found.mean[1].tolist() == [0.0, 0.0, 0.0]


def test_features_that_never_change():
    change = np.array([[0.0, 0.2, -0.3], [0.1, 0.0, -0.3]])
    assert told.changed_share(change, 0.1).tolist() == [0.0, 0.5, 1.0]
    assert np.isnan(told.changed_share(change[:0], 0.1)).all()


def test_suspicious_labels_come_nearest_first():
    distance = np.array([0.5, 0.1, np.inf, 0.2, 0.3])
    predicted = np.array([1, 1, 1, 1, -1])
    label = np.array([0, 0, 0, 1, 0])
    assert told.suspicious(distance, predicted, label).tolist() == [1, 0, 2]
    assert told.ambiguous(distance, 0.2).tolist() == [False, True, False, True, False]
