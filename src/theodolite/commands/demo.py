"""`theodolite demo`: the main job from nothing: train networks, survey them, write one report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from theodolite import result
from theodolite.commands import survey, survey_folder
from theodolite.commands.arguments import (
    BoundaryCommand,
    DemoCommand,
    DensityCommand,
    EnsembleCommand,
    LandscapeCommand,
    LearnCommand,
    LipschitzCommand,
    StabilityCommand,
    Survey,
    UnitsCommand,
)
from theodolite.report.page import write_report


@dataclass(frozen=True)
class Section:
    """A survey of the demo: the question it answers, in words, and its command."""

    question: str
    command: Callable[[DemoCommand], Survey]


def run(settings: DemoCommand, line: str) -> None:
    """The sections one after another, each a survey with a folder, and one page of all of them."""
    console = Console(highlight=False)
    survey_folder.check_free(settings.out, settings.overwrite)
    chosen = list(SECTIONS) if settings.only is None else [settings.only]
    if _IN_ITSELF not in chosen:
        survey_folder.create(settings.out, settings.overwrite)
    for name in chosen:
        section = SECTIONS[name]
        console.print(section.question)
        survey.run(section.command(settings), line)
        if name != _IN_ITSELF:
            _add(name, settings, console)


def _add(name: str, settings: DemoCommand, console: Console) -> None:
    """Add a survey, which has a folder of its own that `theodolite resume` continues, to the page of all."""
    for found in result.open_survey(settings.out / name).children.values():
        result.save(found.to_dataset(), settings.out)
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
        budget="2 min",
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


def _stability(settings: DemoCommand) -> StabilityCommand:
    return StabilityCommand(
        networks="dense=zoo:dense,another dense=zoo:dense,convolutional=zoo:conv",
        data=settings.data,
        images=60,
        effort="quick",
        budget="60 s",
        seed=settings.seed,
        out=settings.out / "stability",
        overwrite=settings.overwrite,
    )


def _lipschitz(settings: DemoCommand) -> LipschitzCommand:
    return LipschitzCommand(
        model="zoo:conv",
        data=settings.data,
        radius="0.1,0.5",
        images=8,
        budget="20 s",
        seed=settings.seed,
        out=settings.out / "lipschitz",
        overwrite=settings.overwrite,
    )


def _units(settings: DemoCommand) -> UnitsCommand:
    return UnitsCommand(
        model="zoo:dense",
        layer="1",
        data=settings.data,
        flips=30,
        budget="30 s",
        seed=settings.seed,
        out=settings.out / "units",
        overwrite=settings.overwrite,
    )


def _ensemble(settings: DemoCommand) -> EnsembleCommand:
    return EnsembleCommand(
        model="zoo:dense",
        members=4,
        data=settings.data,
        images=100,
        budget="30 s",
        seed=settings.seed,
        out=settings.out / "ensemble",
        overwrite=settings.overwrite,
    )


def _learn(settings: DemoCommand) -> LearnCommand:
    return LearnCommand(
        data=settings.data,
        classes="0,1,2,3",
        images=1600,
        held_out=400,
        # Chains from cooled noise come down slowly: more steps of fewer chains.
        long_steps=16_000,
        long_chains=300,
        budget="2 min",
        seed=settings.seed,
        out=settings.out / "learn",
        overwrite=settings.overwrite,
    )


_IN_ITSELF = "density"  # surveyed in --out itself
SECTIONS = {  # in the order of the page
    "density": Section(
        "How many of all possible 28 x 28 images does a classifier of handwritten 0s and 1s call a 1, "
        "and how surely? Not only the digits it was tested on: all e^4347 images.",
        _density,
    ),
    "landscape": Section(
        "What does a classifier of 0s, 1s, 2s and 3s remember? The images it is surest of, as basins of its "
        "energy, and how far apart they are.",
        _landscape,
    ),
    "boundary": Section(
        "How little must a test image change for a classifier of all ten digits to change its answer? The closest "
        "such image, and a proof of how much closer any other can be.",
        _boundary,
    ),
    "stability": Section("Does what fools one network fool another?", _stability),
    "lipschitz": Section("How steep can each layer of a network be? Proven from above, found from below.", _lipschitz),
    "units": Section("Do single neurons mean more than random combinations of them?", _units),
    "ensemble": Section("Do four networks together know where one of them is wrong but sure?", _ensemble),
    "learn": Section(
        "Can the density of 0s, 1s, 2s and 3s be learned as an energy, and is it truly theirs? Long runs of the "
        "energy's own chains judge.",
        _learn,
    ),
}
