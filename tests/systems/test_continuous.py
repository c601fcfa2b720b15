"""Continuous fields against closed forms, far tails included."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp

from theodolite.errors import UserError
from theodolite.systems import (
    box_linear,
    box_linear_log_density_of_states,
    latent_linear,
    latent_linear_log_density_of_states,
)


def test_sum_of_uniforms_by_closed_forms():
    triangle = np.exp(box_linear_log_density_of_states(2, np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])))
    assert triangle == pytest.approx([0.0, 0.125, 0.375, 0.5, 0.0], abs=1e-15)
    # The corner of the cube: the volume of a simplex, e^n / n!.
    corner = box_linear_log_density_of_states(40, np.array([0.0, 0.25]))
    assert corner[0] == pytest.approx(40 * math.log(0.25) - math.lgamma(41), abs=1e-10)
    edges = np.linspace(0.0, 30.0, 61)
    log_volume = box_linear_log_density_of_states(30, edges)
    assert logsumexp(log_volume) == pytest.approx(0.0, abs=1e-12)
    assert log_volume == pytest.approx(log_volume[::-1], abs=1e-9)


def test_sum_of_uniforms_agrees_with_samples():
    field, edges = box_linear(6), np.linspace(0.0, 6.0, 13)
    values = field.value(field.space.draw(20000, torch.Generator().manual_seed(0))).numpy()
    share = np.exp(box_linear_log_density_of_states(6, edges))
    counts = np.histogram(values, edges)[0]
    assert (np.abs(counts - 20000 * share) < 4 * np.sqrt(20000 * share) + 1).all()


def test_gaussian_slope_far_into_both_tails():
    edges = np.array([-np.inf, -60.0, -58.0, -1.0, 0.5, 3.0, 58.0, 60.0, np.inf])
    log_share = latent_linear_log_density_of_states(2.0, edges)
    assert logsumexp(log_share) == pytest.approx(0.0, abs=1e-12)
    assert log_share[1] == pytest.approx(log_share[6], rel=1e-12)

    def density(z):
        return math.exp(-((z / 2.0) ** 2) / 2) / (2.0 * math.sqrt(2 * math.pi))

    assert log_share[3] == pytest.approx(math.log(quad(density, -1.0, 0.5)[0]), abs=1e-10)
    peak = 29.0**2 / 2
    tail = quad(lambda z: math.exp(peak - (z / 2) ** 2 / 2) / (2 * math.sqrt(2 * math.pi)), 58.0, 60.0)[0]
    assert log_share[6] == pytest.approx(math.log(tail) - peak, abs=1e-8)


def test_latent_field_is_normal_with_its_slope_and_differentiable():
    field = latent_linear(16, slope=-3.0)
    points = field.space.draw(20000, torch.Generator().manual_seed(0))
    value, gradient = field.value_and_gradient(points)
    assert float(value.std()) == pytest.approx(3.0, rel=0.03)
    assert torch.allclose(gradient, torch.full_like(gradient, -0.75))
    assert torch.allclose(value.float(), -0.75 * points.sum(1), atol=1e-4)
    assert torch.equal(box_linear(3).value_and_gradient(torch.rand(4, 3))[1], torch.ones(4, 3))


def test_wrong_input_is_refused():
    with pytest.raises(UserError, match="n"):
        box_linear(0)
    with pytest.raises(UserError, match="dim"):
        latent_linear(0)
    with pytest.raises(UserError, match="slope"):
        latent_linear(2, slope=0.0)
    with pytest.raises(UserError, match="edges"):
        box_linear_log_density_of_states(3, np.array([1.0, 1.0]))
