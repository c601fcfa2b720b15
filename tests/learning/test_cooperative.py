"""Cooperative learning: what each half does where the answer is known, resumption, divergence, refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from theodolite.errors import UserError
from theodolite.instruments.learning import Learning
from theodolite.learning import optimiser
from theodolite.learning.bank import NoisyData
from theodolite.learning.cooperative import CooperativeSettings, cooperate, cooperative_learner, teach_generator
from theodolite.learning.energy import Energy, GaussianEnergy, MLPEnergy, SumEnergy
from theodolite.learning.generators import MLPGenerator
from theodolite.learning.model import load_energy
from theodolite.learning.partner import Partner


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _data(n: int = 400) -> NoisyData:
    generator = _generator()
    loading = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.5, -1.0]])
    return NoisyData(torch.randn(n, 2, generator=generator) @ loading + 1.0, 0.8)


def _energy(data: NoisyData, seed: int = 0) -> Energy:
    torch.manual_seed(seed)
    return SumEnergy([GaussianEnergy((3,), data.mean, data.deviation), MLPEnergy((3,), (16,))])


def _network(seed: int = 0, latent: int = 2) -> MLPGenerator:
    torch.manual_seed(seed)
    return MLPGenerator(latent, (3,), (), output="linear")


def test_a_generator_is_taught_the_law_of_a_frozen_gaussian() -> None:
    """A linear generator of as many numbers as coordinates, with noise tau, can be N(mean, C) exactly."""
    mean, deviation, tau = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 1.5, 1.2]), 0.8
    energy = GaussianEnergy((3,), mean, deviation)
    settings = CooperativeSettings(
        updates=200, batch=300, steps=10, step_size=0.6, deviation=tau, generator_schedule="adam:1e-1:5e-3"
    )
    taught = teach_generator(energy, _network(latent=3), settings, _generator())
    weight, bias = (tensor.detach() for tensor in taught.network.parameters())
    assert taught.outcome == "taught"
    assert torch.allclose(bias, mean, atol=0.15)
    covariance = weight @ weight.T + tau**2 * torch.eye(3)
    assert torch.allclose(covariance, torch.diag(deviation.square()), atol=0.6)
    assert float(taught.traces[-50:, 1].mean()) == pytest.approx(0.6, abs=0.15)  # the latent step is adapted


def test_the_generator_learns_the_mean_and_the_spread_of_the_data() -> None:
    data = _data()
    settings = CooperativeSettings(
        updates=250,
        batch=200,
        steps=10,
        deviation=0.8,
        schedule="adam:1e-2:1e-4",
        generator_schedule="adam:5e-2:5e-3",
        average=0.98,
    )
    found = cooperate(_energy(data), _network(), data, settings, _generator())
    weight, bias = (tensor.detach() for tensor in found.network.parameters())
    covariance = weight @ weight.T + 0.8**2 * torch.eye(3)
    exact = data.point.T.cov() + 0.8**2 * torch.eye(3)
    assert found.outcome.startswith("all 250")
    assert torch.allclose(bias, data.mean, atol=0.35)
    assert float((covariance - exact).norm() / exact.norm()) < 0.25
    assert found.state.partner is not None
    assert len(found.state.partner.traces) == found.state.updates == 250


def test_going_on_from_a_state_gives_the_same_bits() -> None:
    data, settings = _data(100), CooperativeSettings(updates=9, batch=30, steps=3)
    whole = cooperate(_energy(data), _network(), data, settings, _generator(5)).state
    generator = _generator(5)
    learner = cooperative_learner(_energy(data), _network(), data, settings)
    state = learner.step(learner.init(generator), generator, 4)
    kept = generator.get_state()
    other = cooperative_learner(_energy(data, seed=7), _network(seed=7), data, settings)
    generator = _generator(99)
    generator.set_state(kept)
    state = other.step(state, generator, 5)
    assert state.partner is not None
    assert whole.partner is not None
    pairs = zip((*state.weights, *state.partner.weights), (*whole.weights, *whole.partner.weights), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(state.traces, whole.traces)


@pytest.mark.parametrize("which", ["schedule", "generator_schedule"])
def test_a_pair_that_diverges_ends_with_finite_weights_and_a_sentence(which: str) -> None:
    data = _data(100)
    settings = CooperativeSettings(updates=60, batch=30, steps=3, **{which: "adam:1e30:1e30"})  # type: ignore[arg-type]
    found = cooperate(_energy(data), _network(), data, settings, _generator())
    assert found.outcome.startswith("diverged")
    assert found.state.updates <= 50
    assert optimiser.all_finite(optimiser.weights_of(found.energy))
    assert optimiser.all_finite(optimiser.weights_of(found.network))


def test_latent_vectors_go_with_their_own_points() -> None:
    """Revised under p(z | x) of a sharp linear generator, each z makes its own row of points: what is left of
    x - g(z) is the generator's noise, of a coordinate sqrt(2 / 3) of it (two of three directions are explained)."""
    deviation = 0.2
    partner = Partner(_network(seed=1), deviation, steps=300, updates=1)
    state = partner.init()
    points, latent = partner.draw(state, 300, _generator())
    apart = float((points - points.roll(1, 0)).square().mean().sqrt())
    taught = partner.taught(state, latent.roll(1, 0), points, _generator(1))
    error = float(taught.traces[0, 0])
    assert error == pytest.approx(deviation * math.sqrt(2 / 3), rel=0.15)
    assert error < 0.5 * apart  # where rows were mixed up it would be this


