"""The product from outside: words in, text and exit codes out. What needs a trained model is run
once, on a tiny recipe; what is about words alone runs with stages that do nothing."""

from __future__ import annotations

import importlib
import json
import os
import pty
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import children
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.cli import build, selection
from pipeline.cli.interrupts import stop_requested
from pipeline.cli.main import cli
from pipeline.engine.stage import Context, StageReport
from pipeline.errors import GateError
from pipeline.recipe import shipped_names

ROOT = Path(selection.__file__).parents[2]
STAGES = ("data", "train", "export", "quantize", "validate", "benchmark", "package")
SMALL = """
name = "{name}"
description = "one [b]old[/b] recipe"
[data]
kind = "mnist"
[preprocess]
kind = "digit"
[network]
layers = [{{ op = "linear" }}]
[train]
epochs = 2
lr = 0.1
"""


def _invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def _small(folder: Path, name: str = "small") -> str:
    file = folder / f"{name}.toml"
    file.write_text(SMALL.format(name=name), encoding="utf-8")
    return str(file)


def _nothing(context: Context) -> StageReport:
    (context.out / "out.txt").write_text("out")
    return StageReport("done [x]")


def _unchecked(context: Context) -> None:
    pass


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes every stage do nothing, or one of them something else."""

    def install(**other: Callable[[Context], StageReport]) -> None:
        stages = tuple(
            replace(
                stage,
                report=StageReport,
                run=other.get(stage.name, _nothing),
                check=_unchecked,
                publish=(),
            )
            for stage in selection.STAGES
        )
        monkeypatch.setattr(selection, "STAGES", stages)

    install()
    return install


def _marks(text: str) -> dict[str, str]:
    """Stage name -> "✓" (ran) or "-" (fresh), from the lines of a run."""
    return {name: mark for mark, name in re.findall(r"^([✓-]) (\w+)", text, re.MULTILINE)}


# --- words alone ----------------------------------------------------------------------------


def test_recipes_lists_what_comes_with_the_package() -> None:
    result = _invoke("recipes")
    assert result.exit_code == 0
    assert all(name in result.output for name in shipped_names())


WRONG = {
    "no verb of that name": ("rum all", "No such command 'rum'"),
    "stage": ("run trian", "'trian' is not one of 'all', 'data', 'train'"),
    "no stage": ("run", "Missing argument 'STAGE'"),
    "recipe": ("run all --recipe mnits", "there is no recipe 'mnits'; did you mean 'mnist'"),
    "file": ("run all --recipe no/such.toml", "no/such.toml cannot be read"),
    "key": ("run all --set train.epoch=3", "unknown key 'train.epoch'; did you mean 'epochs'"),
    "section": ("plan --set trian.epochs=3", "unknown key 'trian'; did you mean 'train'"),
    "no value": ("plan --set train.epochs", "expected key=value, for example train.epochs=3"),
    "below a value": ("plan --set train.lr.x=3", "'lr' is a value, not a section"),
    "type": ("plan --set train.epochs=many", "train.epochs = 'many': .*valid integer"),
    "range": ("run all --seed -1", "seed = -1: .*greater than or equal to 0"),
    "device": ("run all --device tpu", "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
    "start": ("run train --from package", "package comes after train"),
    "start of plan": ("plan data --from train", "train comes after data"),
    "twice": ("run all --recipe mnist --recipe mnist", "both called 'mnist'.*Rename one"),
    "artifacts": (f"plan --artifacts {shlex.quote(__file__)}", "is a file"),
    "no image": ("predict bundle.zip", "Missing argument 'IMAGES...'"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_wrong_words_are_refused_with_exit_code_2(words: str, message: str) -> None:
    result = _invoke(*shlex.split(words))
    assert result.exit_code == 2
    assert re.search(message, result.stderr)
    assert result.stdout == ""


def test_two_files_with_one_name_are_both_named(tmp_path: Path) -> None:
    one, other = _small(tmp_path), tmp_path / "other.toml"
    other.write_text(Path(one).read_text())
    result = _invoke("run", "all", "--recipe", one, "--recipe", str(other))
    assert result.exit_code == 2
    assert one in result.stderr and str(other) in result.stderr and "'small'" in result.stderr


@pytest.mark.parametrize(
    ("words", "hint"), [(["show"], "pipeline run all"), (["show", "mnist"], "package stage")]
)
def test_show_without_results(words: list[str], hint: str, tmp_path: Path) -> None:
    result = _invoke(*words, "--artifacts", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert hint in result.stderr


@pytest.mark.parametrize("verb", ["inspect", "selftest", "predict"])
@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"PK?", "zip file"), (b"", "is empty")]
)
def test_a_file_that_is_not_a_bundle_is_refused(
    tmp_path: Path, verb: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "b.zip").write_bytes(content)
    done = _pipeline(verb, "b.zip", *(["x.png"] if verb == "predict" else []), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == "" and done.stderr.startswith("error: b.zip: ") and message in done.stderr
    assert "Traceback" not in done.stderr


# --- stages that do nothing -----------------------------------------------------------------


def test_plan_of_a_new_folder(idle: object, tmp_path: Path) -> None:
    result = _invoke("plan", "--recipe", _small(tmp_path), "--artifacts", str(tmp_path / "a"))
    assert result.exit_code == 0
    assert "it has not run yet" in result.stdout
    assert "depends on validate, which will run" not in result.stdout  # it has other inputs, too
    assert re.search("export .* run .* depends on data, train, which will run", result.stdout)
    assert not (tmp_path / "a").exists()


def test_from_force_and_explain(idle: object, tmp_path: Path) -> None:
    location = ("--recipe", _small(tmp_path), "--artifacts", str(tmp_path / "a"))
    first = _invoke("run", "all", "--explain", *location)
    assert first.exit_code == 0, first.output
    assert _marks(first.stdout) == dict.fromkeys(STAGES, "✓")
    assert "small data: it has not run yet" in first.stdout
    assert "one [b]old[/b] recipe" in first.stdout and "done [x]" in first.stdout  # no markup
    assert _marks(_invoke("run", "all", *location).stdout) == dict.fromkeys(STAGES, "-")
    assert "fresh, nothing changed" in _invoke("run", "data", "--explain", *location).stdout

    late = dict.fromkeys(STAGES, "-") | {"benchmark": "✓", "package": "✓"}
    assert _marks(_invoke("run", "all", "--from", "benchmark", *location).stdout) == late
    assert _marks(_invoke("run", "train", "--force", *location).stdout) == {
        "data": "-",
        "train": "✓",
    }
    assert _marks(_invoke("run", "all", "--force", *location).stdout) == dict.fromkeys(STAGES, "✓")
    changed = _invoke("run", "all", "--explain", "--set", "train.epochs=3", *location).stdout
    assert "small train: recipe: train.epochs changed: 2 -> 3" in changed
    # the same result; but fine-tuning, if it comes to that, trains as the recipe says
    again = {"train": "✓", "quantize": "✓"}
    assert _marks(changed) == dict.fromkeys(STAGES, "-") | again

    plan = _invoke("plan", "--from", "package", *location).stdout
    assert re.search(r"package .* run .* --from package", plan)
    assert re.search(r"train .* run .* recipe: train.epochs changed: 3 -> 2", plan)


def _fail(context: Context) -> StageReport:
    raise GateError("no variant is good enough [for this]. Train longer.")


def _resuming(stderr: str) -> list[list[str]]:
    """The commands that a failed run prints, without their first word."""
    _, _, text = stderr.partition("To continue from here:\n")
    lines = [shlex.split(line) for line in text.splitlines()]
    assert lines and all(line[0] == "pipeline" for line in lines)
    return [line[1:] for line in lines]


def test_a_failure_names_stage_cause_and_the_command_that_resumes(
    idle: Callable[..., None], tmp_path: Path
) -> None:
    idle(validate=_fail)
    words = ["run", "all", "--recipe", _small(tmp_path), "--artifacts", str(tmp_path / "it's a b")]
    words += ["--set", "description=two words; $HOME", "--seed", "3", "--device", "cpu"]
    result = _invoke(*words)
    assert result.exit_code == 1
    assert "✗ small: stage 'validate' failed" in result.stderr
    assert "\n  no variant is good enough [for this]. Train longer.\n" in result.stderr
    idle()
    (again,) = _resuming(result.stderr)
    resumed = _invoke(*again)
    assert resumed.exit_code == 0, resumed.output
    expected = dict.fromkeys(STAGES, "-") | dict.fromkeys(STAGES[4:], "✓")
    assert _marks(resumed.stdout) == expected
    assert "two words; $HOME" in resumed.stdout


def _interrupt(context: Context) -> StageReport:
    raise KeyboardInterrupt


def test_ctrl_c_is_exit_code_130(idle: Callable[..., None], tmp_path: Path) -> None:
    idle(train=_interrupt)
    location = ("--recipe", _small(tmp_path), "--artifacts", str(tmp_path / "a"))
    result = _invoke("run", "all", *location)
    assert result.exit_code == 130
    assert "✗ small: stage 'train' interrupted" in result.stderr
    idle()
    assert _marks(_invoke(*_resuming(result.stderr)[0]).stdout)["data"] == "-"


@pytest.mark.full  # it sends Ctrl-C by the clock, which a busy machine can miss
def test_ctrl_c_waits_for_the_end_of_an_import(
    idle: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhole = True\n"
    (tmp_path / "interrupted_here.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    def work(context: Context) -> StageReport:
        importlib.import_module("interrupted_here")
        time.sleep(60)
        return StageReport("done")

    idle(data=work)
    with children.ctrl_c_works():
        result = _invoke("run", "data", "--recipe", _small(tmp_path), "--artifacts", str(tmp_path))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert result.exit_code == 130
    assert sys.modules.pop("interrupted_here").whole


def test_ctrl_c_outside_a_stage_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "shipped_names", lambda: _interrupt(None))  # type: ignore[arg-type]
    result = _invoke("recipes")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_quantize_ignores_ctrl_c_where_the_shell_does() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requested() as stopped:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stopped()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("options", "failed", "onward"),
    [
        ("all", "export", []),
        ("all --from train", "export", ["--from", "export"]),
        ("all --from package", "train", ["--from", "package"]),
        ("all --force", "validate", ["--from", "validate"]),
        ("quantize --force", "data", ["--force"]),
        ("quantize --force", "quantize", ["--force"]),
    ],
)
def test_a_forced_stage_is_forced_when_the_run_continues(
    idle: Callable[..., None], tmp_path: Path, options: str, failed: str, onward: list[str]
) -> None:
    location = ["--recipe", _small(tmp_path), "--artifacts", str(tmp_path / "a")]
    if failed != "train":
        _invoke("run", "all", *location)
    idle(**{failed: _fail})
    if onward in ([], ["--force"]):  # else nothing that comes before --from would run
        location += ["--set", "preprocess.height=32", "--set", "preprocess.width=32"]
    result = _invoke("run", *options.split(), *location)
    assert result.exit_code == 1, result.output
    (again,) = _resuming(result.stderr)
    tail = [word for word in again[2:] if word not in location]
    assert tail == onward
    idle()
    assert _marks(_invoke(*again).stdout)[failed] == "✓"


def test_a_failure_of_the_first_recipe_keeps_the_second_in_mind(
    idle: Callable[..., None], tmp_path: Path
) -> None:
    idle(export=_fail)
    one, two = _small(tmp_path, "one"), _small(tmp_path, "two")
    location = ["--artifacts", str(tmp_path / "a")]
    result = _invoke("run", "all", "--recipe", one, "--recipe", two, *location)
    assert "two" not in result.stdout
    assert _resuming(result.stderr) == [["run", "all", "--recipe", one, "--recipe", two, *location]]
    forced = _invoke("run", "all", "--recipe", one, "--recipe", two, *location, "--force")
    assert _resuming(forced.stderr) == [
        ["run", "all", "--recipe", one, *location, "--from", "export"],
        ["run", "all", "--recipe", two, *location, "--force"],
    ]
    idle()
    done = _invoke(*_resuming(result.stderr)[0])
    assert done.stdout.count("✓") == 5 + 7
    again = _invoke(*_resuming(result.stderr)[0])
    assert again.stdout.count("fresh") == 14


def test_a_folder_in_the_way_is_a_plain_error(idle: object, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    location = ("--recipe", _small(tmp_path), "--artifacts", str(tmp_path / "file" / "a"))
    result = _invoke("run", "all", *location)
    assert result.exit_code == 1
    assert re.search(r"error: .*cannot be written: Not a directory.*--artifacts", result.stderr)


# --- a real run -----------------------------------------------------------------------------


def _pipeline(
    *words: object, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=children.PATIENCE,
    )


@dataclass(frozen=True)
class Finished:
    """A folder in which ``pipeline run all`` has run."""

    folder: Path
    first: subprocess.CompletedProcess[str]

    def pipeline(self, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
        return _pipeline(*words, cwd=self.folder, **options)  # type: ignore[arg-type]

    @property
    def results(self) -> Path:
        return self.folder / "artifacts" / "tiny"


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[[Path], Path]
) -> Finished:
    folder = tmp_path_factory.mktemp("run")
    write_tiny(folder)
    return Finished(folder, _pipeline("run", "all", "--recipe", "tiny.toml", cwd=folder))


def _assert_quiet(text: str) -> None:
    """No color, no cursor movement, no bar: what a log file should hold."""
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), text


def test_an_interrupted_training_continues_under_options_of_speed(
    write_tiny: Callable[[Path], Path], tmp_path: Path
) -> None:
    write_tiny(tmp_path)
    words = ["run", "train", "--recipe", "tiny.toml", "--set", "train.epochs=100000"]
    first = children.start(
        *(sys.executable, "-m", "pipeline", *words),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    metrics = tmp_path / "artifacts/tiny/2_train.partial/metrics.jsonl"
    children.wait_until(
        lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2, first
    )
    first.send_signal(signal.SIGINT)
    report = first.communicate(timeout=children.PATIENCE)[1]
    assert "stage 'train' interrupted" in report
    done = len(metrics.read_text().splitlines())
    # far less time than is used up already: it is over at once, with what there is
    words += ["--max-minutes", "0.0001", "--device", "cpu"]
    words += ["--set", "train.threads=2", "--set", "train.checkpoint_seconds=9"]
    again = _pipeline(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "threads 2 after 1" in again.stdout and "INCOMPLETE" in again.stdout
    assert "starts over" not in again.stdout
    record = json.loads((tmp_path / "artifacts/tiny/2_train/stage.json").read_text())
    result = record["report"]["result"]
    assert result["resumed"]
    # the last epoch may have been printed before its state was saved; a part of the next one is
    # validated
    assert done - 1 <= result["epochs"] <= done + 1


def test_one_command_makes_everything(finished: Finished) -> None:
    done = finished.first
    assert done.returncode == 0, done.stderr
    assert _marks(done.stdout) == dict.fromkeys(STAGES, "✓")
    assert "artifacts/tiny/bundle.zip" in done.stdout
    _assert_quiet(done.stdout + done.stderr)
    assert done.stderr == ""
    names = {path.name for path in finished.results.iterdir() if not path.name.startswith(".")}
    folders = {f"{number}_{name}" for number, name in enumerate(STAGES, start=1)}
    assert names == {*folders, "bundle.zip", "dist", "report.json", "report.html"}
    assert zipfile.ZipFile(finished.results / "bundle.zip").testzip() is None
    (wheel,) = (finished.results / "dist").iterdir()
    assert wheel.name == "edgeproof_tiny-1.0.0-py3-none-any.whl"
    report = json.loads((finished.results / "report.json").read_text(encoding="utf-8"))
    assert report["model"]["name"] == "tiny"
    assert "</html>" in (finished.results / "report.html").read_text(encoding="utf-8")


def test_nothing_that_leaves_the_machine_names_its_folders(finished: Finished) -> None:
    """Neither the folders of images, artifacts and sources nor the home of the user: in no member
    of the bundle and the wheel, and in no report."""
    names = ("report.json", "report.html")
    files = {name: (finished.results / name).read_bytes() for name in names}
    (wheel,) = (finished.results / "dist").iterdir()
    for path in (finished.results / "bundle.zip", wheel):
        with zipfile.ZipFile(path) as archive:
            files |= {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
    folders = {str(finished.folder), str(ROOT), sys.prefix, tempfile.gettempdir()}
    if Path.home() != Path("/"):  # every path begins with it
        folders.add(str(Path.home()))
    for name, data in files.items():
        for folder in folders:
            assert f"{folder}/".encode() not in data, (name, folder)
            assert f'{folder}"'.encode() not in data, (name, folder)
    manifest = json.loads(files["bundle.zip/manifest.json"])
    assert manifest["provenance"]["recipe"]["data"]["root"] == finished.folder.name


def test_a_second_run_does_nothing_and_is_quick(finished: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.results.rglob("*")}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = finished.pipeline("run", "all", "--recipe", "tiny.toml")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert _marks(done.stdout) == dict.fromkeys(STAGES, "-")
    after = {path: path.stat().st_mtime_ns for path in finished.results.rglob("*")}
    assert {path for path in after if before.get(path) != after[path]} <= {
        finished.results / ".lock"
    }
    # the promise is three seconds; CPU time is what a busy machine does not change
    assert now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime < 3


def test_plan_prints_skip(finished: Finished) -> None:
    done = finished.pipeline("plan", "--recipe", "tiny.toml")
    assert done.stdout.count("skip") == len(STAGES) and " run " not in done.stdout
    changed = finished.pipeline("plan", "--recipe", "tiny.toml", "--set", "benchmark.seconds=1")
    assert changed.stdout.count("skip") == 5
    assert "recipe: benchmark.seconds changed: 0.05 -> 1.0" in changed.stdout


def test_show_prints_the_table(finished: Finished) -> None:
    for words in (["show"], ["show", "tiny"]):
        done = finished.pipeline(*words, env={"COLUMNS": "80"})
        assert done.returncode == 0, done.stderr
        _assert_quiet(done.stdout)
        for word in ("PyTorch eager", "fp32", "int8-u8s8-rr", "passed", "p50 ms", "images/s"):
            assert word in done.stdout  # whole, in 80 columns
        assert "default for" in done.stdout


@pytest.fixture(scope="module")
def pictures(
    finished: Finished, tiny_images: Callable[[], tuple[list[object], list[str]]]
) -> list[tuple[str, str]]:
    """(name of a PNG in the folder, what it shows)."""
    pairs = []
    for number, (image, label) in enumerate(zip(*tiny_images(), strict=True)):
        Image.fromarray(image).save(finished.folder / f"{number} {label}.png")
        pairs.append((f"{number} {label}.png", str(label)))
    return pairs


def test_predict_reads_pictures(finished: Finished, pictures: list[tuple[str, str]]) -> None:
    names = [name for name, _ in pictures]
    done = finished.pipeline("predict", finished.results / "bundle.zip", *names)
    assert done.returncode == 0, done.stderr
    for (name, label), line in zip(pictures, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{name}: {label} ")
        assert line.count("%") == 3


def test_predict_as_json(finished: Finished, pictures: list[tuple[str, str]]) -> None:
    words = ("--json", "--top", "2", "--device", "cpu", "--variant", "fp32")
    names = [name for name, _ in pictures]
    done = finished.pipeline("predict", "artifacts/tiny/bundle.zip", *names, *words)
    answers = json.loads(done.stdout)
    assert [answer["image"] for answer in answers] == names
    assert [answer["label"] for answer in answers] == [label for _, label in pictures]
    assert all(len(answer["top"]) == 2 for answer in answers)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.png"], "none.png"),
        (["tiny.toml"], "tiny.toml"),
        (["--variant", "int4", "0 bar.png"], "int4"),
        (["--device", "cuda", "0 bar.png"], "cuda"),
        (["--top", "0", "0 bar.png"], "0"),
    ],
)
def test_predict_refuses_in_one_line(
    finished: Finished, pictures: object, words: list[str], message: str
) -> None:
    done = finished.pipeline("predict", "artifacts/tiny/bundle.zip", *words)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_inspect(finished: Finished) -> None:
    done = finished.pipeline("inspect", finished.results / "bundle.zip")
    assert "labels: bar, pole, box" in done.stdout and "int8-u8s8-rr" in done.stdout
    _assert_quiet(done.stdout)
    manifest = json.loads(
        finished.pipeline("inspect", "artifacts/tiny/bundle.zip", "--json").stdout
    )
    assert {variant["id"] for variant in manifest["variants"]} == {"fp32", "int8-u8s8-rr"}


def test_selftest(finished: Finished) -> None:
    bundle = finished.results / "bundle.zip"
    done = finished.pipeline("selftest", bundle)
    assert done.returncode == 0 and done.stdout.startswith("passed")
    report = json.loads(finished.pipeline("selftest", bundle, "--json").stdout)
    assert report["samples"] > 0 and report["max_difference"] <= report["tolerance"]
    damaged = finished.folder / "damaged.zip"
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    refused = finished.pipeline("selftest", damaged)
    assert refused.returncode == 1 and refused.stderr.startswith("error: ")


def test_a_deleted_bundle_is_published_again(finished: Finished) -> None:
    before = (finished.results / "bundle.zip").read_bytes()
    (finished.results / "bundle.zip").unlink()
    (finished.results / "report.html").write_text("scribbled over")
    done = finished.pipeline("run", "all", "--recipe", "tiny.toml")
    assert _marks(done.stdout) == dict.fromkeys(STAGES, "-")
    assert (finished.results / "bundle.zip").read_bytes() == before
    assert "</html>" in (finished.results / "report.html").read_text(encoding="utf-8")


def test_a_log_without_check_marks(finished: Finished) -> None:
    words = ("run", "all", "--recipe", "tiny.toml", "--from", "package")
    done = finished.pipeline(*words, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "? package" in done.stdout


def test_a_failing_stage_of_a_real_run(finished: Finished) -> None:
    location = ("--recipe", "tiny.toml", "--artifacts", "other folder")
    done = finished.pipeline("run", "all", *location, "--set", "data.root=no where")
    assert done.returncode == 1
    assert "✗ tiny: stage 'data' failed\n  data.root = 'no where' does not exist" in done.stderr
    command = "pipeline run all --recipe tiny.toml --set 'data.root=no where'"
    assert f"    {command} --artifacts 'other folder'\n" in done.stderr
    assert "Traceback" not in done.stderr
    _assert_quiet(done.stderr)


def test_bars_on_a_terminal(finished: Finished) -> None:
    reader, writer = pty.openpty()
    words = ["run", "train", "--force", "--recipe", "tiny.toml"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    child = children.start(
        *(sys.executable, "-m", "pipeline", *words),
        cwd=finished.folder,
        env=environment,
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    shown = b""
    while piece := _read(reader):
        shown += piece
    assert child.wait() == 0
    os.close(reader)
    assert b"\x1b[" in shown and b"train: steps" in shown
    assert "✓" in shown.decode()


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65536)
    except OSError:  # EIO: the other end has gone
        return b""
