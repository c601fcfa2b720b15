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
    "stability.md": {
        "[:100]": "[:20]",
        "[:80]": "[:16]",
        "100, 100, 10": "30, 30, 10",
        "(784, 100, 10)": "(784, 20, 10)",
        "(784, 150, 10)": "(784, 30, 10)",
        "range(100)": "range(40)",
        "epochs=15": "epochs=3",
        "amplify=0.1)": 'amplify=0.1, effort="quick")',
    },
    "units.md": {
        "range(60)": "range(20)",
        'Units(layer="2")': 'Units(layer="2", permutations=99, flips=8)',
        "flips=0": "flips=0, permutations=99",
    },
    "ensembles.md": {
        "epochs=20": "epochs=3",
        # Whether a few seconds reach any level hangs on the machine.
        'th.Density(seed=0, budget="20 s").measure(single.log_odds(0))': "None",
        "train_members(5": "train_members(3",
        "[:200]": "[:60]",
        "Ensemble(seed=0)": "Ensemble(seed=0, resamples=100)",
    },
    "learning.md": {
        'seed=0, budget="5 min")': "warm_updates=60, updates=40, widths=(32,), components=8, **quick)",
        "learning = th": "quick = {'long_steps': 100, 'long_chains': 60}\nlearning = th",
        '**recipe("plane")': '**{**recipe("plane"), "updates": 60, **quick}',
        "3e5 evaluations": "6e4 evaluations",
        "steps=100": "steps=10",
        'proposals=60, budget="60 s"': "proposals=4, barriers='linear', improvement_limit=20",
    },
    "lipschitz.md": {"range(30)": "range(5)", "radius=(0.1, 0.5))": 'radius=(0.1, 0.5), budget="900 evaluations")'},
}
# What each guide leaves behind: surveys, pages, and words that its examples print.
LEFT_BEHIND = {
    "landscape.md": (6, {"glass.html", "digits.html"}, "basins are deeper than"),
    "boundary.md": (4, {"boundary.html"}, "changed below the middle: 0.0 whole: True"),
    "learning.md": (5, {"learned.html", "map.html"}, "from the density of states"),
    "lipschitz.md": (2, {"slopes.html"}, "because of LayerNorm"),
    "stability.md": (3, {"stability.html"}, "made for softmax, amplified to 0.1"),
    "units.md": (3, {"units.html"}, "after Holm's correction"),
    "ensembles.md": (1, {"ensemble.html"}, "a calibrated network would show"),
}


def examples(guide: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (GUIDES / guide).read_text(), re.DOTALL | re.MULTILINE)


def quiet(measure: Callable[..., Any], surveys: list[Any]) -> Callable[..., Any]:
    """``measure`` without a progress line; what it gives is kept."""

    def measured(self, *given: Any, **options: Any) -> Any:
        surveys.append(measure(self, *given, **{**options, "progress": False}))
        return surveys[-1]

    return measured


def quiet_fit(fit: Callable[..., Any], surveys: list[Any]) -> Callable[..., Any]:
    """The same of `Learning.fit`, which gives a model as well."""

    def fitted(self, *given: Any, **options: Any) -> Any:
        model, survey = fit(self, *given, **{**options, "progress": False})
        surveys.append(survey)
        return model, survey

    return fitted


@pytest.mark.parametrize("guide", SHORTER)
def test_examples_run_in_order(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    surveys = []
    for instrument in (th.Landscape, th.Boundary, th.Units, th.Ensemble, th.Stability, th.Lipschitz, th.Density):
        monkeypatch.setattr(instrument, "measure", quiet(instrument.measure, surveys))
    monkeypatch.setattr(th.Learning, "fit", quiet_fit(th.Learning.fit, surveys))
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


def test_settings_of_the_units_guide_are_those_of_the_instrument():
    text = (GUIDES / "units.md").read_text()
    from theodolite.instruments.unit_activations import POSITIONS
    from theodolite.instruments.unit_comparison import LESS, MORE, NONE, OPEN

    settings = th.Units.__dataclass_fields__
    for name in ("layer", "top", "n_random", "permutations", "positions", "flips"):
        assert name in settings and f"`{name}" in text, name
    for name in POSITIONS:
        assert f'"{name}"' in text, name
    assert all(f'"{word}"' in text for word in (MORE, LESS, NONE, OPEN))


def test_settings_of_the_ensembles_guide_are_those_of_the_instrument():
    text = (GUIDES / "ensembles.md").read_text()
    from theodolite.instruments.calibration import MEASURES
    from theodolite.instruments.ensemble_findings import QUESTIONS

    for name, given in re.findall(r"`([a-z]+)=([0-9.]+)`", text):
        assert float(given) == getattr(th.Ensemble(), name), name
    for name in QUESTIONS:
        assert f'"{name}"' in text, name
    for name in MEASURES:
        assert name.partition(",")[0].lower() in text.lower(), name


def test_recipes_checks_and_flags_of_the_learning_guide_are_those_there_are():
    text = (GUIDES / "learning.md").read_text()
    from theodolite.commands.learn_arguments import LearnCommand
    from theodolite.instruments import learning_verdict as verdict
    from theodolite.learning.recipes import recipe_names

    for name in recipe_names():
        assert f"`{name}`" in text, name
    for beginning, (low, high) in {
        "energy": verdict.LIMITS[verdict.ENERGY],
        "spread of energies": verdict.LIMITS[verdict.DEVIATION],
        "classes": verdict.LIMITS[verdict.CLASSES],
        "features": verdict.LIMITS[verdict.FRECHET],
        "law of energies": verdict.LIMITS[verdict.KOLMOGOROV],
        "no drift": verdict.DRIFT,
        "held-out energy": verdict.HELD_OUT,
    }.items():
        [row] = re.findall(rf"^\| {beginning}(?:,[^|]*)? \|([^|]*)\|", text, re.MULTILINE)
        assert f"{high:g}" in row and (low in (0, -high) or f"{low:g}" in row), beginning
    for name in set(re.findall(r"theodolite learn .*?--([a-z-]+)", text)) | set(re.findall(r"`--([a-z-]+)", text)):
        assert name.replace("-", "_") in LearnCommand.__dataclass_fields__, name
    settings = th.Learning.__dataclass_fields__
    for name in re.findall(r"`([a-z_]+)=", text):
        assert name in settings, name
    assert set(settings) <= set(LearnCommand.__dataclass_fields__)
