"""The command line: quick help, surveys of tiny fields end to end, one-line refusals that leave no trace."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch

import theodolite
from theodolite.cli import main
from theodolite.commands import rate, subject
from theodolite.commands.configuration import expand
from theodolite.embedding import OneHot
from theodolite.errors import UserError
from theodolite.network import Network
from theodolite.result import open_survey
from theodolite.space import Grid
from theodolite.systems import parse_system
from theodolite.zoo.networks import ToyCNN, initialised
from theodolite.zoo.training import PAPER_SETTINGS

MODELS = """
import torch
from torch import nn

class Inked(nn.Module):
    '''Class 1 where more than half of the pixels are set; z is 2 (sum - 2).'''
    def forward(self, x):
        return 2 * (x.flatten(1).sum(1, keepdim=True) - 2)

def inked(): return Inked()

def ten():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
"""
ISING = ["density", "--system", "ising:3", "--budget", "2000 evaluations"]
INKED = ["density", "--model", "tiny_models:inked", "--space", "grid:1x2x2:2", "--budget", "500 evaluations"]


@pytest.fixture(autouse=True)
def quick_rates(monkeypatch):
    """A batch is enough to time a field when no one reads the figure."""
    monkeypatch.setattr(rate, "PATIENCE", 0.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with tiny_models.py and data.npz: 2x2 binary images, labelled rightly."""
    (tmp_path / "tiny_models.py").write_text(MODELS)
    x = np.random.default_rng(0).integers(0, 2, (60, 2, 2))
    x = x[x.sum((1, 2)) != 2]
    y = (x.sum((1, 2)) > 2).astype(int)
    np.savez(tmp_path / "data.npz", x_test=x, y_test=y)
    np.savez(tmp_path / "turned.npz", x_test=1 - x, y_test=y)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("tiny_models", None)


def refused(capsys, flags, *parts):
    """`flags` end with exit code 2 and one line on standard error that has all `parts`."""
    capsys.readouterr()
    assert main(flags) == 2
    said = capsys.readouterr().err
    assert said.startswith("theodolite: ") and said.count("\n") == 1, said
    for part in parts:
        assert part in said, said


# -------- help --------


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'xarray', 'numba', 'plotly', 'scipy', 'zarr', 'sklearn'}"
    code = f"""
import sys
from theodolite.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    print('exit', done.code)
print('loaded', sorted({heavy} & set(sys.modules)))
"""
    for flags in (["--help"], ["density", "--help"], ["boundary", "--help"], ["--version"]):
        run = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
        assert run.stdout.rstrip().endswith("loaded []"), run.stdout
    assert theodolite.__version__ in run.stdout


def test_help_names_every_command_and_no_command_is_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for command in (
        "demo",
        "density",
        "landscape",
        "boundary",
        "learn",
        "resume",
        "report",
        "compare",
        "export",
        "inspect",
    ):
        assert command in said


def test_unknown_flags_exit_with_2(folder):
    with pytest.raises(SystemExit) as ended:
        main([*ISING, "--sede", "3"])
    assert ended.value.code == 2
    assert not (folder / "survey").exists()


# -------- surveys --------


