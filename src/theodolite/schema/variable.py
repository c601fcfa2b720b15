"""A row of the schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@dataclass(frozen=True)
class Variable:
    """A row of the schema. Dim ``point_*`` stands for ``point_0``, ``point_1``, ...: the axes of a point; so do
    ``image_*`` and ``picture_*`` for those of an image or a picture."""

    instrument: str
    name: str
    dims: tuple[str, ...]
    unit: str
    meaning: str
    required: bool = False


@final
@dataclass(frozen=True)
class Rows:
    """Makes the rows of one ``instrument``; dims are written as words with spaces between."""

    instrument: str

    def __call__(self, name: str, dims: str, unit: str, meaning: str, required: bool = False) -> Variable:
        return Variable(self.instrument, name, tuple(dims.split()), unit, meaning, required)


def judged(instrument: str, words: str) -> tuple[Variable, ...]:
    """The checks and the verdict of an instrument whose verdicts are these ``words``."""
    return (
        Variable(instrument, "check_name", ("check",), "-", "a check of the verdict"),
        Variable(instrument, "check_value", ("check",), "-", "what was measured"),
        Variable(instrument, "check_limit", ("check",), "-", "what was asked for"),
        Variable(instrument, "check_passed", ("check",), "-", "1 yes, 0 no, -1 not tested"),
        Variable(instrument, "check_sentence", ("check",), "-", "the check in words"),
        Variable(instrument, "verdict", (), "-", words, True),
        Variable(instrument, "verdict_sentence", (), "-", "the verdict in words, naming what failed and where", True),
    )
