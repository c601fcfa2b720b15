"""Learning from start to verdict: runs gone on with bit for bit, failures as outcomes, inputs that will not do."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from theodolite.errors import UserError
from theodolite.instruments.learning import CHECKPOINT, ENERGY, Learning
from theodolite.instruments.learning_sampler import LearningSampler
from theodolite.instruments.learning_task import prepare
from theodolite.learning.energy import MLPEnergy
from theodolite.learning.maximum_likelihood import TRACES
from theodolite.learning.model import load_energy
from theodolite.result import open_survey
from theodolite.run import Status, read_checkpoint

SMALL = {"widths": (12,), "warm_updates": 20, "updates": 60, "steps": 3, "batch": 32, "long_steps": 100}


def points(n=200, seed=0, dim=3):
    """Two blobs, and which of them a point is of. In the plane a survey holds the exact density, which takes longer."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(2, (n,), generator=generator)
    centre = torch.zeros((n, dim))
    centre[:, 0] = 2.0 * which - 1
    return centre + 0.3 * torch.randn((n, dim), generator=generator), which


def pictures(n=80, channels=1, side=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn((n, 5), generator=generator)
    basis = torch.randn((5, channels * side * side), generator=generator) / 5
    return torch.tanh(factor @ basis).reshape(n, channels, side, side)


def fitted(x, **options):
    known = {name: options.pop(name) for name in ("labels", "held_out", "energy", "truth") if name in options}
    return Learning(**(SMALL | options)).fit(x, progress=False, **known)


@pytest.fixture(scope="module")
def plain():
    """What the settings as they are learn."""
    return fitted(points()[0], long_steps=0)[0]


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_dataset_is_complete_and_consistent():
    x, which = points(dim=2)
    model, survey = fitted(x, labels=which, held_out=points(seed=1, dim=2)[0])
    assert list(survey["run"].values) == [
        "data", "held out", "short run", "long run from data", "long run from noise",
    ]  # fmt: skip
    assert survey.sizes["update"] == 60 and survey.sizes["class"] == 2
    assert survey["verdict"].item() in ("convergent", "non-convergent", "undecided")
    share = survey["run_class_share"].values
    assert np.allclose(share.sum(1), 1) and (survey["run_class_share_low"].values <= share).all()
    assert (survey["run_class_share_high"].values >= share).all()
    assert survey["trace_step"].values[-1] == 100
    # The plane's density integrates to 1.
    cell = np.diff(survey["plane_0"].values)[0] * np.diff(survey["plane_1"].values)[0]
    assert np.exp(survey["log_density"].values).sum() * cell == pytest.approx(1, abs=0.02)
    # ln p is -U - ln Z, cell by cell.
    corner = torch.tensor([[survey["plane_0"].values[90], survey["plane_1"].values[80]]], dtype=torch.float32)
    log_density = -float(model.energy(corner).detach()) - float(survey["log_partition"])
    assert survey["plane_outcome"].item() == "resolved" and 0 <= float(survey["log_partition_error"]) < 2e-3
    assert float(survey["log_density"].values[90, 80]) == pytest.approx(log_density, abs=1e-3)
    assert survey.attrs["n_images"] == 200 and survey.attrs["n_held_out"] == 200
    data = survey["run"].values.tolist().index("data")
    energy = model.energy(model.points(torch.as_tensor(survey["run_image"].values[data])))
    assert set(energy.detach().numpy().round(3)) <= set(survey["run_energy"].values[data].astype("f4").round(3))


@pytest.mark.parametrize(("dim", "chains", "expected"), [(3, 2000, 10), (2, 2000, 40), (2, 500, 20), (2, 60, 10)])
def test_clusters_are_finer_in_the_plane_where_chains_fill_them(dim, chains, expected):
    settings = Learning(**(SMALL | {"long_chains": chains}))
    sampler = LearningSampler(settings, prepare(settings, points(n=2000, dim=dim)[0]))
    assert len(sampler.reference.classes.names) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_learned_in_components_and_in_pixels(channels):
    x = pictures(channels=channels)
    model, survey = fitted(x, components=4)
    assert model.energy.shape == (4,) and survey["run_image"].shape[2:] == x.shape[1:]
    assert 0 < survey.attrs["explained"] <= 1
    assert model.space.contains(model.points(x)).all()
    whole, survey = fitted(x, components=None, long_steps=0)
    assert whole.energy.shape == x.shape[1:] and "trace_energy" not in survey
    assert fitted(x, long_steps=0)[0].energy.shape == (40,)


def test_a_run_cut_short_and_gone_on_with_equals_one_that_was_not(tmp_path, monkeypatch):
    x, which = points()
    whole, survey = fitted(x, labels=which)
    from theodolite.instruments import learning_sampler

    step, count = learning_sampler.LearningSampler.step, 0

    def interrupted(self, state, generator):
        nonlocal count
        count += 1
        if count in (2, 5):
            raise KeyboardInterrupt
        return step(self, state, generator)

    monkeypatch.setattr(learning_sampler.LearningSampler, "step", interrupted)
    settings = Learning(**SMALL)
    _, part = settings.fit(x, labels=which, directory=tmp_path, progress=False)
    assert part.sizes.get("update", 0) < 60
    settings.fit(x, labels=which, directory=tmp_path, resume=True, progress=False)
    model, again = settings.fit(x, labels=which, directory=tmp_path, resume=True, progress=False)
    assert count > 6
    assert same_weights(model, whole)
    assert again.drop_attrs().identical(survey.drop_attrs())
    assert again.attrs["evaluations"] == survey.attrs["evaluations"]
    assert same_weights(load_energy(tmp_path / ENERGY), whole)
    assert open_survey(tmp_path)["learning"]["verdict"].item() == survey["verdict"].item()
    assert read_checkpoint(tmp_path / CHECKPOINT).status is Status.STOPPED
    with pytest.raises(UserError, match="resume"):
        dataclasses.replace(settings, batch=16).fit(x, labels=which, directory=tmp_path, resume=True, progress=False)
    with pytest.raises(UserError, match="directory"):
        settings.fit(x, labels=which, directory=tmp_path, progress=False)


def test_the_same_seed_gives_the_same_weights_and_another_others(plain):
    x, _ = points()
    state = torch.get_rng_state()
    assert same_weights(plain, fitted(x, long_steps=0)[0])
    assert not same_weights(plain, fitted(x, long_steps=0, seed=1)[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_an_energy_of_ones_own_is_learned_and_left_as_it_was():
    x, _ = points()
    own = MLPEnergy((3,), (8,))
    before = [tensor.clone() for tensor in own.state_dict().values()]
    model, survey = fitted(x, energy=own, long_steps=0)
    assert all(torch.equal(a, b) for a, b in zip(before, own.state_dict().values(), strict=True))
    assert "given" in survey.attrs["energy_sentence"] and model.energy.shape == (3,)
    module = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1), nn.Flatten(0))
    _, survey = fitted(x, energy=module, long_steps=0)
    assert survey.sizes["update"] == 60


def test_a_spent_budget_ends_with_what_there_is():
    x, _ = points()
    _, survey = fitted(x, budget="5000 evaluations")
    assert 0 < survey.sizes["update"] < 60
    assert survey["verdict"].item() == "undecided" and "long runs" in survey["verdict_sentence"].item()


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "adam:100:100"},
        {"dynamics": "langevin", "step_size": 20.0},
        {
            "updates_kept": "expansion",
            "initialisation": "noise",
            "dynamics": "langevin",
            # Chains too slow to come down: expansion never ends (section 3.5).
            "step_size": 0.005,
            "steps": 1,
            "prior": "none",
            "schedule": "adam:1:1",
        },
    ],
)
def test_divergence_is_an_outcome_with_the_last_good_weights(options, tmp_path):
    x, _ = points()
    settings = Learning(**(SMALL | {"warm_updates": 0, "updates": 200} | options))
    model, survey = settings.fit(x, directory=tmp_path, progress=False)
    assert survey["verdict"].item() == "non-convergent"
    assert survey.attrs["advice"]
    assert "at update" in survey["verdict_sentence"].item()
    assert survey.sizes["update"] < 200
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())
    value, slope = model.energy.value_and_gradient(model.points(x))
    assert torch.isfinite(value).all() and torch.isfinite(slope).all()
    assert same_weights(load_energy(tmp_path / ENERGY), model)


