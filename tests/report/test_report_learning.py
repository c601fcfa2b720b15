"""The learning section says what the dataset says: numbers, findings, rows of pictures, and what is not there."""

import base64
import json
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.report.learning_example import RUNS, learning_example
from theodolite.instruments.learning import Learning
from theodolite.instruments.learning_verdict import judge
from theodolite.learning.agreement import STATISTICS, Agreement, Statistic
from theodolite.learning.examination import Examination
from theodolite.report import learning as numbers
from theodolite.report import learning_figures, learning_plane_figures, learning_training_figures
from theodolite.report.learning_section import (
    class_bar,
    learning_section,
    mode_rows,
    picture_rows,
    plane_rows,
    scale_rows,
    statistic_rows,
)
from theodolite.report.page import render
from theodolite.result import open_survey, save, validate


@pytest.fixture(scope="module")
def good():
    return validate(learning_example(lyapunov=True))


@pytest.fixture(scope="module")
def bad():
    return validate(learning_example(drift=3.1, verdict="non-convergent"))


@pytest.fixture(scope="module")
def good_page(good):
    return render(good)


def pixels_of(address):
    """The grey pixels of a PNG in a `data:` address, decoded by hand."""
    data = base64.b64decode(address.partition(",")[2])
    width, height, _, kind = struct.unpack(">IIBB", data[16:26])
    channels = 3 if kind == 2 else 1
    body, place = b"", 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            body += data[place + 8 : place + 8 + length]
        place += 12 + length
    lines = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + width * channels)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape((height, width, channels) if channels == 3 else (height, width))


def test_a_survey_of_learning_is_saved_and_found_again(good, tmp_path):
    again = open_survey(save(good, tmp_path))["learning"].to_dataset()
    for name, values in good.variables.items():
        np.testing.assert_array_equal(again[name].values, values.values)
    assert again.attrs["advice"] == "" and numbers.findings(again) == numbers.findings(good)


def test_sentences_follow_the_numbers(good, bad):
    said = numbers.findings(good)
    energy = good.run_energy.values
    mean, spread = energy[0].mean(), energy[0].std(ddof=1)
    apart = [(energy[row].mean() - mean) / spread for row in (3, 4)]
    assert said.headline == "The learned energy reproduces its data"
    sides = ["above" if value > 0 else "below" for value in apart]
    assert f"{abs(apart[0]):.2f} standard deviations {sides[0]} the data when begun there" in said.drift
    assert f"{abs(apart[1]):.2f} {sides[1]} when begun from noise" in said.drift
    difference = good.energy_difference.values[450:]
    assert f"{abs(difference.mean()):.2g}".rstrip("0") in said.training and "the same energy" in said.training
    assert said.verdict_heading == "Convergent: all 4 checks hold" and "weak" in said.oscillation
    assert said.lyapunov.endswith("from noise scale 1.5 on")
    told = numbers.findings(bad)
    assert told.headline == "Long runs drift away from the data: 3.0 standard deviations too deep"
    assert told.verdict_heading == "Non-convergent: 1 of 4 checks failed"
    assert told.lines[-1] == str(bad.verdict_sentence.values)


@pytest.mark.parametrize(
    ("check", "value", "told"),
    [
        ("learning stayed finite", 1.0, "Learning diverged"),
        ("energy, long run from noise", 2.0, "2.0 standard deviations too high"),
        ("held-out energy, long run from data", -0.8, "held-out data: 0.80 standard deviations too deep"),
        ("spread of energies, long run from data", 0.5, "a narrower range"),
        ("classes, long run from noise", 0.31, "from noise change the classes: 31%"),
        ("clusters, long run from noise", 0.31, "change the clusters"),
        ("every one of the classes, long run from data", 0.02, "lose a class: 2% of its share"),
        ("features, long run from data", 5.0, "do not look like the data: 5.0 times"),
        ("law of energies, long run from data", 0.3, "another law"),
        ("no drift, long run from noise", -0.4, "from noise never come to rest"),
        ("something new", 3.0, "The learned energy does not reproduce its data"),
    ],
)
def test_the_failed_check_is_the_headline(bad, check, value, told):
    names, values = bad.check_name.values.astype("<U80"), bad.check_value.values.copy()
    names[0], values[0] = check, value
    survey = bad.assign(check_name=("check", names), check_value=("check", values))
    assert told in numbers.findings(survey).headline


