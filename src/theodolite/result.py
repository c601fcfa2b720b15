"""What a result may hold, row by row, with its provenance, and how it is saved and opened.

The rows are in `schema/`, a module an instrument. Nothing here imports torch: a result is read anywhere.
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
from pathlib import Path
from typing import Any

import numpy as np
import xarray
import zarr

from theodolite.errors import UserError
from theodolite.schema import ATTRIBUTES, REQUIRED_ATTRIBUTES, SCHEMA, Variable

__all__ = [
    "ATTRIBUTES",
    "CHECK_RESULTS",
    "SCHEMA",
    "STORE",
    "VERDICTS",
    "Variable",
    "export",
    "machine",
    "open_survey",
    "package_version",
    "provenance",
    "save",
    "to_toml",
    "validate",
    "variable",
]

STORE = "survey.zarr"
VERDICTS = (
    *("exact", "bracketed", "converged", "not converged", "complete", "incomplete", "proven", "in part"),
    *("convergent", "non-convergent", "undecided"),
)
CHECK_RESULTS = {1: "yes", 0: "no", -1: "not tested"}


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
    if not expected or not expected[-1].endswith("_*"):
        return dims == expected
    fixed, axis = len(expected) - 1, expected[-1].removesuffix("*")
    return dims[:fixed] == expected[:-1] and dims[fixed:] == tuple(f"{axis}{k}" for k in range(len(dims) - fixed))


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
