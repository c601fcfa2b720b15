"""The mixture whose density is known: against scipy, against autograd, and its own draws against its moments."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from theodolite.errors import UserError
from theodolite.learning.energy import build, by_autograd
from theodolite.learning.mixture import MixtureEnergy

WEIGHTS = [0.3, 0.7]
MEANS = [[0.0, 1.0, -1.0], [2.0, -1.0, 0.5]]
COVARIANCES = [
    [[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.8]],
    [[0.4, -0.1, 0.1], [-0.1, 1.2, 0.0], [0.1, 0.0, 0.6]],
]


def test_energy_is_minus_log_density() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    density = sum(
        w * multivariate_normal(m, np.array(c)).pdf(x.numpy())  # type: ignore[arg-type]
        for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
    )
    energy = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES)
    assert energy(x).numpy() == pytest.approx(-np.log(density), abs=1e-4)
    hot = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES, temperature=2.0)
    assert hot(x).numpy() == pytest.approx(-np.log(density) / 2, abs=1e-4)


def test_slope_is_the_derivative() -> None:
    x = 2 * torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    energy = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES, temperature=1.7)
    for ours, autograd in zip(energy.value_and_gradient(x), by_autograd(energy, x), strict=True):
        torch.testing.assert_close(ours, autograd, rtol=1e-4, atol=1e-4)


def test_draws_have_the_moments() -> None:
    energy = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES)
    for noise in (0.0, 0.4):
        generator = torch.Generator().manual_seed(2)
        drawn, component = energy.sample(40_000, generator, less_noise=noise)
        drawn = drawn + noise * torch.randn(drawn.shape, generator=generator)
        assert component.double().mean().item() == pytest.approx(0.7, abs=4 * (0.21 / 40_000) ** 0.5)
        for k in range(2):
            mine = drawn[component == k]
            torch.testing.assert_close(mine.mean(0), torch.tensor(MEANS[k]), atol=0.04, rtol=0)
            torch.testing.assert_close(torch.cov(mine.T), torch.tensor(COVARIANCES[k]), atol=0.05, rtol=0)


def test_spec_builds_the_same_energy() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    energy = MixtureEnergy(WEIGHTS, MEANS, COVARIANCES, temperature=1.3)
    assert torch.equal(build(energy.spec())(x), energy(x))


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "argument"),
    [
        ([0.0, 1.0], MEANS, COVARIANCES, "weights, temperature"),
        (WEIGHTS, MEANS[:1], COVARIANCES, "weights, means, covariances"),
        (WEIGHTS, MEANS, [COVARIANCES[0], (-np.eye(3)).tolist()], "covariances"),
    ],
)
def test_bad_mixtures_are_refused(weights, means, covariances, argument: str) -> None:
    with pytest.raises(UserError) as caught:
        MixtureEnergy(weights, means, covariances)
    assert caught.value.argument == argument


def test_no_narrower_draws_than_nothing() -> None:
    with pytest.raises(UserError, match="less_noise"):
        MixtureEnergy(WEIGHTS, MEANS, COVARIANCES).sample(5, torch.Generator(), less_noise=1.0)
