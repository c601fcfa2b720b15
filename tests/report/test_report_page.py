"""The page as text: what it holds, what it must not hold, what it refuses."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from theodolite.errors import UserError
from theodolite.report import write_report
from theodolite.report.figures import density_figure
from theodolite.report.page import render


@pytest.fixture(scope="module")
def page(converged):
    return render(converged)


def test_it_is_one_file_under_ten_megabytes_that_names_no_other(page):
    assert len(page.encode()) < 10_000_000
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", ours)
    assert "url(http" not in ours and "@import" not in ours
    assert page.count("plotly.js v") == 1


def test_it_says_what_was_surveyed_and_how_sure_it_is(page):
    for words in (
        "28 x 28 pixels of 256 levels: e^4347 inputs",
        "61,440 evaluations in 4 min 47 s",
        "theodolite demo --only density --seed 3",
        "9f2c4e7a1b6d5083e2c1f7a9d4b80c35e6a1927fd0b3c8e5a4f6172839405162",
        "ICML 2023",
        "test: 0 (980), test: 1 (1,135)",
        "not tested",
        "✓",
        "method = &#34;ladder&#34;",
    ):
        assert words in page


def test_a_doubtful_survey_says_so_at_the_top(doubtful):
    page = render(doubtful)
    header = page[page.index("<header") : page.index("</header>")]
    assert "not converged above 2.0" in header
    assert "Rung means of the starts disagree" in header
    assert "2 of 7 checks failed" in page


def test_a_survey_without_rungs_data_or_pictures_is_still_a_page(example, tmp_path):
    bare = example.ising_example().drop_vars(["representative", "representative_output", "n_samples"])
    page = write_report(bare, tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    assert "Exact: every input was counted" in page
    assert not list(tmp_path.rglob("*.part"))


def test_a_saved_survey_and_a_tree_make_the_same_page(converged, page, tmp_path):
    tree = xr.DataTree.from_dict({"density": converged})
    assert render(tree) == page
    result = pytest.importorskip("theodolite.result")
    result.save(tree, tmp_path / "run")
    assert render(tmp_path / "run") == page


def test_words_of_a_survey_cannot_become_markup(example):
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    survey = example.ising_example().assign_attrs(
        model_name=nasty, observable_sentence=nasty, command=nasty, citations=json.dumps([nasty])
    )
    page = render(survey)
    assert "<img src=x" not in page
    assert "<script>alert(1)" not in page


def test_refusals(tmp_path, converged):
    with pytest.raises(UserError, match="density"):
        render(xr.Dataset(attrs={"instrument": "weather"}))
    with pytest.raises(UserError, match="directory"):
        write_report(converged, tmp_path)
    with pytest.raises(UserError):
        write_report(tmp_path / "nowhere", tmp_path / "report.html")


def test_a_report_needs_no_torch():
    code = "import sys, theodolite.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_many_sets_of_data_are_drawn_as_rows(converged):
    names = [f"test: {digit}" for digit in range(10)]
    counts = [converged["data_histogram"].values[digit % 2] for digit in range(10)]
    many = converged.drop_dims("data_set").assign_coords(data_set=names)
    many = many.assign(data_histogram=(("data_set", "level"), counts))
    drawn = density_figure(many)
    rows = [trace for trace in drawn.data if trace.type == "heatmap"]
    assert len(rows) == 1
    assert list(rows[0].y) == names
    assert abs(float(np.nansum(rows[0].z[0])) - 100) < 1e-9
    assert drawn.layout.height > density_figure(converged).layout.height


def test_the_figure_shows_the_numbers_of_the_survey(converged):
    curve = next(trace for trace in density_figure(converged).data if trace.hovertemplate)
    assert np.allclose(curve.y, converged["log_density_of_states"] - np.log(1.5))
    assert np.array_equal(curve.customdata, converged["log_density_error"])


def test_many_networks_are_counted_in_the_title_and_listed_beside_their_sections(converged):
    surveys = [converged.assign_attrs(model_name=name, date=f"2026-01-0{day}") for day, name in enumerate("cab", 1)]
    page = render(surveys)
    assert "<h1>3 surveys</h1>" in page and "2026-01-01 to 2026-01-03" in page
    assert "density: c\ndensity-2: a\ndensity-3: b" in page
    two = render(surveys[:2])
    assert "<h1>c; a</h1>" in two and "density: c" not in two
