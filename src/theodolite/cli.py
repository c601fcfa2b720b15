"""The command line, `theodolite COMMAND ...`: reads the flags, then imports what the chosen command needs.

Wrong input is one line on standard error and exit code 2; a survey that has not converged is a result,
exit code 0.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

import theodolite
from theodolite.commands import arguments as the
from theodolite.commands.configuration import expand
from theodolite.errors import UserError

COMMANDS = (
    Annotated[the.DemoCommand, tyro.conf.subcommand("demo")]
    | Annotated[the.DensityCommand, tyro.conf.subcommand("density")]
    | Annotated[the.LandscapeCommand, tyro.conf.subcommand("landscape")]
    | Annotated[the.BoundaryCommand, tyro.conf.subcommand("boundary")]
    | Annotated[the.StabilityCommand, tyro.conf.subcommand("stability")]
    | Annotated[the.LipschitzCommand, tyro.conf.subcommand("lipschitz")]
    | Annotated[the.UnitsCommand, tyro.conf.subcommand("units")]
    | Annotated[the.EnsembleCommand, tyro.conf.subcommand("ensemble")]
    | Annotated[the.LearnCommand, tyro.conf.subcommand("learn")]
    | Annotated[the.ResumeCommand, tyro.conf.subcommand("resume")]
    | Annotated[the.ReportCommand, tyro.conf.subcommand("report")]
    | Annotated[the.CompareCommand, tyro.conf.subcommand("compare")]
    | Annotated[the.ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[the.InspectCommand, tyro.conf.subcommand("inspect")]
)
DESCRIPTION = (
    "Surveys a trained neural network as a scalar field over its whole input space. "
    "`theodolite demo` shows it on handwritten digits; `theodolite --version` prints the version."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 wrong input, 130 interrupted)."""
    # Threads that spin while they wait cost a factor of ten on a busy machine; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    flags = list(sys.argv[1:] if argv is None else argv)
    if flags == ["--version"]:
        print(f"theodolite {theodolite.__version__}")
        return 0
    try:
        chosen: the.Command = tyro.cli(
            COMMANDS,  # type: ignore[arg-type]
            prog="theodolite",
            description=DESCRIPTION,
            args=expand(flags) or ["--help"],
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        _run(chosen, shlex.join(["theodolite", *flags]))
    except UserError as error:
        print(f"theodolite: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("theodolite: interrupted", file=sys.stderr)
        return 130
    return 0


def _run(chosen: the.Command, line: str) -> None:
    match chosen:
        case (
            the.DensityCommand()
            | the.LandscapeCommand()
            | the.BoundaryCommand()
            | the.StabilityCommand()
            | the.LipschitzCommand()
            | the.UnitsCommand()
            | the.EnsembleCommand()
            | the.LearnCommand()
        ):
            from theodolite.commands import survey

            survey.run(chosen, line)
        case the.DemoCommand():
            from theodolite.commands import demo

            demo.run(chosen, line)
        case the.ResumeCommand():
            from theodolite.commands import resume

            resume.run(chosen, line)
        case the.ReportCommand():
            from theodolite.commands import files

            files.report(chosen)
        case the.CompareCommand():
            from theodolite.commands import files

            files.compare(chosen)
        case the.ExportCommand():
            from theodolite.commands import files

            files.export(chosen)
        case the.InspectCommand():
            from theodolite.commands import inspect

            inspect.run(chosen)
