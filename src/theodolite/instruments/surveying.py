"""What every instrument does around its method: check its data, find its checkpoint, say where a result comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
import xarray
from torch import Tensor

from theodolite import result
from theodolite.errors import UserError
from theodolite.field import Field
from theodolite.instruments.verdict import Check
from theodolite.network import Network
from theodolite.run import Budget, Checkpoint, Meter, Outcome, Progress, drive, read_checkpoint
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
    return {str(name): points_of(f"data {str(name)!r}", points, field.space) for name, points in named.items()}


def points_of(argument: str, given: Tensor, space: Space) -> Tensor:
    """``given (n, *shape)`` as it is; UserError naming the argument for other shapes, none, and complex numbers."""
    points = torch.as_tensor(given)
    if tuple(points.shape[1:]) != space.shape or points.ndim == 0 or len(points) == 0:
        expected = f"points of shape (n, {', '.join(map(str, space.shape))}) with n > 0"
        raise UserError(argument, expected, f"shape {tuple(points.shape)}", "put the batch on axis 0 and reshape each")
    if points.is_complex():
        raise UserError(argument, "real numbers", str(points.dtype), "take their real part")
    return points


def labels_of(given: Tensor, n_inputs: int, unknown: str = "; -1 where unknown") -> Tensor:
    """``given (n_inputs,)`` as int64; UserError where there are more or fewer, and for numbers that are not whole.

    ``unknown``: what the error says of inputs without a class.
    """
    labels = torch.as_tensor(given)
    if tuple(labels.shape) != (n_inputs,):
        raise UserError("labels", f"{n_inputs}, one an input", f"shape {tuple(labels.shape)}", "match them")
    if labels.is_complex() or (labels.is_floating_point() and not bool((labels == labels.round()).all())):
        got = "complex numbers" if labels.is_complex() else "fractions"
        raise UserError("labels", "whole numbers", got, f"number the classes from 0{unknown}")
    return labels.long()


def precision_of(network: Network) -> torch.dtype:
    """That of searches: float64 where the network has such weights, else float32."""
    double = any(parameter.dtype == torch.float64 for parameter in network.module.parameters())
    return torch.float64 if double else torch.float32


class Sampler(Protocol):
    """What a `Run` runs: a state, a step that advances it, and when it has done all it can."""

    def init(self, generator: torch.Generator) -> Any: ...

    def step(self, state: Any, generator: torch.Generator) -> tuple[Any, Mapping[str, Any]]: ...


@final
@dataclass(frozen=True)
class Run:
    """One run of a survey: ``folder`` and the ``checkpoint`` in it (None: nothing is kept), what an earlier run
    ``saved`` there (None: it begins), what it may use (``meter``) and how it is shown (``progress``)."""

    folder: Path | None
    checkpoint: Path | None
    saved: Checkpoint | None
    meter: Meter
    progress: Progress

    @classmethod
    def begun(
        cls,
        name: str,
        checkpoint: str,
        directory: str | Path | None,
        *,
        resume: bool,
        budget: str,
        evaluations: Callable[[], int],
        progress: bool,
    ) -> Run:
        """A run of the survey ``name``, whose ``checkpoint`` is called so in ``directory``.

        Its clock and its count of ``evaluations`` start now. Raises UserError where the directory holds a survey that
        is not to be resumed, or a checkpoint that cannot be read.
        """
        folder = Path(directory) if directory is not None else None
        file = None if folder is None else folder / checkpoint
        if file is not None and file.exists() and not resume:
            raise UserError(
                "directory", "a folder without a survey", str(folder), "choose another, or resume the one there"
            )
        saved = read_checkpoint(file) if resume and file is not None else None
        meter = Meter(Budget.parse(budget), evaluations)
        return cls(folder, file, saved, meter, Progress(name, silent=not progress))

    def of(self, sampler: Sampler, generator: torch.Generator, stop: Callable[[Any, Any], str | None]) -> Outcome:
        """The sampler, begun anew or gone on with from what was saved, until ``stop`` or the end of the budget."""
        return drive(
            sampler.step,
            self.saved.state if self.saved is not None else sampler.init(generator),
            generator,
            meter=self.meter,
            stop=stop,
            checkpoint=self.checkpoint,
            progress=self.progress,
            resume=self.saved,
        )

    def check_same(self, identity: str, what: str) -> None:
        """Raise UserError where the run to go on with was begun with others of ``what``, of another ``identity``."""
        known = identity if self.saved is None else getattr(self.saved.state, "identity", "")
        if known != identity:
            got = f"others (hash {identity[:12]} for {known[:12] or 'none'})"
            raise UserError(
                "resume", f"{what} that the run began with", got, "give them, or begin anew in another folder"
            )

    def keep(self, dataset: xarray.Dataset) -> None:
        """Save the result, where there is a folder."""
        if self.folder is not None:
            result.save(dataset, self.folder)


def hash_of(networks: Sequence[Network]) -> str:
    """Of one network its own hash, of several one of all in their order."""
    hashes = [network.hash for network in networks]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def identity_of(*values: Any) -> str:
    """sha256 of everything a run depends on: tensors bit for bit, other values as they print, in containers whose ends
    show."""
    digest = hashlib.sha256()
    _tell(digest, values)
    return digest.hexdigest()


def _tell(digest: hashlib._Hash, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(repr((value.dtype, tuple(value.shape))).encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        _tell(digest, list(value.items()))
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)} of:".encode())
        for one in value:
            _tell(digest, one)
    else:
        digest.update(f"{value!r};".encode())


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
