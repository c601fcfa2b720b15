"""The instrument against exact answers, by every method, and its manners: bad input, resume, saved results."""

import math

import numpy as np
import pytest
import torch
import xarray

import theodolite as th
from theodolite import systems
from theodolite.errors import UserError
from theodolite.result import open_survey
from theodolite.systems.chains import rough_settings, smooth_settings
from theodolite.systems.chains_exact import exact_log_density_of_states


def exact_table(field, edges: np.ndarray) -> np.ndarray:
    count = np.histogram(field.table.double().numpy(), edges)[0]
    with np.errstate(divide="ignore"):
        return np.log(count)


def errors(survey: xarray.Dataset, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deviations and claimed standard errors of the levels that are reached and known."""
    found = survey.log_density_of_states.values
    known = np.isfinite(found) & np.isfinite(exact)
    assert known.sum() >= 5
    return (found - exact)[known], survey.log_density_error.values[known]


# -------------------------------------------------------------------- truth


@pytest.mark.parametrize("method", ["enumerate", "uniform", "wang-landau", "multicanonical", "ladder"])
def test_every_method_agrees_with_a_table(method: str):
    field = systems.random_table(seed=4)
    survey = th.Density(seed=1, method=method, budget="60000 evaluations", level_width=0.5).measure(
        field, progress=False
    )
    deviation, error = errors(survey, exact_table(field, survey.level_edges.values))
    if method == "enumerate":
        assert np.abs(deviation).max() == 0 and str(survey.verdict.values) == "exact"
    assert (np.abs(deviation) <= 5 * error + 1e-9).all()
    assert np.abs(deviation).max() < 1.0


def test_ising_is_absolute_by_the_ladder():
    field = systems.ising(6)
    survey = th.Density(seed=2, method="ladder", budget="150000 evaluations").measure(field, progress=False)
    level, log_g = systems.ising_log_density_of_states(6)
    exact = np.full(survey.sizes["level"], -np.inf)
    exact[np.digitize(level, survey.level_edges.values) - 1] = log_g
    deviation, error = errors(survey, exact)
    assert np.abs(deviation).max() < 0.6
    assert (np.abs(deviation) < 4 * error).all()
    assert np.logaddexp.reduce(survey.log_density_of_states.dropna("level").values) == pytest.approx(
        36 * math.log(2), abs=0.05
    )


def test_a_real_box_gives_the_volume_of_every_level():
    """The sum of six uniforms: Irwin-Hall, some 9 nats rarer at the ends than in the middle."""
    field = systems.box_linear(6)
    survey = th.Density(seed=3, budget="60000 evaluations", level_width=0.25, low=0.8, high=5.2).measure(
        field, progress=False
    )
    exact = systems.box_linear_log_density_of_states(6, survey.level_edges.values)
    deviation, error = errors(survey, exact)
    assert (np.abs(deviation) < 4 * error + 0.02).all()
    assert np.ptp(survey.log_density_of_states.dropna("level").values) > 7


def test_a_latent_space_gives_probabilities_far_beyond_what_draws_see():
    field = systems.latent_linear(8, slope=1.0)
    survey = th.Density(seed=4, budget="60000 evaluations", low=-6.0, high=6.0).measure(field, progress=False)
    exact = systems.latent_linear_log_density_of_states(1.0, survey.level_edges.values)
    deviation, error = errors(survey, exact)
    assert np.sqrt(np.mean((deviation / error) ** 2)) < 2.0 and np.abs(deviation).max() < 1.0
    assert survey.log_density_of_states.min() < -15


def test_smooth_chains_are_within_their_errors_of_the_transfer_matrix():
    settings = smooth_settings(rows=4, sites=6, levels=32)
    survey = th.Density(
        seed=5, method="ladder", budget="25000 evaluations", low=-25.0, high=25.0, level_width=5.0
    ).measure(settings.field(), progress=False)
    exact = exact_log_density_of_states(settings, survey.level_edges.values)
    deviation, error = errors(survey, exact)
    assert (np.abs(deviation) < 4 * error + 0.02).all() and np.median(error) < 0.5


def test_rough_chains_that_freeze_are_called_not_converged():
    """Rows turn as a whole into a phase that nothing leads to: noise and zeros starts freeze apart."""
    settings = rough_settings(rows=4, sites=20)
    survey = th.Density(seed=0, method="ladder", budget="6000 evaluations", starts=("noise", "zeros")).measure(
        settings.field(), progress=False
    )
    assert str(survey.verdict.values) == "not converged"
    exact = exact_log_density_of_states(settings, survey.level_edges.values)
    found, trusted = survey.log_density_of_states.values, survey.level_converged.values
    wrong = np.isfinite(found) & np.isfinite(exact) & (np.abs(found - exact) > 5 * survey.log_density_error.values + 5)
    assert not (wrong & trusted).any()


def small_network() -> th.Network:
    torch.manual_seed(5)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )  # fmt: skip
    torch.nn.init.normal_(module[4].weight, std=6.0)
    return th.Network(module, th.Grid((1, 3, 3), 3), th.Scale(0.5), name="small")


@pytest.mark.parametrize("observable", ["logit:0", "log_odds:2", "margin:0:1", "energy"])
def test_ladder_and_enumeration_agree_on_a_network(observable: str):
    field = small_network().observable(observable)
    exact = th.Density(method="enumerate", budget="60000 evaluations", level_width=0.5).measure(field, progress=False)
    survey = th.Density(seed=6, method="ladder", budget="60000 evaluations", level_width=0.5).measure(
        field, progress=False
    )
    both = xarray.align(
        exact.log_density_of_states, survey.log_density_of_states, survey.log_density_error, join="inner"
    )
    known = np.isfinite(both[0].values) & np.isfinite(both[1].values)
    assert known.sum() >= 3
    assert (np.abs(both[1] - both[0]).values[known] < 4 * both[2].values[known] + 0.05).all()


def test_gwl_never_says_converged():
    field = small_network().logit(0)
    survey = th.Density(seed=7, method="gwl", budget="2000 evaluations", level_width=1.0).measure(field, progress=False)
    assert str(survey.verdict.values) == "not converged"


def test_auto_enumerates_where_it_can_afford_to():
    survey = th.Density(budget="100000 evaluations", level_width=0.5).measure(small_network().logit(0), progress=False)
    assert survey.attrs["method"] == "enumerate" and str(survey.verdict.values) == "exact"


def test_a_run_too_short_says_so_and_gives_no_numbers():
    survey = th.Density(method="ladder", budget="300 evaluations").measure(systems.ising(6), progress=False)
    assert str(survey.verdict.values) == "not converged"
    assert "before anything was measured" in str(survey.verdict_sentence.values)
    assert not np.isfinite(survey.log_density_of_states).any()


# -------------------------------------------------------------------- data and representatives


def test_representatives_lie_in_their_levels_and_data_are_counted():
    network = small_network()
    field = network.logit(0)
    data = {"some": network.space.draw(40, torch.Generator().manual_seed(1))}
    survey = th.Density(seed=8, method="ladder", budget="40000 evaluations", level_width=0.5).measure(
        field, data, progress=False
    )
    edges = survey.level_edges.values
    assert int(survey.data_histogram.sum()) == 40
    outputs = survey.representative_output.values
    for level, sample in zip(*np.nonzero(np.isfinite(outputs)), strict=True):
        point = torch.as_tensor(survey.representative.values[level, sample].astype(np.int64))[None]
        value = float(field.value(point))
        assert value == pytest.approx(outputs[level, sample], abs=1e-4)
        assert edges[level] - 1e-4 <= value <= edges[level + 1] + 1e-4
    assert np.isfinite(outputs).sum() > 20


def test_noise_distance_is_the_papers_for_black_images():
    """A black image is at mean squared distance E u^2 = (2 * 255 + 1) / (6 * 255) = 0.334 from uniform 8-bit noise."""
    field = systems.linear_logit(seed=0, shape=(6, 6))
    survey = th.Density(method="uniform", budget="4096 evaluations", level_width=5.0).measure(
        field, {"black": torch.zeros(3, 6, 6, dtype=torch.int64)}, progress=False
    )
    assert float(survey.noise_squared_distance[0]) == pytest.approx(511 / 1530, abs=0.02)


# -------------------------------------------------------------------- resume


@pytest.mark.parametrize("method", ["ladder", "wang-landau"])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, method: str):
    settings = {"seed": 9, "method": method, "budget": "30000 evaluations", "level_width": 0.5}
    whole = th.Density(**settings).measure(systems.random_table(seed=4), progress=False)

    from theodolite.instruments import surveying as module

    steps = {"left": 25}
    original = module.drive

    def interrupted(step, state, generator, **keywords):
        def counted(state, generator):
            steps["left"] -= 1
            if steps["left"] == 0:
                raise KeyboardInterrupt
            return step(state, generator)

        return original(counted, state, generator, **keywords)

    monkeypatch.setattr(module, "drive", interrupted)
    part = th.Density(**settings).measure(systems.random_table(seed=4), directory=tmp_path, progress=False)
    assert part.attrs["evaluations"] < whole.attrs["evaluations"]
    monkeypatch.setattr(module, "drive", original)
    resumed = th.Density(**settings).measure(
        systems.random_table(seed=4), directory=tmp_path, resume=True, progress=False
    )
    xarray.testing.assert_identical(
        whole.drop_attrs().drop_vars("verdict_sentence"), resumed.drop_attrs().drop_vars("verdict_sentence")
    )
    again = th.Density(**settings).measure(
        systems.random_table(seed=4), directory=tmp_path, resume=True, progress=False
    )
    assert again.attrs["evaluations"] == resumed.attrs["evaluations"]


def test_same_seed_same_numbers_other_seed_others():
    runs = [
        th.Density(seed=seed, method="ladder", budget="20000 evaluations", level_width=0.5)
        .measure(systems.random_table(seed=4), progress=False)
        .log_density_of_states.values
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(runs[0], runs[1], equal_nan=True)
    assert not np.array_equal(runs[0], runs[2], equal_nan=True)


def test_what_is_saved_is_what_was_measured(tmp_path):
    survey = th.Density(budget="60000 evaluations", level_width=0.5).measure(
        systems.random_table(seed=4), directory=tmp_path, progress=False
    )
    saved = open_survey(tmp_path)["density"].to_dataset()
    assert np.array_equal(saved.log_density_of_states, survey.log_density_of_states)
    assert saved.attrs["settings"] == survey.attrs["settings"]


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "settings,argument",
    [
        ({"budget": "0 s"}, "budget"),
        ({"budget": "soon"}, "budget"),
        ({"method": "magic"}, "method"),
        ({"level_width": -1.0}, "level_width"),
        ({"low": 2.0, "high": 1.0}, "low"),
        ({"starts": ("moon",)}, "starts"),
        ({"target_error": 0.0}, "target_error"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, argument: str):
    with pytest.raises(UserError, match=argument):
        th.Density(**settings)


def test_data_that_do_not_fit_are_refused_before_any_work():
    field = systems.random_table(seed=4)
    shape = tuple(field.space.shape)
    with pytest.raises(UserError, match="outside"):
        th.Density().measure(field, torch.full((2, *shape), 7))
    with pytest.raises(UserError, match="points of shape"):
        th.Density().measure(field, torch.zeros(2, 3, dtype=torch.int64))
    assert field.evaluations == 0


def test_discrete_methods_refuse_real_spaces():
    with pytest.raises(UserError, match="real space"):
        th.Density(method="wang-landau").measure(systems.box_linear(3))


def test_starts_from_data_need_data():
    with pytest.raises(UserError, match="data"):
        th.Density(method="ladder", starts=("data",)).measure(systems.random_table(seed=4))


def test_a_survey_is_never_overwritten(tmp_path):
    settings = {"method": "ladder", "budget": "2000 evaluations"}
    th.Density(**settings).measure(systems.random_table(seed=4), directory=tmp_path, progress=False)
    with pytest.raises(UserError, match="resume"):
        th.Density(**settings).measure(systems.random_table(seed=4), directory=tmp_path, progress=False)