def test_undecided_is_a_word_of_its_own():
    page = render(learning_example(verdict="undecided"))
    assert "Undecided: 1 of 4 checks open" in page and '<tr class="open">' in page
    assert 'class="badge undecided"' in page and "is not decided" in page and "What to change" in page


def test_badges_and_advice(good_page, bad):
    assert 'class="badge convergent"' in good_page and "What to change" not in good_page
    page = render(bad)
    assert 'class="badge non-convergent"' in page and "Lower the last learning rate tenfold" in page


def test_rows_show_the_points_on_the_scale_of_the_data(good, bad):
    rows = picture_rows(good)
    assert [row["name"] for row in rows] == RUNS
    points = good.run_image.values
    low, high = np.quantile(points[0], [0.01, 0.998])
    pixels = pixels_of(rows[3]["picture"])
    tile = pixels[9:17, 9:17]
    expected = np.round(255 * np.clip((points[3, 13] - low) / (high - low), 0, 1))
    np.testing.assert_array_equal(tile, expected)
    assert pixels.shape == (2 * 8 + 1, 12 * 8 + 11)
    saturated = [np.isin(pixels_of(row["picture"]), (0, 255)).mean() for row in picture_rows(bad)]
    assert min(saturated[3:]) > 0.5 > max(saturated[:3])


def test_colours_stay_colours():
    rows = picture_rows(learning_example(colours=3))
    pixels = pixels_of(rows[0]["picture"])
    assert pixels.shape[2] == 3 and (pixels[..., 0] != pixels[..., 2]).any()


def test_class_bars_are_the_shares(bad):
    bar = class_bar(bad, 3)
    np.testing.assert_allclose([float(part["width"]) for part in bar], 100 * bad.run_class_share.values[3], rtol=1e-3)
    figure = learning_figures.class_figure(bad)
    heights = {trace.name: np.array(trace.y) for trace in figure.data}
    np.testing.assert_allclose(heights["long run from noise"], [55, 15, 15, 15])
    top = np.array(figure.data[4].y) + np.array(figure.data[4].error_y.array)
    np.testing.assert_allclose(top, 100 * bad.run_class_share_high.values[4])


def test_the_gap_of_the_cumulative_curves_is_the_kolmogorov_smirnov_distance(bad):
    figure = learning_figures.energy_figure(bad)
    lower = {trace.name: trace for trace in figure.data if trace.yaxis == "y2"}
    grid = np.linspace(-80, -10, 2001)

    def share(trace):
        return np.array(trace.y)[np.searchsorted(np.array(trace.x), grid, side="right").clip(1) - 1]

    gap = np.abs(share(lower["data"]) - share(lower["long run from data"])).max()
    data, run = (np.sort(bad.run_energy.values[row]) for row in (0, 3))
    exact = max(
        abs(np.searchsorted(data, e, "right") / len(data) - np.searchsorted(run, e, "right") / len(run))
        for e in np.concatenate([data, run])
    )
    assert gap == pytest.approx(100 * exact, abs=1.0)
    upper = [trace for trace in figure.data if trace.yaxis != "y2" and trace.name == "held out"]
    assert sum(upper[0].y) == pytest.approx(100, abs=2)


def test_long_runs_lie_over_the_data(bad):
    figure = learning_figures.long_run_figure(bad)
    lines = {trace.name: trace for trace in figure.data if trace.name}
    assert lines["data"].y[0] == pytest.approx(bad.run_energy.values[0].mean())
    np.testing.assert_allclose(lines["long run from noise"].y, bad.trace_energy.values[4])
    low, high = figure.layout.yaxis.range
    assert low < bad.trace_energy_low.values[3:].min() and high > bad.run_energy.values[0].mean()


