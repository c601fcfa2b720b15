"""`result`: the schema against the architecture's table, and that a survey comes back as it was saved."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray

from theodolite import result
from theodolite.errors import UserError
from theodolite.result import SCHEMA, export, open_survey, provenance, save, validate

ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def survey() -> xarray.Dataset:
    """A result with a variable of every row of the density's schema."""
    sizes = {"level": 5, "level_edge": 6, "sample": 3, "data_set": 2, "rung": 4, "ladder": 2, "check": 3}
    generator = np.random.default_rng(0)
    names = {
        "data_set": ["test: 0", "train: zéro"],
        "ladder_start": ["noise", "zeros"],
        "check_name": ["swap rate", "overlap", "round trips"],
        "check_sentence": ["Neighbours swap.", "", 'A "long" sentence, with a comma.'],
        "verdict": "not converged",
        "verdict_sentence": "Not converged above 3: swaps fail.",
    }
    variables = {}
    for row in (row for row in SCHEMA if row.instrument == "density"):
        dims = (*row.dims[:-1], "point_0", "point_1") if row.dims[-1:] == ("point_*",) else row.dims
        shape = tuple(sizes.get(dim, 2) for dim in dims)
        values = names.get(row.name, generator.random(shape))
        variables[row.name] = (dims, np.asarray(values))
    variables["level"] = ("level", np.arange(5) + 0.5)
    variables["level_edges"] = ("level_edge", np.arange(6.0))
    variables["log_density_of_states"] = ("level", np.array([1.0, np.nan, -np.inf, 4346.5, 0.0]))
    variables["log_density_error"] = ("level", np.array([0.0, np.nan, 0.0, 0.1, 2.0]))
    variables["level_converged"] = ("level", np.array([True, False, True, True, False]))
    variables["n_samples"] = ("level", np.array([0, 1, 2**40, 3, 0]))
    variables["check_passed"] = ("check", np.array([1, 0, -1], np.int8))
    dims = ("level", "sample", "point_0", "point_1")
    variables["representative"] = (dims, generator.integers(0, 256, (5, 3, 2, 2)).astype(np.uint8))
    attributes = {
        "instrument": "density",
        "observable": "logit:1",
        "space": "grid:2x2:256",
        "method": "ladder",
    }
    attributes |= {"date": "2026-01-02T03:04:05+00:00"}
    attributes |= {"log_volume": np.float64(4 * np.log(256)), "probability": "sigmoid", "command": 'a "b" ü'}
    origin = provenance(settings={"seed": 1, "budget": "5 min"}, seed=2**63 - 1, evaluations=10**7, seconds=1.5)
    coordinates = {name: variables.pop(name) for name in ("level", "data_set")}
    return xarray.Dataset(variables, coordinates, attrs=origin | attributes)


def assert_same(found: xarray.Dataset, expected: xarray.Dataset) -> None:
    assert set(found.coords) == set(expected.coords)
    assert set(found.data_vars) == set(expected.data_vars)
    for name, values in expected.variables.items():
        assert found[name].dims == values.dims
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name].values, values.values)
    assert found.attrs == expected.attrs
    assert all(type(value) in (str, int, float) for value in found.attrs.values())


# Schema


@pytest.mark.parametrize(
    ("instrument", "heading"),
    [
        ("density", "## The density dataset"),
        ("landscape", "## The landscape dataset"),
        ("learning", "### The learning dataset"),
    ],
)
def test_the_schema_is_the_table_of_the_architecture(instrument: str, heading: str) -> None:
    table = ARCHITECTURE.read_text(encoding="utf8").split(heading)[1].split("\n## ")[0]
    documented = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4:
            continue
        names = re.findall(r"`(\w+)`", cells[0])
        units = cells[2].split(", ") if len(names) > 1 and "," in cells[2] else [cells[2]] * len(names)
        for name, unit in zip(names, units, strict=True):
            documented[name] = (tuple(dim for dim in cells[1].split(", ") if dim != "-"), unit)
    assert {row.name: (row.dims, row.unit) for row in SCHEMA if row.instrument == instrument} == documented


def test_attributes_are_those_of_the_architecture() -> None:
    line = ARCHITECTURE.read_text(encoding="utf8").split("\nAttributes:")[1].split("\n\n")[0]
    words = set(re.findall(r"`(\w+)`", line))
    assert words == set(result.ATTRIBUTES)


