"""`theodolite learn` from flags to report and on to a map: TOML, resume, dry run, recipes, and wrong flags."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import theodolite as th
from theodolite.cli import main
from theodolite.result import open_survey

QUICK = ["--widths", "16", "--components", "4", "--batch", "32", "--warm-updates", "40", "--updates", "40"]
QUICK += ["--steps", "5", "--long-steps", "0", "--long-chains", "40", "--size", "8"]
FLAGS = ["learn", "--data", "bars.npz", "--images", "200", "--held-out", "50", *QUICK]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Upright bars (class 3) and level ones (class 7) at different places."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    x = generator.integers(0, 60, (300, 8, 8))
    y = np.repeat([3, 7], 150)
    for image, label, place in zip(x, y, generator.integers(0, 7, 300), strict=True):
        bar = image[:, place : place + 2] if label == 3 else image[place : place + 2]
        bar += 180
    np.savez(tmp_path / "bars.npz", x=x, y=y)
    return tmp_path


def learned(name):
    return open_survey(name)["learning"].to_dataset()


def test_an_energy_is_learned_judged_reported_told_again_from_the_settings_and_mapped(folder, capsys):
    assert main([*FLAGS, "--classes", "7,3", "--long-steps", "100", "--out", "run"]) == 0
    told = capsys.readouterr().out
    assert "Learned from: 200 of 1x8x8, values -1 to " in told and "held out: 50" in told
    assert "Of each class: 7 " in told and ", 3 " in told
    survey = learned("run")
    assert str(survey.verdict_sentence.item()) in told.replace("\n", " ")
    assert survey.sizes["update"] == 40 and survey.attrs["n_images"] == 200 and survey.attrs["n_held_out"] == 50
    assert "theodolite learn" in survey.attrs["command"] and (folder / "run" / "report.html").exists()
    assert main(["learn", "--config", "run/settings.toml", "--out", "again"]) == 0
    assert learned("again").drop_attrs().identical(survey.drop_attrs())
    assert main(["resume", "run"]) == 0
    assert "has ended" in capsys.readouterr().out
    model = th.load_energy("run/energy.safetensors")
    kept = np.load("run/images.npz")
    assert model.frame.image_shape == (1, 8, 8) and kept["x"].shape == (200, 1, 8, 8)
    upright = kept["x"].mean((1, 2)).std(1) > kept["x"].mean((1, 3)).std(1)
    assert (kept["y"] == np.where(upright, 3, 7)).all()
    assert set(survey.class_name.values) == {"3", "7"}
    [line] = [line for line in told.splitlines() if line.startswith("Map it: theodolite landscape ")]
    flags = line.removeprefix("Map it: theodolite ").split()
    assert "7,3" in flags and main([*flags, "--dry-run"]) == 0


def test_a_run_that_its_budget_ended_goes_on_to_the_same_end_with_the_same_images_alone(folder, capsys):
    assert main([*FLAGS, "--budget", "1e9 evaluations", "--out", "whole"]) == 0
    assert main([*FLAGS, "--budget", "4000 evaluations", "--out", "run"]) == 0
    assert learned("run").sizes.get("update", 0) < 40
    settings = folder / "run" / "settings.toml"
    settings.write_text(settings.read_text().replace("4000 evaluations", "1e9 evaluations"))
    kept = (folder / "bars.npz").read_bytes()
    np.savez("bars.npz", x=255 - np.load("bars.npz")["x"], y=np.load("bars.npz")["y"])
    assert main(["resume", "run"]) == 2
    assert "images, labels and settings" in capsys.readouterr().err
    (folder / "bars.npz").write_bytes(kept)
    assert main(["resume", "run"]) == 0
    assert learned("run").drop_attrs().identical(learned("whole").drop_attrs())


def test_noise_scales_bring_exponents_and_their_pictures_into_the_report(folder):
    flags = [*FLAGS, "--noise-scales", "2,0.5", "--noise-time", "0.02", "--out", "run"]
    assert main(flags) == 0
    survey = learned("run")
    assert survey.noise_scale.values.tolist() == [2.0, 0.5]
    assert (survey.lyapunov_exponent_low <= survey.lyapunov_exponent_high).all()
    # Four components: the short run's grey values spread with the noise that drives them.
    spread = survey.noise_scale_image.std(("example", "image_0", "image_1", "image_2")).values
    assert spread[0] > spread[1]
    page = (folder / "run" / "report.html").read_text()
    assert "γ = 0.5" in page and "γ = 2" in page


def test_a_folder_of_image_files_without_classes_and_one_texture(folder):
    arrays = np.load("bars.npz")
    (folder / "files").mkdir()
    for k, image in enumerate(arrays["x"][::3]):
        Image.fromarray(image.astype(np.uint8)).save(folder / "files" / f"{k}.png")
    assert main(["learn", "--data", "files", "--held-out", "0", *QUICK, "--out", "run"]) == 0
    assert all("cluster" in str(name) for name in learned("run").class_name.values)
    Image.fromarray(np.tile(arrays["x"][0].astype(np.uint8), (5, 9))).save("wall.png")
    assert (
        main(
            [
                "learn",
                "--data",
                "wall.png",
                "--patch",
                "8,16",
                "--images",
                "100",
                "--held-out",
                "0",
                *QUICK,
                "--out",
                "wall",
            ]
        )
        == 0
    )
    assert learned("wall").attrs["n_images"] == 100
    assert learned("wall").class_name.values.tolist() == ["8 pixels", "16 pixels"]


@pytest.mark.parametrize("labels", [[0, 1, 2] * 4, [-1, 0, 1] * 4])
def test_labels_without_a_name_are_refused_where_names_are_given(labels):
    images = torch.rand((12, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    with pytest.raises(th.UserError, match="class_names: expected one a label"):
        th.Learning().fit(images, labels=torch.tensor(labels), class_names=["a", "b"], progress=False)


def test_a_dry_run_tells_the_settings_and_the_time_and_writes_nothing(folder, capsys):
    flags = [
        *FLAGS,
        "--recipe",
        "contraction only",
        "--energy",
        "mlp",
        "--prior",
        "2",
        "--step-size",
        "0.1",
        "--betas",
        "0,0.9",
    ]
    assert main([*flags, "--noise-scales", "0.5,1", "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Then noise scales 0.5, 1, 25 units of time each" in told
    assert "40 of maximum likelihood" in told and "step 0.1 input units" in told and "about " in told
    assert "Dry run: nothing was written." in told and not (folder / "survey").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([*FLAGS, "--data", "none.npz"], "none.npz"),
        ([*FLAGS, "--size", "0"], "size"),
        ([*FLAGS, "--size", "9"], "size: expected at most 8"),
        ([*FLAGS, "--images", "1"], "images"),
        ([*FLAGS, "--held-out", "-1"], "held_out"),
        ([*FLAGS, "--classes", "3,9"], "classes"),
        ([*FLAGS, "--labels", "labels.txt"], "labels: expected 300, one an image, got 2"),
        (["learn", "--labels", "labels.txt"], "labels"),
        ([*FLAGS, "--data", "empty"], "which has none"),
        ([*FLAGS, "--data", "alike.npz"], "alike"),
        ([*FLAGS, "--data", "single.npz"], "one image"),
        ([*FLAGS, "--data", "outside.npz"], "values from 0 to 400"),
        ([*FLAGS, "--recipe", "best"], "convergent"),
        ([*FLAGS, "--schedule", "adamw:1"], "schedule"),
        ([*FLAGS, "--widths", "many"], "widths"),
        ([*FLAGS, "--widths", "0"], "widths"),
        ([*FLAGS, "--components", "99"], "components"),
        ([*FLAGS, "--components", "few"], "components"),
        ([*FLAGS, "--prior", "wide"], "prior"),
        ([*FLAGS, "--betas", "0.5"], "betas"),
        ([*FLAGS, "--step-size", "-1"], "step_size"),
        ([*FLAGS, "--dynamics", "langevin"], "step_size"),
        ([*FLAGS, "--budget", "0 s"], "budget"),
        ([*FLAGS, "--patch", "x"], "patch"),
        ([*FLAGS, "--noise-scales", "some"], "noise_scales"),
        ([*FLAGS, "--noise-scales", "1,-1"], "noise_scales"),
        ([*FLAGS, "--noise-scales", "1", "--noise-time", "0"], "noise_time"),
    ],
)
def test_wrong_flags_are_one_line_and_nothing_is_written(folder, capsys, flags, words):
    (folder / "labels.txt").write_text("a\nb\n")
    (folder / "empty").mkdir()
    np.savez("alike.npz", x=np.full((50, 8, 8), 9))
    np.savez("single.npz", x=np.arange(64).reshape(1, 8, 8))
    np.savez("outside.npz", x=np.arange(50 * 64).reshape(50, 8, 8) % 401)
    assert main([*flags, "--out", "run"]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
    assert not (folder / "run").exists()


def test_grey_levels_are_learned_by_gibbs_sampling(folder, capsys):
    flags = ["learn", "--data", "bars.npz", "--images", "100", "--held-out", "20", "--size", "4", "--widths", "8"]
    flags += ["--warm-updates", "5", "--updates", "5", "--steps", "1", "--batch", "16", "--long-steps", "0"]
    assert main([*flags, "--dynamics", "gibbs", "--levels", "3", "--out", "grey"]) == 0
    survey = learned("grey")
    assert survey.attrs["levels"] == 3 and survey["acceptance"].isnull().all()
    assert th.load_energy("grey/energy.safetensors").space.spec() == "grid:1x4x4:3"
    told = capsys.readouterr().out
    [line] = [line for line in told.splitlines() if line.startswith("Map it: theodolite landscape ")]
    assert main([*line.removeprefix("Map it: theodolite ").split(), "--dry-run"]) == 0
    assert main([*flags, "--dynamics", "gibbs", "--dry-run"]) == 0
    assert "gibbs over 8 grey levels" in capsys.readouterr().out.replace("\n", " ")
    assert main([*flags, "--levels", "3", "--out", "none"]) == 2
    assert "levels" in capsys.readouterr().err