def test_traces_keep_every_update_in_their_bands():
    survey = learning_example(n_updates=3001)
    figure = learning_training_figures.trace_figure(survey)
    band = figure.data[0]
    assert band.fill == "toself" and max(band.y) == survey.energy_difference.values.max()
    assert min(band.y) == survey.energy_difference.values.min()
    assert learning_training_figures.phases(survey) == [(0, "Adam"), (1500, "SGD")]
    words = [note.text for note in figure.layout.annotations]
    assert "Adam" in words and "SGD" in words
    columns = learning_section(survey, "learning")["drawn"]["traces"]["columns"]
    assert columns["energy_difference"] == survey.energy_difference.values.tolist()


def test_a_running_mean_leaves_out_what_is_not_there():
    values = np.array([1.0, np.nan, 3.0, 5.0])
    np.testing.assert_allclose(learning_training_figures.running_mean(values, 2), [1.0, 2.0, 4.0, 4.0])


def test_correlations_and_their_band(good):
    figure = learning_training_figures.correlation_figure(good)
    np.testing.assert_allclose(figure.data[0].y, good.energy_difference_correlation.values[1:])
    assert list(figure.data[0].x) == list(range(1, 31))
    np.testing.assert_allclose(figure.data[2].x, good.signed_lag.values)
    band = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert band.y1 == pytest.approx(2 * float(good.correlation_error))


def test_planes_show_both_densities_and_the_points():
    survey = validate(learning_example("plane", drift=3.1, verdict="non-convergent"))
    figure = learning_plane_figures.density_figure(survey)
    true, learned = (np.asarray(trace.z) for trace in figure.data[:2])
    expected = np.exp(survey.true_log_density.values).T
    known = np.isfinite(true)
    np.testing.assert_allclose(true[known], expected[known], rtol=1e-5)
    assert (expected[~known] < 0.01 * expected.max()).all() and np.nanmax(learned) > np.nanmax(true)
    assert figure.data[0].zmax == figure.data[1].zmax == pytest.approx(expected.max())
    np.testing.assert_array_equal(np.array(figure.data[2].x), survey.run_image.values[3, :, 0])
    assert mode_rows(survey)[0] == ["1", "0.333", "0.900", "0.567"]
    assert plane_rows(survey) == [
        ("KL from data to model", "0.0210 ± 0.0004 nats"),
        ("KL from model to data", "0.0240 nats"),
        ("ln Z of the energy", "−1.90 ± 0.0002 nats"),
        ("The grid", "too coarse for its tolerance"),
    ]
    section = learning_section(survey, "learning")
    assert not section["rows"] and "points" in section["drawn"] and "classes" not in section["drawn"]


def test_one_coordinate_is_a_curve():
    survey = validate(learning_example("line"))
    figure = learning_plane_figures.density_figure(survey)
    np.testing.assert_allclose(figure.data[1].y, np.exp(survey.log_density.values[:, 0]))
    assert "points" not in learning_section(survey, "learning")["drawn"]


def test_chaos_has_pictures_beside_its_numbers(good):
    rows = scale_rows(good)
    assert [row["name"] for row in rows] == ["γ = 0.25", "γ = 0.5", "γ = 1", "γ = 1.5", "γ = 2"]
    assert all("picture" in row for row in rows) and rows[0]["exponent"].startswith("−1.78 (−1.88 to −1.68)")
    figure = learning_training_figures.lyapunov_figure(good)
    np.testing.assert_allclose(figure.data[0].error_y.array, 0.1)


def test_every_statistic_is_in_the_table(good):
    rows = statistic_rows(good)
    assert [row[0] for row in rows] == RUNS[1:]
    value = float(good.statistic[3, 0])
    assert rows[2][1].startswith(f"{value:.3g}".replace("-", "−"))


