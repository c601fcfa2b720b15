"""The only loop: `drive` repeats a step within a budget, with progress, checkpoints and interrupts.

A step is a function ``step(state, generator) -> (state, info)`` without side effects, so that budgets,
checkpoints, resuming and interrupts exist once, for every instrument. Checkpoints hold no pickled objects: a
state is written as containers, numbers, text and tensors, and read with ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import math
import os
import pickle
import re
import signal
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from theodolite.errors import UserError

State = TypeVar("State")
Info = Mapping[str, float | int | str]

CHECKPOINT_FORMAT = "theodolite checkpoint 1"
_NUMBER = r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)"
# Of units without their plural s; seconds ("s") are the empty text.
_SECONDS = {"": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
_UNREADABLE = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
    pickle.PickleError,
    zipfile.BadZipFile,
)
_BUDGET_REMEDY = 'write a time such as "60 s", "5 min", "2 h", or a count such as "4e6 evaluations"'


@dataclass(frozen=True)
class Budget:
    """What a run may use: seconds of wall time, evaluations of the field (rows), or whichever ends first.

    Raises `UserError` where neither is given or one is zero, negative or not finite.
    """

    seconds: float | None = None
    evaluations: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.evaluations is None:
            raise UserError("budget", "seconds or evaluations", "neither", _BUDGET_REMEDY)
        for amount in (self.seconds, self.evaluations):
            if amount is not None and not (math.isfinite(amount) and amount > 0):
                raise UserError("budget", "an amount above 0", f"{amount:g}", _BUDGET_REMEDY)

    @classmethod
    def parse(cls, text: str | Budget) -> Budget:
        """Read "60 s", "5 min", "2 h" or "4e6 evaluations"; a `Budget` is returned as it is."""
        if isinstance(text, Budget):
            return text
        plain = str(text).lower().replace(",", "")
        match = re.fullmatch(rf"\s*{_NUMBER}\s*([a-z]+)\s*", plain)
        unit = match.group(2).removesuffix("s") if match else ""
        if match and unit == "evaluation":
            amount = float(match.group(1))
            if not amount.is_integer():
                raise UserError("budget", "a whole number of evaluations", repr(text), _BUDGET_REMEDY)
            return cls(evaluations=int(amount))
        if match is None or unit not in _SECONDS:
            raise UserError("budget", "a time or a number of evaluations above 0", repr(text), _BUDGET_REMEDY)
        return cls(seconds=float(match.group(1)) * _SECONDS[unit])

    def __str__(self) -> str:
        size, unit = next(((s, u) for s, u in ((3600, "h"), (60, "min")) if not (self.seconds or 1) % s), (1, "s"))
        seconds = None if self.seconds is None else f"{self.seconds / size:.12g} {unit}"
        evaluations = None if self.evaluations is None else f"{self.evaluations:,} evaluations"
        return " or ".join(part for part in (seconds, evaluations) if part)


class Meter:
    """What has been used of a budget, earlier runs of the same survey included.

    Under an evaluation budget `fraction` is a function of the evaluations only, so that whatever a sampler
    derives from it does not depend on the speed of the machine. `field_evaluations` returns the rows a field
    has evaluated; rows evaluated before the meter was made do not count.
    """

    def __init__(self, budget: Budget, field_evaluations: Callable[[], int]) -> None:
        self.budget = budget
        self._count = field_evaluations
        self.restore(0.0, 0)

    def restore(self, seconds: float, evaluations: int) -> None:
        """Go on from what was used before: the clock and the count start again from these."""
        self._seconds_before, self._evaluations_before = float(seconds), int(evaluations)
        self._started, self._count_before = time.monotonic(), int(self._count())

    @property
    def seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    @property
    def evaluations(self) -> int:
        return self._evaluations_before + int(self._count()) - self._count_before

    @property
    def fraction(self) -> float:
        """The share of the budget that is used, in [0, 1]."""
        shares = [0.0]
        if self.budget.evaluations is not None:
            shares.append(self.evaluations / self.budget.evaluations)
        if self.budget.seconds is not None:
            shares.append(self.seconds / self.budget.seconds)
        return min(1.0, max(shares))

    @property
    def spent(self) -> bool:
        return self.fraction >= 1.0


def duration(seconds: float) -> str:
    """A time in words, to the second below an hour: "45 s", "5 min 20 s", "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest if not hours else 0, "s"))
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount) or "0 s"


