"""Alternating back-propagation against what is known exactly of linear generators: probabilistic PCA."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from theodolite.errors import UserError
from theodolite.learning.generator_fit import (
    GeneratorLearner,
    GeneratorSettings,
    LatentPosterior,
    fit_generator,
    infer_latents,
    principal_latents,
)
from theodolite.learning.generators import MLPGenerator
from theodolite.learning.optimiser import all_finite, weights_of


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _linear_data(n: int = 800) -> Tensor:
    generator = _generator()
    loading = torch.randn(6, 2, generator=generator)
    clean = torch.randn(n, 2, generator=generator) @ loading.T
    return clean + 0.5 * torch.randn(n, 6, generator=generator) + 1.0


def _linear_network(latent: int = 2, n: int = 6, seed: int = 0) -> MLPGenerator:
    network = MLPGenerator(latent, (n,), (), output="linear")
    generator = _generator(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def test_a_linear_generator_reaches_the_likelihood_of_probabilistic_pca() -> None:
    """Tipping and Bishop 1999: the maximum of the likelihood is known, and scikit-learn computes it."""
    points = _linear_data()
    exact = PCA(2).fit(points.double().numpy())
    best = float(exact.score(points.double().numpy()))
    deviation = math.sqrt(float(exact.noise_variance_))
    settings = GeneratorSettings(deviation=deviation, updates=700, batch=800, steps=5, schedule="adam:1e-1:1e-3")
    fitted = fit_generator(_linear_network(), points, settings, _generator())
    weight, bias = (tensor.detach().double() for tensor in fitted.network.parameters())
    covariance = weight @ weight.T + deviation**2 * torch.eye(6, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(bias, covariance)
    reached = float(normal.log_prob(points.double()).mean())
    assert fitted.outcome == "fitted"
    assert reached <= best + 1e-9  # nothing exceeds the maximum of the likelihood
    assert best - reached < 0.005  # nats an image


def test_langevin_in_the_latent_space_has_the_exact_posterior_moments() -> None:
    network, deviation = _linear_network(), 0.7
    weight = network.layers[0].weight.detach().double()  # type: ignore[union-attr]
    bias = network.layers[0].bias.detach().double()  # type: ignore[union-attr]
    one = torch.tensor([[1.0, -2.0, 0.5, 0.0, 3.0, 1.0]])
    n = 4000
    z = infer_latents(network, one.repeat(n, 1), deviation, _generator(), steps=400).double()
    precision = weight.T @ weight / deviation**2 + torch.eye(2, dtype=torch.float64)
    covariance = torch.linalg.inv(precision)
    mean = covariance @ weight.T @ (one[0].double() - bias) / deviation**2
    standardised = (z - mean) @ torch.linalg.cholesky(precision)  # N(0, I) exactly
    assert float(standardised.mean(0).abs().max()) < 5 / math.sqrt(n)
    second = standardised.T @ standardised / n - torch.eye(2, dtype=torch.float64)
    assert float(second.abs().max()) < 5 * math.sqrt(2 / n)


def test_the_posteriors_slope_is_that_of_its_energy_and_rows_keep_their_own_points() -> None:
    network = MLPGenerator(3, (4,), (5,)).double()
    points = torch.randn(6, 4, generator=_generator(), dtype=torch.float64)
    z = torch.randn(6, 3, generator=_generator(1), dtype=torch.float64)
    value, slope = LatentPosterior(network, points, 0.5).value_and_gradient(z)
    for row in range(6):
        alone = LatentPosterior(network, points[row : row + 1], 0.5)
        assert float(alone(z[row : row + 1])) == pytest.approx(float(value[row]), rel=1e-12)
        for axis in range(3):
            shift = torch.zeros(1, 3, dtype=torch.float64)
            shift[0, axis] = 1e-6
            rise = float(alone(z[row : row + 1] + shift) - alone(z[row : row + 1] - shift)) / 2e-6
            assert float(slope[row, axis]) == pytest.approx(rise, abs=1e-6)


def test_going_on_from_a_state_gives_the_same_bits() -> None:
    settings = GeneratorSettings(updates=8, batch=50, steps=2)
    points = _linear_data(100)
    whole = fit_generator(_linear_network(), points, settings, _generator(3))
    learner = GeneratorLearner(settings, _linear_network(), points)
    generator = _generator(3)
    state = learner.init(generator)
    for _ in range(4):
        state, _ = learner.step(state, generator)
    other = GeneratorLearner(settings, _linear_network(seed=9), points)  # a workspace with other weights
    kept = generator.get_state()
    generator = _generator(99)
    generator.set_state(kept)
    while not other.finished(state):
        state, _ = other.step(state, generator)
    assert all(torch.equal(a, b) for a, b in zip(state.weights, weights_of(whole.network), strict=True))
    assert torch.equal(state.latent, whole.latent)


def test_a_fit_that_diverges_ends_with_its_last_good_weights() -> None:
    settings = GeneratorSettings(updates=50, batch=50, steps=2, schedule="adam:1e30:1e30")
    fitted = fit_generator(MLPGenerator(2, (6,), (8,), output="linear"), _linear_data(100), settings, _generator())
    assert fitted.outcome == "diverged"
    assert all_finite(weights_of(fitted.network))


def test_the_network_given_is_left_as_it_was() -> None:
    network = _linear_network()
    before = weights_of(network)
    fit_generator(network, _linear_data(50), GeneratorSettings(updates=3, batch=20, steps=1), _generator())
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(network), strict=True))


def test_principal_latents_are_uncorrelated_with_variance_one() -> None:
    scores = principal_latents(_linear_data(), 3).double()
    assert torch.allclose(scores.T @ scores / len(scores), torch.eye(3, dtype=torch.float64), atol=1e-4)
    assert float(scores.mean(0).abs().max()) < 1e-4
    flat = torch.randn(50, 1, generator=_generator()) @ torch.ones(1, 4)
    assert bool((principal_latents(flat, 3)[:, 1:] == 0).all())  # only one axis carries anything


@pytest.mark.parametrize(
    ("argument", "run"),
    [
        ("points", lambda: fit_generator(_linear_network(), torch.zeros(9, 5), GeneratorSettings(), _generator())),
        ("points", lambda: fit_generator(_linear_network(), torch.zeros(1, 6), GeneratorSettings(), _generator())),
        (
            "points",
            lambda: fit_generator(_linear_network(), torch.full((9, 6), math.nan), GeneratorSettings(), _generator()),
        ),
        ("deviation", lambda: GeneratorSettings(deviation=0.0)),
        ("step_size", lambda: GeneratorSettings(step_size=-1.0)),
        ("updates", lambda: GeneratorSettings(updates=0)),
        ("start", lambda: GeneratorSettings(start="zero")),
        ("schedule", lambda: GeneratorSettings(schedule="fast")),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(argument: str, run: object) -> None:
    with pytest.raises(UserError) as caught:
        run()  # type: ignore[operator]
    assert caught.value.argument == argument


def test_the_error_names_both_shapes() -> None:
    with pytest.raises(UserError, match=r"\(6,\).*\(9, 5\)"):
        fit_generator(_linear_network(), torch.zeros(9, 5), GeneratorSettings(), _generator())