def test_every_row_has_a_unit_and_a_meaning_and_a_name_of_its_own() -> None:
    assert all(row.unit and row.meaning for row in SCHEMA)
    assert len({(row.instrument, row.name) for row in SCHEMA}) == len(SCHEMA)
    assert result.variable("density", "rung_mean").unit == "observable"
    with pytest.raises(UserError, match="'gradient'"):
        result.variable("density", "gradient")


def test_a_whole_and_a_minimal_result_are_valid() -> None:
    whole = survey()
    assert validate(whole) is whole
    optional = [row.name for row in SCHEMA if row.instrument == "density" and not row.required]
    validate(whole.drop_vars(optional))


WRONG = {
    "unknown variable": (lambda d: d.assign(score=("level", np.zeros(5))), "'score'"),
    "wrong dims": (lambda d: d.drop_vars("n_samples").assign(n_samples=("rung", np.zeros(4))), "n_samples"),
    "axes in disorder": (
        lambda d: d.assign(representative=d["representative"].transpose()),
        "representative",
    ),
    "no error": (lambda d: d.drop_vars("log_density_error"), "log_density_error"),
    "no verdict": (lambda d: d.drop_vars("verdict"), "verdict"),
    "an odd verdict": (lambda d: d.assign(verdict="fine"), "'fine'"),
    "no instrument": (lambda d: xarray.Dataset(d.variables), "instrument"),
    "another instrument": (lambda d: d.assign_attrs(instrument="sextant"), "'sextant'"),
    "no seed": (
        lambda d: d.drop_attrs().assign_attrs({k: v for k, v in d.attrs.items() if k != "seed"}),
        "seed",
    ),
    "an attribute that is a list": (lambda d: d.assign_attrs(citations=["a"]), "citations"),
    "edges that do not fit": (lambda d: d.isel(level=slice(0, 4)), "5 edges of 4 bins"),
    "edges in disorder": (lambda d: d.assign(level_edges=d["level_edges"] * -1), "rising"),
    "a centre outside": (lambda d: d.assign_coords(level=d["level"] + 1), "centres"),
    "a negative error": (lambda d: d.assign(log_density_error=d["log_density_error"] - 1), "at least 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_result_is_refused_and_not_saved(case: str, tmp_path: Path) -> None:
    change, words = WRONG[case]
    with pytest.raises(UserError, match=words):
        save(change(survey()), tmp_path)
    assert not list(tmp_path.iterdir())


# Provenance


@dataclasses.dataclass(frozen=True)
class Ladder:
    rungs: int = 12
    ends: tuple[float, ...] = (-52.0, 1e-300)


@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 3
    budget: str = 'five "minutes"\\\n\x7f'
    level: float | None = None
    fast: bool = False
    limit: float = float("inf")
    ladder: Ladder = Ladder()


def test_settings_are_toml_that_says_the_same() -> None:
    text = result.to_toml(Settings())
    assert tomllib.loads(text) == {
        "seed": 3,
        "budget": 'five "minutes"\\\n\x7f',
        "fast": False,
        "limit": float("inf"),
        "ladder": {"rungs": 12, "ends": [-52.0, 1e-300]},
    }
    nested = {"a b": 1, "c": {"d": {"e": [1, [True, "x"]]}}, "n": np.float64(0.5), "p": Path("q")}
    expected = {"a b": 1, "c": {"d": {"e": [1, [True, "x"]]}}, "n": 0.5, "p": "q"}
    assert tomllib.loads(result.to_toml(nested)) == expected


def test_provenance_says_where_a_result_comes_from_and_not_on_whose_machine() -> None:
    origin = provenance(settings=Settings(), seed=3, evaluations=5, seconds=2, citations=["Liu et al. 2023"])
    assert set(origin) <= set(result.ATTRIBUTES)
    assert set(json.loads(str(origin["versions"]))) == {"python", "theodolite", "torch", "numpy", "xarray"}
    assert json.loads(str(origin["citations"])) == ["Liu et al. 2023"]
    assert re.fullmatch(r"\d+ cores?, \w+ \w+", str(origin["machine"]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", str(origin["date"]))
    assert os.uname().nodename not in json.dumps(origin)


def test_results_need_no_torch() -> None:
    code = "import sys, theodolite.result; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Saving and opening


def test_a_survey_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    store = save(survey(), tmp_path / "run")
    assert store == tmp_path / "run" / "survey.zarr"
    for path in (tmp_path / "run", store, str(store)):
        assert_same(open_survey(path)["density"].to_dataset(), survey())


def test_text_of_any_kind_comes_back_as_text(tmp_path: Path) -> None:
    names = survey()["check_name"].values
    text = survey().assign(check_name=("check", names.astype(object)))
    save(text, tmp_path)
    assert_same(open_survey(tmp_path)["density"].to_dataset(), survey())


def test_a_result_without_samples_is_saved(tmp_path: Path) -> None:
    empty = survey().isel(sample=slice(0, 0), check=slice(0, 0))
    save(empty, tmp_path)
    export(tmp_path, tmp_path / "survey.nc")
    for path in (tmp_path, tmp_path / "survey.nc"):
        found = open_survey(path)["density"]
        assert found["representative"].shape == (5, 0, 2, 2)
        assert found["check_sentence"].shape == (0,)


def test_a_survey_survives_export_and_being_saved_again(tmp_path: Path) -> None:
    save(survey(), tmp_path / "run")
    file = export(tmp_path / "run", tmp_path / "out" / "survey.nc")
    again = open_survey(file)
    assert_same(again["density"].to_dataset(), survey())
    save(again, tmp_path / "copy")
    assert_same(open_survey(tmp_path / "copy")["density"].to_dataset(), survey())


def test_saving_again_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    save(survey(), tmp_path)
    save(survey().assign_attrs(seed=4), tmp_path)
    assert open_survey(tmp_path)["density"].attrs["seed"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["survey.zarr"]


def test_saving_leaves_the_callers_dataset_alone(tmp_path: Path) -> None:
    mine = survey()
    mine["level_edges"].encoding["note"] = "mine"
    before = mine.copy(deep=True)
    save(mine, tmp_path)
    xarray.testing.assert_identical(mine, before)
    assert type(mine.attrs["log_volume"]) is np.float64
    assert mine["level_edges"].encoding == {"note": "mine"}


def test_a_failed_save_leaves_the_former_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(survey(), tmp_path)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xarray.DataTree, "to_zarr", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(survey().assign_attrs(seed=4), tmp_path)
    assert_same(open_survey(tmp_path)["density"].to_dataset(), survey())
    assert [path.name for path in tmp_path.iterdir()] == ["survey.zarr"]


def test_what_is_no_survey_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "notes.nc").write_text("not a survey")
    (tmp_path / "empty.zarr").mkdir()
    for name in ("gone", "", "empty.zarr", "notes.nc"):
        with pytest.raises(UserError, match="survey: expected .*; ") as caught:
            open_survey(tmp_path / name)
        assert name in str(caught.value)
    xarray.DataTree().to_zarr(tmp_path / "bare.zarr", zarr_format=2)
    with pytest.raises(UserError, match="no groups"):
        open_survey(tmp_path / "bare.zarr")


@pytest.mark.parametrize(
    "part", ["log_density_of_states/0", "representative/0.0.0.0", "verdict/0", "level/.zarray", "level/0"]
)
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_survey_is_refused(part: str, damage: str, tmp_path: Path) -> None:
    path = save(survey(), tmp_path) / "density" / part
    if damage == "missing":
        path.unlink()
        (tmp_path / "survey.zarr" / ".zmetadata").unlink(missing_ok=part.startswith("level/."))
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        (tmp_path / "survey.zarr" / ".zmetadata").unlink()
    with pytest.raises(UserError, match=r"survey\.zarr"):
        open_survey(tmp_path)


def test_a_truncated_netcdf_file_is_refused(tmp_path: Path) -> None:
    save(survey(), tmp_path)
    file = export(tmp_path, tmp_path / "survey.nc")
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"survey\.nc, which is corrupt"):
        open_survey(file)


def test_export_overwrites_nothing_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_text("mine")
    save(survey(), tmp_path / "run")
    with pytest.raises(UserError, match="exists"):
        export(tmp_path / "run", tmp_path / "a.nc")
    with pytest.raises(UserError, match="gone"):
        export(tmp_path / "gone", tmp_path / "b.nc")
    assert (tmp_path / "a.nc").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nc", "run"]


def test_a_missing_netcdf_library_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(survey(), tmp_path)
    monkeypatch.setattr(result, "package_version", lambda name: "unknown" if name == "h5netcdf" else "1")
    with pytest.raises(UserError, match=r"no h5netcdf; run: pip install \"theodolite\[netcdf\]\""):
        export(tmp_path, tmp_path / "a.nc")
