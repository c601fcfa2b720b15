"""The stability section says what the dataset says: numbers of the matrix, sentences, failures, escapes."""

import re

import numpy as np
import pytest

from tests.report.stability_example import stability_example
from theodolite.report import stability as numbers
from theodolite.report import stability_figures
from theodolite.report.page import render
from theodolite.report.stability_section import (
    example_pairs,
    matrix_columns,
    shown_images,
    stability_section,
    transfer_groups,
)
from theodolite.result import validate


@pytest.fixture(scope="module")
def survey():
    return validate(stability_example())


@pytest.fixture(scope="module")
def page(survey):
    return render(survey)


def test_every_entry_is_in_the_heat_map(survey, page):
    table = page[page.index('<table class="heat">') : page.index("</table>", page.index('<table class="heat">'))]
    written = re.findall(r"<b>([\d.]+)%</b>", table)
    assert len(written) == survey.transfer.size
    np.testing.assert_allclose([float(text) for text in written], 100 * survey.transfer.values.ravel(), atol=0.051)
    assert table.count(" own") == 6
    tints = [int(text) for text in re.findall(r"--tint:(\d+)%", table)]
    order = np.argsort(survey.transfer.values.ravel(), kind="stable")
    assert (np.diff(np.array(tints)[order]) >= 0).all() and max(tints) > 0
    assert table.count("made for softmax<") == 2 and "standard deviation 0.03" in table


def test_groups_follow_kind_and_strength(survey):
    found = numbers.stability(survey)
    groups = transfer_groups(found)
    assert [len(group["rows"]) for group in groups] == [3, 3, 2]
    assert "amplified to a distortion of 0.1" in groups[1]["title"]
    cell = groups[0]["rows"][1]["cells"][0]
    share = float(survey.transfer[1, 0])
    assert cell["text"] == numbers.percent(share) and cell["count"] == "of 24" and "95% interval" in cell["title"]


def test_sentences_follow_the_numbers(survey):
    said = numbers.findings(survey, numbers.stability(survey))
    mean = survey.mean_distortion.values
    assert said.headline.startswith("softmax is fooled by the least") and "AE400-10 takes the most" in said.headline
    assert f"{mean[0]:.4f}" in said.headline and f"{mean[2]:.4f}" in said.headline
    across = survey.transfer.values[:3][~np.eye(3, dtype=bool)]
    low, high = (numbers.percent(float(share)) for share in (across.min(), across.max()))
    assert said.transfer == f"Of what just fools one network, {low} to {high} fools another"
    assert said.noise.startswith("Gaussian noise of standard deviation 0.03 fools")
    assert any("Amplified to a distortion of 0.1" in line for line in said.lines)


def test_pairs_are_inputs_and_their_changes(survey):
    found = numbers.stability(survey)
    shown = shown_images(found)
    assert len(shown) == 6 and (shown >= 2).all()
    mean = survey.distortion.values[:, shown].mean(0)
    assert (np.diff(mean) >= 0).all()
    pairs = example_pairs(survey, found)
    assert len(pairs["rows"]) == 6 and all(len(row["cells"]) == 3 for row in pairs["rows"])
    scale = np.array(pairs["script"]["changes"]["scale"]).reshape(6, 3)
    change = np.abs(survey.example.values - survey.input.values).reshape(3, 24, -1).max(2)
    np.testing.assert_allclose(scale, change[:, shown].T, rtol=1e-4)


def test_the_numbers_for_csv_are_the_matrix(survey):
    columns = matrix_columns(numbers.stability(survey))
    assert columns["share_fooled"] == survey.transfer.values.ravel().tolist()
    assert columns["tested_on"][:3] == survey.network.values.tolist() and len(columns["row"]) == 24


def test_curves_end_where_attacks_failed():
    survey = stability_example(failed=6)
    figure = stability_figures.distortion_figure(survey)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert max(lines[0].y) == pytest.approx(75.0) and max(lines[1].y) == pytest.approx(100.0)
    section = stability_section(survey, "stability")
    assert len(section["failed"]) == 6 and section["verdict"] == "incomplete"
    page = render(survey)
    assert "Attacks that found nothing" in page and "the best point fails by 1.5 logits" in page
    assert "Incomplete: 1 of 2 checks failed" in page and 'class="badge incomplete"' in page


def test_one_network_without_amplified_rows():
    page = render(stability_example(names=("alone",), amplified=None))
    assert "on average fools alone" in page and "Made for one network, tested on it" in page


def test_nothing_found_is_a_page_too():
    survey = stability_example(names=("alone",), failed=24)
    page = render(survey)
    assert "No adversarial example was found" in page and "Attacks that found nothing" in page


def test_lists_of_features_are_bars():
    survey = stability_example(shape=(9,))
    pairs = example_pairs(survey, numbers.stability(survey))
    bars = pairs["rows"][0]["cells"][0]["bars"]
    assert len(bars) == 6 and pairs["script"]["inputs"] is None
    image = pairs["rows"][0]["image"]
    change = (survey.example.values[0] - survey.input.values)[image]
    assert [row[0] for row in bars] == np.argsort(-np.abs(change), kind="stable")[:6].tolist()


def test_names_cannot_break_the_page():
    page = render(stability_example(names=("<script>alert(1)</script>", "b&c")))
    assert "<script>alert" not in page and "b&amp;c" in page


def test_many_networks_have_different_colours(survey):
    figure = stability_figures.distortion_figure(stability_example(names=tuple("abcdefgh")))
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len({trace.line.color for trace in lines}) == 8