def test_a_survey_of_a_system_is_reported_exported_and_resumed(folder, capsys):
    assert main([*ISING, "--seed", "3", "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "Report: " in said and "drawn at random" in said
    run = folder / "run"
    survey = open_survey(run)["density"].to_dataset()
    assert survey.attrs["seed"] == 3 and "theodolite density --system ising:3" in survey.attrs["command"]
    assert (run / "report.html").stat().st_size > 10_000
    settings = tomllib.loads((run / "settings.toml").read_text())
    assert settings["system"] == "ising:3" and settings["seed"] == 3 and settings["command"] == "density"

    page = (run / "report.html").read_bytes()
    assert main(["resume", "run"]) == 0
    assert "has ended" in capsys.readouterr().out and (run / "report.html").read_bytes() == page
    again = open_survey(run)["density"].to_dataset()
    assert again.equals(survey)

    (run / "report.html").unlink()
    assert main(["report", "run"]) == 0 and (run / "report.html").exists()
    assert main(["report", "run", "--out", "other.html"]) == 0 and (folder / "other.html").exists()
    refused(capsys, ["report", "run", "--out", "other.html"], "out", "other.html")
    assert main(["export", "run", "run.nc"]) == 0
    assert open_survey(folder / "run.nc")["density"].to_dataset().equals(survey)
    refused(capsys, ["export", "run", "run.nc"], "file", "run.nc")


def test_a_survey_of_a_module_with_data_predicts_first(folder, capsys):
    flags = [*INKED, "--data", "data.npz", "--classes", "0,1", "--out", "run"]
    assert main(flags) == 0
    said = capsys.readouterr().out
    assert "100.0%" in said and "test: 0" in said and "Warning" not in said
    assert said.index("test: 0") < said.index("Report: ")
    survey = open_survey("run")["density"].to_dataset()
    assert len(survey.attrs["model_hash"]) == 64
    settings = tomllib.loads((folder / "run" / "settings.toml").read_text())
    assert settings["model_hash"] == survey.attrs["model_hash"]
    assert settings["data"] == str(folder / "data.npz")


def test_the_model_of_a_resumed_survey_must_be_the_same(folder, capsys):
    assert main([*INKED, "--method", "uniform", "--out", "run"]) == 0
    settings = folder / "run" / "settings.toml"
    text = settings.read_text().replace("500 evaluations", "9000 evaluations")
    settings.write_text(text.replace(tomllib.loads(text)["model_hash"], "0" * 64))
    refused(capsys, ["resume", "run"], "model", "restore it")
    settings.write_text(text)
    assert main(["resume", "run"]) == 0
    assert open_survey("run")["density"].attrs["evaluations"] >= 9000


def test_a_broken_checkpoint_is_named_and_nothing_changes(folder, capsys):
    assert main([*ISING, "--out", "run"]) == 0
    checkpoint = folder / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:40])
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").iterdir()}
    refused(capsys, ["resume", "run"], "checkpoint")
    checkpoint.unlink()
    del before[checkpoint]
    refused(capsys, ["resume", "run"], "checkpoint")
    assert {path: path.stat().st_mtime_ns for path in (folder / "run").iterdir()} == before


