"""Sweeps: what a grid may say, what trials share, what the executor promises, and one real sweep of
a tiny recipe from words to page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import children
import pytest
from click.testing import CliRunner, Result

from exporters.search.trial import Merit, undominated
from pipeline.cli import main as cli
from pipeline.engine.failure import Failure, write_failure
from pipeline.errors import RecipeError
from pipeline.reports import ValidateReport
from pipeline.stages import STAGES
from pipeline.sweep import page
from pipeline.sweep.executor import Finished, LocalProcesses, TrialProcess, _shares
from pipeline.sweep.grid import parse, trials
from pipeline.sweep.result import Form, SweepResult, TrialResult, mark_front
from pipeline.sweep.run import Progress, SweepOptions, sweep
from pipeline.sweep.schedule import Step, steps

NAMES = tuple(stage.name for stage in STAGES)


# --- the grid -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grids", "axes"),
    [
        (["epochs=1,2"], {"epochs": ("1", "2")}),
        (["epochs=1,2", "seed=0"], {"epochs": ("1", "2"), "seed": ("0",)}),
        (["epochs=1,2,seed=0,1"], {"epochs": ("1", "2"), "seed": ("0", "1")}),
        ([" epochs = 1 , 2 "], {"epochs": ("1", "2")}),
        (["train.lr=1e-2,0.1"], {"train.lr": ("1e-2", "0.1")}),
        (["network.mean=[0.1],[0.2],seed=3"], {"network.mean": ("[0.1]", "[0.2]"), "seed": ("3",)}),
        (['data.license="a,b=c",d'], {"data.license": ('"a,b=c"', "d")}),
        (
            ['network.layers=[{op="pool",size=2}],[{op="linear"}]'],
            {"network.layers": ('[{op="pool",size=2}]', '[{op="linear"}]')},
        ),
    ],
)
def test_grids_are_understood(grids: list[str], axes: dict[str, tuple[str, ...]]) -> None:
    assert {axis.word: axis.values for axis in parse(grids)} == axes


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ([], "nothing to vary"),
        (["epochs"], r"'epochs': expected KEY=VALUE,VALUE"),
        (["1,2"], "expected KEY=VALUE,VALUE"),
        (["epochs=1", "2,3"], "'2,3': expected KEY"),
        (["epochs="], "a value is empty"),
        (["epochs=1,,2"], "a value is empty in '1,,2'"),
        (["epochs=1,2,"], "a value is empty"),
        (["epochs=1,2,1"], "--grid epochs: 1 "),
        (["epochs=1", "train.epochs=2"], "epochs and train.epochs both set train.epochs"),
        (["input=28,preprocess.width=32"], "input and preprocess.width both set preprocess.width"),
    ],
)
def test_grids_that_say_too_little_or_too_much(grids: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(grids)


def test_short_words_and_combinations() -> None:
    found = trials("celeba", parse(["input=48,64,epochs=1,2"]), ("seed=5",))
    assert [trial.name for trial in found] == [
        "input=48,epochs=1",
        "input=48,epochs=2",
        "input=64,epochs=1",
        "input=64,epochs=2",
    ]
    sizes = [(t.recipe.preprocess.height, t.recipe.preprocess.width) for t in found]
    assert sizes == [(48, 48), (48, 48), (64, 64), (64, 64)]
    assert [trial.recipe.train.epochs for trial in found] == [1, 2, 1, 2]
    assert {trial.recipe.seed for trial in found} == {5}


def test_folders_of_odd_values_are_plain_and_distinct() -> None:
    found = trials("mnist", parse(['data.license="a/b","a b",../x']))
    names = [trial.name for trial in found]
    assert len(set(names)) == 3
    assert all(Path(name).name == name and len(name) <= 100 and " " not in name for name in names)


@pytest.mark.parametrize(
    ("grid", "changes", "message"),
    [
        ("epoch=1,2", (), "--grid epoch: unknown; did you mean 'epochs'"),
        ("zzz=1,2", (), "--grid zzz: unknown; short words are width"),
        ("train.epoch=1", (), r"--grid train.epoch=1: .*unknown key 'train.epoch'; did you mean"),
        ("epochs=1,0", (), r"--grid epochs=0: .*train.epochs = 0"),
        ("epochs=1,many", (), r"--grid epochs=many: .*train.epochs = 'many'"),
        (
            "input=28,32",
            ("preprocess.height=28",),
            "preprocess.height is fixed by --set and varied",
        ),
        (
            "width=8",
            (),
            r"^--grid width: needs a recipe with \[network.edge\], such as mnist-b",
        ),
        ("epochs=1,network.edge.depth=1,2", (), r"^--grid network.edge.depth: needs a recipe with"),
        ("name=a,b", (), "a trial keeps its recipe's name"),
    ],
)
def test_what_the_recipe_refuses_is_refused_before_anything_runs(
    grid: str, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        trials("mnist", parse([grid]), changes)


def test_a_grid_may_replace_the_network_by_the_edge_family() -> None:
    (trial,) = trials("mnist", parse(["network.layers=[],width=8"]))
    assert trial.recipe.network.edge and trial.recipe.network.edge.width == 8
    assert trials("mnist", parse(["width=8"]), ("network.layers=[]", "network.edge.depth=1"))


# --- what trials share ----------------------------------------------------------------------


def _outline(found: tuple[Step, ...], indent: str = "") -> list[str]:
    lines = []
    for step in found:
        lines.append(f"{indent}{step.trial.name} {step.goal}{'' if step.final else '...'}")
        lines += _outline(step.followers, indent + "  ")
    return lines


@pytest.mark.parametrize(
    ("grid", "tree"),
    [
        (["epochs=1,2"], ["epochs=1 data...", "  epochs=1 quantize", "  epochs=2 quantize"]),
        # other pictures: nothing is shared
        (["data.train_images=10,20"], ["10 quantize", "20 quantize"]),
        # one training serves both
        (["quantize.fp16=true,false"], ["true export...", "  true quantize", "  false quantize"]),
        (
            ["epochs=1,2,quantize.fp16=true,false"],
            [
                "epochs=1,quantize.fp16=true data...",
                "  epochs=1,quantize.fp16=true export...",
                "    epochs=1,quantize.fp16=true quantize",
                "    epochs=1,quantize.fp16=false quantize",
                "  epochs=2,quantize.fp16=true export...",
                "    epochs=2,quantize.fp16=true quantize",
                "    epochs=2,quantize.fp16=false quantize",
            ],
        ),
        # decides nothing up to quantize: the same to the end
        (["benchmark.batch=8,16"], ["8 quantize", "  16 quantize"]),
    ],
)
def test_what_is_common_is_one_step(grid: list[str], tree: list[str]) -> None:
    found = steps(trials("mnist", parse(grid)), STAGES[:4])
    lines = _outline(found)
    assert len(lines) == len(tree)
    for line, wanted in zip(lines, tree, strict=True):
        assert line.endswith(wanted.strip()) and line.count("  ") == wanted.count("  ")


def test_a_teacher_is_trained_with_the_first_of_its_trials() -> None:
    grid = parse(["train.epochs=1,2"])
    (step,) = steps(trials("mnist", grid, ("distill.teacher=mnist-textbook",)), STAGES[:4])
    assert (step.goal, step.final, len(step.finals())) == ("train", False, 2)


def test_a_teacher_is_taken_over_as_well(recipe: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "wise.toml"
    teacher.write_text(recipe.read_text().replace('name = "tiny"', 'name = "wise"'))
    axes = parse(["epochs=1,2"])
    changes = (f"distill.teacher={teacher}",)
    found = trials(str(recipe), axes, changes)
    request = SweepOptions(str(recipe), axes, changes, found, "train", tmp_path)
    result = sweep(request, _Recorded())
    assert not result.failed
    places = [request.folder(trial) / "wise/2_train/checkpoint.pt" for trial in found]
    assert places[0].samefile(places[1])  # trained once


def test_where_the_first_trial_fails_the_others_still_have_the_teacher(
    recipe: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "wise.toml"
    teacher.write_text(recipe.read_text().replace('name = "tiny"', 'name = "wise"'))
    axes = parse(["train.lr=1e30,0.05"])
    changes = (f"distill.teacher={teacher}",)
    found = trials(str(recipe), axes, changes)
    executor = _Recorded()
    result = sweep(SweepOptions(str(recipe), axes, changes, found, "train", tmp_path), executor)
    assert [trial.status for trial in result.trials] == ["failed", "finished"]
    assert [name.removeprefix("train.") for name in executor.seen] == [
        "lr=1e30 train",
        "lr=0.05 train",
        "lr=1e30 train",
    ]


def test_a_common_step_names_all_trials_behind_it() -> None:
    (step,) = steps(trials("mnist", parse(["epochs=1,2,quantize.fp16=true,false"])), STAGES[:4])
    assert len(step.finals()) == 4
    assert [len(follower.finals()) for follower in step.followers] == [2, 2]


# --- the executor ---------------------------------------------------------------------------


def test_cores_are_dealt_out() -> None:
    assert _shares([0, 1, 2, 3, 4], 2) == [(0, 2, 4), (1, 3)]
    assert _shares([3, 7], 3) == [(3,), (7,), (3,)]
    assert _shares([], 2) == [(), ()]
    with pytest.raises(ValueError, match="parallel is 0"):
        LocalProcesses(0)


def test_local_processes_run_the_command_line(tmp_path: Path) -> None:
    with LocalProcesses(2) as executor:
        executor.submit(TrialProcess("good", ("recipes",), tmp_path / "a" / "good.log"))
        executor.submit(TrialProcess("bad", ("recipes", "--what"), tmp_path / "bad.log"))
        found: dict[str, int] = {}
        for finished in executor.results():
            found[finished.process.name] = finished.exit_code
            if finished.process.name == "good":  # may be submitted while results are read
                executor.submit(TrialProcess("late", ("--version",), tmp_path / "late.log"))
    assert found == {"good": 0, "bad": 2, "late": 0}
    assert "mnist" in (tmp_path / "a" / "good.log").read_text()
    assert "No such option" in (tmp_path / "bad.log").read_text()


class _Recorded:
    """An executor with an order of its own, which runs the words in this very process;
    ``failing`` are parts of the names of those that it lets fail."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.waiting: deque[TrialProcess] = deque()
        self.seen: list[str] = []

    def submit(self, process: TrialProcess) -> None:
        self.waiting.append(process)

    def results(self) -> Iterator[Finished]:
        while self.waiting:
            process = self.waiting.pop()  # the last one first
            self.seen.append(process.name)
            if self.failing and self.failing in process.name:
                process.log.parent.mkdir(parents=True, exist_ok=True)
                process.log.write_text("noise\nand more of it\n")
                folder = process.log.parent / "tiny"
                folder.mkdir(exist_ok=True)
                write_failure(folder, Failure("train", "it broke", 1))
                yield Finished(process, 1)
            else:
                yield Finished(process, CliRunner().invoke(cli.cli, process.words).exit_code)


