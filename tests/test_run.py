"""`run`: budgets, meters, state trees, checkpoints, and the loop with its interrupts and resuming."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from theodolite import run
from theodolite.errors import UserError
from theodolite.run import Budget, Checkpoint, Meter, Progress, Status, drive, pack, read_checkpoint, unpack


class RandomWalk:
    """A toy sampler: its state depends on every random number and, as a sampler's may, on the share used."""

    def __init__(self, budget: str, interrupt_at: tuple[int, ...] = ()) -> None:
        self.rows = 0
        self.meter = Meter(Budget.parse(budget), lambda: self.rows)
        self.interrupt_at = interrupt_at

    def step(self, state: dict, generator: torch.Generator) -> tuple[dict, dict]:
        self.rows += 10
        move = torch.randn(3, generator=generator, dtype=torch.float64) * (1 - self.meter.fraction / 2)
        if state["steps"] in self.interrupt_at:
            signal.raise_signal(signal.SIGINT)
        state = {
            "x": state["x"] + move,
            "steps": state["steps"] + 1,
            "trace": np.append(state["trace"], move[0]),
        }
        return state, {"x": float(state["x"][0])}

    @staticmethod
    def start() -> dict:
        return {"x": torch.zeros(3, dtype=torch.float64), "steps": 0, "trace": np.zeros(0)}

    def drive(self, generator: torch.Generator, **options: object) -> run.Outcome:
        return drive(self.step, self.start(), generator, meter=self.meter, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """A suite started in the background inherits an ignored SIGINT, which the library leaves alone."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def assert_same_tree(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, np.ndarray | np.generic):
        assert isinstance(found, np.ndarray | np.generic)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, strict=True)
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same_tree(found[key], value)
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list | tuple)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same_tree(a, b)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("60 s", Budget(seconds=60)),
        ("60s", Budget(seconds=60)),
        ("5 min", Budget(seconds=300)),
        ("1.5 hours", Budget(seconds=5400)),
        ("2 h", Budget(seconds=7200)),
        ("  .5 Minutes ", Budget(seconds=30)),
        ("4e6 evaluations", Budget(evaluations=4_000_000)),
        ("4,000,000 evaluations", Budget(evaluations=4_000_000)),
        ("1 evaluation", Budget(evaluations=1)),
    ],
)
def test_a_budget_is_read_and_written(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    [
        "0 s",
        "0 evaluations",
        "-5 min",
        "five minutes",
        "",
        "5",
        "min",
        "5 parsecs",
        "nan s",
        "inf s",
        "1e999 s",
    ]
    + ["0.5 evaluations", "1e999 evaluations", "5 s s", None, 60],
)
def test_a_wrong_budget_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(UserError, match="5 min") as caught:
        Budget.parse(text)
    assert caught.value.argument == "budget"


@pytest.mark.parametrize("amounts", [{}, {"seconds": 0.0}, {"evaluations": -1}, {"seconds": float("nan")}])
def test_a_budget_needs_something_above_zero(amounts: dict) -> None:
    with pytest.raises(UserError, match="budget"):
        Budget(**amounts)


def test_a_meter_counts_evaluations_from_where_it_was_made_and_from_what_was_used_before() -> None:
    rows = 7
    meter = Meter(Budget(evaluations=100), lambda: rows)
    rows += 25
    assert (meter.evaluations, meter.fraction, meter.spent) == (25, 0.25, False)
    meter.restore(12.0, 60)
    rows += 15
    assert (meter.evaluations, meter.fraction) == (75, 0.75)
    assert meter.seconds >= 12.0
    rows += 1000
    assert (meter.fraction, meter.spent) == (1.0, True)


def test_of_two_budgets_the_first_to_be_spent_counts() -> None:
    rows = 0
    meter = Meter(Budget(seconds=1e6, evaluations=10), lambda: rows)
    rows = 5
    assert meter.fraction == 0.5
    meter.restore(2e6, 0)
    assert meter.spent


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (7500, "2 h 5 min"), (86400, "24 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert run.duration(seconds) == words


# State trees

ARRAYS = [
    np.arange(6, dtype=kind).reshape(2, 3) for kind in ("u1", "u2", "u4", "u8", "i1", "i8", "f2", "f4", "f8", "c16")
] + [
    np.array([[True], [False]]),
    np.array(3.5),
    np.zeros((0, 4), np.uint32),
    np.array([np.nan, -np.inf, -0.0]),
    np.array([2**64 - 1], np.uint64),
    np.array(["noise", "zeros", "ü"]),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(10)[::-2],
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_every_kind_of_array_survives_a_checkpoint(array: np.ndarray, tmp_path: Path) -> None:
    run.write_checkpoint(tmp_path / "a.pt", Checkpoint(array, seeded().get_state(), 0.0, 0))
    assert_same_tree(read_checkpoint(tmp_path / "a.pt").state, array)


def test_a_tree_survives_a_checkpoint_with_its_types(tmp_path: Path) -> None:
    tree = {
        "tensors": [
            torch.arange(4, dtype=torch.int64),
            torch.tensor(1.5, dtype=torch.float64),
            torch.zeros(0, 3),
        ],
        "tuple": (1, (2.5, "three"), None, True, [], {}, ()),
        "numbers": [np.float64(0.1), np.int64(-3), np.uint8(255), np.bool_(True), 2**80, float("-inf")],
        ("a", 1): {"kind": "dict", "items": 3},
        5: "not text",
        "bools": torch.tensor([True, False]),
        "ours": Budget(seconds=3.0),
    }
    run.write_checkpoint(tmp_path / "a.pt", Checkpoint(tree, seeded().get_state(), 1.5, 10, None, ""))
    found = read_checkpoint(tmp_path / "a.pt")
    assert_same_tree(found.state, tree)
    assert (found.seconds, found.evaluations, found.status, found.reason) == (1.5, 10, None, "")


def test_a_packed_state_is_detached_from_the_state() -> None:
    state = {"x": torch.zeros(2, requires_grad=True), "n": np.zeros(2)}
    packed = pack(state)
    with torch.no_grad():
        state["x"] += 1
    state["n"] += 1
    assert_same_tree(unpack(packed), {"x": torch.zeros(2), "n": np.zeros(2)})


def test_a_view_is_packed_without_what_it_is_a_view_of(tmp_path: Path) -> None:
    view = torch.zeros(1_000_000)[:2]
    run.write_checkpoint(tmp_path / "a.pt", Checkpoint({"x": view}, seeded().get_state(), 0.0, 0))
    assert (tmp_path / "a.pt").stat().st_size < 50_000


@dataclasses.dataclass
class Foreign:
    x: int = 0


@pytest.mark.parametrize("leaf", [Foreign(), np.array([None]), {1, 2}, open, Path("x"), torch.Generator()])
def test_what_would_need_a_pickle_is_refused(leaf: object) -> None:
    with pytest.raises(UserError, match="state"):
        pack([{"deep": leaf}])


@pytest.mark.parametrize(
    "name",
    ["os:system", "theodolite_evil:X", "theodolite.run:drive", "theodolite.run:Gone", "theodolite.gone:X"],
)
def test_only_our_dataclasses_are_rebuilt(name: str) -> None:
    with pytest.raises(UserError, match="checkpoint"):
        unpack({"kind": "dataclass", "class": name, "fields": {}})


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(UserError, match="version"):
        unpack({"kind": "dataclass", "class": "theodolite.run:Budget", "fields": {"hours": 1}})


def checkpoint_file(directory: Path) -> Path:
    path = directory / "checkpoint.pt"
    state = {"x": torch.arange(5000, dtype=torch.float64)}
    run.write_checkpoint(path, Checkpoint(state, seeded().get_state(), 2.0, 30, Status.INTERRUPTED, "enough"))
    return path


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file .*gone.pt"):
        read_checkpoint(tmp_path / "gone.pt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named_with_a_remedy(tmp_path: Path, share: float) -> None:
    path = checkpoint_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"checkpoint\.pt, which is truncated or corrupt; restore it"):
        read_checkpoint(path)


def test_a_flipped_bit_in_the_state_is_seen(tmp_path: Path) -> None:
    path = checkpoint_file(tmp_path)
    content = bytearray(path.read_bytes())
    where = bytes(content).index(np.float64(2500).tobytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_checkpoint(path)


def test_a_foreign_file_is_refused_and_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="something else"):
        read_checkpoint(tmp_path / "model.pt")

    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "hacked"),))

    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "hacked").exists()


def test_a_failed_write_leaves_the_former_checkpoint_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint_file(tmp_path)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space left"):
        run.write_checkpoint(path, Checkpoint({"x": 1}, seeded().get_state(), 9.0, 9))
    monkeypatch.undo()
    assert read_checkpoint(path).evaluations == 30
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_run_ends_when_its_evaluations_are_spent() -> None:
    walk = RandomWalk("95 evaluations")
    outcome = walk.drive(seeded())
    assert (outcome.state["steps"], outcome.evaluations, outcome.status) == (10, 100, Status.BUDGET_SPENT)
    assert outcome.reason == "The budget of 95 evaluations is spent."


def test_a_run_ends_when_its_seconds_are_spent() -> None:
    walk = RandomWalk("0.05 s")
    outcome = walk.drive(seeded())
    assert outcome.status is Status.BUDGET_SPENT
    assert outcome.state["steps"] > 0
    assert outcome.seconds >= 0.05


def test_a_stop_rule_ends_a_run_with_its_sentence() -> None:
    walk = RandomWalk("1e6 evaluations")
    outcome = walk.drive(seeded(), stop=lambda state, info: "Seven." if state["steps"] == 7 else None)
    assert (outcome.state["steps"], outcome.status, outcome.reason) == (7, Status.STOPPED, "Seven.")


@pytest.mark.parametrize("interrupts", [(0,), (49,), (98,), (99,), (20, 21, 60)])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, interrupts: tuple[int, ...]) -> None:
    generator = seeded()
    whole = RandomWalk("1000 evaluations").drive(generator)
    path = tmp_path / "checkpoint.pt"
    outcome = RandomWalk("1000 evaluations", interrupts[:1]).drive(seeded(), checkpoint=path)
    for number in range(1, len(interrupts) + 1):
        # The step during which Ctrl-C came is finished; when it was the last one, the run is simply over.
        assert outcome.state["steps"] == interrupts[number - 1] + 1
        assert outcome.status is (Status.INTERRUPTED if outcome.state["steps"] < 100 else Status.BUDGET_SPENT)
        fresh = torch.Generator().manual_seed(999)
        walk = RandomWalk("1000 evaluations", interrupts[number : number + 1])
        walk.rows = 12345
        outcome = walk.drive(fresh, checkpoint=path, resume=read_checkpoint(path))
    assert (outcome.status, outcome.evaluations) == (Status.BUDGET_SPENT, whole.evaluations)
    assert_same_tree(outcome.state, whole.state)
    assert torch.equal(fresh.get_state(), generator.get_state())


def test_a_killed_run_goes_on_from_its_last_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    whole = RandomWalk("1000 evaluations").drive(seeded())
    path = tmp_path / "checkpoint.pt"
    walk = RandomWalk("1000 evaluations")

    def killed_at_40(state: dict, generator: torch.Generator) -> tuple[dict, dict]:
        if state["steps"] == 40:
            raise RuntimeError("killed")
        return walk.step(state, generator)

    with pytest.raises(RuntimeError, match="killed"):
        drive(killed_at_40, walk.start(), seeded(), meter=walk.meter, checkpoint=path, every=0.0)
    saved = read_checkpoint(path)
    assert (saved.state["steps"], saved.status) == (40, None)
    again = RandomWalk("1000 evaluations").drive(torch.Generator(), checkpoint=path, resume=saved)
    assert_same_tree(again.state, whole.state)


@pytest.mark.parametrize("stop", [None, lambda state, info: "Enough." if state["steps"] == 5 else None])
def test_resuming_a_finished_run_does_nothing(tmp_path: Path, stop: object) -> None:
    path = tmp_path / "checkpoint.pt"
    first = RandomWalk("100 evaluations").drive(seeded(), checkpoint=path, stop=stop)
    content = path.read_bytes()
    walk = RandomWalk("100 evaluations")
    second = walk.drive(torch.Generator(), checkpoint=path, stop=stop, resume=read_checkpoint(path))
    assert walk.rows == 0
    assert path.read_bytes() == content
    assert_same_tree(second.state, first.state)
    assert (second.status, second.reason, second.evaluations) == (
        first.status,
        first.reason,
        first.evaluations,
    )


def test_a_spent_run_goes_on_with_a_larger_budget(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    RandomWalk("100 evaluations").drive(seeded(), checkpoint=path)
    longer = RandomWalk("300 evaluations").drive(torch.Generator(), resume=read_checkpoint(path))
    assert (longer.state["steps"], longer.evaluations) == (30, 300)


def test_seconds_used_before_count_when_resumed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    state = RandomWalk.start()
    run.write_checkpoint(path, Checkpoint(state, seeded().get_state(), 3600.0, 0))
    outcome = RandomWalk("1 h").drive(seeded(), resume=read_checkpoint(path))
    assert outcome.state["steps"] == 0
    assert outcome.seconds >= 3600.0


def test_a_second_interrupt_aborts_at_once_and_the_handler_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    walk = RandomWalk("1000 evaluations")

    def twice(state: dict, generator: torch.Generator) -> tuple[dict, dict]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("not reached")

    with pytest.raises(KeyboardInterrupt):
        drive(twice, walk.start(), seeded(), meter=walk.meter)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_step_that_is_cut_short_never_happened(tmp_path: Path) -> None:
    whole = RandomWalk("1000 evaluations").drive(seeded())
    path = tmp_path / "checkpoint.pt"
    walk = RandomWalk("1000 evaluations")

    def cut(state: dict, generator: torch.Generator) -> tuple[dict, dict]:
        result = walk.step(state, generator)
        if state["steps"] == 30:
            raise KeyboardInterrupt
        return result

    outcome = drive(cut, walk.start(), seeded(), meter=walk.meter, checkpoint=path)
    assert (outcome.status, outcome.state["steps"], outcome.evaluations) == (Status.INTERRUPTED, 30, 300)
    again = RandomWalk("1000 evaluations").drive(torch.Generator(), resume=read_checkpoint(path))
    assert_same_tree(again.state, whole.state)


def test_a_run_outside_the_main_thread_needs_no_signals() -> None:
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(RandomWalk("100 evaluations").drive(seeded())))
    thread.start()
    thread.join()
    assert outcomes[0].status is Status.BUDGET_SPENT


def test_a_state_that_cannot_be_saved_is_refused_before_the_first_step(tmp_path: Path) -> None:
    walk = RandomWalk("100 evaluations")
    with pytest.raises(UserError, match="state"):
        drive(walk.step, Foreign(), seeded(), meter=walk.meter, checkpoint=tmp_path / "a.pt")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="checkpoint"):
        walk.drive(seeded(), checkpoint=tmp_path / "file" / "a.pt")
    assert walk.rows == 0


def test_a_disk_that_fills_up_later_costs_a_warning_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = RandomWalk("100 evaluations")

    def step(state: dict, generator: torch.Generator) -> tuple[dict, dict]:
        def full_disk(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full_disk)
        return walk.step(state, generator)

    with pytest.warns(RuntimeWarning, match="No space left"):
        outcome = drive(step, walk.start(), seeded(), meter=walk.meter, checkpoint=tmp_path / "a.pt")
    assert outcome.state["steps"] == 10


def shown(terminal: bool, **options: object) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150)
    walk = RandomWalk("100 evaluations")
    walk.drive(seeded(), progress=Progress("density", console=console, **options))  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_lines_where_there_is_no_terminal() -> None:
    lines = shown(terminal=False, every=0.0).splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("density 10%, 10 evaluations")
    assert lines[4].startswith("density 50%, 50 evaluations")
    assert " left, x " in lines[4]
    assert lines[-1] == "density: The budget of 100 evaluations is spent."
    assert "\x1b" not in "".join(lines)


def test_few_lines_and_always_the_last_one() -> None:
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("density 100%, 100 evaluations")


def test_a_bar_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "━" in text
    assert "100%" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_silence(terminal: bool) -> None:
    assert shown(terminal=terminal, silent=True) == ""