def test_accuracy_at_chance_is_warned_of(folder, capsys):
    assert main([*INKED, "--data", "turned.npz", "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no better than chance" in said and "0.0%" in said


def test_a_dry_run_writes_nothing(folder, capsys):
    before = sorted(path.name for path in folder.iterdir())
    assert main([*INKED, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "nothing was written" in said and "evaluations a second" in said and "500 evaluations" in said
    after = sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")
    assert after == before


def test_many_outputs_give_log_odds(folder, capsys):
    flags = ["--model", "tiny_models:ten", "--space", "grid:1x2x2:4", "--observable", "log_odds:3"]
    assert main(["inspect", *flags]) == 0
    said = capsys.readouterr().out
    assert "Outputs: 10" in said and "log_odds:3" in said and "Layers: 0, 1" in said


def test_inspect_tells_what_a_field_offers(capsys):
    assert main(["inspect", "--system", "ising:4"]) == 0
    said = capsys.readouterr().out
    assert "multiples of 4" in said and "evaluations a second" in said


# -------- settings --------


def test_a_file_says_the_same_as_flags(folder, capsys):
    (folder / "run.toml").write_text('system = "ising:3"\nbudget = "2000 evaluations"\nseed = 5\nlevel-width = 4.0\n')
    assert main(["density", "--config", "run.toml", "--seed", "6", "--out", "run"]) == 0
    settings = tomllib.loads((folder / "run" / "settings.toml").read_text())
    assert settings["seed"] == 6 and settings["level_width"] == 4.0
    capsys.readouterr()
    assert main(["density", "--config=run/settings.toml", "--out", "again"]) == 0
    again = tomllib.loads((folder / "again" / "settings.toml").read_text())
    assert again == settings


def test_files_stand_for_their_flags(tmp_path):
    (tmp_path / "c.toml").write_text("low = -20.5\ndry_run = true\noverwrite = false\nclasses = [0, 1]\n")
    flags = expand(["density", "--seed", "1", "--config", str(tmp_path / "c.toml")])
    assert flags == ["density", "--low=-20.5", "--dry-run", "--classes=0,1", "--seed", "1"]
    with pytest.raises(UserError, match="inspect"):
        expand(["inspect", "--config", str(tmp_path / "c.toml")])


@pytest.mark.parametrize(
    ("text", "part"),
    [("sede = 3", "sede"), ("seed = ", "TOML"), ("[seed]\na = 1", "table"), ('command = "demo"', "demo")],
)
def test_wrong_files_are_refused(folder, capsys, text, part):
    (folder / "c.toml").write_text(text)
    refused(capsys, ["density", "--config", "c.toml"], "config", part)
    refused(capsys, ["density", "--config", "gone.toml"], "config", "gone.toml")


# -------- refusals --------


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["density"], ["model", "--system or --model"]),
        (["density", "--system", "ising:3", "--model", "tiny_models:ten"], ["both"]),
        (["density", "--system", "icing:3"], ["system", "icing"]),
        (["density", "--system", "ising:3", "--space", "spins:9"], ["space", "leave --space out"]),
        ([*ISING, "--budget", "0 s"], ["budget"]),
        ([*ISING, "--budget", "soon"], ["budget", "soon"]),
        ([*ISING, "--method", "guess"], ["method", "guess"]),
        (["density", "--model", "tiny_models:inked"], ["space", "grid:1x28x28:256"]),
        (["density", "--model", "tiny_models:inked", "--space", "grid:2"], ["space"]),
        ([*INKED, "--embedding", "scale"], ["embedding"]),
        ([*INKED, "--observable", "logit:7"], ["observable"]),
        ([*INKED, "--observable", "unit:nowhere:0"], ["layer", "nowhere"]),
        ([*INKED, "--data", "gone.npz"], ["data", "gone.npz"]),
        ([*INKED, "--data", "data.npz", "--classes", "0,5"], ["classes", "5"]),
        ([*INKED, "--data", "data.npz", "--classes", "0;1"], ["classes", "0;1"]),
        (
            ["density", "--model", "tiny_models:inked", "--space", "grid:1x3x3:2", "--data", "data.npz"],
            ["(1, 3, 3)"],
        ),
        (["density", "--model", "zoo:vgg"], ["zoo:cnn"]),
        (["density", "--model", "zoo:cnn", "--space", "grid:1x28x28:256"], ["space"]),
        (["density", "--model", "weights.pt", "--space", "grid:4:2"], ["pickle"]),
        (["resume", "."], ["settings.toml"]),
        (["report", "nowhere"], ["survey", "nowhere"]),
        (["export", "nowhere", "file.nc"], ["survey", "nowhere"]),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(folder, capsys, flags, parts):
    before = sorted(path.name for path in folder.iterdir())
    refused(capsys, flags, *parts)
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_a_folder_that_exists_is_kept(folder, capsys):
    (folder / "run").mkdir()
    (folder / "run" / "diary.txt").write_text("dear diary")
    refused(capsys, [*ISING, "--out", "run"], "out", "--overwrite")
    refused(capsys, [*ISING, "--out", "run", "--overwrite"], "overwrite", "earlier survey")
    assert main([*ISING, "--out", "new"]) == 0
    (folder / "new" / "notes.txt").write_text("mine")
    first = (folder / "new" / "settings.toml").read_text()
    refused(capsys, [*ISING, "--seed", "1", "--out", "new"], "out")
    assert (folder / "new" / "settings.toml").read_text() == first
    assert main([*ISING, "--seed", "1", "--out", "new", "--overwrite"]) == 0
    assert (folder / "new" / "settings.toml").read_text() != first
    assert (folder / "new" / "notes.txt").read_text() == "mine"
    assert (folder / "run" / "diary.txt").read_text() == "dear diary"


def test_a_budget_is_refused_before_any_training(folder, capsys, monkeypatch):
    monkeypatch.setattr(subject, "train", lambda *_: pytest.fail("trained"))
    refused(capsys, ["demo", "--budget", "0 s"], "budget")
    (folder / "demo").mkdir()
    refused(capsys, ["demo"], "out", "demo")


def test_the_zoo_trains_keeps_its_weights_and_resumes_without_training(folder, capsys, monkeypatch):
    flags = [
        "density",
        "--model",
        "zoo:toy",
        "--budget",
        "3000 evaluations",
        "--method",
        "ladder",
        "--out",
        "toy",
    ]
    quick = {name: replace(s, epochs=1) for name, s in PAPER_SETTINGS.items()}
    monkeypatch.setattr(subject, "PAPER_SETTINGS", quick)
    assert main(flags) == 0
    assert "the paper's network: 99.7%" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(subject, "train", lambda *_: pytest.fail("trained again"))
    settings = folder / "toy" / "settings.toml"
    begun = open_survey("toy")["density"].attrs["evaluations"]
    settings.write_text(settings.read_text().replace("3000 evaluations", f"{begun + 1000} evaluations"))
    assert main(["resume", "toy"]) == 0
    assert open_survey("toy")["density"].attrs["evaluations"] >= begun + 1000
    settings.write_text(settings.read_text().replace(f"{begun + 1000} evaluations", "900000 evaluations"))
    (folder / "toy" / "model.safetensors").write_bytes(b"cut")
    refused(capsys, ["resume", "toy"], "model.safetensors")


def test_data_of_many_inputs_are_drawn(folder):
    x = torch.arange(3000).reshape(3000, 1)
    loaded = subject.Loaded(field=None, network=None, sets={"all": (x, None)}, labels=())  # type: ignore[arg-type]
    drawn = loaded.by_class(seed=1)["all"]
    assert len(drawn) == 1000 and len(drawn.unique()) == 1000
    assert torch.equal(drawn, loaded.by_class(seed=1)["all"])


@pytest.mark.parametrize(
    ("system", "has_gradient"), [("table:1", False), ("linear:0", True), ("latent:3", True), ("box:3", True)]
)
def test_rates_are_measured_with_the_gradient_a_field_has(system, has_gradient):
    measured = rate.measure_rate(parse_system(system))
    assert measured.value > 0 and (measured.gradient is not None) == has_gradient


def test_rates_of_a_network_of_one_hot_images():
    network = Network(initialised(ToyCNN, 0), Grid((1, 5, 5), 2), OneHot(), classes=["0", "1"])
    measured = rate.measure_rate(network.logit(1))
    assert measured.value > 0 and measured.gradient is not None and measured.gradient > 0


# -------- landscapes --------


def test_a_landscape_is_mapped_reported_and_resumed(folder, capsys):
    flags = ["landscape", "--system", "spin_glass:10:3", "--out", "map"]
    assert main([*flags, "--dry-run"]) == 0
    assert "all 1,024 states enumerated" in capsys.readouterr().out and not (folder / "map").exists()
    assert main(flags) == 0
    said = capsys.readouterr().out
    assert "Exact: all 1,024 states" in said and (folder / "map" / "report.html").exists()
    survey = open_survey(folder / "map")["landscape"].to_dataset()
    settings = tomllib.loads((folder / "map" / "settings.toml").read_text())
    assert settings["command"] == "landscape" and settings["system"] == "spin_glass:10:3"
    assert main(["resume", "map"]) == 0
    assert "has ended" in capsys.readouterr().out
    assert open_survey(folder / "map")["landscape"].to_dataset().equals(survey)
    refused(capsys, flags, "out")


def test_two_landscapes_are_compared_on_one_page(folder, capsys):
    for name, method in (("one", "exact"), ("other", "network")):
        assert main(["landscape", "--system", "spin_glass:10:3", "--method", method, "--out", name]) == 0
    assert main(["compare", "one", "other", "--out", "both.html"]) == 0
    page = (folder / "both.html").read_text(encoding="utf-8")
    assert "exact (watershed)" in page and "overlay" in page
    refused(capsys, ["compare", "one", "other", "--out", "both.html"], "out")
    refused(capsys, ["compare", "one", "nothing"], "survey")


def test_a_network_is_mapped_and_its_minima_named(folder):
    flags = ["landscape", "--model", "tiny_models:inked", "--space", "grid:1x2x2:2", "--observable", "logit:1"]
    assert main([*flags, "--out", "map"]) == 0
    survey = open_survey("map")["landscape"].to_dataset()
    assert survey.energy.values.tolist() == [-4.0] and survey.minimum_label.values.tolist() == ["0"]


def test_a_landscape_in_the_latent_space_of_a_generator(folder, capsys):
    (folder / "tiny_generator.py").write_text(
        "from torch import nn\ndef generator(): return nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (1, 2, 2)))\n"
    )
    flags = ["landscape", "--model", "tiny_models:inked", "--space", "box:1x2x2:-9:9", "--observable", "logit:1"]
    latent = [*flags, "--generator", "tiny_generator:generator", "--proposals", "8"]
    try:
        assert main([*latent, "--latent", "2", "--out", "map"]) == 0
        survey = open_survey("map")["landscape"].to_dataset()
        # a slope and a parabola have one minimum
        assert survey.sizes["minimum"] == 1 and survey.attrs["space"] == "latent:2"
        refused(capsys, [*latent, "--out", "other"], "latent")
        refused(capsys, [*latent, "--latent", "3", "--out", "other"], "generator")
        refused(capsys, [*flags, "--latent", "2", "--out", "other"], "latent")
    finally:
        sys.modules.pop("tiny_generator", None)


@pytest.mark.parametrize(
    ("flags", "argument"),
    [
        (["--alpha", "-1"], "alpha"),
        (["--temperature", "0"], "temperature"),
        (["--method", "guess"], "method"),
        (["--budget", "0 s"], "budget"),
        (["--n-minima", "1"], "n_minima"),
        (["--barriers", "magic"], "barriers"),
        (["--system", "spin_glass:1"], "n"),
        (["--system", "surface:flat"], "surface"),
    ],
)
def test_landscapes_refuse_in_one_line_and_leave_no_trace(folder, capsys, flags, argument):
    refused(capsys, ["landscape", "--system", "spin_glass:8", *flags], argument)
    assert not (folder / "survey").exists()


# -------- boundaries --------

BOUNDARY = ["boundary", "--model", "tiny_models:inked", "--space", "box:1x2x2:0:1", "--budget", "100000 evaluations"]


@pytest.fixture
def grey(folder):
    """data.npz with 40 grey 2x2 images to train on and 12 to test, labelled rightly but for one."""
    x = np.random.default_rng(0).random((52, 2, 2)).astype(np.float32)
    y = (x.sum((1, 2)) > 2).astype(int)
    y[45] = 1 - y[45]
    np.savez(folder / "data.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return folder


def test_a_boundary_is_surveyed_reported_and_resumed(grey, capsys):
    flags = [*BOUNDARY, "--data", "data.npz", "--images", "8", "--seed", "2", "--targets", "all"]
    assert main([*flags, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "8 of 8 inputs" in said and "Reference points: 40" in said and "nothing was written" in said
    assert not (grey / "survey").exists()
    assert main([*flags, "--out", "run"]) == 0
    assert "Report: " in capsys.readouterr().out and (grey / "run" / "report.html").stat().st_size > 10_000
    survey = open_survey("run")["boundary"].to_dataset()
    # z = 2 (sum - 2) is 0 at distance |sum - 2| / 2 where the box does not interfere, farther where it does
    sums = survey.input.values.astype(float).sum((1, 2, 3))
    assert survey.sizes["image"] == 8 and (survey.distance.values >= abs(sums - 2) / 2 - 1e-9).all()
    assert (survey.distance_lower_bound <= survey.distance).all()
    assert survey.attrs["reference"] == 40 and survey.predicted_class.values.tolist() == (sums > 2).astype(int).tolist()
    assert main(["resume", "run"]) == 0
    assert "has ended" in capsys.readouterr().out
    assert main(["boundary", "--config", "run/settings.toml", "--out", "again"]) == 0
    assert open_survey("again")["boundary"].to_dataset().equals(survey)


def test_an_interrupted_boundary_is_resumed(grey, capsys):
    flags = [*BOUNDARY, "--data", "data.npz", "--data-set", "train", "--certificate", "none", "--effort", "quick"]
    assert main([*flags, "--out", "whole"]) == 0
    assert main([*flags, "--budget", "10 evaluations", "--targets", "1:0", "--out", "run"]) == 0
    assert "pairs were left when the budget was spent" in capsys.readouterr().out
    settings = grey / "run" / "settings.toml"
    settings.write_text(settings.read_text().replace("10 evaluations", "100000 evaluations"))
    assert main(["resume", "run"]) == 0
    survey, whole = (open_survey(name)["boundary"].to_dataset() for name in ("run", "whole"))
    assert survey.sizes["image"] == 40 and survey.attrs["reference"] == 0
    assert survey.input.equals(whole.input) and survey.distance.values == pytest.approx(whole.distance.values)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["boundary"], ["model", "--model"]),
        (BOUNDARY, ["data", "--data FILE"]),
        ([*BOUNDARY, "--data", "data.npz", "--data-set", "gone"], ["data_set", "test"]),
        ([*BOUNDARY, "--data", "data.npz", "--targets", "0:7"], ["targets", "0:7"]),
        ([*BOUNDARY, "--data", "data.npz", "--constraints", "frozen=1"], ["constraints", "frozen"]),
    ],
)
def test_boundaries_refuse_in_one_line_and_leave_no_trace(grey, capsys, flags, parts):
    refused(capsys, flags, *parts)
    assert not (grey / "survey").exists()
