"""What every instrument does around its method: check its data, find its checkpoint, say where a result comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from theodolite import result
from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments.verdict import Check
from theodolite.run import Checkpoint, Meter, Outcome, Progress, drive
from theodolite.space import Space

_TRIAL_SEED = 20_230  # trial draws of their own, so that checks do not shift a survey's random numbers


def trial_generator() -> torch.Generator:
    """The generator of trial batches, the same every time."""
    return torch.Generator().manual_seed(_TRIAL_SEED)


def named_sets(field: Field, data: Tensor | Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The data as named sets of points ``(n, *shape)``; UserError naming the set whose shape is not the space's."""
    if data is None:
        return {}
    named = dict(data) if isinstance(data, Mapping) else {"data": data}
    sets = {str(name): torch.as_tensor(points) for name, points in named.items()}
    for name, points in sets.items():
        if tuple(points.shape[1:]) != field.space.shape or len(points) == 0:
            raise UserError(
                f"data {name!r}",
                f"points of shape (n, {', '.join(map(str, field.space.shape))}) with n > 0",
                f"shape {tuple(points.shape)}",
                "put the batch on axis 0 and reshape each point",
            )
    return sets


def checkpoint_in(folder: Path | None, name: str, resume: bool) -> Path | None:
    """The checkpoint of that name in a survey's folder; UserError where there is one that is not to be resumed."""
    if folder is None:
        return None
    checkpoint = folder / name
    if checkpoint.exists() and not resume:
        raise UserError(
            "directory", "a folder without a survey", str(folder), "choose another, or resume the one there"
        )
    return checkpoint


class Sampler(Protocol):
    """What `driven` runs: a state, and a step that advances it."""

    def init(self, generator: torch.Generator) -> Any: ...

    def step(self, state: Any, generator: torch.Generator) -> tuple[Any, Mapping[str, Any]]: ...


def driven(
    sampler: Sampler,
    generator: torch.Generator,
    meter: Meter,
    *,
    stop: Callable[[Any, Any], str | None],
    checkpoint: Path | None,
    saved: Checkpoint | None,
    progress: Progress,
) -> Outcome:
    """The run of a sampler, begun anew or gone on with from what was ``saved``; see `run.drive`."""
    return drive(
        sampler.step,
        saved.state if saved is not None else sampler.init(generator),
        generator,
        meter=meter,
        stop=stop,
        checkpoint=checkpoint,
        progress=progress,
        resume=saved,
    )


@dataclass(frozen=True)
class Surveyed:
    """What a survey was made of, for its attributes; ``probability``: "sigmoid" of a binary log-odds, else empty."""

    observable: str
    observable_sentence: str
    space: Space
    model_name: str = ""
    model_hash: str = ""
    probability: str = ""


def attributes(
    instrument: Any,
    field: Field,
    outcome: Outcome,
    *,
    name: str,
    method: str,
    observable_sentence: str,
    citations: Sequence[str],
    command: str,
) -> dict[str, str | int | float]:
    """The attributes of a result of ``instrument``, a dataclass of settings with a seed, called ``name``."""
    surveyed = Surveyed(
        field.name, observable_sentence, field.space, field.model_name, field.model_hash, field.probability
    )
    return attributes_of(
        asdict(instrument), surveyed, outcome, name=name, method=method, citations=citations, command=command
    )


def attributes_of(
    settings: Mapping[str, Any],
    surveyed: Surveyed,
    outcome: Outcome,
    *,
    name: str,
    method: str,
    citations: Sequence[str],
    command: str,
) -> dict[str, str | int | float]:
    """The same from ``settings`` by name, a seed among them."""
    return {
        **result.provenance(
            settings={key: value for key, value in settings.items() if value is not None},
            seed=settings["seed"],
            evaluations=outcome.evaluations,
            seconds=outcome.seconds,
            model_name=surveyed.model_name,
            model_hash=surveyed.model_hash,
            command=command,
            citations=citations,
        ),
        "instrument": name,
        "observable": surveyed.observable,
        "observable_sentence": surveyed.observable_sentence,
        "space": surveyed.space.spec(),
        "space_sentence": surveyed.space.describe(),
        "log_volume": surveyed.space.log_volume,
        "method": method,
        "probability": surveyed.probability,
    }


def check_variables(checks: Sequence[Check]) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The checks of a verdict as variables of a result; none where there are no checks."""
    if not len(checks):
        return {}
    passed = [-1 if check.passed is None else int(np.all(check.passed)) for check in checks]
    return {
        "check_name": (("check",), np.array([check.name for check in checks])),
        "check_value": (("check",), np.array([check.value for check in checks], dtype=np.float64)),
        "check_limit": (("check",), np.array([check.limit for check in checks])),
        "check_passed": (("check",), np.array(passed, dtype=np.int64)),
        "check_sentence": (("check",), np.array([check.sentence for check in checks])),
    }
