"""Stages made for the test, run by the real runner in a real folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.failure import Failure, read_failure
from pipeline.engine.runner import Outcome, Runner, differences
from pipeline.engine.stage import Context, Elsewhere, Stage, StageReport, check_order
from pipeline.engine.store import Store
from pipeline.errors import Interrupted, StageError, StoreError
from pipeline.recipe import Recipe, load

RECIPE = """
name = "tiny"
seed = 1
[data]
kind = "mnist"
[preprocess]
kind = "digit"
[network]
layers = [{ op = "conv", out = 8 }, { op = "linear" }]
[train]
epochs = 2
lr = 0.1
"""


@dataclass(frozen=True)
class Said(StageReport):
    """The report of every stage made here."""

    values: tuple[int, ...] = ()
    resumed: int = 0


class Quiet:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    file = tmp_path / "tiny.toml"
    file.write_text(RECIPE)
    return load(str(file))


Run = Callable[[Context], Said]


def _write(text: str) -> Run:
    def run(context: Context) -> Said:
        (context.out / "out.txt").write_text(text)
        return Said(text)

    return run


def _copy_upper(context: Context) -> Said:
    text = (context.inputs["one"] / "out.txt").read_text()
    (context.out / "upper.txt").write_text(text.upper())
    return Said(context.report(Said, "one").headline)


def _stage(name: str, run: Run, **options: Any) -> Stage[Said]:
    return Stage(name, "for a test", Said, run, **options)


def _stages(first: Run | None = None, second: Run = _copy_upper) -> tuple[Stage[Said], ...]:
    return (
        _stage("one", first or _write("hello"), sections=("train",)),
        _stage("two", second, inputs=("one",), publish=("upper.txt",)),
    )


def _runner(recipe: Recipe, tmp_path: Path, stages: tuple[Stage[Said], ...]) -> Runner:
    names = tuple(stage.name for stage in stages)
    return Runner(stages, recipe, Store(tmp_path / "artifacts", recipe.name, names))


def _run(runner: Runner, goal: str = "all", **options: object) -> list[tuple[str, bool]]:
    seen: list[Outcome] = []
    runner.run(goal, Quiet(), on_outcome=seen.append, **options)  # type: ignore[arg-type]
    return [(outcome.stage.name, outcome.skipped) for outcome in seen]


def test_runs_once_then_does_nothing(recipe: Recipe, tmp_path: Path) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    assert _run(runner) == [("one", False), ("two", False)]
    assert _run(runner) == [("one", True), ("two", True)]
    root = tmp_path / "artifacts" / "tiny"
    assert (root / "1_one" / "out.txt").read_text() == "hello"
    assert (root / "upper.txt").read_text() == "HELLO"
    assert not list(root.glob("*.partial")) and not list(root.glob("*.old"))


def test_a_changed_key_reruns_only_what_depends_on_it(recipe: Recipe, tmp_path: Path) -> None:
    _run(_runner(recipe, tmp_path, _stages()))
    changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 3})})
    runner = _runner(changed, tmp_path, _stages())
    plan = runner.plan("all")
    assert plan[0].reasons == ("recipe: train.epochs changed: 2 -> 3",)
    assert plan[1].reasons == ("depends on one, which will run",)
    # the output is the same bytes as before, so the second stage stays fresh
    assert _run(runner) == [("one", False), ("two", True)]


def test_a_changed_output_reaches_the_next_stage(recipe: Recipe, tmp_path: Path) -> None:
    _run(_runner(recipe, tmp_path, _stages()))
    runner = _runner(recipe, tmp_path, _stages(first=_write("other")))
    assert _run(runner, start="one") == [("one", False), ("two", False)]
    assert (tmp_path / "artifacts/tiny/upper.txt").read_text() == "OTHER"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "output out.txt is missing"),
        (lambda file: file.write_text("hxllo"), "output out.txt was altered"),
        (lambda file: file.write_text("longer text"), "output out.txt was altered"),
    ],
)
def test_damaged_outputs_are_made_again(
    recipe: Recipe, tmp_path: Path, damage: object, reason: str
) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    _run(runner)
    damage(tmp_path / "artifacts/tiny/1_one/out.txt")  # type: ignore[operator]
    assert runner.plan("all")[0].reasons == (reason,)
    assert _run(runner)[0] == ("one", False)


def test_a_touched_output_is_still_fresh(recipe: Recipe, tmp_path: Path) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    _run(runner)
    os.utime(tmp_path / "artifacts/tiny/1_one/out.txt")
    assert runner.plan("all")[0].fresh


def _gained(context: Context) -> Said:
    """Copy what a baseline of the same artifact folder wrote, if there is one."""
    if "other" in context.inputs:
        text = (context.inputs["other"] / "out.txt").read_text()
        headline = context.report(Said, "other").headline
        (context.out / "gained.txt").write_text(f"{text}: {headline}")
    return Said("gained")


def test_results_of_another_recipe_are_read_where_they_are(recipe: Recipe, tmp_path: Path) -> None:
    def runner(baseline: str | None) -> Runner:
        own = recipe.model_copy(update={"baseline": baseline})
        stage = _stage(
            "one",
            _gained,
            borrows=lambda recipe: (
                {"other": Elsewhere(recipe.baseline, "one", optional=True)}
                if recipe.baseline
                else {}
            ),
        )
        return _runner(own, tmp_path, (stage, *_stages()[1:]))

    def other(text: str) -> Runner:
        own = recipe.model_copy(update={"name": "textbook"})
        return _runner(own, tmp_path, _stages(first=_write(text)))

    def reasons() -> tuple[str, ...]:
        return runner("textbook").plan("one")[0].reasons

    _run(runner("textbook"), "one")
    assert _run(runner("textbook"), "one") == [("one", True)]  # its absence does not repeat a stage
    _run(other("first"), "one")
    assert reasons() == ("input: other changed",)
    _run(runner("textbook"), "one")
    gained = tmp_path / "artifacts/tiny/1_one/gained.txt"
    assert gained.read_text() == "first: first"
    assert reasons() == ()
    _run(other("second"), "one", start="one")
    assert reasons() == ("input: other changed",)
    _run(runner("textbook"), "one")
    assert gained.read_text() == "second: second"
    # what was damaged since is not read, and whoever names no other recipe reads none
    (tmp_path / "artifacts/textbook/1_one/out.txt").write_text("altered by hand")
    _run(runner("textbook"), "one")
    assert not gained.exists()
    assert _run(runner(None), "one") == [("one", False)]
    assert not gained.exists()


def test_force_and_from(recipe: Recipe, tmp_path: Path) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    _run(runner)
    assert [s.reasons for s in runner.plan("two", force=True)] == [(), ("--force",)]
    assert [s.reasons for s in runner.plan("all", force=True)] == [("--force",), ("--force",)]
    assert [s.reasons for s in runner.plan("all", start="two")] == [(), ("--from two",)]
    assert [s.stage.name for s in runner.plan("one")] == ["one"]


def test_explain_says_why(recipe: Recipe, tmp_path: Path) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    observer = Quiet()
    runner.run("all", observer, explain=True)
    runner.run("all", observer, explain=True)
    assert observer.notes[0] == "tiny one: it has not run yet"
    assert observer.notes[-1] == "tiny two: fresh, nothing changed"


def _fail(context: Context) -> Said:
    (context.out / "upper.txt").write_text("half")
    raise RuntimeError("the disk caught fire")


def _interrupt(context: object) -> Said:
    raise KeyboardInterrupt


def test_a_failing_stage_leaves_the_last_good_result(recipe: Recipe, tmp_path: Path) -> None:
    _run(_runner(recipe, tmp_path, _stages()))
    failing = _runner(recipe, tmp_path, _stages(second=_fail))
    with pytest.raises(StageError, match="RuntimeError: the disk caught fire") as caught:
        _run(failing, start="two")
    assert caught.value.stage == "two"
    root = tmp_path / "artifacts" / "tiny"
    assert (root / "upper.txt").read_text() == "HELLO"
    assert (root / "2_two" / "upper.txt").read_text() == "HELLO"
    # a partial folder of a stage that cannot resume is emptied, never reused
    assert _run(_runner(recipe, tmp_path, _stages())) == [("one", True), ("two", True)]


def test_ctrl_c_names_the_stage(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        _run(_runner(recipe, tmp_path, _stages(second=_interrupt)))
    assert (caught.value.stage, caught.value.exit_code) == ("two", 130)


def test_two_runs_cannot_share_a_folder(recipe: Recipe, tmp_path: Path) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    with (
        runner.store.lock(),
        pytest.raises(StoreError, match=r"in use by another run.*--artifacts"),
    ):
        _run(_runner(recipe, tmp_path, _stages()))
    _run(runner)  # the lock is gone with its owner


def test_a_folder_that_cannot_be_written_is_a_plain_error(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file is in the way")
    with pytest.raises(StoreError, match=r"cannot be written.*--artifacts"):
        _run(_runner(recipe, tmp_path, _stages()))


def _resumable(context: Context) -> Said:
    file = context.out / "progress.txt"
    done = int(file.read_text()) if file.exists() else 0
    file.write_text(str(done + 1))
    if done == 0:
        raise RuntimeError("first time")
    return Said("counted", resumed=done)


def test_only_a_resumable_stage_with_the_same_fingerprint_goes_on(
    recipe: Recipe, tmp_path: Path
) -> None:
    stages = (_stage("one", _resumable, sections=("train",), resumable=True),)
    with pytest.raises(StageError):
        _run(_runner(recipe, tmp_path, stages))
    changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 9})})
    with pytest.raises(StageError):  # another fingerprint starts over
        _run(_runner(changed, tmp_path, stages))
    runner = _runner(changed, tmp_path, stages)
    _run(runner)
    assert runner.store.report("one", Said) == Said("counted", resumed=1)


def _note_of(runner: Runner) -> list[str]:
    observer = Quiet()
    with suppress(StageError):
        runner.run("all", observer)
    return observer.notes


def test_what_decides_only_how_fast_throws_no_work_away(recipe: Recipe, tmp_path: Path) -> None:
    stage = _stage(
        "one",
        _resumable,
        sections=("train",),
        resumable=True,
        how_fast=("train.threads", "train.max_minutes"),
    )

    def runner(**options: object) -> Runner:
        train = recipe.train.model_copy(update=options)
        return _runner(recipe.model_copy(update={"train": train}), tmp_path, (stage,))

    assert _note_of(runner()) == []
    longer = runner(threads=3, epochs=9)  # only what decides the result is reported
    (note,) = _note_of(longer)
    assert note.startswith("tiny one ")
    assert note.endswith(": recipe: train.epochs changed: 2 -> 9")
    faster = runner(threads=1, epochs=9, max_minutes=5.0)
    assert _note_of(faster) == []
    assert faster.store.report("one", Said) == Said("counted", resumed=1)
    assert faster.plan("one")[0].fresh
    assert not longer.plan("one")[0].fresh  # what is finished depends on all of its sections


def test_an_interrupted_run_that_left_nothing_is_not_reported(
    recipe: Recipe, tmp_path: Path
) -> None:
    stages = (_stage("one", _interrupt, sections=("train",), resumable=True),)
    with pytest.raises(Interrupted):
        _run(_runner(recipe, tmp_path, stages))
    changed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 9})})
    stages = (_stage("one", _write("x"), sections=("train",), resumable=True),)
    assert _note_of(_runner(changed, tmp_path, stages)) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.recipe import load
from pipeline.engine.runner import Runner
from pipeline.engine.stage import Stage, StageReport
from pipeline.engine import store

recipe = load(sys.argv[1])
target = sys.argv[3]
real = Path.rename

def rename(self, other):
    if target == "before " + Path(other).name:
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(self, other)
    if target == "after " + Path(other).name:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

Path.rename = rename

def work(context):
    (context.out / "out.txt").write_text("new")
    return StageReport("new")

stages = (Stage("one", "writes", StageReport, work),)
class Quiet:
    def note(self, text): pass
    def step(self, *a, **k): pass
place = store.Store(Path(sys.argv[2]), recipe.name, ("one",))
Runner(stages, recipe, place).run("all", Quiet(), force=True)
"""


