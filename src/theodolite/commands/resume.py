"""`theodolite resume DIR`: the settings of the folder, its checkpoint, and on from there."""

from __future__ import annotations

from rich.console import Console

from theodolite.commands import survey_folder
from theodolite.commands.arguments import ResumeCommand
from theodolite.commands.configuration import read_settings, settings_from
from theodolite.commands.survey import check_unchanged, command_name, prepare, survey
from theodolite.errors import UserError
from theodolite.result import STORE
from theodolite.run import Budget, Checkpoint, Meter, Status, read_checkpoint


def run(settings: ResumeCommand, line: str) -> None:
    """Continue bit for bit (under an evaluation budget, on a CPU); a survey that has ended stays as it is.

    A survey that ended with its budget goes on after a larger one was written into its settings.toml.
    """
    folder = settings.directory
    if not (folder / survey_folder.SETTINGS).exists():
        got = f"{folder}, which has no {survey_folder.SETTINGS}"
        raise UserError("directory", "the folder of a survey", got, "give the --out of the survey")
    console = Console(highlight=False)
    table = read_settings(folder / survey_folder.SETTINGS, "settings")
    began_as = settings_from(table, folder / survey_folder.SETTINGS)
    saved = read_checkpoint(folder / survey_folder.CHECKPOINTS[command_name(began_as)])
    if _ended(saved, began_as.budget) and (folder / STORE).exists():
        console.print(f"The survey in {folder} has ended: {saved.reason} Nothing was changed.", markup=False)
        return
    job = prepare(began_as, console, folder)
    check_unchanged(job, table.get("model_hash"), folder)
    survey(job, folder, line, resume=True, console=console)


def _ended(saved: Checkpoint, budget: str) -> bool:
    meter = Meter(Budget.parse(budget), lambda: 0)
    meter.restore(saved.seconds, saved.evaluations)
    return saved.status is Status.STOPPED or (saved.status is Status.BUDGET_SPENT and meter.spent)
