"""Whatever happens to a run - kill -9, Ctrl-C, a second run, a full disk, a read-only folder, files
altered by hand - nothing finished is lost and the same command continues. Real processes on a tiny
recipe; what cannot be arranged on this machine says "not run"."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import children
import pytest
import torch
from children import wait_until
from PIL import Image

from exporters.evaluate.score_values import Baseline
from pipeline.engine.digests import file_sha256
from pipeline.engine.store import RECORD_NAME, Store
from pipeline.reports import TrainReport, ValidateReport
from runtime import Predictor

pytestmark = pytest.mark.full

STAGES = ("data", "train", "export", "quantize", "validate", "benchmark", "package")


@dataclass(frozen=True)
class Place:
    """A folder with the tiny recipe, and runs in it."""

    folder: Path
    recipe: Path

    @property
    def root(self) -> Path:
        return self.folder / "artifacts" / "tiny"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle.zip"

    @property
    def store(self) -> Store:
        return Store(self.folder / "artifacts", "tiny", STAGES)

    def partial(self, stage: str) -> Path:
        return self.store.folder(stage).with_name(self.store.folder(stage).name + ".partial")

    def start(self, *words: str, **options: object) -> subprocess.Popen[str]:
        """``pipeline run ...`` in a session of its own, so that signals reach it alone."""
        command = [sys.executable, "-m", "pipeline", "run", *words, "--recipe", str(self.recipe)]
        return children.start(
            *command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            **options,
        )

    def run(self, *words: str, **options: object) -> Ended:
        return ended(self.start(*words, **options))

    def copy(self, folder: Path) -> Place:
        """The same state in another folder; time stamps are kept, so finished work stays fresh."""
        shutil.copytree(self.folder / "artifacts", folder / "artifacts", dirs_exist_ok=True)
        return Place(folder, self.recipe)

    def assert_whole(self) -> None:
        """Every finished stage has all its files, and a published bundle passes its own test."""
        for stage in STAGES:
            folder = self.store.folder(stage)
            if not folder.exists():
                continue
            record = self.store.record(stage)
            assert record is not None, f"{folder.name} exists without a record"
            for name, output in record.outputs.items():
                assert file_sha256(folder / name) == output.sha256, f"{folder.name}/{name}"
        if self.bundle.exists():
            with Predictor(self.bundle, device="cpu") as predictor:
                predictor.selftest()


@dataclass(frozen=True)
class Ended:
    """What a run left behind."""

    code: int
    out: str
    err: str

    @property
    def marks(self) -> dict[str, str]:
        """Stage name -> "✓" (ran) or "-" (fresh)."""
        return {name: m for m, name in re.findall(r"^([✓-]) (\w+)", self.out, re.MULTILINE)}

    def assert_reported(self, stage: str, message: str, code: int = 1) -> None:
        """The run failed in ``stage`` and printed why, without a traceback, and how to continue."""
        assert self.code == code, self.out + self.err
        assert re.search(f"tiny: stage '({stage})'", self.err), self.err
        assert re.search(message, self.err), self.err
        assert "To continue from here:\n    pipeline run " in self.err
        assert "Traceback" not in self.err


def ended(child: subprocess.Popen[str]) -> Ended:
    out, err = child.communicate(timeout=children.PATIENCE)
    # As a shell reports it: a process that dies of SIGINT gives 130 as well, and CPython ends
    # itself so when Ctrl-C met an exec() of a string, as dataclasses do on import.
    code = 128 - child.returncode if child.returncode < 0 else child.returncode
    return Ended(code, out, err)


KILLED = 128 + signal.SIGKILL


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[[Path], Path]
) -> Callable[[], Place]:
    """Makes a new folder for runs of the tiny recipe; nothing has run there."""
    recipe = write_tiny(tmp_path_factory.mktemp("recipe"))
    return lambda: Place(tmp_path_factory.mktemp("run"), recipe)


@pytest.fixture(scope="module")
def finished(start: Callable[[], Place]) -> Place:
    """A run that nothing disturbed."""
    place = start()
    done = place.run("all")
    assert done.code == 0, done.err
    return place


@pytest.fixture
def copied(finished: Place, tmp_path: Path) -> Place:
    return finished.copy(tmp_path)


# --- kill -9 --------------------------------------------------------------------------------


def kill_in(
    place: Place, stage: str, seconds: float, rng: random.Random, *words: str
) -> tuple[str, int]:
    """Start a run and kill it within ``seconds`` after it began ``stage`` (or a later one, if that
    one is done); returns what was at work then, and the exit code."""
    waited_for = STAGES[STAGES.index(stage) :]
    child = place.start("all", *words)
    wait_until(lambda: any(place.partial(name).exists() for name in waited_for), child)
    time.sleep(rng.uniform(0, seconds))
    child.kill()
    code = ended(child).code
    at_work = [name for name in STAGES if place.partial(name).exists()]
    return (at_work or ["none"])[0], code


def test_killed_at_random_moments_in_each_stage(
    start: Callable[[], Place],
    finished: Place,
    tiny_images: Callable[[], tuple[list[object], list[str]]],
) -> None:
    rng = random.Random(20_26)
    place = start()
    killed = []
    for stage in STAGES:
        record = finished.store.record(stage)
        assert record is not None
        for _ in range(4 if stage == "train" else 2):
            at_work, code = kill_in(place, stage, record.seconds, rng)
            assert code in (KILLED, 0)
            killed += [at_work] if code else []
            place.assert_whole()
    assert len(killed) >= 12, killed
    assert len(set(killed) - {"none"}) >= 5, killed

    done = place.run("all")
    assert done.code == 0, done.err
    place.assert_whole()
    assert not list(place.root.glob("*.partial")) and not list(place.root.glob("*.old"))
    pictures = []
    images, labels = tiny_images()
    for number, image in enumerate(images):
        Image.fromarray(image).save(place.folder / f"{number}.png")
        pictures.append(str(place.folder / f"{number}.png"))
    with Predictor(place.bundle) as predictor:
        assert [answer.label for answer in predictor.predict(pictures)] == list(labels)
    assert set(place.run("all").marks.values()) == {"-"}


def test_killed_while_it_replaces_a_good_result(copied: Place) -> None:
    rng = random.Random(7)
    before = published = copied.bundle.read_bytes()
    early_kills = 0
    for stage in ("train", "train", "quantize", "package", "package"):
        record = copied.store.record(stage)
        assert record is not None
        at_work, _ = kill_in(copied, stage, record.seconds, rng, "--seed", "2")
        copied.assert_whole()
        if at_work in STAGES[:-1]:  # package, the last one, had not begun
            assert copied.bundle.read_bytes() == published
            early_kills += 1
        published = copied.bundle.read_bytes()
    assert early_kills
    assert copied.run("all", "--seed", "2").code == 0
    copied.assert_whole()
    assert copied.bundle.read_bytes() != before


# --- a baseline next to it ------------------------------------------------------------------


def test_a_baseline_that_comes_and_goes_is_told_and_stops_nothing(copied: Place) -> None:
    def baseline() -> Baseline:
        done = copied.run("validate", "--set", "baseline=textbook")
        assert done.code == 0, done.err
        assert done.marks["quantize"] == "-"  # nothing before it depends on a baseline
        report = copied.store.report("validate", ValidateReport)
        assert report is not None and report.scores.baseline is not None
        return report.scores.baseline

    command = "pipeline run validate --recipe textbook"
    assert command in str(baseline().missing)
    other = copied.root.with_name("textbook")
    shutil.copytree(copied.root, other)  # as if another recipe had come to the same answers
    there = baseline()
    assert there.missing is None and there.common_labels == 3
    report = copied.store.report("validate", ValidateReport)
    assert report is not None
    for form in report.scores.forms[:2]:  # PyTorch and fp32
        assert form.over_baseline and form.over_baseline.accuracy
        assert form.over_baseline.accuracy.value == 0
    shutil.rmtree(other)
    assert command in str(baseline().missing)


def trained(place: Place) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """The weights, and the metrics of each epoch without those of the clock."""
    folder = place.store.folder("train")
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["weights"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return weights, [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def test_training_killed_in_mid_epoch_ends_with_the_same_bits(
    start: Callable[[], Place], finished: Place
) -> None:
    rng = random.Random(11)
    place = start()
    resume = place.partial("train") / "resume.pt"
    positions = []
    for _ in range(3):
        before = resume.stat().st_mtime_ns if resume.exists() else 0
        child = place.start("train")
        wait_until(lambda: resume.exists() and resume.stat().st_mtime_ns != before, child)  # noqa: B023
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        assert ended(child).code == KILLED
        if resume.exists():
            state = torch.load(resume, weights_only=True)["state"]
            positions.append((state["epoch"], state["position"]))
    assert positions and positions == sorted(set(positions)), positions  # each went further
    assert any(position for _, position in positions), positions  # in mid-epoch

    assert place.run("train").code == 0
    report = place.store.report("train", TrainReport)
    assert report is not None and report.result.resumed
    weights, metrics = trained(place)
    expected, expected_metrics = trained(finished)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert metrics == expected_metrics


# --- Ctrl-C ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("part", [0.1, 0.5])
def test_ctrl_c(finished: Place, copied: Place, stage: str, part: float) -> None:
    record = finished.store.record(stage)
    assert record is not None
    before = copied.bundle.read_bytes()
    child = copied.start("all", "--from", stage)
    wait_until(lambda: copied.partial(stage).exists(), child)
    time.sleep(part * record.seconds)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to children, too
    # on an idle machine it may have come further than when the time was taken
    ended(child).assert_reported("|".join(STAGES[STAGES.index(stage) :]), "interrupted", code=130)
    assert copied.bundle.read_bytes() == before
    copied.assert_whole()
    assert copied.run("all").code == 0
    copied.assert_whole()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_run(tmp_path: Path, how: signal.Signals) -> None:
    """Faces are drawn and decoded by many processes: these must not outlive the run or its lock."""
    words = ["data", "--recipe", "celeba", "--set", "data.synthetic_images=1200"]
    command = [sys.executable, "-m", "pipeline", "run", *words]

    def begin() -> subprocess.Popen[str]:
        return children.start(
            *command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    child = begin()
    drawn = tmp_path / "artifacts" / "celeba" / "1_data.partial"
    wait_until(lambda: len(list(drawn.rglob("*.jpg"))) > 20, child)
    os.killpg(child.pid, how) if how == signal.SIGINT else child.kill()
    done = ended(child)  # which also waits until no worker holds the pipe any more
    assert done.code == 128 + how
    assert "Traceback" not in done.err
    assert not (tmp_path / "artifacts" / "celeba" / "1_data").exists()
    again = ended(begin())
    assert again.code == 0, again.err
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


# --- two runs at once -----------------------------------------------------------------------


def test_two_runs_at_once(start: Callable[[], Place]) -> None:
    place = start()
    first = place.start("train", "--set", "train.epochs=30")
    wait_until(lambda: place.partial("train").exists(), first)
    second = place.run("all")
    assert second.code == 1
    expected = f"{place.root.relative_to(place.folder)} is in use by another run (process"
    assert f"error: {expected} {first.pid}). Wait for it, or give" in second.err
    assert "--artifacts DIR" in second.err and "Traceback" not in second.err
    assert first.poll() is None, "the first run ended too early for this test"
    assert ended(first).code == 0
    place.assert_whole()


# --- no room --------------------------------------------------------------------------------


@contextmanager
def tmpfs(folder: Path, size: str = "16m") -> Iterator[None]:
    """A file system of its own in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("not run: mounting a small file system needs root")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False, text=True)
    except OSError as exc:
        pytest.skip(f"not run: no mount command here ({exc})")
    if mounted.returncode != 0:
        pytest.skip(f"not run: a small file system cannot be mounted ({mounted.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def only(room: int, folder: Path) -> Iterator[None]:
    """Fill the file system of ``folder`` until ``room`` bytes are left."""
    stat = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(bytes(stat.f_bavail * stat.f_frsize - room))
    try:
        yield
    finally:
        filler.unlink()


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("stage", ["data", "train", "export", "validate", "package"])
def test_a_full_disk(finished: Place, tmp_path: Path, stage: str) -> None:
    artifacts = tmp_path / "artifacts"
    with tmpfs(artifacts):
        place = finished.copy(tmp_path)
        before = place.bundle.read_bytes()
        need = size_of(finished.store.folder(stage))
        for part in (0.0, 0.3, 0.6, 0.9):
            if stage != "train":  # a new attempt would clear it away and so have more room
                shutil.rmtree(place.partial(stage), ignore_errors=True)
            with only(int(part * need), artifacts):
                done = place.run(stage, "--force")
                done.assert_reported(stage, "(?i)free|room|space")
                assert place.bundle.read_bytes() == before
            place.assert_whole()
        assert place.run(stage, "--force").code == 0
        assert place.run("all").code == 0
        place.assert_whole()
        assert not list(place.root.glob("*.partial"))


def test_a_disk_too_full_to_publish(finished: Place, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    with tmpfs(artifacts):
        place = finished.copy(tmp_path)
        place.bundle.unlink()
        with only(8192, artifacts):
            place.run("all").assert_reported("package", "No space left on device.*Free some space")
            assert not place.bundle.exists()
            assert not (place.root / "bundle.zip.partial").exists()
        assert set(place.run("all").marks.values()) == {"-"}
        assert place.bundle.read_bytes() == finished.bundle.read_bytes()


@pytest.mark.parametrize("stage", ["data", "train", "package"])
@pytest.mark.parametrize("kib", [1, 8])
def test_files_may_not_grow(copied: Place, stage: str, kib: int) -> None:
    """A quota as any user can set it: writing beyond it fails with EFBIG."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, kib * 1024))

    before = copied.bundle.read_bytes()
    done = copied.run(stage, "--force", preexec_fn=limit)
    done.assert_reported(stage, "(?i)free|room|space|file too large")
    assert copied.bundle.read_bytes() == before
    copied.assert_whole()
    assert copied.run("all").code == 0
    copied.assert_whole()


# --- a folder that may not be written -------------------------------------------------------


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing below ``folder`` can be written; root is stopped by a file system alone."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        return
    every = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in every:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in every:
            path.chmod(0o755)


@contextmanager
def own_file_system(folder: Path) -> Iterator[None]:
    if os.geteuid() == 0:
        with tmpfs(folder):
            yield
    else:
        yield


def test_a_read_only_folder(finished: Place, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    with own_file_system(artifacts):
        place = finished.copy(tmp_path)
        (place.root / ".lock").unlink()
        with read_only(artifacts):
            done = place.run("all", "--force")
            assert done.code == 1
            assert re.search(r"error: .*cannot be written: .*--artifacts DIR", done.err)
            assert "Traceback" not in done.err
            for verb in (["plan", "--recipe", str(place.recipe)], ["show"]):
                command = [sys.executable, "-m", "pipeline", *verb]
                subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
            place.assert_whole()
        assert set(place.run("all").marks.values()) == {"-"}


# --- altered by hand ------------------------------------------------------------------------


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def replan(place: Place) -> dict[str, str]:
    command = [sys.executable, "-m", "pipeline", "plan", "--recipe", str(place.recipe)]
    done = subprocess.run(
        command, cwd=place.folder, check=True, capture_output=True, encoding="utf-8"
    )
    rows = re.findall(r"│ (\w+) +│ (?:run|skip) +│ (.*?) +│", done.stdout)
    return dict(rows)


@pytest.mark.parametrize("stage", STAGES)
def test_what_was_altered_runs_again(copied: Place, stage: str) -> None:
    record = copied.store.record(stage)
    assert record is not None
    for name in record.outputs:
        file = copied.store.folder(stage) / name
        good, stat = file.read_bytes(), file.stat()
        flip_a_byte(file)
        assert copied.store.damage(stage, record) == f"output {name} was altered"
        file.write_bytes(good)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    path = copied.store.folder(stage) / RECORD_NAME
    path.write_text(path.read_text().replace("headline", "Headline"))
    reasons = replan(copied)
    assert reasons[stage] == "its stage.json was altered or is of another version"
    assert all(reasons[name] == "fresh" for name in STAGES[: STAGES.index(stage)])


def test_an_altered_model_is_made_again_and_nothing_else(copied: Place) -> None:
    flip_a_byte(copied.store.folder("export") / "fp32.onnx")
    assert replan(copied)["export"] == "output fp32.onnx was altered"
    done = copied.run("all")
    assert done.code == 0, done.err
    # the same bytes come out, so that nothing behind it has to run
    assert done.marks == dict.fromkeys(STAGES, "-") | {"export": "✓"}
    copied.assert_whole()


def test_a_deleted_bundle_is_published_again(copied: Place, finished: Place) -> None:
    copied.bundle.unlink()
    shutil.rmtree(copied.root / "dist")
    assert set(copied.run("all").marks.values()) == {"-"}
    assert copied.bundle.read_bytes() == finished.bundle.read_bytes()
    assert len(list((copied.root / "dist").glob("*.whl"))) == 1