def test_learning_with_a_generator_gives_a_model_that_keeps_it(tmp_path: Path) -> None:
    settings = Learning(
        initialisation="generator", latent=2, warm_updates=10, updates=20, batch=64, long_steps=50, long_chains=20
    )
    model, survey = settings.fit(_data().point, directory=tmp_path / "run", progress=False)
    assert model.generator is not None
    assert model.generator.latent == 2
    assert str(survey.verdict.values) in ("convergent", "non-convergent", "undecided")
    assert survey.sizes["update"] == 20
    z = torch.randn(4, 2, generator=_generator())
    loaded = load_energy(tmp_path / "run" / "energy.safetensors")
    assert loaded.generator is not None
    assert torch.equal(loaded.generator(z), model.generator(z))
    again, _ = settings.fit(_data().point, directory=tmp_path / "run", progress=False, resume=True)
    assert again.generator is not None
    assert torch.equal(again.generator(z), model.generator(z))


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        (
            "generator",
            lambda: cooperate(_energy(_data()), MLPGenerator(2, (5,)), _data(), CooperativeSettings(), _generator()),
        ),
        (
            "generator",
            lambda: teach_generator(_energy(_data()), MLPGenerator(2, (5,)), CooperativeSettings(), _generator()),
        ),
        (
            "points",
            lambda: cooperate(
                _energy(_data()),
                _network(),
                NoisyData(torch.full((9, 3), math.nan), 0.1),
                CooperativeSettings(),
                _generator(),
            ),
        ),
        ("step_size", lambda: CooperativeSettings(metropolis=False)),
        ("deviation", lambda: CooperativeSettings(deviation=0.0)),
        ("batch", lambda: CooperativeSettings(batch=0)),
        ("average", lambda: CooperativeSettings(average=1.0)),
        ("schedule", lambda: CooperativeSettings(schedule="fast")),
        ("generator_schedule", lambda: CooperativeSettings(generator_schedule="fast")),
        ("latent", lambda: Learning(initialisation="generator", latent=0)),
        ("initialisation", lambda: Learning(initialisation="images")),
    ],
)
def test_what_cannot_cooperate_is_refused_by_name(argument: str, make: object) -> None:
    with pytest.raises(UserError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.argument == argument


def test_the_error_names_both_shapes() -> None:
    with pytest.raises(UserError, match=r"\(3,\).*\(5,\)"):
        cooperate(_energy(_data()), MLPGenerator(2, (5,)), _data(), CooperativeSettings(), _generator())
