"""What the page says and draws of an ensemble, against its numbers worked out another way, and in a browser."""

import re

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import theodolite as th
from tests.report.browsing import assert_calm_and_fitting, opened
from theodolite.report import ensemble, ensemble_figures
from theodolite.report.ensemble_examples import examples
from theodolite.report.ensemble_section import ensemble_section
from theodolite.report.page import render, write_report
from theodolite.report.themes import DARK, LIGHT

SHAPE = (1, 8, 8)


def member(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3))
    with torch.no_grad():
        module[1].weight *= 3.0
        module[3].weight *= 6.0
    return th.Network(module, th.Box(SHAPE, 0.0, 1.0), classes=["<one>", "two", "three"])


def survey_of(n=120, n_levels=7):
    """Random networks, labels of the first half of the inputs its own, and made-up levels."""
    networks = {name: member(seed) for seed, name in enumerate(("a", "b", "c"))}
    random = np.random.default_rng(0)
    inputs = torch.from_numpy(random.random((n, *SHAPE))).float()
    labels = networks["a"].predictions(inputs)[0]
    labels[n // 2 :] = torch.from_numpy(random.integers(3, size=n - n // 2))
    output = np.where(np.arange(n_levels)[:, None] == 3, np.nan, random.normal(size=(n_levels, 6)))
    axes = ("point_0", "point_1", "point_2")
    density = xr.Dataset(
        {
            "level": (("level",), np.linspace(-4, 9, n_levels)),
            "log_density_of_states": (("level",), -np.arange(n_levels, dtype=float)),
            "representative": (("level", "sample", *axes), random.random((n_levels, 6, *SHAPE))),
            "representative_output": (("level", "sample"), output),
        },
        attrs={"instrument": "density", "space": networks["a"].space.spec(), "observable": "logit:1"},
    )
    instrument = th.Ensemble(resamples=100, sure=0.9, doubt=0.7)
    return instrument.measure(networks, inputs, labels, density=density, progress=False)


@pytest.fixture(scope="module")
def survey():
    return survey_of()


def test_the_section_says_what_the_numbers_say(survey):
    section = ensemble_section(survey, "ensemble")
    rows = section["conditions"]
    assert [row["name"] for row in rows] == [str(name) for name in survey.condition.values]
    right = (survey.answer.values[0, :, 0] == survey.label.values).mean()
    assert float(rows[0]["accuracies"][0].rstrip("%")) == pytest.approx(100 * right, abs=0.05)
    sure = np.exp(survey.log_probability.values[0, :, 0]).max(-1) > 0.9
    assert float(rows[0]["sure"].partition("%")[0]) == pytest.approx(100 * sure.mean(), abs=0.05)
    assert len(section["calibration"]) == survey.sizes["measure"]
    assert set(section["drawn"]) == {"reliability", "strips", "levels"}
    assert section["findings"].lines[0].startswith("The ensemble")
    count = survey.level_count.values
    share = (np.nan_to_num(survey.level_sure_share.values) * count).sum() / count.sum()
    assert float(re.search(r"is sure of ([0-9.]+)%", section["findings"].levels).group(1)) == pytest.approx(
        100 * share, rel=0.01
    )


def test_examples_are_sure_and_doubted_by_the_rule(survey):
    probability = np.exp(survey.log_probability.values)
    single = probability[:, :, 0].argmax(-1)
    shared = np.take_along_axis(probability[:, :, -1], single[..., None], -1)[..., 0]
    doubted = (probability[:, :, 0].max(-1) > 0.9) & (shared < 0.7)
    found = examples(survey)
    assert doubted.sum() > 4 and int(found["n"].replace(",", "")) >= doubted.sum()
    cards = [card for card in found["cards"] if card["where"].startswith("image")]
    for card in cards:
        image, condition = re.fullmatch(r"image (\d+), (.*)", card["where"]).groups()
        assert doubted[list(survey.condition.values).index(condition), int(image)]
    for condition in survey.condition.values:
        assert sum(card["where"].endswith(f", {condition}") for card in cards) <= 4


def test_figures_hold_the_numbers_in_both_themes(survey):
    for theme in (LIGHT, DARK):
        figure = ensemble_figures.reliability_figure(survey, theme)
        marks = next(trace for trace in figure.data if trace.name == "ensemble")
        assert sum(marks.customdata) == survey.sizes["image"]
        filled = survey.bin_count.values[0, -1] > 0
        np.testing.assert_allclose(marks.y, survey.bin_accuracy.values[0, -1][filled])
        strips = ensemble_figures.strip_figure(survey, theme)
        means = next(trace for trace in strips.data if trace.name == "mean mutual information")
        np.testing.assert_allclose(means.y, survey.quantity_mean.values[:, 2])
        levels = ensemble_figures.levels_figure(survey, theme)
        line = next(trace for trace in levels.data if trace.name == "mutual information")
        seen = survey.level_count.values > 0
        assert len(line.x) == seen.sum() == 6
        np.testing.assert_allclose(line.y, survey.level_quantity_mean.values[seen, 2])


def test_verdicts_in_words_follow_the_intervals(survey):
    def headline(low, high, doubted, wrong=20, passed=1):
        changed = survey.copy(deep=True)
        changed["auroc_low"].values[0, 0], changed["auroc_high"].values[0, 0] = low, high
        changed["doubted_wrong_share"] = doubted
        changed["auroc_yes"].values[0] = wrong
        place = [str(name).startswith("knows where") for name in changed.check_name.values].index(True)
        changed["check_passed"].values[place] = passed
        return ensemble.findings(changed).headline

    assert "knows where a is overconfident: it doubts 80%" in headline(0.6, 0.9, 0.8)
    assert "suspects" in headline(0.6, 0.9, 0.1)
    assert "misled" in headline(0.2, 0.4, 0.1)
    assert "not seen to know" in headline(0.4, 0.6, 0.8)
    assert "was not seen" in headline(0.6, 0.9, 0.8, wrong=1, passed=-1)


def test_a_survey_cut_short_is_drawn_as_far_as_it_came(survey):
    nothing = survey.copy(deep=True)
    for name in ("point", "log_probability", "predictive_entropy", "mutual_information", "quantity_mean"):
        nothing[name].values[2:] = np.nan
    nothing["answer"].values[2:] = -1
    without = nothing.drop_vars([name for name in nothing.variables if str(name).startswith("level")])
    page = render(without)
    assert "&lt;one&gt;" in page or "<one>" not in page
    assert "levels" not in ensemble_section(without, "ensemble")["drawn"]


def test_the_page_in_a_browser(survey, chromium, tmp_path):
    file = write_report(survey, tmp_path / "ensemble.html")
    wanted = [f"[data-figure={name}] .main-svg" for name in ("reliability", "strips", "levels")]
    with opened(chromium, file, wanted) as page:
        assert page.locator(".doubted img").count() == len(examples(survey)["cards"])
        assert_calm_and_fitting(page, "strips")
