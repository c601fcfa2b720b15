"""Calibration against exact values, and its intervals against worlds of known calibration, seed by seed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp
from scipy.stats import binom

from theodolite.instruments import calibration
from theodolite.instruments.calibration import MEASURES, drawn_again, edges, judged, measure

N_BINS = 10
N_SEEDS = 60
# Of 60 intervals that cover 95% fewer than this do so once in 10,000 times.
FEWEST = int(binom.ppf(1e-4, N_SEEDS, 0.95))


def world(random, n, temperature, scales=(1.0, 3.0, 6.0)):
    """``n`` answers of a classifier of four classes that states softmax(z) where softmax(z / temperature) is true."""
    z = random.normal(size=(n, 4)) * random.choice(scales, size=(n, 1))
    stated, true = log_softmax(z, 1), log_softmax(z / temperature, 1)
    label = (random.random((n, 1)) > np.exp(true).cumsum(1)).sum(1).clip(0, 3)
    return stated, true, label


def truths(temperature):
    """The measures of the whole world but the binned ones, and (confidence, probability of being right)."""
    stated, true, _ = world(np.random.default_rng(99), 200_000, temperature)
    answer, said, probability = stated.argmax(1), np.exp(stated), np.exp(true)
    right = probability[np.arange(len(answer)), answer]
    values = {
        "accuracy": right.mean(),
        "negative log-likelihood": -(probability * stated).sum(1).mean(),
        "Brier score": (np.square(said).sum(1) - 2 * (probability * said).sum(1) + 1).mean(),
    }
    return values, said.max(1), right


def binned_truth(confidence, right, edge, power=1):
    place = calibration.bins_of(confidence, edge)
    count = np.bincount(place, minlength=len(edge) - 1)
    gap = np.bincount(place, right - confidence, len(edge) - 1) / np.maximum(count, 1)
    return (count * np.abs(gap) ** power).sum() / len(confidence)


@pytest.mark.parametrize(("temperature", "n"), [(1.0, 150), (1.3, 600), (2.5, 300)])
def test_intervals_cover_the_truth(temperature, n):
    """Perfectly calibrated, a little overconfident, and very."""
    known, confidence, right = truths(temperature)
    covered = dict.fromkeys(MEASURES, 0)
    for seed in range(N_SEEDS):
        random = np.random.default_rng(seed)
        stated, _, label = world(random, n, temperature)
        found, drawn = judged(stated, label), drawn_again(n, 150, random)
        for name in MEASURES:
            told = measure(found, name, N_BINS, drawn, random).measured
            true = known.get(name)
            if name == "squared calibration error":
                true = binned_truth(confidence, right, np.linspace(0, 1, N_BINS + 1), power=2)
            elif true is None:
                edge = edges(found.confidence, N_BINS, calibration.BINNED[name])
                true = binned_truth(confidence, right, edge)
            covered[name] += told.low <= true <= told.high
    assert min(covered.values()) >= FEWEST, covered


@pytest.mark.parametrize("n", [100, 400])
def test_paired_differences_cover_the_truth(n):
    """A calibrated classifier against one that states the same answers too surely, and against itself."""
    sharp = 2.0
    known, confidence, right = truths(1.0)
    stated, true, _ = world(np.random.default_rng(99), 200_000, 1.0)
    surer = np.exp(log_softmax(sharp * stated, 1)).max(1)
    edge = edges(confidence, N_BINS, "width")
    wanted = {
        "squared calibration error": binned_truth(confidence, right, edge, 2) - binned_truth(surer, right, edge, 2),
        "negative log-likelihood": known["negative log-likelihood"]
        + (np.exp(true) * log_softmax(sharp * stated, 1)).sum(1).mean(),
        "accuracy": 0.0,
    }
    covered = dict.fromkeys(wanted, 0)
    better = 0
    for seed in range(N_SEEDS):
        random = np.random.default_rng(seed)
        stated, _, label = world(random, n, 1.0)
        one, other = judged(stated, label), judged(log_softmax(sharp * stated, 1), label)
        drawn = drawn_again(n, 200, random)
        for name, true in wanted.items():
            told = calibration.difference(one, [other], name, N_BINS, drawn)
            covered[name] += told.low - 1e-12 <= true <= told.high + 1e-12
            better += name == "squared calibration error" and told.high < 0
        same = calibration.difference(one, [one, one], "squared calibration error", N_BINS, drawn)
        assert abs(same.value) < 1e-12 and same.low <= 1e-12 and same.high >= -1e-12
    assert min(covered.values()) >= FEWEST, covered
    assert better > 0.4 * N_SEEDS or n == 100


def test_differences_of_classifiers_that_hardly_err_cover_the_truth():
    """60 inputs, of which two or none are wrong: what a wrong answer costs is often not in the sample at all."""
    sure, n, n_all = (25.0,), 60, 100_000
    stated, true, _ = world(np.random.default_rng(99), n_all, 1.5, sure)
    other = log_softmax(0.5 * stated + 0.3 * np.random.default_rng(98).normal(size=stated.shape), 1)
    rows, probability = np.arange(n_all), np.exp(true)
    wanted = {
        "accuracy": (probability[rows, stated.argmax(1)] - probability[rows, other.argmax(1)]).mean(),
        "negative log-likelihood": -(probability * (stated - other)).sum(1).mean(),
    }
    covered, unseen = dict.fromkeys(wanted, 0), 0
    for seed in range(N_SEEDS):
        random = np.random.default_rng(seed)
        stated, _, label = world(random, n, 1.5, sure)
        other = judged(log_softmax(0.5 * stated + 0.3 * random.normal(size=stated.shape), 1), label)
        one, drawn = judged(stated, label), drawn_again(n, 200, random)
        unseen += one.right.all()
        for name, known in wanted.items():
            told = calibration.difference(one, [other], name, N_BINS, drawn)
            covered[name] += told.low <= known <= told.high
        if one.right.sum() > n - 5:
            assert math.isnan(calibration.difference(one, [other], "squared calibration error", N_BINS, drawn).high)
    assert min(covered.values()) >= FEWEST and unseen > 3, covered


def test_finite_samples_of_a_calibrated_classifier_measure_what_is_said_to_be_expected():
    values, expected, debiased = [], [], []
    for seed in range(N_SEEDS):
        random = np.random.default_rng(seed)
        stated, _, label = world(random, 150, 1.0)
        told = measure(judged(stated, label), "calibration error", N_BINS, np.zeros((200, 150)), random)
        values.append(told.measured.value)
        expected.append(told.expected)
        debiased.append(told.debiased)
    error = np.std(values) / math.sqrt(N_SEEDS)
    assert abs(np.mean(values) - np.mean(expected)) < 4 * error
    # The truth is 0: the correction takes a good part of the bias away and never adds to it.
    assert np.mean(debiased) < 0.75 * np.mean(values)
    assert np.all(np.array(debiased) <= np.array(values) + 1e-12)


def test_debiased_errors_meet_the_truth_where_it_is_large():
    _, confidence, right = truths(2.5)
    true = binned_truth(confidence, right, edges(confidence, N_BINS, "width"))
    found = []
    for seed in range(N_SEEDS):
        random = np.random.default_rng(seed)
        stated, _, label = world(random, 400, 2.5)
        told = measure(judged(stated, label), "calibration error", N_BINS, np.zeros((10, 400)), random)
        found.append((told.debiased, told.measured.value))
    bias, plain = np.mean(found, 0) - true
    assert abs(bias) < 0.005 and plain > 0


def test_squared_errors_are_unbiased_at_every_size():
    _, confidence, right = truths(1.3)
    true = binned_truth(confidence, right, np.linspace(0, 1, N_BINS + 1), power=2)
    for n in (40, 400):
        found = []
        for seed in range(400):
            random = np.random.default_rng(seed)
            stated, _, label = world(random, n, 1.3)
            told = measure(judged(stated, label), "squared calibration error", N_BINS, np.ones((1, n)), random)
            found.append(told.measured.value)
        assert abs(np.mean(found) - true) < 4 * np.std(found) / 20 + 1e-3


def test_scores_of_answers_known_by_hand():
    probability = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]])
    found = judged(np.log(probability), np.array([0, 1]))
    np.testing.assert_allclose(found.right, [1, 0])
    np.testing.assert_allclose(found.confidence, [0.7, 0.5])
    np.testing.assert_allclose(found.loss, -np.log([0.7, 0.4]))
    np.testing.assert_allclose(found.brier, [0.09 + 0.04 + 0.01, 0.25 + 0.36 + 0.01])
    np.testing.assert_allclose(found.own_loss, -(probability * np.log(probability)).sum(1))
    # On average over labels drawn from the stated probabilities.
    scores = np.array([judged(np.log(probability), np.full(2, label)).brier for label in range(3)])
    np.testing.assert_allclose((scores.T * probability).sum(1), found.own_brier)


def test_calibration_error_of_bins_filled_by_hand():
    probability = np.array([[0.6, 0.4]] * 4 + [[0.9, 0.1]] * 6)
    label = np.array([0, 0, 0, 1] + [0, 0, 0, 0, 0, 1])
    random = np.random.default_rng(0)
    told = measure(judged(np.log(probability), label), "calibration error", 5, drawn_again(10, 100, random), random)
    assert told.measured.value == pytest.approx(0.4 * abs(0.75 - 0.6) + 0.6 * abs(5 / 6 - 0.9))
    diagram = calibration.reliability(judged(np.log(probability), label), 5)
    np.testing.assert_array_equal(diagram.count, [0, 0, 4, 0, 6])
    assert diagram.accuracy[2] == 0.75 and np.isnan(diagram.accuracy[0]) and np.isnan(diagram.low[0])


def test_a_classifier_that_is_never_wrong_is_not_said_to_be_proven_so():
    probability = np.tile([0.999, 0.001], (50, 1))
    random = np.random.default_rng(0)
    found = judged(np.log(probability), np.zeros(50, dtype=int))
    told = measure(found, "calibration error", N_BINS, drawn_again(50, 200, random), random)
    assert told.measured.high > 0.03
    assert measure(found, "accuracy", N_BINS, drawn_again(50, 200, random), random).measured.low < 0.94


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 5))
@settings(max_examples=50, deadline=None)
def test_the_mean_of_members_never_scores_worse_than_they_do_on_average(seed, n_members, n_classes):
    """Jensen's inequality, input by input, for the likelihood and the Brier score."""
    random = np.random.default_rng(seed)
    members = log_softmax(random.normal(size=(20, n_members, n_classes)) * random.uniform(0.1, 10), -1)
    label = random.integers(n_classes, size=20)
    mean = judged(np.asarray(logsumexp(members, axis=1)) - math.log(n_members), label)
    each = [judged(members[:, member], label) for member in range(n_members)]
    assert (mean.loss <= np.mean([one.loss for one in each], 0) + 1e-9).all()
    assert (mean.brier <= np.mean([one.brier for one in each], 0) + 1e-9).all()
    drawn = drawn_again(20, 100, random)
    for name in ("negative log-likelihood", "Brier score"):
        told = calibration.difference(mean, each, name, N_BINS, drawn, most=0.0)
        assert told.low <= told.value <= 1e-9 and told.high <= 0


def test_equal_mass_bins_hold_equal_numbers():
    random = np.random.default_rng(0)
    confidence = random.beta(8, 1, size=1000)
    count = np.bincount(calibration.bins_of(confidence, edges(confidence, 10, "mass")), minlength=10)
    assert count.sum() == 1000 and np.ptp(count) <= 2


def test_nothing_is_said_without_inputs_and_the_infinite_is_kept():
    random = np.random.default_rng(0)
    nothing = judged(np.zeros((0, 3)), np.zeros(0, dtype=int))
    for name in MEASURES:
        assert math.isnan(measure(nothing, name, N_BINS, drawn_again(0, 100, random), random).measured.value)
        assert math.isnan(calibration.difference(nothing, [nothing], name, N_BINS, drawn_again(0, 100, random)).value)
    with np.errstate(divide="ignore"):
        sure = judged(np.log(np.array([[1.0, 0.0], [0.5, 0.5]])), np.array([1, 0]))
    told = measure(sure, "negative log-likelihood", N_BINS, drawn_again(2, 100, random), random).measured
    assert told.value == told.high == math.inf