@pytest.mark.parametrize("moment", ["before 1_one.old", "after 1_one.old", "after 1_one"])
def test_a_kill_between_two_renames_loses_nothing(
    recipe: Recipe, tmp_path: Path, moment: str
) -> None:
    stages = (_stage("one", _write("old")),)
    runner = _runner(recipe, tmp_path, stages)
    _run(runner)
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    arguments = [str(tmp_path / "tiny.toml"), str(tmp_path / "artifacts"), moment]
    killed = subprocess.run([sys.executable, str(script), *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    runner.store.recover(("one",))
    record = runner.store.record("one")
    assert record is not None and runner.store.damage("one", record) is None
    # the new result was complete on the disk before the first rename
    assert (runner.store.folder("one") / "out.txt").read_text() == "new"


def test_differences_are_described() -> None:
    before = {"library: torch": "2.13", "source: a.py": "1", "source: b.py": "1", "recipe: x": "1"}
    now = {"library: torch": "2.14", "source: a.py": "2", "source: c.py": "1", "recipe: x": "1"}
    assert differences(before, now) == (
        "library: torch changed: 2.13 -> 2.14",
        "source: a.py changed",
        "source: b.py is gone",
        "source: c.py is new",
    )


def _altered(record: dict[str, object]) -> dict[str, object]:
    return record | {"report": {"headline": "something better"}}


def _of_another_version(record: dict[str, Any]) -> dict[str, Any]:
    """Whole, but its report has a field that this version does not know."""
    data = record | {"report": {**record["report"], "speed": "?"}, "sha256": None}
    del data["sha256"]
    return data | {"sha256": hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()}


@pytest.mark.parametrize(
    "altered",
    [
        lambda _: None,
        lambda _: {},
        lambda _: [],
        lambda _: {"version": 99},
        _altered,
    ],
)
def test_an_altered_record_counts_as_none(
    recipe: Recipe, tmp_path: Path, altered: Callable[[object], object]
) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    _run(runner)
    file = tmp_path / "artifacts/tiny/1_one/stage.json"
    file.write_text(json.dumps(altered(json.loads(file.read_text()))))
    expected = "its stage.json was altered or is of another version"
    assert runner.plan("one")[0].reasons == (expected,)
    assert _run(runner)[0] == ("one", False)


def test_a_report_alone_reaches_the_next_stage(recipe: Recipe, tmp_path: Path) -> None:
    """The benchmark writes no file: what package is given of it is the report."""

    def stages(text: str) -> tuple[Stage[Said], ...]:
        return (
            _stage("one", lambda context: Said(text, (1, 2))),
            _stage("two", lambda context: Said("read"), inputs=("one",)),
        )

    _run(_runner(recipe, tmp_path, stages("slow")))
    assert _run(_runner(recipe, tmp_path, stages("slow")), start="one", goal="one") == [
        ("one", False)
    ]
    assert _run(_runner(recipe, tmp_path, stages("slow"))) == [("one", True), ("two", True)]
    _run(_runner(recipe, tmp_path, stages("quick")), start="one", goal="one")
    runner = _runner(recipe, tmp_path, stages("quick"))
    assert runner.plan("all")[1].reasons == ("input: one changed",)
    assert _run(runner) == [("one", True), ("two", False)]


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _scratched(context: Context) -> Said:
    state = context.out / "state.txt"
    resumed = state.exists()
    state.write_text("all that is needed to end at once")
    return Said("worked", resumed=int(resumed))


def test_what_only_an_unfinished_run_needs_is_there_until_it_counts_as_finished(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the very end, and hours of work are not lost."""
    stages = (_stage("one", _scratched, resumable=True, scratch=("state.txt",)),)
    runner = _runner(recipe, tmp_path, stages)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full_disk)
        with pytest.raises(StageError, match="No space left on device"):
            _run(runner)
    _run(runner)
    record = runner.store.record("one")
    assert record is not None and record.report(Said) == Said("worked", resumed=1)
    assert record.outputs == {}
    assert not (runner.store.folder("one") / "state.txt").exists()


@pytest.mark.parametrize("death", ["before the swap", "before an older version of this looked"])
def test_what_a_kill_leaves_behind_the_record_is_cleared_away(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    stages = (_stage("one", _scratched, resumable=True, scratch=("state.txt",)),)
    runner = _runner(recipe, tmp_path, stages)
    folder = runner.store.folder("one")

    def die(self: Path, **_: object) -> None:
        raise KeyboardInterrupt

    if death == "before the swap":
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", die)
            with pytest.raises(Interrupted):
                _run(runner)
        left = folder.with_name("1_one.partial")
        assert (left / "state.txt").exists() and (left / "stage.json").exists()
    else:
        _run(runner)
        (folder / "state.txt").write_text("weights and more")
    assert _run(runner) == [("one", True)]
    assert [path.name for path in folder.iterdir()] == ["stage.json"]
    assert not folder.with_name("1_one.partial").exists()


def test_a_copy_that_a_kill_left_is_cleared_away(recipe: Recipe, tmp_path: Path) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    _run(runner)
    for stage in runner.stages:
        for name in stage.publish:
            (runner.store.root / f"{name}.partial").write_text("half")
    _run(runner)
    assert not list(runner.store.root.glob("*.partial"))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_record_that_cannot_be_written_keeps_the_last_good_folder(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    _run(runner)
    other = _runner(recipe, tmp_path, _stages(first=_write("other")))
    with monkeypatch.context() as patch:
        patch.setattr(*((os, call) if call == "fsync" else (Path, call)), _full_disk)
        with pytest.raises(StageError, match=r"No space left on device.*Free some space") as caught:
            _run(other, start="one")
    assert caught.value.stage == "one"
    runner.store.recover(("one", "two"))
    assert (tmp_path / "artifacts/tiny/1_one/out.txt").read_text() == "hello"
    assert _run(runner) == [("one", True), ("two", True)]


def test_ctrl_c_between_two_stages_names_the_stage(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = _runner(recipe, tmp_path, _stages())
    monkeypatch.setattr(runner.store, "publish", lambda *_: _interrupt(None))
    with pytest.raises(Interrupted) as caught:
        _run(runner)
    assert caught.value.stage == "one"


def test_half_a_published_copy_is_removed(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(_runner(recipe, tmp_path, _stages()))
    published = tmp_path / "artifacts/tiny/upper.txt"
    runner = _runner(recipe, tmp_path, _stages(first=_write("other")))

    def half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:2])
        _full_disk()

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", half)
        with pytest.raises(StageError, match="No space left on device"):
            _run(runner, start="one")
    assert published.read_text() == "HELLO"
    assert not list(published.parent.glob("*.partial"))
    assert _run(runner) == [("one", True), ("two", True)]
    assert published.read_text() == "OTHER"


def test_order_is_checked() -> None:
    one, two = _stages()
    check_order((one, two))
    with pytest.raises(ValueError, match="come later"):
        check_order((two, one))
    with pytest.raises(ValueError, match="called 'one'"):
        check_order((one, one))


def test_an_unreadable_report_makes_its_stage_run_again(recipe: Recipe, tmp_path: Path) -> None:
    """A record that is whole, of a version whose reports were others."""
    runner = _runner(recipe, tmp_path, _stages())
    _run(runner)

    @dataclass(frozen=True)
    class Other(StageReport):
        speed: float = 0.0

    @dataclass(frozen=True)
    class Newer(Said):
        format = 2

    for kind in (Other, Newer):

        def run(_: Context, kind: type[StageReport] = kind) -> StageReport:
            return kind("newer")

        stage = Stage("one", "for a test", kind, run, sections=("train",))
        changed = _runner(recipe, tmp_path, (stage, _stages()[1]))  # type: ignore[arg-type]
        (reason,) = changed.plan("one")[0].reasons
        assert "stage.json" in reason and "version" in reason
        observer = Quiet()
        changed.run("one", observer)
        assert observer.notes == [f"tiny one: {reason}; it runs again"]
        assert changed.store.report("one", kind) == kind("newer")
        assert changed.store.report("one", Said) is None or kind is Newer
        _run(_runner(recipe, tmp_path, _stages()), start="one", goal="one")


def test_a_failed_run_leaves_its_failure_until_the_next_one(recipe: Recipe, tmp_path: Path) -> None:
    root = tmp_path / "artifacts" / "tiny"
    with pytest.raises(StageError):
        _run(_runner(recipe, tmp_path, _stages(second=_fail)))
    failure = read_failure(root)
    assert failure == Failure("two", "RuntimeError: the disk caught fire", 1)
    with pytest.raises(Interrupted):
        _run(_runner(recipe, tmp_path, _stages(second=_interrupt)))
    assert read_failure(root) == Failure("two", "interrupted", 130)
    _run(_runner(recipe, tmp_path, _stages()))
    assert read_failure(root) is None and not (root / "failure.json").exists()
