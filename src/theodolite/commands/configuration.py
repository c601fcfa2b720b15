"""Settings as TOML: `expand` reads a file as the flags it stands for, `settings_from` as the command that
saved it.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from theodolite.commands.arguments import (
    BoundaryCommand,
    DensityCommand,
    EnsembleCommand,
    LandscapeCommand,
    LearnCommand,
    LipschitzCommand,
    StabilityCommand,
    Survey,
    UnitsCommand,
)
from theodolite.errors import UserError

# Keys of a survey's settings.toml that are a record and no flags.
RECORDS = ("command", "model_hash")
COMMANDS: dict[str, type[Survey]] = {
    "density": DensityCommand,
    "landscape": LandscapeCommand,
    "boundary": BoundaryCommand,
    "stability": StabilityCommand,
    "lipschitz": LipschitzCommand,
    "units": UnitsCommand,
    "ensemble": EnsembleCommand,
    "learn": LearnCommand,
}


def expand(flags: list[str]) -> list[str]:
    """The flags with `--config FILE` replaced by the flags that the file stands for, before those given
    beside it.
    """
    for place, flag in enumerate(flags):
        if flag == "--config" and place + 1 < len(flags):
            file, rest = flags[place + 1], flags[1:place] + flags[place + 2 :]
        elif flag.startswith("--config="):
            file, rest = flag.removeprefix("--config="), flags[1:place] + flags[place + 1 :]
        else:
            continue
        if flags[0] not in COMMANDS:
            raise UserError("config", f"one of the commands {', '.join(COMMANDS)}", flags[0], "leave --config out")
        return [flags[0], *_as_flags(read_settings(Path(file), "config"), flags[0], file), *rest]
    return flags


def read_settings(path: Path, argument: str) -> dict[str, Any]:
    """The flat table of settings in a TOML file; `UserError` where there is none."""
    try:
        with path.open("rb") as opened:
            return tomllib.load(opened)
    except OSError as error:
        raise UserError(argument, "a TOML file", f"{path}: {error.strerror}", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(argument, "a file in TOML", f"{path}: {error}", "mend that line") from error


def settings_from(table: dict[str, Any], source: Path) -> Survey:
    """The command whose settings a survey's folder holds; `UserError` where the table is no such thing."""
    command = table.get("command")
    if command not in COMMANDS:
        raise UserError(
            "settings",
            f"command = one of {', '.join(COMMANDS)}",
            f"{command!r} in {source}",
            "restore the file",
        )
    given = {key: value for key, value in table.items() if key not in RECORDS}
    _check_keys(given, command, str(source))
    for key in given.keys() & {"data", "weights", "generator_weights", "density", "labels"}:
        given[key] = Path(given[key])
    return COMMANDS[command](**given)


def _as_flags(table: dict[str, Any], command: str, file: str) -> list[str]:
    named = table.get("command", command)
    if named != command:
        raise UserError("config", f"settings of {command}", f"{file}, settings of {named}", f"use theodolite {named}")
    given = {key.replace("-", "_"): value for key, value in table.items() if key not in RECORDS}
    _check_keys(given, command, file)
    flags: list[str] = []
    for key, value in given.items():
        flag = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            flags += [flag] if value else []
        elif isinstance(value, list):
            flags.append(f"{flag}={','.join(map(str, value))}")
        elif isinstance(value, dict):
            raise UserError("config", f"one value for {key}", f"a table in {file}", "write the settings without tables")
        else:
            flags.append(f"{flag}={value}")
    return flags


def _check_keys(given: dict[str, Any], command: str, file: str) -> None:
    known = [entry.name for entry in dataclasses.fields(COMMANDS[command]) if entry.name != "config"]
    for key in given:
        if key not in known:
            raise UserError(
                "config",
                f"settings of {command} ({', '.join(known)})",
                f"{key} in {file}",
                "correct its name",
            )
