"""Learning over grey levels: the law learned against the law of the noisy data, state by state."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from theodolite.errors import UserError
from theodolite.instruments import learning_sampler
from theodolite.instruments.landscape import Landscape
from theodolite.instruments.learning import ENERGY, Learning
from theodolite.instruments.proposals import from_reference
from theodolite.learning.energy import GaussianEnergy, MLPEnergy
from theodolite.learning.gibbs import LevelEnergy
from theodolite.learning.model import EnergyModel, load_energy
from theodolite.space import Grid

LEVELS, SHARES, NOISE = 3, (0.5, 0.3, 0.2), 0.5
PATTERNS = torch.tensor([[0, 2, 2, 0], [2, 0, 0, 2], [1, 1, 1, 1]]).reshape(3, 1, 2, 2)
STATES = torch.cartesian_prod(*[torch.arange(LEVELS)] * 4).reshape(-1, 1, 2, 2)
SMALL: dict[str, Any] = {
    "dynamics": "gibbs", "levels": LEVELS, "widths": (32, 32), "data_noise": NOISE, "warm_updates": 100,
    "updates": 300, "steps": 1, "batch": 128, "schedule": "adam:1e-2:3e-4", "average": 0.98, "long_steps": 80,
    "long_chains": 200,
}  # fmt: skip
QUICK: dict[str, Any] = SMALL | {
    "widths": (8,),
    "warm_updates": 20,
    "updates": 40,
    "batch": 32,
    "long_steps": 40,
    "long_chains": 30,
}


def images(n=2000) -> tuple[Tensor, Tensor]:
    """Patterns of three grey values -1, 0 and 1, and which of them each is."""
    kind = torch.repeat_interleave(torch.arange(3), torch.tensor([round(share * n) for share in SHARES]))
    return PATTERNS[kind].float() - 1, kind


def noisy_law() -> Tensor:
    """Of every state: normal noise in grey values, one apart, then the nearest level, of each pixel by itself."""
    edges = torch.tensor([-math.inf, 0.5, 1.5, math.inf], dtype=torch.float64)
    below = torch.as_tensor(norm.cdf((edges - torch.arange(LEVELS)[:, None]) / NOISE))
    chance = below.diff(dim=1)  # (clean level, noisy level)
    return sum(
        share * chance[pattern.flatten(), STATES.flatten(1)].prod(1)
        for share, pattern in zip(SHARES, PATTERNS, strict=True)
    )  # type: ignore[return-value]


def divergence(q: Tensor, energy) -> float:
    with torch.no_grad():
        log_p = (-energy(STATES).double()).log_softmax(0)
    return float((q * (q.log() - log_p)).sum())


@pytest.fixture(scope="module")
def learned():
    x, kind = images()
    held_out = images(400)[0]
    return Learning(**SMALL).fit(x, labels=kind, held_out=held_out, progress=False)


def test_the_law_of_the_noisy_data_is_learned(learned):
    model, survey = learned
    q = noisy_law()
    assert float(q.sum()) == pytest.approx(1)
    assert divergence(q, model.energy) < 0.03
    gaussian = next(part for part in model.energy.modules() if isinstance(part, GaussianEnergy))
    assert divergence(q, LevelEnergy(gaussian, LEVELS)) > 1
    assert survey.verdict.item() == "convergent", survey.verdict_sentence.item()


def test_what_no_sweep_has_is_not_made_up(learned):
    model, survey = learned
    assert survey["step_size"].isnull().all() and survey["acceptance"].isnull().all()
    assert (survey["langevin_gradient"] > 0).all()
    assert survey.attrs["levels"] == LEVELS and model.data_noise == pytest.approx(NOISE)
    assert set(survey["run_image"].values.ravel()) == {-1.0, 0.0, 1.0}
    assert "log_density" not in survey
    # Forty blocks of long runs, by which drift and mixing are told.
    assert survey.sizes["step"] == 40 and survey["trace_step"].values[-1] == 80
    sweeps = 4 * LEVELS * (300 * 128 + 2 * 80 * 200)
    assert sweeps < survey.attrs["evaluations"] < 1.4 * sweeps


def test_a_verdict_on_levels_can_be_other_than_convergent(learned):
    """The same images, learned with too little: what is left is the Gaussian, whose classes are others."""
    x, kind = images()
    few: dict[str, Any] = SMALL | {"updates": 0, "warm_updates": 0}
    _, survey = Learning(**few).fit(x, labels=kind, progress=False)
    assert survey.verdict.item() == "non-convergent", survey.verdict_sentence.item()


def test_an_energy_over_levels_is_saved_and_mapped(learned, tmp_path):
    model, _ = learned
    model.save(tmp_path / "energy.safetensors")
    again = load_energy(tmp_path / "energy.safetensors")
    assert again.space == Grid((1, 2, 2), LEVELS)
    with torch.no_grad():
        value = again.energy(STATES)
        assert torch.equal(value, model.energy(STATES))
    torch.testing.assert_close(again.field().value(STATES).float(), value)
    exact = Landscape(method="exact").measure(again.field(), progress=False)
    # A state is a minimum where no state that differs in one pixel is lower.
    apart = (STATES.flatten(1)[:, None] != STATES.flatten(1)[None]).sum(2)
    lowest = [bool((value[near] >= value[k]).all()) for k, near in enumerate(apart == 1)]
    assert exact.sizes["minimum"] == sum(lowest) >= 2
    points, _ = from_reference(again, again.points(images()[0]))(200, torch.Generator().manual_seed(0))
    assert again.space.contains(points).all() and len(points.unique(dim=0)) > 20


def test_a_run_on_levels_is_gone_on_with_bit_for_bit(tmp_path, monkeypatch):
    x, kind = images(200)
    settings = Learning(**QUICK)
    whole, survey = settings.fit(x, labels=kind, progress=False)
    step, count = learning_sampler.LearningSampler.step, 0

    def interrupted(self, state, generator):
        nonlocal count
        count += 1
        if count in (3, 6):
            raise KeyboardInterrupt
        return step(self, state, generator)

    monkeypatch.setattr(learning_sampler.LearningSampler, "step", interrupted)
    settings.fit(x, labels=kind, directory=tmp_path, progress=False)
    settings.fit(x, labels=kind, directory=tmp_path, resume=True, progress=False)
    model, again = settings.fit(x, labels=kind, directory=tmp_path, resume=True, progress=False)
    assert count > 7
    for one, other in zip(model.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert again.drop_attrs().identical(survey.drop_attrs())
    assert again.attrs["evaluations"] == survey.attrs["evaluations"]
    assert isinstance(load_energy(tmp_path / ENERGY), EnergyModel)


@pytest.mark.parametrize("options", [{"initialisation": "noise"}, {"initialisation": "data"}, {"rejuvenation": 0.5}])
def test_chains_stay_on_the_levels(options):
    x, _ = images(200)
    settings = dataclasses.replace(Learning(**QUICK), **options, long_steps=0, updates=5)
    _, survey = settings.fit(x, progress=False)
    assert survey.sizes["update"] == 5
    short = survey["run"].values.tolist().index("short run")
    assert set(survey["run_image"].values[short].ravel()) <= {-1.0, 0.0, 1.0}


def test_eight_levels_where_none_are_given():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((60, 3), generator=generator)
    settings = Learning(**(QUICK | {"levels": None, "data_noise": 0.1, "updates": 3, "long_steps": 0}))
    assert "gibbs over 8 grey levels" in settings.plan(x)
    model, survey = settings.fit(x, progress=False)
    assert model.space == Grid((3,), 8) and survey.attrs["levels"] == 8
    # The darkest and the brightest value are the first and the last level.
    assert model.images(model.points(x)).max() == pytest.approx(float(x.max()))
    assert float((model.images(model.points(x)) - x).abs().max()) <= float(x.max() - x.min()) / 14 + 1e-6


def test_learning_that_diverges_is_told():
    x, _ = images(200)
    settings = Learning(**(QUICK | {"schedule": "adam:1000:1000", "warm_updates": 0}))
    _, survey = settings.fit(x, progress=False)
    assert survey.verdict.item() == "non-convergent" and survey.sizes["update"] < 40


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("levels", {"levels": 8}),
        ("levels", {"dynamics": "langevin", "step_size": 0.1, "levels": 8}),
        ("levels", {"dynamics": "gibbs", "levels": 1}),
        ("levels", {"dynamics": "gibbs", "levels": 2.5}),
        ("components", {"dynamics": "gibbs", "components": 10}),
        ("step_size", {"dynamics": "gibbs", "step_size": 0.1}),
        ("scaled", {"dynamics": "gibbs", "scaled": True}),
        ("initialisation", {"dynamics": "gibbs", "initialisation": "generator"}),
        ("noise", {"dynamics": "gibbs", "noise": 0.5}),
    ],
)
def test_settings_that_do_not_fit_levels(argument, options):
    with pytest.raises(UserError) as raised:
        Learning(**options)
    assert raised.value.argument == argument


@pytest.mark.parametrize(
    ("argument", "known"),
    [
        ("held_out", {"held_out": 100 * images(20)[0]}),
        ("truth", {"truth": lambda x: x.flatten(1).sum(1)}),
        ("energy", {"energy": LevelEnergy(MLPEnergy((1, 2, 2), (4,)), LEVELS)}),
    ],
)
def test_inputs_that_do_not_fit_levels(argument, known):
    with pytest.raises(UserError) as raised:
        Learning(**QUICK).fit(images(200)[0], progress=False, **known)
    assert raised.value.argument == argument