def _request(recipe: Path, grid: str, artifacts: Path, until: str = "quantize") -> SweepOptions:
    axes = parse([grid])
    return SweepOptions(str(recipe), axes, (), trials(str(recipe), axes), until, artifacts)


@pytest.fixture(scope="module")
def recipe(write_tiny: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def test_another_executor_needs_two_methods_only(recipe: Path, tmp_path: Path) -> None:
    executor = _Recorded()
    request = _request(recipe, "epochs=1,2,quantize.calibration_images=16,32", tmp_path)
    found = sweep(request, executor)
    assert [trial.status for trial in found.trials] == ["finished"] * 4
    trained = [name for name in executor.seen if name.endswith((" train", " export"))]
    assert len(trained) == 2  # for four trials
    records = [request.store(trial).record("train") for trial in request.trials]
    assert len({record.digest() for record in records if record}) == 2
    assert found.front and all(form.latency_ms for form in found.forms)


def test_a_failure_is_reported_and_the_others_continue(recipe: Path, tmp_path: Path) -> None:
    request = _request(recipe, "epochs=1,2", tmp_path)
    progress: list[Progress] = []
    found = sweep(request, _Recorded("epochs=1 quantize"), progress.append)
    bad, good = found.trials
    assert (bad.status, good.status) == ("failed", "finished")
    assert bad.error == "stage 'train': it broke"
    assert [step.done for step in progress] == [1, 2]
    executor = _Recorded()
    again = sweep(request, executor)
    assert executor.seen == ["epochs=1 quantize"]  # the finished one is left alone
    assert not again.failed


def test_a_trial_that_another_run_uses_fails_alone(recipe: Path, tmp_path: Path) -> None:
    request = _request(recipe, "epochs=1,2", tmp_path, until="train")
    with request.store(request.trials[1]).lock():
        found = sweep(request, _Recorded())
    assert [trial.status for trial in found.trials] == ["finished", "failed"]
    assert "is in use by another run" in (found.trials[1].error or "")
    assert found.trials[1].log is None
    printed = " ".join(str(part) for part in page.tables(found) if isinstance(part, str))
    assert "is in use by another run" in printed and "(log:" not in printed


def test_attributes_are_chosen_by_what_their_thresholds_are_chosen_for(tmp_path: Path) -> None:
    """By balanced accuracy, of as many images as the search of variants looks at."""
    changes = (
        "data.synthetic_images=400",
        'data.attributes=["Eyeglasses", "Wearing_Hat"]',
        'network.layers=[{op="conv",out=8,stride=4},{op="pool",kind="max",size="global"},'
        '{op="linear"}]',
        "quantize.calibration_images=64",
        "gate.margin_points=5",
        "quantize.search.validation_images=40",
        "quantize.search.minutes=0",
        "benchmark.seconds=0.02",
    )
    axes = parse(["epochs=1"])
    request = SweepOptions(
        "celeba", axes, changes, trials("celeba", axes, changes), "validate", tmp_path
    )
    found = sweep(request, _Recorded())
    assert (found.metric, found.validation_images) == ("balanced accuracy", 40)
    report = request.store(request.trials[0]).report("validate", ValidateReport)
    assert report is not None and found.forms
    rows = {row.id: row for row in report.variants}
    assert sorted(rows) == sorted(form.id for form in found.forms)
    for form in found.forms:
        row = rows[form.id]
        assert form.test_accuracy_percent == pytest.approx(sum(row.balanced_percent) / 2)
        assert form.test_accuracy_percent != pytest.approx(row.accuracy_percent)
    assert "balanced accuracy: PyTorch" in report.headline
    assert "validation<br>balanced accuracy" in page.render(found)
    other = replace(
        request, trials=trials("celeba", axes, (*changes, 'gate.thresholds="accuracy"'))
    )
    assert sweep(other, _Recorded()).metric == "accuracy"


def test_what_was_to_be_shared_fails_for_all(recipe: Path, tmp_path: Path) -> None:
    request = _request(recipe, "quantize.calibration_images=16,32", tmp_path)
    found = sweep(request, _Recorded(" export"))
    assert [trial.status for trial in found.trials] == ["failed", "failed"]


def test_finished_stages_of_the_recipe_itself_are_taken_over(recipe: Path, tmp_path: Path) -> None:
    words = ["run", "train", "--recipe", str(recipe), "--artifacts", str(tmp_path)]
    assert CliRunner().invoke(cli.cli, words).exit_code == 0
    executor = _Recorded()
    found = sweep(_request(recipe, "epochs=4", tmp_path, "train"), executor)
    assert executor.seen == [] and found.trials[0].shared == ("data", "train")
    own = tmp_path / "tiny" / "2_train" / "checkpoint.pt"
    other = tmp_path / "sweeps" / "tiny" / "epochs=4" / "tiny" / "2_train" / "checkpoint.pt"
    assert own.samefile(other)  # a link: no second copy on the disk
    html = (tmp_path / "sweeps" / "tiny" / "sweep.html").read_text()
    assert "PyTorch" in html and "not exported" in html


# --- the front ------------------------------------------------------------------------------


def test_what_nothing_beats() -> None:
    merits = [
        Merit(0.0, 1.0, 100),
        Merit(0.0, 0.5, 100),  # slower, and no better in anything
        Merit(1.0, 2.0, 100),  # less accurate, faster
        Merit(1.0, 2.0, 50),  # the same, and smaller
        Merit(0.03, 1.01, 99),  # the same as the first, to within chance
    ]
    assert undominated(merits) == (3, 4, 0)


def _form(name: str, accuracy: float, size: int, latency: float | None) -> Form:
    return Form(name, "fp32", "fp32", True, accuracy, size, latency, latency)


def _result(*forms: Form) -> SweepResult:
    rows = tuple(
        TrialResult(
            form.trial, {"width": form.trial}, "finished", None, None, 99.0, 10, 1.0, (), (form,)
        )
        for form in forms
    )
    values = tuple(form.trial for form in forms)
    head = ("r", "digits", {"width": values}, (), "quantize", "a CPU", "2026-11-25", rows)
    return SweepResult(*head, task="multi-class", validation_images=10_000)


def test_the_front_is_of_all_trials_together() -> None:
    found = mark_front(
        _result(_form("8", 97, 10, 0.1), _form("16", 99, 20, 0.2), _form("24", 98, 30, 0.3))
    )
    assert [form.trial for form in found.front] == ["8", "16"]


def test_nothing_timed_has_no_front() -> None:
    assert mark_front(_result(_form("8", 97, 10, None))).front == ()


def test_the_page_says_what_a_reader_must_know() -> None:
    found = mark_front(_result(_form("8", 97, 10_000, 0.1), _form("16", 99, 20_000, 0.2)))
    html = page.render(found)
    assert "validation images (10,000)" in html and "the test split was not read" in html
    assert "about 0.10 points" in html  # sqrt(0.99 * 0.01 / 10,000)
    assert html.count("<svg") >= 2 and "width 16" in html and 'href="http' not in html
    tested = replace(found, until="validate", synthetic=True)
    html = page.render(tested)
    assert "did read the test split" in html and "SYNTHETIC" in html
    assert "INCOMPLETE" not in html
    first, second = found.trials
    stopped = replace(found, trials=(replace(first, incomplete=True), second))
    assert "INCOMPLETE: train.max_minutes ended the training of 8;" in page.render(stopped)


def test_long_values_are_numbered() -> None:
    value = '[{op="conv",out=8},{op="linear"}]'
    trial = TrialResult("t", {"network.layers": value}, "finished")
    grid = {"network.layers": ("[]", value)}
    result = SweepResult("r", "", grid, (), "train", "", "", (trial,))
    assert result.labels == {"t": "layers #2"}


# --- from words to page ---------------------------------------------------------------------


def _sweep(*words: object) -> Result:
    return CliRunner().invoke(cli.cli, ["sweep", *map(str, words)])


def test_a_whole_sweep(recipe: Path, tmp_path: Path) -> None:
    words = (recipe, "--grid", "epochs=1,2", "--parallel", 2, "--artifacts", tmp_path)
    result = _sweep(*words)
    assert result.exit_code == 0, result.output
    assert "2 trials up to quantize" in result.output
    assert "✓ 2/2" in result.output and "On the front" in result.output
    folder = tmp_path / "sweeps" / "tiny"
    data = json.loads((folder / "sweep.json").read_text())
    assert [trial["status"] for trial in data["trials"]] == ["finished", "finished"]
    assert {form["id"] for form in data["trials"][0]["forms"]} >= {"fp32"}
    assert all(form["test_accuracy_percent"] is None for t in data["trials"] for form in t["forms"])
    assert not list(folder.glob("*/tiny/5_validate"))  # where the test split would be read
    records = {path: path.stat().st_mtime_ns for path in folder.glob("*/tiny/*/stage.json")}
    again = _sweep(*words)
    assert again.exit_code == 0 and len(records) == 8  # data to quantize, for each
    assert records == {path: path.stat().st_mtime_ns for path in folder.glob("*/tiny/*/stage.json")}
    assert not list(folder.glob("*/tiny/*.partial"))


def test_a_failed_trial_is_reported_and_sets_the_exit_code(recipe: Path, tmp_path: Path) -> None:
    grid = (
        'network.layers=[{op="linear"}],[{op="conv",out=4,kernel=9,stride=9,padding=0},'
        '{op="pool",size=9},{op="linear"}]'
    )  # 3x3 is too small for the second one's pool
    result = _sweep(recipe, "--grid", grid, "--set", "train.epochs=1", "--artifacts", tmp_path)
    assert result.exit_code == 1
    assert "1 of 2 trials failed" in result.output and "✓ " in result.output
    data = json.loads((tmp_path / "sweeps" / "tiny" / "sweep.json").read_text())
    good, bad = data["trials"]
    assert good["status"] == "finished" and good["forms"]
    assert bad["status"] == "failed" and bad["error"].startswith("stage 'train': ")
    assert "--set" not in bad["error"] and Path(bad["log"]).exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--grid", "epoch=1"], 2, "did you mean 'epochs'"),
        (["--grid", "seed=" + ",".join(map(str, range(51)))], 2, "51 trials, more than 50"),
        (["--grid", "epochs=1", "--until", "data"], 2, "'data' is not one of"),
        ([], 2, "Missing option '--grid'"),
    ],
)
def test_mistakes_cost_nothing(
    recipe: Path, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    result = _sweep(recipe, *words, "--artifacts", tmp_path / "new")
    assert result.exit_code == code and message in result.output + result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: signals as POSIX has them")
def test_a_killed_sweep_leaves_no_process_and_continues(recipe: Path, tmp_path: Path) -> None:
    words = ["--grid", "epochs=400,1", "--until", "train", "--artifacts", str(tmp_path)]
    command = [sys.executable, "-m", "pipeline", "sweep", str(recipe), *words]
    process = children.start(*command, stdout=subprocess.PIPE, text=True)
    partial = tmp_path / "sweeps/tiny/epochs=400/tiny/2_train.partial"
    children.wait_until(lambda: len(list(partial.glob("*"))) > 1, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=children.PATIENCE)
    assert process.returncode == 130 and "same command" in output
    owner = int((tmp_path / "sweeps/tiny/epochs=400/tiny/.lock").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(owner, 0)
    kept = partial.stat().st_ino
    shorter = _sweep(recipe, *[word.replace("400,1", "1") for word in words])
    assert shorter.exit_code == 0, shorter.output
    assert "1 trial up to train, 1 at a time" in shorter.output
    assert partial.stat().st_ino == kept  # the interrupted one waits for its own turn


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not run: signals as POSIX has them")
def test_a_sweep_that_cannot_say_goodbye_leaves_no_process(recipe: Path, tmp_path: Path) -> None:
    words = ["--grid", "epochs=400", "--until", "train", "--artifacts", str(tmp_path)]
    command = [sys.executable, "-m", "pipeline", "sweep", str(recipe), *words]
    process = children.start(*command, stdout=subprocess.DEVNULL)
    folder = tmp_path / "sweeps/tiny/epochs=400/tiny"
    children.wait_until((folder / "2_train.partial" / "resume.pt").exists, process)
    owner = int((folder / ".lock").read_text())
    process.kill()
    process.wait()
    children.wait_until(lambda: not _lives(owner))
    assert (folder / "2_train.partial" / "resume.pt").exists()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
