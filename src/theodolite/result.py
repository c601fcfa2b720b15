"""What a result may hold, row by row, with its provenance, and how it is saved and opened.

A variable enters a result only with a row in `SCHEMA`: checks, documentation and captions come from that row.
Nothing here imports torch: a result is read anywhere.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray
import zarr

from theodolite.errors import UserError

STORE = "survey.zarr"
VERDICTS = ("exact", "bracketed", "converged", "not converged")
CHECK_RESULTS = {1: "yes", 0: "no", -1: "not tested"}


@dataclass(frozen=True)
class Variable:
    """A row of the schema. Dim ``point_*`` stands for ``point_0``, ``point_1``, ...: the axes of a point."""

    instrument: str
    name: str
    dims: tuple[str, ...]
    unit: str
    meaning: str
    required: bool = False


def _density(name: str, dims: str, unit: str, meaning: str, required: bool = False) -> Variable:
    return Variable("density", name, tuple(dims.split()), unit, meaning, required)


def _landscape(name: str, dims: str, unit: str, meaning: str, required: bool = False) -> Variable:
    return Variable("landscape", name, tuple(dims.split()), unit, meaning, required)


_DENSITY = (
    _density("level", "level", "observable", "centre of the bin", True),
    _density("level_edges", "level_edge", "observable", "edges of the bins", True),
    _density(
        "log_density_of_states",
        "level",
        "nats",
        "ln of the number of inputs (or volume) in the bin; NaN: not reached; -inf: proven empty",
        True,
    ),
    _density("log_density_error", "level", "nats", "calibrated 95% half-width / 1.96; 0 where exact", True),
    _density("level_converged", "level", "-", "the verdict's checks hold at this level", True),
    _density("n_samples", "level", "-", "samples in the bin"),
    _density(
        "representative",
        "level sample point_*",
        "space",
        "inputs drawn in proportion to the density of states within the level",
    ),
    _density("representative_output", "level sample", "observable", "their outputs; NaN: no sample there"),
    _density("data_set", "data_set", "-", 'names such as "test: 1"'),
    _density("data_histogram", "data_set level", "-", "inputs of the named set in the bin"),
    _density(
        "data_rarity",
        "data_set",
        "nats",
        "median over the set's inputs of ln(inputs in the level) - ln(inputs of the set in the level)",
    ),
    _density(
        "noise_distance",
        "data_set",
        "input units",
        "mean over pairs of sqrt(mean squared difference) between uniform noise and the set",
    ),
    _density(
        "noise_squared_distance",
        "data_set",
        "input units^2",
        "mean squared difference between uniform noise and the set (Liu et al. 2023, appendix D)",
    ),
    _density("rung_lambda", "rung", "1/observable", "weight exp(lambda y); the free rung has 0"),
    _density("rung_log_partition", "rung", "nats", "ln Z of the rung relative to the free rung"),
    _density("rung_mean", "ladder rung", "observable", "mean of the output on each rung"),
    _density("rung_variance", "ladder rung", "observable^2", "variance of the output on each rung"),
    _density("swap_rate", "rung", "-", "accepted swaps between a rung and the next; NaN on the last"),
    _density("acceptance", "rung", "-", "accepted share of proposals"),
    _density("autocorrelation_time", "rung", "steps", "integrated autocorrelation time of the output"),
    _density("fluctuation_ratio", "rung", "-", "variance / (d mean / d lambda); 1 in equilibrium"),
    _density("round_trips", "ladder", "-", "replicas that went free rung -> end -> free rung"),
    _density("ladder_start", "ladder", "-", '"noise", "zeros", "data", ...'),
    _density("check_name", "check", "-", "a check of the verdict"),
    _density("check_value", "check", "-", "what was measured"),
    _density("check_limit", "check", "-", "what was asked for"),
    _density("check_passed", "check", "-", "1 yes, 0 no, -1 not tested"),
    _density("check_sentence", "check", "-", "the check in words"),
    _density("verdict", "", "-", '"exact", "converged" or "not converged"', True),
    _density("verdict_sentence", "", "-", "the verdict in words, naming what failed and where", True),
)

_LANDSCAPE = (
    _landscape(
        "minimum_point", "minimum point_*", "space", "the lowest known state of each basin, rising in energy", True
    ),
    _landscape("energy", "minimum", "observable", "its energy", True),
    _landscape("member_count", "minimum", "-", "minima (or states, where exact) sorted into the basin"),
    _landscape("minimum_label", "minimum", "-", "the class or name the field's network gives it, where it gives one"),
    _landscape(
        "barrier_upper_bound",
        "minimum other_minimum",
        "observable",
        "highest energy of the best path known; the minimum's own energy on the diagonal; inf: no path known",
        True,
    ),
    _landscape(
        "barrier_lower_bound",
        "minimum other_minimum",
        "observable",
        "energy that every path is proven to reach; equal to the upper bound where the barrier is exact",
        True,
    ),
    _landscape(
        "disconnectivity",
        "merge merge_part",
        "-",
        "the tree: at each merge its two children (minimum k, or number of minima + merge), upper and lower bound "
        "of its energy, and number of minima below it; merges rise in energy",
        True,
    ),
    _landscape("merge_part", "merge_part", "-", '"first", "second", "upper_bound", "lower_bound", "size"', True),
    _landscape("path_minimum", "path path_end", "-", "the two minima a path joins; the paths span the tree"),
    _landscape("path_length", "path", "-", "number of its points"),
    _landscape("path_point", "path path_step point_*", "space", "the points of each path, padded with the last one"),
    _landscape("path_energy", "path path_step", "observable", "the energies along it; NaN where padded"),
    _landscape("member_point", "member point_*", "space", "minima found on the way, some of each basin"),
    _landscape("member_energy", "member", "observable", "their energies"),
    _landscape("basin", "member", "-", "the minimum whose basin a member belongs to"),
    _landscape("member_label", "member", "-", "the class or name the field's network gives it"),
    _landscape("member_embedding", "member axis", "-", "the members in the plane, by t-SNE"),
    _landscape("member_latent", "member axis", "latent", "first two latent coordinates a member was proposed from"),
    _landscape("discovered", "proposal", "-", "number of basins (or minima) known after each proposal"),
    _landscape("basins_before_consolidation", "", "-", "basins at the end of the burn-in or mapping"),
    _landscape("basins_after_consolidation", "", "-", "basins left after trials between all representatives"),
    _landscape("leakage", "", "-", "share of proposals that reached more than one basin; 0 is ideal"),
    _landscape("tune_temperature", "tune_temperature", "observable", "temperatures tried"),
    _landscape("tune_energy", "tune_temperature tune_step", "observable", "energy along unmagnetised chains, mean"),
    _landscape("tune_alpha", "tune_alpha", "1/distance", "magnetisations tried"),
    _landscape("tune_basins", "tune_alpha", "-", "basins found in a short mapping at each magnetisation"),
    _landscape("phase_temperature", "phase_temperature", "observable", "temperatures of the phase diagram"),
    _landscape(
        "phase_alpha",
        "phase_role phase_temperature",
        "1/distance",
        "least magnetisation that reaches the target, from each of the two minima; NaN: above the critical temperature",
    ),
    _landscape("phase_barrier", "phase_role phase_temperature", "observable", "lowest barrier seen on the way"),
    _landscape("check_name", "check", "-", "a check of the verdict"),
    _landscape("check_value", "check", "-", "what was measured"),
    _landscape("check_limit", "check", "-", "what was asked for"),
    _landscape("check_passed", "check", "-", "1 yes, 0 no, -1 not tested"),
    _landscape("check_sentence", "check", "-", "the check in words"),
    _landscape("verdict", "", "-", '"exact", "bracketed", "converged" or "not converged"', True),
    _landscape("verdict_sentence", "", "-", "the verdict in words, naming what failed and where", True),
)

SCHEMA: tuple[Variable, ...] = _DENSITY + _LANDSCAPE

ATTRIBUTES: dict[str, str] = {
    "instrument": 'the question asked: "density" or "landscape"',
    "observable": 'the number surveyed, such as "logit:1"',
    "observable_sentence": "the observable in words",
    "space": 'the input space, such as "grid:1x28x28:256"',
    "space_sentence": "the space in words",
    "log_volume": "ln of the number of inputs, or of the volume",
    "method": "how it was sampled or enumerated",
    "seed": "the seed of every random number",
    "settings": "the resolved settings, TOML",
    "evaluations": "rows the field evaluated",
    "seconds": "wall time",
    "model_name": "the network",
    "model_hash": "sha256 of its weights and structure",
    "versions": "of python and the packages, JSON",
    "machine": "the machine in words",
    "date": "when the result was made, ISO 8601, UTC",
    "command": "the command line, if there was one",
    "citations": "the sources of the methods used, a JSON list of strings",
    "probability": '"sigmoid" where the observable is a binary log-odds, else ""',
    "version": "of theodolite",
}
REQUIRED_ATTRIBUTES = ("instrument", "observable", "space", "log_volume", "method", "seed")


def variable(instrument: str, name: str) -> Variable:
    """The row of a variable; `UserError` where there is none."""
    for row in SCHEMA:
        if row.instrument == instrument and row.name == name:
            return row
    names = ", ".join(row.name for row in SCHEMA if row.instrument == instrument) or "nothing"
    raise UserError("dataset", f"a variable of {instrument!r} ({names})", repr(name), "add a row to result.SCHEMA")


def validate(dataset: xarray.Dataset) -> xarray.Dataset:
    """Check a result against `SCHEMA` and return it; `UserError` naming the first variable that is wrong."""
    instrument = dataset.attrs.get("instrument")
    known = sorted({row.instrument for row in SCHEMA})
    if instrument not in known:
        raise _wrong("the attribute instrument", f"one of {', '.join(known)}", repr(instrument))
    for name in REQUIRED_ATTRIBUTES:
        if name not in dataset.attrs:
            raise _wrong(f"the attribute {name}", ATTRIBUTES[name], "nothing")
    for name, value in dataset.attrs.items():
        if not isinstance(value, str | int | float | np.integer | np.floating):
            raise _wrong(f"the attribute {name}", "text or a number", type(value).__name__)
    for name, values in dataset.variables.items():
        row = variable(str(instrument), str(name))
        if not _dims_match(row.dims, tuple(str(dim) for dim in values.dims)):
            raise _wrong(str(name), f"dims ({', '.join(row.dims)})", f"({', '.join(map(str, values.dims))})")
    for row in SCHEMA:
        if row.required and row.instrument == instrument and row.name not in dataset.variables:
            raise _wrong(row.name, row.meaning, "nothing")
    if "level_edges" in dataset:
        _validate_levels(dataset)
    verdict = str(dataset["verdict"].item())
    if verdict not in VERDICTS:
        raise _wrong("verdict", " or ".join(map(repr, VERDICTS)), repr(verdict))
    return dataset


def _validate_levels(dataset: xarray.Dataset) -> None:
    level, edges = dataset["level"].values, dataset["level_edges"].values
    if len(edges) != len(level) + 1:
        raise _wrong("level_edges", f"{len(level) + 1} edges of {len(level)} bins", str(len(edges)))
    if not (np.all(np.isfinite(edges)) and np.all(np.diff(edges) > 0)):
        raise _wrong("level_edges", "finite edges in rising order", "edges that are not")
    if not np.all((edges[:-1] <= level) & (level <= edges[1:])):
        raise _wrong("level", "centres within their bins", "a centre outside its bin")
    if np.any(dataset["log_density_error"].values < 0):
        raise _wrong("log_density_error", "errors of at least 0", "a negative one")


def _dims_match(expected: tuple[str, ...], dims: tuple[str, ...]) -> bool:
    if not expected or expected[-1] != "point_*":
        return dims == expected
    fixed = len(expected) - 1
    return dims[:fixed] == expected[:-1] and dims[fixed:] == tuple(f"point_{k}" for k in range(len(dims) - fixed))


def _wrong(what: str, expected: str, got: str) -> UserError:
    return UserError("dataset", f"{what}: {expected}", got, "mend the instrument that made it (see result.SCHEMA)")


def provenance(
    *,
    settings: Mapping[str, Any] | Any,
    seed: int,
    evaluations: int,
    seconds: float,
    model_name: str = "",
    model_hash: str = "",
    command: str = "",
    citations: Sequence[str] = (),
) -> dict[str, str | int | float]:
    """The attributes that say where a result comes from; `settings` is a mapping or a dataclass.

    The machine is described in words (cores, system, processor), never by its name.
    """
    packages = ("theodolite", "torch", "numpy", "xarray")
    versions = {"python": platform.python_version()} | {name: package_version(name) for name in packages}
    return {
        "settings": to_toml(settings),
        "seed": int(seed),
        "evaluations": int(evaluations),
        "seconds": float(seconds),
        "model_name": model_name,
        "model_hash": model_hash,
        "versions": json.dumps(versions),
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "citations": json.dumps(list(citations)),
        "version": versions["theodolite"],
    }


def package_version(name: str) -> str:
    """The installed version of a package without importing it; "unknown" where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def machine() -> str:
    """This machine in words: "2 cores, Linux x86_64"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} core{'s' if cores != 1 else ''}, {platform.system()} {platform.machine()}".rstrip()


def to_toml(settings: Mapping[str, Any] | Any) -> str:
    """Settings as TOML text; what is None is left out, and nested mappings and dataclasses become tables."""
    return "".join(_toml_table(_as_mapping(settings), ""))


def _as_mapping(settings: Any) -> Mapping[str, Any]:
    if isinstance(settings, Mapping):
        return settings
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _toml_table(table: Mapping[str, Any], prefix: str) -> list[str]:
    present = {str(key): value for key, value in table.items() if value is not None}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}\n" for key, value in present.items() if not _is_table(value)]
    for key, value in present.items():
        if _is_table(value):
            path = f"{prefix}{_toml_key(key)}"
            lines += [f"\n[{path}]\n", *_toml_table(_as_mapping(value), f"{path}.")]
    return lines


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return repr(float(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    # JSON's escapes are TOML's, save for the delete character, which JSON leaves bare.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def save(result: xarray.Dataset | xarray.DataTree, directory: str | Path) -> Path:
    """Write a result to ``directory/survey.zarr``, a group per instrument, and return that path.

    A dataset replaces the group of its instrument and leaves the others. The store is written beside and then
    renamed, so that a reader never meets half of one. Raises `UserError` where it does not fit `SCHEMA`.
    """
    store = Path(directory) / STORE
    groups: dict[str, xarray.Dataset] = {}
    if isinstance(result, xarray.Dataset):
        validate(result)
        if store.exists():
            groups = {name: child.to_dataset() for name, child in open_survey(store).children.items()}
        groups[str(result.attrs["instrument"])] = result
    else:
        groups = {name: validate(child.to_dataset()) for name, child in result.children.items()}
    tree = xarray.DataTree.from_dict({name: _plain(dataset) for name, dataset in groups.items()})
    store.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=store.parent, prefix=f".{STORE}."))
    try:
        # Format 2 of Zarr: format 3 has no settled type for text yet and warns of it. Every chunk is written,
        # so that one that is missing later is seen and not read as zeros.
        options = {"zarr_format": 2, "consolidated": True, "write_empty_chunks": True}
        tree.to_zarr(beside / "new", mode="w", write_inherited_coords=False, **options)
        if store.exists():
            os.replace(store, beside / "old")
        os.replace(beside / "new", store)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return store


def _plain(dataset: xarray.Dataset) -> xarray.Dataset:
    """Text of fixed width and attributes of plain Python: what both Zarr and NetCDF give back unchanged."""
    plain = dataset.copy()
    for name, values in plain.variables.items():
        if values.dtype.kind in "OT":
            plain[name] = plain[name].astype(str)
        plain[name].encoding = {}
    plain.attrs = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in plain.attrs.items()
    }
    return plain


def open_survey(path: str | Path) -> xarray.DataTree:
    """Open a run directory, a ``.zarr`` store or a NetCDF file as a tree in memory, a group per instrument.

    Raises `UserError` naming the path where it is missing, corrupt or no survey.
    """
    path = Path(path)
    source = path / STORE if path.is_dir() and (path / STORE).exists() else path
    if not source.exists() or (source.is_dir() and not _is_zarr(source)):
        remedy = "give the directory of a finished run, its survey.zarr, or an exported .nc file"
        raise UserError("survey", f"a run directory with {STORE}, or a file", f"{path}, which has none", remedy)
    engine = "zarr" if source.is_dir() else "h5netcdf"
    if engine == "h5netcdf":
        _require_netcdf()
    try:
        with xarray.open_datatree(source, engine=engine) as tree:
            tree.load()
        whole = engine != "zarr" or _has_every_chunk(source)
    except Exception as error:
        got = f"{source}, which is corrupt or truncated ({type(error).__name__})"
        raise UserError("survey", "a whole survey", got, "restore it from a copy or run the survey again") from error
    if not whole:
        got = f"{source}, where chunks are missing"
        raise UserError("survey", "a whole survey", got, "restore it from a copy or run the survey again")
    if not tree.children:
        remedy = "give the directory of a run of theodolite"
        raise UserError("survey", "a group per instrument", f"{source}, which has no groups", remedy)
    return xarray.DataTree.from_dict({name: _plain(child.to_dataset()) for name, child in tree.children.items()})


def _is_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in (".zgroup", "zarr.json"))


def _has_every_chunk(store: Path) -> bool:
    arrays = [array for _, array in zarr.open_group(store, mode="r").members(max_depth=None)]
    return all(array.nchunks_initialized == array.nchunks for array in arrays if isinstance(array, zarr.Array))


def _require_netcdf() -> None:
    missing = [name for name in ("h5netcdf", "h5py") if package_version(name) == "unknown"]
    if missing:
        remedy = 'run: pip install "theodolite[netcdf]"'
        raise UserError("file", "h5netcdf and h5py for NetCDF files", f"no {' and no '.join(missing)}", remedy)


def export(path: str | Path, file: str | Path) -> Path:
    """Write the survey at `path` to a new NetCDF file (HDF5, readable by any NetCDF4 program) and return it.

    Raises `UserError` where the file exists or h5netcdf is not installed.
    """
    file = Path(file)
    if file.exists():
        raise UserError("file", "a new file", f"{file}, which exists", "choose another name or remove it first")
    _require_netcdf()
    tree = open_survey(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.part")
    try:
        tree.to_netcdf(beside, engine="h5netcdf", write_inherited_coords=False)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
    return file
