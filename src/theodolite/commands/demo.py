"""`theodolite demo`: the main job from nothing: train networks, survey them, write one report."""

from __future__ import annotations

from rich.console import Console

from theodolite import result
from theodolite.commands import survey, survey_folder
from theodolite.commands.arguments import BoundaryCommand, DemoCommand, DensityCommand, LandscapeCommand, Survey
from theodolite.report.page import write_report

SECTIONS = ("density", "landscape", "boundary")  # in the order of the page; the first is surveyed in --out itself


def run(settings: DemoCommand, line: str) -> None:
    """The sections one after another, each a survey with a folder, and one page of all of them."""
    console = Console(highlight=False)
    survey_folder.check_free(settings.out, settings.overwrite)
    chosen = SECTIONS if settings.only is None else (settings.only,)
    if "density" not in chosen:
        survey_folder.create(settings.out, settings.overwrite)
    else:
        console.print(
            "How many of all possible 28 x 28 images does a classifier of handwritten 0s and 1s call a 1, "
            "and how surely? Not only the digits it was tested on: all e^4347 images."
        )
        survey.run(_density(settings), line)
    if "landscape" in chosen:
        console.print(
            "What does a classifier of 0s, 1s, 2s and 3s remember? The images it is surest of, as basins of its "
            "energy, and how far apart they are."
        )
        _section("landscape", _landscape(settings), settings, line, console)
    if "boundary" in chosen:
        console.print(
            "How little must a test image change for a classifier of all ten digits to change its answer? The closest "
            "such image, and a proof of how much closer any other can be."
        )
        _section("boundary", _boundary(settings), settings, line, console)


def _section(name: str, command: Survey, settings: DemoCommand, line: str, console: Console) -> None:
    """Survey into a folder of its own, which `theodolite resume` continues, and add it to the page of all."""
    survey.run(command, line)
    found = result.open_survey(settings.out / name)[name].to_dataset()
    result.save(found, settings.out)
    page = write_report(settings.out, settings.out / survey_folder.REPORT)
    console.print(f"Report so far, all sections: {page}", markup=False, soft_wrap=True)


def _density(settings: DemoCommand) -> DensityCommand:
    return DensityCommand(
        model="zoo:cnn",
        data=settings.data,
        classes="0,1",
        observable="logit:1",
        budget=settings.budget,
        seed=settings.seed,
        low=settings.low,
        out=settings.out,
        overwrite=settings.overwrite,
    )


def _landscape(settings: DemoCommand) -> LandscapeCommand:
    return LandscapeCommand(
        model="zoo:digits",
        data=settings.data,
        classes="0,1,2,3",
        method="adelm",
        temperature=0.002,
        alpha=500.0,
        improvement_limit=300,
        proposals=60,
        budget="100 s",
        seed=settings.seed,
        out=settings.out / "landscape",
        overwrite=settings.overwrite,
    )


def _boundary(settings: DemoCommand) -> BoundaryCommand:
    return BoundaryCommand(
        model="zoo:dense",
        data=settings.data,
        images=100,
        effort="quick",
        targets="all",
        budget="90 s",
        seed=settings.seed,
        out=settings.out / "boundary",
        overwrite=settings.overwrite,
    )
