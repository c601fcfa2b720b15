"""The linear field and its exact density of states against enumeration and whole-number polynomials."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from theodolite.errors import UserError
from theodolite.systems import (
    linear,
    linear_log_counts,
    linear_log_density_of_states,
    linear_logit,
    linear_logit_scale,
    linear_logit_weights,
)


def counts_by_polynomial(weights, levels):
    """Exact counts by value: the polynomial's coefficients are the digits of one huge whole number."""
    width = math.ceil(len(weights) * math.log2(levels) / 8) + 1
    product = 1
    for step, times in Counter(map(abs, weights)).items():
        product *= sum(1 << 8 * width * step * level for level in range(levels)) ** times
    digits = product.to_bytes(-(-product.bit_length() // (8 * width)) * width, "little")
    lowest = sum(weight for weight in weights if weight < 0) * (levels - 1)
    counts = [int.from_bytes(digits[start : start + width], "little") for start in range(0, len(digits), width)]
    return {lowest + value: count for value, count in enumerate(counts) if count}


@pytest.mark.parametrize(
    ("weights", "levels"),
    [
        ([1, 2, -3], 4),
        ([3, -5, 7, 0], 5),
        ([-4], 256),
        ([2, -4, 6, 2, -2, 4] * 5, 7),
        ([5, 7, -7] * 10, 16),
        ([1, -1, 8, 3] * 20, 11),
        ([1] * 300, 16),
    ],
)
def test_counts_equal_whole_number_arithmetic(weights, levels):
    values, log_counts = linear_log_counts(np.array(weights), levels)
    truth = counts_by_polynomial(weights, levels)
    assert values.tolist() == list(truth)
    assert np.abs(log_counts - [math.log(count) for count in truth.values()]).max() < 1e-9


def test_bins_equal_enumeration():
    weights, levels, scale = np.array([2, -1, 3, 0, 1]), 5, 0.25
    field = linear(weights, levels, scale=scale)
    points = torch.tensor(list(itertools.product(range(levels), repeat=5)))
    values = field.value(points).numpy()
    assert np.array_equal(values, scale * (points.numpy() @ weights))
    edges = np.array([-3.0, -1.0, -0.75, 0.5, 1.1, 1.2, 6.0, 9.0])
    counts = np.histogram(values, edges)[0]
    with np.errstate(divide="ignore"):
        truth = np.log(counts)
    assert linear_log_density_of_states(weights, levels, edges, scale) == pytest.approx(truth, abs=1e-12)
    assert np.isneginf(truth).any()


def test_level_spacing_divides_every_output():
    field = linear(np.array([6, -9, 0]), 8, scale=0.5)
    assert field.level_spacing == 1.5
    outputs = field.value(field.space.draw(50, torch.Generator().manual_seed(0))) / 1.5
    assert torch.equal(outputs, outputs.round())


def test_capabilities_are_exact():
    weights = np.array([2, -1, 3, 5])
    field = linear(weights, 6, shape=(1, 2, 2), scale=0.5)
    points = field.space.draw(5, torch.Generator().manual_seed(1))
    levels = field.space.to_levels(points)
    value, gradient = field.level_gradient(levels)
    assert torch.equal(value, field.value(points))
    assert torch.equal(gradient[..., 0], 0.5 * torch.from_numpy(weights).double().expand(5, 4))
    assert torch.equal(field.value_and_gradient(points)[1].double().flatten(1), gradient[..., 0])
    table = field.level_differences.table
    for site, new in itertools.product(range(4), range(6)):
        changed = levels.clone()
        changed[:, site] = new
        truth = field.value(field.space.from_levels(changed)) - value
        linearised = (gradient[:, site] * (table[new] - table[levels[:, site]])).sum(1)
        assert torch.allclose(truth, linearised, atol=1e-12)
        change = field.single_site.change(levels[0].numpy().astype(np.uint8), site, new, field.single_site.data)
        assert change == pytest.approx(float(truth[0]), abs=1e-12)


def test_logit_of_28_by_28_pixels():
    field, weights = linear_logit(0), linear_logit_weights(0, 784)
    scale = linear_logit_scale(weights)
    assert field.space.shape == (28, 28)
    spread = field.value(field.space.draw(2000, torch.Generator().manual_seed(0))).std()
    assert 0.95 <= spread <= 2.1
    values, log_counts = linear_log_counts(weights, 256)
    assert logsumexp(log_counts) == pytest.approx(784 * math.log(256), abs=1e-8)
    share = np.exp(log_counts - 784 * math.log(256))
    assert share @ values == pytest.approx(weights.sum() * 127.5, rel=1e-9)
    variance = (weights.astype(float) ** 2).sum() * (256**2 - 1) / 12
    assert share @ (values - share @ values) ** 2 == pytest.approx(variance, rel=1e-9)
    # Only the pixels of weight 0 are free at the two ends.
    assert log_counts[0] == pytest.approx((weights == 0).sum() * math.log(256), abs=1e-9)
    assert log_counts.max() - log_counts.min() > 2000
    assert scale * (values[-1] - values[0]) > 50


@pytest.mark.parametrize("weights", [[0, 0], [0.5, 1.0], [[1, 2]], []])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(UserError, match="weights"):
        linear(np.array(weights))
    with pytest.raises(UserError, match="weights"):
        linear_log_counts(np.array(weights), 4)


def test_other_wrong_input_is_refused():
    with pytest.raises(UserError, match="shape"):
        linear(np.array([1, 2, 3]), shape=(2, 2))
    with pytest.raises(UserError, match="scale"):
        linear(np.array([1, 2]), scale=0.0)
    with pytest.raises(UserError, match="edges"):
        linear_log_density_of_states(np.array([1, 2]), 4, np.array([1.0, 0.0]))
    with pytest.raises(UserError, match="range"):
        linear_log_counts(np.array([1, 10**7]), 256)
    with pytest.raises(UserError, match="similar size"):
        linear_log_counts(np.array([1] * 1100 + [10**6] * 5), 2)