def pack(tree: Any) -> Any:
    """Turn a state into plain containers, numbers, text and tensors, detached from the state.

    Raises `UserError` for what needs pickles to be read back: a class outside theodolite, an object array.
    """
    if isinstance(tree, np.generic):
        return {"kind": "scalar", "value": pack(np.asarray(tree))}
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "biufcSU":
        flat = np.array(tree, order="C", ndmin=1).reshape(-1)
        data = torch.from_numpy(flat.view(np.uint8))
        return {"kind": "array", "dtype": tree.dtype.str, "shape": list(tree.shape), "bytes": data}
    if type(tree) is list:
        return [pack(value) for value in tree]
    if type(tree) is tuple:
        return tuple(pack(value) for value in tree)
    if type(tree) is dict:
        return {"kind": "dict", "items": [(pack(key), pack(value)) for key, value in tree.items()]}
    kind = type(tree)
    if dataclasses.is_dataclass(tree) and _is_ours(kind.__module__) and "<" not in kind.__qualname__:
        fields = {field.name: pack(getattr(tree, field.name)) for field in dataclasses.fields(tree)}
        return {"kind": "dataclass", "class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
    expected = "dataclasses of theodolite, dicts, lists, tuples, tensors, arrays, numbers and text"
    remedy = "keep such an object outside the state, or put its numbers into arrays"
    raise UserError("state", expected, f"{kind.__module__}.{kind.__qualname__}", remedy)


def unpack(packed: Any) -> Any:
    """The inverse of `pack`; `UserError` for a class that theodolite does not have."""
    if type(packed) is list:
        return [unpack(value) for value in packed]
    if type(packed) is tuple:
        return tuple(unpack(value) for value in packed)
    if type(packed) is not dict:
        return packed
    kind = packed.get("kind")
    if kind == "dict":
        return {unpack(key): unpack(value) for key, value in packed["items"]}
    if kind == "scalar":
        return unpack(packed["value"])[()]
    if kind == "array":
        return packed["bytes"].numpy().copy().view(packed["dtype"]).reshape(packed["shape"])
    if kind == "dataclass":
        return _rebuild(packed["class"], packed["fields"])
    raise UserError("checkpoint", "a packed state", f"a part of kind {kind!r}", "start the run again")


def _is_ours(module: str) -> bool:
    return module == "theodolite" or module.startswith("theodolite.")


def _rebuild(name: str, fields: Mapping[str, Any]) -> Any:
    module, _, qualified = name.partition(":")
    found: Any = None
    if _is_ours(module):
        try:
            found = importlib.import_module(module)
            for part in qualified.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            found = None
    known = isinstance(found, type) and dataclasses.is_dataclass(found)
    if not known or {field.name for field in dataclasses.fields(found)} != set(fields):
        got = f"a state {name} with fields {', '.join(fields)}"
        remedy = "resume with the version that wrote the checkpoint, or start the run again"
        raise UserError("checkpoint", "states of this version of theodolite", got, remedy)
    # Not through __init__: the state must come back as it was, not as its checks or defaults would make it.
    instance = object.__new__(found)
    for key, value in fields.items():
        object.__setattr__(instance, key, unpack(value))
    return instance


class Status(enum.Enum):
    """How a run ended, in a sentence."""

    BUDGET_SPENT = "The budget is spent."
    STOPPED = "The stop rule was met."
    INTERRUPTED = "The run was interrupted and ended with what it had."


@dataclass(frozen=True)
class Checkpoint:
    """A state between two steps with all that is needed to go on from it.

    `generator_state` is a uint8 tensor; `seconds` and `evaluations` are those used so far; `status` is None
    where the run had not ended.
    """

    state: Any
    generator_state: torch.Tensor
    seconds: float
    evaluations: int
    status: Status | None = None
    reason: str = ""


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write atomically: a reader finds the former checkpoint or this one, whatever happens meanwhile."""
    path = Path(path)
    content = {
        "format": CHECKPOINT_FORMAT,
        "state": pack(checkpoint.state),
        "generator_state": checkpoint.generator_state.clone(),
        "seconds": float(checkpoint.seconds),
        "evaluations": int(checkpoint.evaluations),
        "status": checkpoint.status.name if checkpoint.status else "",
        "reason": checkpoint.reason,
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        remedy = "free space or choose another directory"
        raise UserError("checkpoint", "a file that can be written", f"{path}: {error}", remedy) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote; `UserError` naming a missing, corrupt or foreign file."""
    path = Path(path)
    if not path.is_file():
        remedy = "give the directory of a run that wrote one, or start a new run"
        raise UserError("checkpoint", "a file", f"no file {path}", remedy)
    try:
        # torch.load reads past flipped bits; the sums inside the zip container tell them.
        with zipfile.ZipFile(path) as container:
            broken = container.testzip()
        content = None if broken else torch.load(path, weights_only=True)
        if broken:
            raise zipfile.BadZipFile(broken)
    except _UNREADABLE as error:
        remedy = "restore it from a copy, or delete it and start the run again"
        got = f"{path}, which is truncated or corrupt"
        raise UserError("checkpoint", "a whole file", got, remedy) from error
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        remedy = "give the directory of a run of this version"
        raise UserError("checkpoint", CHECKPOINT_FORMAT, f"{path}, which is something else", remedy)
    return Checkpoint(
        state=unpack(content["state"]),
        generator_state=content["generator_state"],
        seconds=content["seconds"],
        evaluations=content["evaluations"],
        status=Status[content["status"]] if content["status"] else None,
        reason=content["reason"],
    )


class Progress:
    """Shows a run: a bar with rate and time left on a terminal, else a plain line every `every` seconds.

    A silent one shows nothing.
    """

    def __init__(
        self, label: str = "run", *, console: Console | None = None, every: float = 10.0, silent: bool = False
    ) -> None:
        self.label = label
        self.silent = silent
        self.console = console or Console(stderr=True)
        self.every = every
        self._shown = -math.inf
        self._bar: Bar | None = None
        self._start: tuple[float, int] | None = None

    def __enter__(self) -> Progress:
        self._shown, self._start = time.monotonic(), None
        if self.console.is_terminal and not self.silent:
            label, words = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[words]"))
            columns = (label, BarColumn(20), TaskProgressColumn(), words)
            # No refresh thread: it would compete with the step for the interpreter.
            self._bar = Bar(*columns, console=self.console, auto_refresh=False)
            self._task = self._bar.add_task(self.label, total=1.0, words="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, meter: Meter, info: Info, *, last: bool = False) -> None:
        """Show where the run is, at most every 0.2 s on a terminal and every `every` seconds elsewhere."""
        now = time.monotonic()
        if self._start is None:
            self._start = (meter.seconds, meter.evaluations)
        wait = 0.2 if self._bar is not None else self.every
        if self.silent or (not last and now - self._shown < wait):
            return
        self._shown = now
        words = progress_words(meter, info, since=self._start)
        if self._bar is not None:
            self._bar.update(self._task, completed=meter.fraction, words=words, refresh=True)
        else:
            self._print(f"{self.label} {meter.fraction:.0%}, {words}")

    def note(self, sentence: str) -> None:
        """Say a sentence, such as how the run ended."""
        if not self.silent:
            self._print(f"{self.label}: {sentence}")

    def _print(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def progress_words(meter: Meter, info: Info, *, since: tuple[float, int] = (0.0, 0)) -> str:
    """Evaluations, their rate since (seconds, evaluations), the time left and the info, in one line."""
    seconds, evaluations = meter.seconds - since[0], meter.evaluations - since[1]
    rate = evaluations / seconds if seconds > 0 else 0.0
    parts = [f"{meter.evaluations:,} evaluations", f"{rate:,.0f}/s"]
    left = []
    if meter.budget.seconds is not None:
        left.append(max(0.0, meter.budget.seconds - meter.seconds))
    if meter.budget.evaluations is not None and rate > 0:
        left.append(max(0.0, (meter.budget.evaluations - meter.evaluations) / rate))
    if left:
        parts.append(f"{duration(min(left))} left")
    parts += [
        f"{name} {value}" if isinstance(value, str | int) else f"{name} {value:.4g}" for name, value in info.items()
    ]
    return ", ".join(parts)


@dataclass(frozen=True)
class Outcome:
    """A run's last state and how it ended; not having converged is an outcome, not an exception."""

    state: Any
    status: Status
    reason: str
    seconds: float
    evaluations: int


class _Interrupts:
    """Takes the first Ctrl-C as a wish to end after this step and the second as an order to abort at once."""

    def __init__(self, announce: bool) -> None:
        self.count = 0
        self._announce = announce
        self._former: Any = None

    def __enter__(self) -> _Interrupts:
        # Python takes signals in the main thread only; an ignored SIGINT (nohup) stays ignored.
        if threading.current_thread() is threading.main_thread():
            former = signal.getsignal(signal.SIGINT)
            if former is not None and former is not signal.SIG_IGN:
                self._former = former
                signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        if self._announce:
            # Not through a console: the signal may have come while it holds its buffer.
            os.write(2, b"\nInterrupted: ending after this step; Ctrl-C again aborts at once.\n")


def drive(
    step: Callable[[State, torch.Generator], tuple[State, Info]],
    state: State,
    generator: torch.Generator,
    *,
    meter: Meter,
    stop: Callable[[State, Info], str | None] | None = None,
    checkpoint: str | Path | None = None,
    every: float = 30.0,
    progress: Progress | None = None,
    resume: Checkpoint | None = None,
) -> Outcome:
    """Repeat ``state, info = step(state, generator)`` until the budget is spent, `stop` says why, or Ctrl-C.

    `stop(state, info)` returns a sentence to end the run and None (or "") to go on. `checkpoint` is a file
    written at the start, every `every` seconds and at the end. The first Ctrl-C lets the step end and returns
    what there is; the second raises `KeyboardInterrupt`. With `resume` (see `read_checkpoint`) the state, the
    generator and the meter are set to the checkpoint's first, and a run that had ended returns at once: under
    an evaluation budget an interrupted and resumed run equals an uninterrupted one bit for bit.

    Raises `UserError` before the first step where the state cannot be saved or the file cannot be written.
    """
    if resume is not None:
        state = resume.state
        generator.set_state(resume.generator_state)
        meter.restore(resume.seconds, resume.evaluations)
        if resume.status is Status.STOPPED or (resume.status is Status.BUDGET_SPENT and meter.spent):
            return Outcome(state, resume.status, resume.reason, resume.seconds, resume.evaluations)

    def save() -> float:
        if checkpoint is not None:
            now = Checkpoint(state, generator.get_state(), meter.seconds, meter.evaluations, status, reason)
            try:
                write_checkpoint(checkpoint, now)
            except UserError as error:
                if not steps:
                    raise
                # A full disk must not cost hours of work: the run goes on with what it has.
                warnings.warn(str(error), RuntimeWarning, stacklevel=3)
        return time.monotonic()

    status: Status | None = None
    reason, info, steps = "", {}, 0
    saved = save()
    display = progress or Progress(silent=True)
    with _Interrupts(announce=not display.silent) as interrupts, display:
        while status is None:
            if meter.spent:
                status, reason = Status.BUDGET_SPENT, f"The budget of {meter.budget} is spent."
                break
            random_state, evaluations = generator.get_state(), meter.evaluations
            try:
                state, info = step(state, generator)
                steps += 1
            except KeyboardInterrupt:
                if interrupts.count > 1:
                    raise
                # A step cut short never happened: its random numbers and evaluations are given back.
                generator.set_state(random_state)
                meter.restore(meter.seconds, evaluations)
                status, reason = Status.INTERRUPTED, Status.INTERRUPTED.value
                break
            sentence = stop(state, info) if stop is not None else None
            if sentence:
                status, reason = Status.STOPPED, sentence
            elif interrupts.count and not meter.spent:
                status, reason = Status.INTERRUPTED, Status.INTERRUPTED.value
            elif time.monotonic() - saved >= every:
                saved = save()
            display.update(meter, info)
        display.update(meter, info, last=True)
        save()
    display.note(reason)
    return Outcome(state, status, reason, meter.seconds, meter.evaluations)
