"""The Python examples of the guides run, one after another as a reader would, and say what the guide says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import theodolite as th
from theodolite.result import validate

GUIDES = Path(__file__).parents[1] / "docs"
# Guides show settings worth using; here they are cut down to seconds.
SHORTER = {
    "landscape.md": {
        "spin_glass(100, seed=0)": "spin_glass(32, seed=0)",
        "n_minima=500": "n_minima=20",
        "spin_glass(20, seed=0)": "spin_glass(12, seed=0)",
        '(method="flood")': '(method="network", proposals=8)',
        "seed=0)\nlandscape": "0, EnergyTraining(batches=250))\nlandscape",
        "import digit_energy": "import EnergyTraining, digit_energy",
        "proposals=40": 'proposals=8, barriers="linear"',
    }
}


def examples(guide: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (GUIDES / guide).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("guide", SHORTER)
def test_examples_run_in_order(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    measure, surveys = th.Landscape.measure, []

    def measured(self, field, data=None, **options: Any):
        surveys.append(measure(self, field, data, **{**options, "progress": False}))
        return surveys[-1]

    monkeypatch.setattr(th.Landscape, "measure", measured)
    scope: dict[str, object] = {}
    unused = dict(SHORTER[guide])
    for code in examples(guide):
        for long, short in SHORTER[guide].items():
            if long in code:
                code, _ = code.replace(long, short), unused.pop(long, None)
        exec(code, scope)
    assert not unused, f"the guide no longer says {sorted(unused)}"
    assert len(surveys) >= 6
    for survey in surveys:
        validate(survey)
    assert {path.name for path in tmp_path.glob("*.html")} == {"glass.html", "digits.html"}
    assert "basins are deeper than" in capsys.readouterr().out


@pytest.mark.parametrize("guide", SHORTER)
def test_links_and_files_named_exist(guide):
    text = (GUIDES / guide).read_text()
    for target in re.findall(r"\]\(([^)#]+\.md)[^)]*\)", text):
        assert (GUIDES / target).exists(), target
    for script in re.findall(r"`((?:experiments|benchmarks)/[a-z_]+\.py)`", text):
        assert (GUIDES.parent / script).exists(), script


def test_methods_and_settings_of_the_guide_are_those_of_the_instrument():
    text = (GUIDES / "landscape.md").read_text()
    from theodolite.instruments.barriers import DISCRETE, REAL
    from theodolite.instruments.landscape import METHODS

    for name in (*METHODS, *DISCRETE, *REAL):
        assert f"`{name}`" in text, name
    settings = th.Landscape.__dataclass_fields__
    for name, given in re.findall(r"`([a-z_]+)=(\"[a-z]+\")`", text):
        assert name in settings, name
        th.Landscape(**{name: given.strip('"')})