def test_little_is_enough_for_a_page(good):
    least = good[["energy_difference", "run", "run_energy", "verdict", "verdict_sentence"]]
    section = learning_section(validate(least), "learning")
    assert set(section["drawn"]) == {"energies", "traces"} and section["statistics"] == [] and not section["scales"]
    never = validate(least.isel(update=slice(0, 0)))
    assert set(learning_section(never, "learning")["drawn"]) == {"energies"}
    assert "The learned energy reproduces its data" in render(never)


def test_what_diverged_is_a_page_too(bad):
    lost = bad.copy(deep=True)
    for name in ("run_energy", "statistic", "statistic_low", "statistic_high", "trace_energy", "run_class_share"):
        lost[name][{"run": [3, 4]}] = np.nan
    lost["run_image"][{"run": [3, 4]}] = np.nan
    lost["energy_difference"][-40:] = np.nan
    section = learning_section(lost, "learning")
    assert [row["name"] for row in section["rows"]] == RUNS[:3] and "long_runs" not in section["drawn"]
    assert render(lost)


def test_words_of_the_data_cannot_break_the_page(good):
    survey = good.assign(class_name=("class", ["<script>alert(1)</script>", "a&b", "2", "3"]))
    survey.attrs = good.attrs | {"advice": "<script>x", "energy_sentence": "<b>"}
    page = render(survey)
    assert "<script>alert" not in page and "a&amp;b" in page and "&lt;b&gt;" in page


def test_the_page_holds_numbers_that_json_knows(good_page):
    data = re.search(r'<script type="application/json" id="survey-data">(.*?)</script>', good_page, re.S).group(1)
    figures = json.loads(data)["learning"]["figures"]
    assert set(figures) == {"energies", "long_runs", "classes", "traces", "correlations", "lyapunov"}
    for figure in figures.values():
        assert len({len(column) for column in figure["columns"].values()}) == 1


def test_what_was_really_learned_is_a_page(tmp_path):
    """Eight by eight digits, learned for a moment: too short for any verdict, long enough for every figure."""
    found = load_digits(n_class=3)
    images = torch.tensor(found.images / 8 - 1, dtype=torch.float32)
    settings = Learning(
        updates=60, warm_updates=60, widths=(16,), components=8, batch=64, steps=2, long_steps=100, long_chains=32
    )
    labels = torch.tensor(found.target)
    _, survey = settings.fit(images[:400], labels=labels[:400], held_out=images[400:], progress=False)
    section = learning_section(survey, "learning")
    assert [row["name"] for row in section["rows"]] == RUNS
    assert set(section["drawn"]) == {"energies", "long_runs", "classes", "traces", "correlations"}
    assert section["verdict"] == str(survey.verdict.values) and section["advice"].endswith(".")
    assert len(section["checks"]) == survey.sizes["check"]
    page = render(open_survey(save(survey, tmp_path)))
    assert "learned from 400 images" in page and "What to change" in page


def test_every_check_of_the_verdict_has_a_headline():
    """What a failed check says is known here for all that ask something of the long runs."""
    plain = Statistic(9.0, 8.9, 9.1)
    lost = np.zeros(1)
    agreed = Agreement(dict.fromkeys(STATISTICS, plain), lost, lost, lost, lost, lost, reference_share=np.ones(1))
    both = {"data": agreed, "noise": agreed}
    off = {"data": plain, "noise": plain}
    for labelled in (True, False):
        judged = judge(Examination(True, 1.0, 9, labelled, ("0",), both, off, off))
        failed = [check.name for check in judged.checks if check.passed is not None and not check.passed.any()]
        assert len(failed) >= 8
        for name in failed:
            example = learning_example(verdict="non-convergent")
            names = np.array([name, *example.check_name.values[1:]])
            told = numbers.findings(example.assign(check_name=("check", names))).headline
            assert told != "The learned energy does not reproduce its data", name
