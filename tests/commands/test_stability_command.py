"""`theodolite stability` from flags to report: several networks by name, TOML, resume, dry run, and wrong flags."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from theodolite.cli import main
from theodolite.result import open_survey
from theodolite.run import Checkpoint, Status, read_checkpoint, write_checkpoint

MODULE = """
import torch
from torch import nn

class Inked(nn.Module):
    def __init__(self, tilt):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(3, 4) + tilt * torch.ones(3, 4).tril())
            self.layer.bias.zero_()

    def forward(self, x):
        return self.layer(x.flatten(1))

def upright():
    return Inked(0.0)

def tilted():
    return Inked(0.2)

def four():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
"""
FLAGS = ["stability", "--networks", "plain=inked:upright,tilted=inked:tilted", "--space", "box:1x2x2:0:1"]
FLAGS += ["--data", "data.npz", "--budget", "100000 evaluations", "--effort", "quick", "--images", "50"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "inked.py").write_text(MODULE)
    x = torch.rand((80, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=x.flatten(1)[:, :3].argmax(1).numpy())
    return tmp_path


def surveyed(name):
    return open_survey(name)["stability"].to_dataset()


def test_networks_are_surveyed_reported_and_told_again_from_the_settings(folder, capsys):
    assert main([*FLAGS, "--amplify", "0.1,0.2", "--noise", "0.3", "--out", "run"]) == 0
    told = capsys.readouterr().out
    assert "plain" in told and "tilted" in told and "omplete:" in told
    survey = surveyed("run")
    assert survey.network.values.tolist() == ["plain", "tilted"] and survey.sizes["image"] == 50
    assert survey.row_kind.values.tolist() == ["minimal"] * 2 + ["amplified"] * 4 + ["noise"]
    assert (folder / "run" / "report.html").exists() and "theodolite stability" in survey.attrs["command"]
    assert main(["stability", "--config", "run/settings.toml", "--out", "again"]) == 0
    assert surveyed("again").drop_attrs().identical(survey.drop_attrs())
    assert main(["resume", "run"]) == 0
    assert "has ended" in capsys.readouterr().out


def test_an_interrupted_run_is_resumed(folder):
    assert main([*FLAGS, "--out", "whole"]) == 0
    assert main([*FLAGS, "--out", "run"]) == 0
    checkpoint = folder / "run" / "stability.checkpoint.pt"
    saved = read_checkpoint(checkpoint)
    assert saved.status is Status.STOPPED
    state = type(saved.state)(saved.state.identity, saved.state.parts[:1])
    units = int(saved.state.parts[0].units.sum())
    write_checkpoint(checkpoint, Checkpoint(state, saved.generator_state, 0.1, units))
    assert main(["resume", "run"]) == 0
    assert surveyed("run").drop_attrs().identical(surveyed("whole").drop_attrs())


def test_weights_by_name(folder):
    other = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).repeat(3, 1)
    save_file({"layer.weight": other, "layer.bias": torch.tensor([1.0, 0.0, 0.0])}, "other.safetensors")
    flags = [*FLAGS, "--network-weights", "tilted=other.safetensors", "--out", "run"]
    assert main(flags) == 0
    survey = surveyed("run")
    assert survey.outcome.values[0].tolist().count("found") > 30
    assert set(survey.predicted_class.values[1].tolist()) == {0}


def test_a_dry_run_writes_nothing(folder, capsys):
    assert main([*FLAGS, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "Attack: method walk" in told and "Dry run: nothing was written." in told
    assert not (folder / "survey").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["stability"], "networks"),
        (["stability", "--networks", "inked:upright"], "NAME="),
        (["stability", "--networks", "a=inked:upright,a=inked:tilted"], "'a' twice"),
        (["stability", "--networks", "a=zoo:digits"], "zoo:digits"),
        ([*FLAGS, "--network-weights", "other=x.safetensors"], "'other'"),
        ([*FLAGS, "--images", "0"], "images"),
        ([*FLAGS, "--amplify", "much"], "amplify"),
        ([*FLAGS, "--noise", "-1"], "noise"),
        ([*FLAGS, "--budget", "0 s"], "budget"),
        ([*FLAGS, "--data-set", "validation"], "data_set"),
        ([*FLAGS, "--networks", "plain=inked:upright,other=inked:four"], "'plain' has 3, 'other' has 4"),
    ],
)
def test_wrong_flags_are_one_line_and_nothing_is_written(folder, capsys, flags, words):
    assert main([*flags, "--out", "run"]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
    assert not (folder / "run").exists()
