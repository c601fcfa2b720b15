"""The ensemble against exact answers and its manners: what members say, what is refused, what survives a resume."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import binom
from sklearn.metrics import roc_auc_score
from torch import nn

import theodolite as th
from theodolite.errors import UserError
from theodolite.instruments import ensemble_statistics
from theodolite.instruments.ensemble import EFFORTS
from theodolite.instruments.ensemble_doubts import sure_of
from theodolite.instruments.ensemble_sampler import amplified
from theodolite.instruments.ensemble_task import Members
from theodolite.instruments.surveying import hash_of
from theodolite.result import open_survey, validate
from theodolite.zoo.ensembles import train_members


def member(seed, n_classes=3, shape=(6,), space=None, **options):
    """A random network of steep answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        n = math.prod(shape)
        module = nn.Sequential(nn.Flatten(), nn.Linear(n, 8), nn.ReLU(), nn.Linear(8, n_classes))
    with torch.no_grad():
        for layer in (module[1], module[3]):
            layer.weight *= 4.0
    return th.Network(module, space or th.Box(shape, 0.0, 1.0), **options)


def inputs_of(n, seed=0, shape=(6,)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((n, *shape), generator=generator), torch.randint(3, (n,), generator=generator)


@pytest.fixture(scope="module")
def networks():
    return {name: member(seed) for seed, name in enumerate("abcd")}


@pytest.fixture(scope="module")
def survey(networks):
    return th.Ensemble(seed=3, resamples=100, noise=(0.1,)).measure(networks, *inputs_of(40), progress=False)


# -------------------------------------------------------------------- truth


def test_uncertainties_of_probabilities_known_by_hand():
    log = np.log(np.array([[[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]]))
    found = ensemble_statistics.uncertainty(log)
    own = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    np.testing.assert_allclose(found.predictive_entropy, [math.log(2), math.log(2)])
    np.testing.assert_allclose(found.expected_entropy, [own, math.log(2)])
    np.testing.assert_allclose(found.mutual_information, [math.log(2) - own, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.disagreement, [1.0, 0.0])


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_information_lies_between_its_bounds_and_disagreement_counts_pairs(seed, n_members, n_classes):
    random = np.random.default_rng(seed)
    log = log_softmax(random.normal(size=(15, n_members, n_classes)) * random.uniform(0.1, 50), -1)
    found = ensemble_statistics.uncertainty(log)
    assert (found.mutual_information >= 0).all() and (found.mutual_information <= math.log(n_members) + 1e-9).all()
    assert (found.predictive_entropy <= math.log(n_classes) + 1e-9).all()
    answer = log.argmax(-1)
    pairs = [(i, j) for i in range(n_members) for j in range(i)]
    np.testing.assert_allclose(
        found.disagreement, np.mean([answer[:, i] != answer[:, j] for i, j in pairs], axis=0), atol=1e-12
    )


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_auroc_is_that_of_scikit_learn_ties_and_all(seed):
    random = np.random.default_rng(seed)
    score = random.integers(6, size=30).astype(float)
    holds = np.r_[True, False, random.random(28) < 0.4]
    assert ensemble_statistics.auroc(score, holds) == pytest.approx(roc_auc_score(holds, score))
    other = random.normal(size=30)
    drawn = np.random.default_rng(1).integers(0, 3, size=(50, 30)).astype(float)
    gain = ensemble_statistics.ranking_gain(score, other, holds, np.arange(30), drawn)
    assert gain.value == pytest.approx(roc_auc_score(holds, score) - roc_auc_score(holds, other))


@pytest.mark.parametrize(("shift", "n_yes", "n_no"), [(0.0, 10, 60), (1.2, 10, 60), (2.5, 15, 15)])
def test_intervals_of_an_auroc_cover_the_truth(shift, n_yes, n_no):
    true, n_seeds, covered = 0.5 * (1 + math.erf(shift / 2)), 400, 0
    for seed in range(n_seeds):
        random = np.random.default_rng(seed)
        score = np.r_[random.normal(shift, size=n_yes), random.normal(size=n_no)]
        holds = np.r_[np.ones(n_yes, bool), np.zeros(n_no, bool)]
        told = ensemble_statistics.ranking(score, holds, np.arange(len(score))).auroc
        covered += told.low <= true <= told.high
    assert covered >= binom.ppf(1e-4, n_seeds, 0.95)
    perfect = ensemble_statistics.auroc_interval(1.0, 5, 50)
    assert perfect.high == 1.0 and 0.5 < perfect.low < 0.95


def test_held_out_members_are_foreseen_by_the_rest_and_never_by_themselves():
    """Where members differ only over some inputs, the rest differ there too; where one alone differs at random, none
    foresee it."""
    random = np.random.default_rng(0)
    n = 400
    divided = np.arange(n) < 150
    answer = np.where(divided[:, None], random.integers(3, size=(n, 5)), 0)
    answer[:, 0] = 0
    log = np.log(np.where(answer[..., None] == np.arange(3), 0.998, 0.001))
    shared = ensemble_statistics.held_out_rankings(log, np.ones(n, bool), np.arange(n))
    assert shared[0].auroc.low > 0.8
    answer[:] = 0
    answer[:, 4] = random.integers(2, size=n)
    alone = np.log(np.where(answer[..., None] == np.arange(3), 0.998, 0.001))
    told = ensemble_statistics.held_out_rankings(alone, np.ones(n, bool), np.arange(n))
    assert told[0].auroc.value == pytest.approx(0.5)
    two = ensemble_statistics.held_out_rankings(log[:, :2], np.ones(n, bool), np.arange(n))
    assert math.isnan(two[0].auroc.value) and not math.isnan(two[3].auroc.value)


def test_sure_and_doubted_by_hand():
    log = np.log(np.array([[[0.995, 0.005], [0.995, 0.005]], [[0.995, 0.005], [0.2, 0.8]], [[0.9, 0.1], [0.2, 0.8]]]))
    told = sure_of(log, th.Ensemble())
    np.testing.assert_array_equal(told.sure, [True, True, False])
    np.testing.assert_array_equal(told.doubted, [False, True, False])


@given(st.integers(0, 1000), st.floats(0.01, 0.4))
@settings(max_examples=40, deadline=None)
def test_amplified_changes_have_the_stated_distortion_inside_the_box(seed, distortion):
    generator = torch.Generator().manual_seed(seed)
    x0, flip = (torch.rand((8, 5), generator=generator, dtype=torch.float64) for _ in range(2))
    found = amplified(x0, flip, distortion, (0.0, 1.0))
    size = (found - x0).square().mean(1).sqrt()
    assert (found >= 0).all() and (found <= 1).all() and (size <= distortion + 1e-9).all()
    # Short of it only where the box lets no coordinate go on.
    stuck = ((found == 0) | (found == 1) | (flip == x0)).all(1)
    assert ((size > distortion - 1e-6) | stuck).all()
    free = amplified(x0, flip, distortion, (-math.inf, math.inf))
    torch.testing.assert_close((free - x0) / (flip - x0), ((free - x0) / (flip - x0))[:, :1].expand(-1, 5))


def test_the_mean_of_the_ensemble_is_searched_as_one_network(networks):
    members = Members(networks)
    points = inputs_of(7)[0].double()
    wanted = ensemble_statistics.mean_log_probability(members.log_probability(points).numpy())
    assert members.exact_mean is not None
    np.testing.assert_allclose(members.exact_mean.value(points).numpy(), wanted, atol=1e-12)


def test_every_condition_is_what_it_says(survey, networks):
    validate(survey)
    inputs, labels = inputs_of(40)
    point, together = survey.point.values, np.exp(survey.log_probability.values)
    names = [str(name) for name in survey.condition.values]
    assert names == ["clean", "noise 0.1", "flips of a", "adversarial of a, 0.1", "flips of the ensemble"]
    np.testing.assert_allclose(point[0], inputs.numpy())
    assert (point >= 0).all() and (point <= 1).all()
    np.testing.assert_allclose(together.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(together[:, :, -1], together[:, :, :-1].mean(2), atol=1e-6)
    own = networks["a"].outputs(inputs).softmax(-1).detach().numpy()
    np.testing.assert_allclose(together[0, :, 0], own, atol=1e-5)
    for name, subject in (("flips of a", 0), ("flips of the ensemble", -1)):
        highest = np.sort(together[names.index(name), :, subject], -1)
        assert np.abs(highest[:, -1] - highest[:, -2]).max() < 1e-4
    changed = survey.answer.values[3, :, 0] != survey.answer.values[0, :, 0]
    assert changed[survey.distortion.values[2] < 0.09].mean() > 0.8
    accuracy = survey.calibration.values[0, :, 0]
    np.testing.assert_allclose(accuracy, (survey.answer.values[0] == labels.numpy()[:, None]).mean(0))


def test_numbers_do_not_depend_on_what_else_is_asked(survey, networks):
    again = th.Ensemble(seed=3, resamples=100, noise=(0.1,)).measure(networks, *inputs_of(40), progress=False)
    for name in survey.data_vars:
        np.testing.assert_array_equal(again[name].values, survey[name].values)
    assert survey.attrs["model_hash"] == hash_of(tuple(networks.values()))


# -------------------------------------------------------------------- levels of a density survey


def density_of(network, n_levels=6, n_samples=5, **attributes):
    """A made-up density survey, random representatives and all."""
    random = np.random.default_rng(0)
    output = random.normal(size=(n_levels, n_samples))
    output[2, 3:] = np.nan
    output[4] = np.nan
    points = tuple(f"point_{axis}" for axis in range(len(network.space.shape)))
    return xarray.Dataset(
        {
            "level": (("level",), np.arange(n_levels, dtype=float)),
            "log_density_of_states": (("level",), -np.arange(n_levels, dtype=float)),
            "representative": (
                ("level", "sample", *points),
                random.random((n_levels, n_samples, *network.space.shape)),
            ),
            "representative_output": (("level", "sample"), output),
        },
        attrs={
            "instrument": "density",
            "space": network.space.spec(),
            "model_hash": network.hash,
            "observable": "logit:1",
            **attributes,
        },
    )


def test_levels_are_averaged_over_their_representatives(networks):
    given = density_of(networks["a"])
    settings = th.Ensemble(resamples=100, noise=(), distortion=(), sure=0.6, doubt=0.55)
    found = settings.measure(networks, *inputs_of(10), density=given, progress=False)
    np.testing.assert_array_equal(found.level_count.values, [5, 5, 3, 5, 0, 5])
    for level, n in ((0, 5), (2, 3)):
        points = torch.from_numpy(given.representative.values[level, :n])
        log = Members(networks).log_probability(points).numpy()
        table = ensemble_statistics.uncertainty(log).table()
        np.testing.assert_allclose(found.level_quantity_mean.values[level], table.mean(0))
        sure = np.exp(log[:, 0]).max(-1) > 0.6
        assert found.level_sure_share.values[level] == pytest.approx(sure.mean())
    assert np.isnan(found.level_quantity_mean.values[4]).all()
    assert "doubts" in found.verdict_sentence.item() and found.attrs["levels_observable"] == "logit:1"


def test_networks_of_whole_levels_are_compared_without_flips():
    space = th.Grid((1, 3, 3), 4)
    one_hot = {}
    for seed in range(3):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten())
        one_hot[f"member {seed}"] = th.Network(module, space, th.OneHot())
    inputs = space.draw(30, torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    density = density_of(one_hot["member 0"])
    density["representative"] = (density.representative * 4).astype(int).clip(0, 3)
    found = th.Ensemble(resamples=100).measure(one_hot, inputs, labels, density=density, progress=False)
    assert list(found.condition.values) == ["clean", "noise 0.1", "noise 0.3"]
    np.testing.assert_array_equal(found.point.values, found.point.values.round())
    assert found.verdict.item() == "converged" and found.level_count.values.sum() == 23


# -------------------------------------------------------------------- manners


def test_bad_input_is_refused_before_any_work(networks):
    inputs, labels = inputs_of(10)
    instrument, one = th.Ensemble(resamples=100), networks["a"]
    for members, named in (
        ({"a": one}, "two or more"),
        ({"a": one, "wide": member(5, shape=(7,))}, "'wide'"),
        ({"a": one, "four": member(5, n_classes=4)}, "'four' with 4"),
        ({"a": one, "module": one.module}, "'module'"),
        ({"a": member(0, classes=["x", "y", "z"]), "b": member(1, classes=["x", "z", "y"])}, "one order"),
    ):
        with pytest.raises(UserError, match=named):
            instrument.measure(members, inputs, labels, progress=False)
    for x, y, argument in (
        (inputs, None, "labels"),
        (inputs, labels[:-1], "labels"),
        (inputs, labels + 7, "labels"),
        (inputs, labels - 1, "labels"),
        (inputs, labels + 0.5, "labels"),
        (inputs[:, :3], labels, "inputs"),
        (inputs + 3, labels, "inputs"),
        (inputs * math.nan, labels, "inputs"),
    ):
        with pytest.raises(UserError, match=f"^{argument}"):
            instrument.measure(networks, x, y, progress=False)
    for density, named in (
        (density_of(one, space="box:7:0:1"), "its own space"),
        (density_of(networks["b"]), "put 'b' first"),
        (density_of(one).drop_vars("representative"), "with representatives"),
        (density_of(one, instrument="boundary"), "result of Density"),
    ):
        with pytest.raises(UserError, match=named):
            instrument.measure(networks, inputs, labels, density=density, progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": (0.1, 0.1)},
        {"noise": (-1.0,)},
        {"distortion": [0.1]},
        {"effort": "most"},
        {"bins": 1},
        {"resamples": 3},
        {"sure": 0.5},
        {"doubt": 0.0},
        {"budget": "soon"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)) if "doubt" not in wrong else "sure"):
        th.Ensemble(**wrong)
    assert th.Ensemble().effort in EFFORTS


def test_a_run_cut_short_says_so_and_resumes_to_the_same_numbers(networks, tmp_path):
    given = inputs_of(66)
    whole = th.Ensemble(resamples=100, budget="1e7 evaluations").measure(networks, *given, progress=False)
    cut = th.Ensemble(resamples=100, budget="1000 evaluations")
    short = cut.measure(networks, *given, directory=tmp_path, progress=False)
    assert short.verdict.item() == "not converged" and "flips of the ensemble" in short.verdict_sentence.item()
    assert np.isnan(short.point.values[-1]).any() and np.isfinite(short.point.values[0]).all()
    with pytest.raises(UserError, match="directory"):
        cut.measure(networks, *given, directory=tmp_path, progress=False)
    longer = dataclasses.replace(cut, budget="1e7 evaluations")
    resumed = longer.measure(networks, *given, directory=tmp_path, resume=True, progress=False)
    for name in whole.data_vars:
        np.testing.assert_array_equal(resumed[name].values, whole[name].values)
    saved = open_survey(tmp_path)["ensemble"].to_dataset()
    np.testing.assert_array_equal(saved.answer.values, whole.answer.values)


def test_members_of_a_recipe_differ_in_the_seed_alone():
    asked = []

    def recipe(digits, seed):
        asked.append((digits, seed))
        return f"subject {seed}"

    assert train_members(3, recipe, digits="all", seed=4) == ("subject 4", "subject 5", "subject 6")
    assert asked == [("all", 4), ("all", 5), ("all", 6)]
    for wrong in ({"members": 1}, {"recipe": "deep"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            train_members(**{"members": 2, **wrong})
