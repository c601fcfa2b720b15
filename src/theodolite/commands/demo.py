"""`theodolite demo`: the main job from nothing: train the paper's classifier, survey it, write the report."""

from __future__ import annotations

from rich.console import Console

from theodolite.commands import density
from theodolite.commands.arguments import DemoCommand, DensityCommand


def run(settings: DemoCommand, line: str) -> None:
    """A survey of `zoo:cnn`; its folder continues with `theodolite resume` like any other."""
    console = Console(highlight=False)
    console.print(
        "How many of all possible 28 x 28 images does a classifier of handwritten 0s and 1s call a 1, "
        "and how surely? Not only the digits it was tested on: all e^4347 images."
    )
    density.run(
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
