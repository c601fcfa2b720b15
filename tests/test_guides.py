"""The Python examples of the guides run, one after another as a reader would, and say what the guide says."""

from __future__ import annotations

import re
from collections.abc import Callable
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
    },
    "boundary.md": {
        "nn.Linear(784, 24), nn.ReLU(), nn.Linear(24, 3)": "nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 3)",
        "[:12]": "[:4]",
        'targets="all", meeting=3)': 'targets="all", meeting=3, effort="quick")',
        "images[:4]": "images[:2]",
        "images[:2])": "images[:1])",
        "[:60]": "[:24]",
        "sizes=[20, 40]": "sizes=[8, 16]",
    },
}
# What each guide leaves behind: surveys, pages, and words that its examples print.
LEFT_BEHIND = {
    "landscape.md": (6, {"glass.html", "digits.html"}, "basins are deeper than"),
    "boundary.md": (4, {"boundary.html"}, "changed below the middle: 0.0 whole: True"),
}


def examples(guide: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (GUIDES / guide).read_text(), re.DOTALL | re.MULTILINE)


def quiet(measure: Callable[..., Any], surveys: list[Any]) -> Callable[..., Any]:
    """``measure`` without a progress line; what it gives is kept."""

    def measured(self, *given: Any, **options: Any) -> Any:
        surveys.append(measure(self, *given, **{**options, "progress": False}))
        return surveys[-1]

    return measured


@pytest.mark.parametrize("guide", SHORTER)
def test_examples_run_in_order(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    surveys = []
    for instrument in (th.Landscape, th.Boundary):
        monkeypatch.setattr(instrument, "measure", quiet(instrument.measure, surveys))
    scope: dict[str, object] = {}
    unused = dict(SHORTER[guide])
    for code in examples(guide):
        for long, short in SHORTER[guide].items():
            if long in code:
                code, _ = code.replace(long, short), unused.pop(long, None)
        exec(code, scope)
    assert not unused, f"the guide no longer says {sorted(unused)}"
    n_surveys, pages, words = LEFT_BEHIND[guide]
    assert len(surveys) >= n_surveys
    for survey in surveys:
        validate(survey)
    assert {path.name for path in tmp_path.glob("*.html")} == pages
    assert words in capsys.readouterr().out


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


def test_settings_and_constraints_of_the_boundary_guide_are_those_of_the_instrument():
    text = (GUIDES / "boundary.md").read_text()
    from theodolite.instruments.boundary import CERTIFICATES, EFFORTS, NORMS
    from theodolite.search.constraints import parse_constraints

    for name in (*CERTIFICATES, *EFFORTS, *NORMS):
        assert f"`{name}`" in text or f'"{name}"' in text, name
    settings = th.Boundary.__dataclass_fields__
    said = [*re.findall(r"`([a-z_]+)=(\"[a-zL0-9:,]+\")`", text), *re.findall(r"`(meeting)=([0-9]+)`", text)]
    assert len(said) >= 8
    for name, given in said:
        assert name in settings, name
        th.Boundary(**{name: given.strip('"') if '"' in given else int(given)})
    rows = re.findall(r"^\| `.*` \| (`.*`) \| .* \|$", text, re.MULTILINE)
    examples = [example for row in rows for example in re.findall(r"`([^`]+)`", row) if "Constraints" not in row]
    named = [example for example in examples if re.match(r"[a-z_]+(=[0-9]|$)", example) and "(" not in example]
    assert len(named) >= 10
    for example in named:
        assert not parse_constraints(example).empty, example
    for name in th.Constraints.__dataclass_fields__:
        assert f"`{name}=" in text, name
