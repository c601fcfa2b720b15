"""`theodolite demo`: the main job from nothing: train networks, survey them, write one report."""

from __future__ import annotations

from rich.console import Console

from theodolite import result
from theodolite.commands import survey, survey_folder
from theodolite.commands.arguments import DemoCommand, DensityCommand, LandscapeCommand
from theodolite.report.page import write_report

LANDSCAPE = "landscape"  # folder of that section: a survey of its own, continued by `theodolite resume`


def run(settings: DemoCommand, line: str) -> None:
    """The sections one after another, each a survey with a folder, and one page of all of them."""
    console = Console(highlight=False)
    survey_folder.check_free(settings.out, settings.overwrite)
    if settings.only != "landscape":
        _density(settings, line, console)
    else:
        survey_folder.create(settings.out, settings.overwrite)
    if settings.only != "density":
        _landscape(settings, line, console)


def _density(settings: DemoCommand, line: str, console: Console) -> None:
    console.print(
        "How many of all possible 28 x 28 images does a classifier of handwritten 0s and 1s call a 1, "
        "and how surely? Not only the digits it was tested on: all e^4347 images."
    )
    survey.run(
        DensityCommand(
            model="zoo:cnn",
            data=settings.data,
            classes="0,1",
            observable="logit:1",
            budget=settings.budget,
            seed=settings.seed,
            low=settings.low,
            out=settings.out,
            overwrite=settings.overwrite,
        ),
        line,
    )


def _landscape(settings: DemoCommand, line: str, console: Console) -> None:
    console.print(
        "What does a classifier of 0s, 1s, 2s and 3s remember? The images it is surest of, as basins of its energy, "
        "and how far apart they are."
    )
    survey.run(
        LandscapeCommand(
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
            out=settings.out / LANDSCAPE,
            overwrite=settings.overwrite,
        ),
        line,
    )
    found = result.open_survey(settings.out / LANDSCAPE)["landscape"].to_dataset()
    result.save(found, settings.out)
    page = write_report(settings.out, settings.out / survey_folder.REPORT)
    console.print(f"Report of all sections: {page}", markup=False, soft_wrap=True)