class Nothing(nn.Module):
    """NaN, whatever comes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * x.flatten(1).sum(1) * float("nan")


@pytest.mark.parametrize("warm_updates", [0, 20])
def test_an_energy_that_is_nan_is_refused_or_diverges_at_once(warm_updates):
    x, _ = points()
    try:
        _, survey = fitted(x, energy=Nothing(), warm_updates=warm_updates)
    except UserError as error:
        assert error.argument == "energy" or "finite" in str(error)
    else:
        assert survey["verdict"].item() == "non-convergent" and survey.sizes["update"] <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"initialisation": "data"},
        {"initialisation": "noise"},
        {"bank_start": "noise"},
        {"rejuvenation": 0.5},
        {"dynamics": "langevin", "step_size": 0.2},
        {"dynamics": "langevin", "step_size": 0.2, "noise": 0.0},
        {"step_size": 0.2},
        {"scaled": True, "step_size": 0.2},
        {"prior": "none"},
        {"prior": 1.5},
        {"average": 0.0},
        {"schedule": "adam:1e-3:1e-4:0.5,sgd:1e-2:1e-3:0.5"},
        {"updates_kept": "contraction"},
        {"activation": "leaky_relu"},
        {"data_noise": 0.0, "warm_updates": 0},
        {"updates": 0},
    ],
)
def test_every_setting_changes_what_is_learned(options, plain):
    x, _ = points()
    model, survey = fitted(x, **({"long_steps": 0} | options))
    network, other = (list(one.energy.parameters()) for one in (model, plain))
    assert any(not torch.equal(a, b) for a, b in zip(network, other, strict=True))
    for name in TRACES:
        assert survey[name].dims == ("update",)
    if "step_size" in options:
        assert (survey["step_size"] == options["step_size"]).all()
    if options.get("dynamics") == "langevin":
        assert survey["acceptance"].isnull().all()
    if options.get("updates") == 0:
        assert survey.sizes["update"] == 0


def test_convolutions_learn_in_pixels():
    settings = Learning(energy="conv", widths=(4, 4), updates=10, warm_updates=5, steps=2, batch=16, long_steps=0)
    model, survey = settings.fit(pictures(side=16), progress=False)
    assert model.energy.shape == (1, 16, 16) and survey.sizes["update"] == 10


def test_the_plan_learns_nothing():
    x, _ = points()
    words = Learning(**SMALL).plan(x)
    assert "200 of 3 numbers" in words and "60 of maximum likelihood" in words and "Budget" in words
    rows = 20 * 32 + 60 * 32 * (3 + 3) + 2 * 200 * 100
    assert f"{rows:,}" in words


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("energy", {"energy": "transformer"}),
        ("activation", {"activation": "step"}),
        ("initialisation", {"initialisation": "warm"}),
        ("bank_start", {"bank_start": "x"}),
        ("dynamics", {"dynamics": "hmc"}),
        ("updates_kept", {"updates_kept": "none"}),
        ("schedule", {"schedule": "fast"}),
        ("budget", {"budget": "soon"}),
        ("widths", {"widths": ()}),
        ("widths", {"widths": (0,)}),
        ("components", {"components": 0}),
        ("components", {"components": "many"}),
        ("data_noise", {"data_noise": -1.0}),
        ("data_noise", {"data_noise": float("nan")}),
        ("data_noise", {"data_noise": 0.0}),
        ("prior", {"prior": "flat"}),
        ("prior", {"prior": 0.0}),
        ("updates", {"updates": -1}),
        ("updates", {"updates": 2.5}),
        ("batch", {"batch": 0}),
        ("steps", {"steps": 0}),
        ("betas", {"betas": (0.5, 1.0)}),
        ("rejuvenation", {"rejuvenation": 1.5}),
        ("average", {"average": 1.0}),
        ("noise", {"noise": 0.5}),
        ("step_size", {"step_size": 0.0}),
        ("step_size", {"dynamics": "langevin"}),
        ("step_size", {"scaled": True}),
        ("long_chains", {"long_chains": 1}),
    ],
)
def test_settings_that_will_not_do(argument, options):
    with pytest.raises(UserError) as raised:
        Learning(**options)
    assert raised.value.argument == argument


def spoiled(value):
    x = points()[0].clone()
    x[3, 1] = value
    return x


@pytest.mark.parametrize(
    ("argument", "images", "options", "known"),
    [
        ("images", spoiled(float("nan")), {}, {}),
        ("images", spoiled(float("inf")), {}, {}),
        ("images", points()[0][:1], {}, {}),
        ("images", points()[0][:1].expand(50, 3), {}, {}),
        ("images", torch.zeros(50), {}, {}),
        ("images", torch.zeros(5, 1, 1, 4, 4), {}, {}),
        ("images", torch.zeros(0, 3), {}, {}),
        ("images", torch.zeros(5, 3, dtype=torch.complex64), {}, {}),
        ("images", "pictures", {}, {}),
        ("components", pictures(), {"components": 101}, {}),
        ("components", pictures(20), {"components": 30}, {}),
        ("labels", points()[0], {}, {"labels": torch.zeros(10)}),
        ("labels", points()[0], {}, {"labels": torch.full((200,), 0.5)}),
        ("held_out", points()[0], {}, {"held_out": torch.zeros(10, 4)}),
        ("held_out", points()[0], {}, {"held_out": spoiled(float("nan"))}),
        ("held_out", points()[0], {}, {"held_out": 100 * points()[0]}),
        ("energy", points()[0], {}, {"energy": "mlp"}),
        ("energy", points()[0], {}, {"energy": MLPEnergy((2,), (4,))}),
        ("truth", pictures(), {}, {"truth": lambda x: x.sum(1)}),
    ],
)
def test_inputs_that_will_not_do(argument, images, options, known):
    with pytest.raises(UserError) as raised:
        fitted(images, **options, **known)
    assert raised.value.argument == argument


def test_constant_pixels_need_noise_beside_a_matched_prior():
    x = pictures()
    x[:, 0, 0, 0] = -1
    with pytest.raises(UserError, match="prior"):
        fitted(x, components=None, data_noise=0.0, warm_updates=0)
    model, _ = fitted(x, components=None, long_steps=0, updates=5)
    assert torch.isfinite(model.energy(model.points(x))).all()
    assert fitted(x, components=None, data_noise=0.0, warm_updates=0, prior="none", long_steps=0, updates=5)
