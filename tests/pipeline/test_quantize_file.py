"""quantize_file.py and datasets/foreign_data.py: from a folder and a stranger's file to one INT8
file, a report, and plain words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import foreign_networks as networks
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from exporters.model_inputs import InputSpec
from exporters.search import SearchResult
from exporters.search_log import SearchLog
from exporters.trial import Trial
from pipeline.cli import cli
from pipeline.datasets.foreign_data import PixelOptions, Wanted, load
from pipeline.errors import DataError
from pipeline.quantize_file import Request, quantize_file, write_models

PLANES = InputSpec("x", "float32", (None, 3, 16, 16))


def draw(folder: Path, count: int, seed: int = 0) -> Path:
    """Pictures of 20x24 pixels, each of its own colour."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (20, 24, 3)) * rng.uniform(0.2, 1, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{seed}-{number:03}.png")
    return folder


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, ["quantize", *map(str, words)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pictures, and the result of one run over them in "out"."""
    place = tmp_path_factory.mktemp("quantize")
    onnx.save(networks.network(9, ir=4, prelu=True, named=False), place / "net.onnx")
    draw(place / "images", 96)
    return place


WORDS = ("--margin", 25, "--minutes", 2, "--std", "0.5")


@pytest.fixture(scope="module")
def first(place: Path) -> Result:
    return invoke(place / "net.onnx", "--data", place / "images", "--out", place / "out", *WORDS)


def test_one_command_leaves_one_file_that_replaces_the_original(place: Path, first: Result) -> None:
    assert first.exit_code == 0, first.output
    assert "opset raised from 9 to 13" in first.output
    assert "images are stretched to 16x16" in first.output
    assert "stays float: PRelu (onnxruntime has no 8-bit kernel for it)" in first.output
    assert "INT8 pays on this CPU" in first.output or "INT8 does not pay" in first.output
    report = json.loads((place / "out" / "quantize.json").read_text())
    assert {row["step"] for row in report["trials"]} >= {"schemes", "calibration"}
    assert report["explanation"]["damage"] and report["files"][0]["name"] == "net.int8.onnx"
    before, after = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (place / "net.onnx", place / "out" / "net.int8.onnx")
    )
    for ends in ("get_inputs", "get_outputs"):
        was, now = (
            [(v.name, v.type, v.shape) for v in getattr(s, ends)()] for s in (before, after)
        )
        assert was == now
    partial = [file.name for file in (place / "out").rglob("*.partial")]
    assert not partial


def test_a_second_run_of_the_same_has_nothing_to_do(place: Path, first: Result) -> None:
    began = time.monotonic()
    trials = (place / "out" / "trials" / "trials.jsonl").read_bytes()
    again = invoke(place / "net.onnx", "--data", place / "images", "--out", place / "out", *WORDS)
    assert again.exit_code == 0 and "nothing to do" in again.output
    assert time.monotonic() - began < 60
    table = first.output[first.output.index("judged by") :]
    assert again.output.endswith(table)
    assert (place / "out" / "trials" / "trials.jsonl").read_bytes() == trials


def test_other_options_start_over_and_no_time_says_so(place: Path, first: Result) -> None:
    out = place / "out2"
    words = (place / "net.onnx", "--data", place / "images", "--out", out, "--std", 1)
    none = invoke(*words, "--minutes", 0.0001)
    assert none.exit_code == 1
    assert "no INT8 form was finished: give the search more --minutes" in none.output
    assert "the search is incomplete, not finished: schemes" in none.output
    assert not (out / "net.int8.onnx").exists()
    identity = (out / "trials" / "identity.json").read_text()
    invoke(*words, "--minutes", 0.0002)
    assert (out / "trials" / "identity.json").read_text() == identity  # time is no other search
    invoke(*words, "--minutes", 0.0001, "--mean", "0.5")
    assert (out / "trials" / "identity.json").read_text() != identity


class Counting:
    """An observer that has the search stopped after some trials, whatever a clock says."""

    def __init__(self, trials: int) -> None:
        self.left = trials

    def note(self, text: str) -> None:
        pass

    def step(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.left -= task == "variants"

    def stopped(self) -> bool:
        return self.left <= 0


def test_a_form_that_loses_too_much_is_not_written(place: Path) -> None:
    observer = Counting(3)  # fp32 and two forms
    request = Request(
        place / "net.onnx",
        place / "images",
        place / "strict",
        minutes=60,
        threads=1,
        margin=None,
        min_sqnr_db=90,
        task="values",
        pixels=PixelOptions(),
        calibration_images=32,
        validation_images=32,
    )
    report = quantize_file(request, observer, observer.stopped)
    assert [trial.id for trial in report.trials] == ["fp32", "int8-u8s8-rr", "int8-u8s8"]
    assert not report.passed and report.incomplete and not list((place / "strict").glob("*.onnx"))
    assert report.verdict[0].startswith("no INT8 form passes; keep FP32. The nearest is int8-u8s8")
    assert "at least 90 dB are asked for" in report.verdict[0]


def test_a_file_that_may_saturate_does_not_get_the_plain_name(place: Path, first: Result) -> None:
    report = json.loads((place / "out" / "quantize.json").read_text())
    saturating = next(row for row in report["trials"] if row["can_saturate"])
    plain = next(row for row in report["trials"] if row["id"] == "int8-u8s8-rr")
    trials = tuple(Trial.from_dict(row) for row in (plain, saturating))
    result = SearchResult(trials, (), (saturating["id"],), None, 0.0, False, ())
    log = SearchLog(place / "out" / "trials")
    (place / "names").mkdir(exist_ok=True)
    written = write_models(place / "names", "net", result, log.path)
    assert [file.name for file in written] == [f"net.{saturating['id']}.onnx"]
    result = SearchResult(trials, (), (plain["id"],), None, 0.0, False, ())
    written = write_models(place / "names", "net", result, log.path)
    assert [file.name for file in written] == ["net.int8.onnx"]


def test_ctrl_c_keeps_the_best_so_far_and_the_same_command_goes_on(place: Path) -> None:
    out = place / "stopped"
    words = [sys.executable, "-m", "pipeline", "quantize", place / "net.onnx"]
    words += ["--data", place / "images", "--out", out, *WORDS]
    process = subprocess.Popen([str(word) for word in words], stdout=-1, stderr=-1, text=True)
    log = out / "trials" / "trials.jsonl"
    while not log.exists() or log.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert "ending with what was found" in errors
    if process.returncode == 0 and "incomplete" in output:  # else it was done before the signal
        assert (out / "net.int8.onnx").exists()
    tried = log.read_text()
    again = invoke(place / "net.onnx", "--data", place / "images", "--out", out, *WORDS)
    assert again.exit_code == 0 and "incomplete" not in again.output
    assert log.read_text().startswith(tried)


def test_labels_that_the_model_does_not_know_are_not_used(place: Path) -> None:
    data = place / "classes"
    for number in range(5):
        draw(data / f"class{number}", 12, seed=number)
    found = invoke(
        place / "net.onnx", "--data", data, "--out", place / "c", "--minutes", 0.001, "--std", 1
    )
    assert "the labels are NOT used: FP32 has" in found.output
    for file in (data / "class4").iterdir():
        file.unlink()
    found = invoke(place / "net.onnx", "--data", data, "--out", place / "c", "--minutes", 0.001)
    assert "labels are not used: 4 sub-folders, and the model has 5 classes" in found.output


def test_labels_judge_where_fp32_knows_them(place: Path) -> None:
    session = ort.InferenceSession(place / "net.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    inputs = (rng.uniform(0, 1, (96, 3, 16, 16)) * rng.uniform(0, 2, (96, 3, 1, 1))).astype("f")
    labels = session.run(None, {"x": inputs})[0].argmax(axis=1)
    np.savez(place / "known.npz", inputs=inputs, labels=labels)
    found = invoke(
        place / "net.onnx", "--data", place / "known.npz", "--out", place / "k", "--minutes", 0.001
    )
    assert "FP32 has 100.00 % of the labels right" in found.output
    assert "judged by accuracy by the labels, margin 0.5 points" in found.output


# --- what does not fit ----------------------------------------------------------------------


def read(data: Path, spec: InputSpec, work: Path, **options: Any) -> Any:
    wanted = Wanted(spec, PixelOptions(**options), (64, 64), 0)
    return load(data, wanted, work, lambda done, total: None)


def test_calibration_and_validation_share_no_image(tmp_path: Path) -> None:
    draw(tmp_path / "images", 80)
    first = sorted((tmp_path / "images").iterdir())[0].read_bytes()
    for number in range(20):  # the same picture under other names
        (tmp_path / "images" / f"copy-{number}.png").write_bytes(first)
    found = read(tmp_path / "images", PLANES, tmp_path)
    calibration = {row.tobytes() for row in found.calibration.rows}
    assert not any(row.tobytes() in calibration for row in found.validation.rows)
    assert any("are copies of calibration images and left out" in note for note in found.notes)
    assert found.validation[:2].shape == (2, 3, 16, 16)


@pytest.mark.skipif(sys.platform != "linux", reason="not run: other file systems refuse such names")
def test_folders_whose_names_are_not_utf_8(tmp_path: Path) -> None:
    for seed, name in enumerate((b"caf\xe9", b"bar")):
        draw(tmp_path / "images" / os.fsdecode(name), 40, seed)
    found = read(tmp_path / "images", PLANES, tmp_path)
    assert found.folders == ("bar", "caf\\xe9")  # the report, which is UTF-8, names them


BAD: dict[str, tuple[InputSpec, dict[str, Any], str]] = {
    "free size": (
        InputSpec("x", "float32", (1, 3, None, None)),
        {},
        r"'x' float32 \[1, 3, \?, \?\] has a free height or width. .* --size 224x224",
    ),
    "wrong size": (PLANES, {"size": (32, 32)}, "--size 32x32 does not fit"),
    "no image": (InputSpec("x", "float32", (1, 10)), {}, r"is no image of 1 or 3 .*'inputs'"),
    "unclear": (InputSpec("x", "float32", (1, 3, 3, 3)), {}, "could be either. Say --layout"),
    "other layout": (PLANES, {"layout": "nhwc"}, "is no image of 1 or 3 channels in layout nhwc"),
    "mean": (PLANES, {"mean": (0.5, 0.5)}, "--mean has 2 numbers; expected one, or one for each"),
    "std": (PLANES, {"std": (0.0,)}, "--std 0 is not positive"),
    "scaled pixels": (
        InputSpec("x", "uint8", (1, 16, 16, 3)),
        {"mean": (0.5,)},
        "takes pixels as they are; leave --mean and --std out",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_options_that_do_not_fit_the_input_are_refused(case: str, tmp_path: Path) -> None:
    spec, options, message = BAD[case]
    draw(tmp_path / "images", 1)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "images", spec, tmp_path, **options)


def test_data_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "few", 20)
    with pytest.raises(DataError, match=r"few has 20 images; expected at least 32: 16 to calib"):
        read(tmp_path / "few", PLANES, tmp_path)
    with pytest.raises(DataError, match="is not there; expected a folder"):
        read(tmp_path / "missing", PLANES, tmp_path)
    with pytest.raises(DataError, match="is a single file; expected a folder of images"):
        read(next((tmp_path / "few").iterdir()), PLANES, tmp_path)
    draw(tmp_path / "few", 20, seed=1)
    (tmp_path / "few" / "0-000.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of \d+ images cannot be decoded:\s.*0-000.png"):
        read(tmp_path / "few", PLANES, tmp_path)


ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({"a": np.zeros(3)}, r"has arrays \['a'\]; expected 'inputs'"),
    "shape": (
        {"inputs": np.zeros((40, 3, 8, 8), np.float32)},
        r"float32 \[40, 3, 8, 8\]; expected \[n, 3, 16, 16\]",
    ),
    "type": ({"inputs": np.zeros((40, 3, 16, 16))}, "has float64 .*; expected 'x' float32"),
    "pixels": (
        {"inputs": np.zeros((40, 8, 8, 3), np.uint8)},
        r"uint8 \[40, 8, 8, 3\]; expected \[n, 16, 16, 3\] for uint8 pixels",
    ),
    "labels": (
        {"inputs": np.zeros((40, 3, 16, 16), np.float32), "labels": np.zeros(3, int)},
        r"labels of .* are int64 \(3,\); expected whole numbers \(40,\)",
    ),
}


@pytest.mark.parametrize("case", list(ARRAYS))
def test_arrays_that_do_not_fit_are_refused(case: str, tmp_path: Path) -> None:
    arrays, message = ARRAYS[case]
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "data.npz", PLANES, tmp_path)


def test_arrays_beside_each_other_and_pixels_in_an_array(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "inputs.npy", rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(40))
    found = read(tmp_path, PLANES, tmp_path, std=(0.5,))
    assert found.calibration[:1].max() > 1 and found.calibration[:1].shape == (1, 3, 16, 16)
    assert found.labels is not None and len(found.labels) == len(found.validation)
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot be read as numpy arrays"):
        read(tmp_path / "broken.npz", PLANES, tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "big"), "'big'; expected HEIGHTxWIDTH"),
        (("--mean", "a,b"), "'a,b'; expected numbers with commas"),
    ],
)
def test_words_that_are_no_numbers_are_refused(
    words: tuple[str, str], message: str, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    found = invoke(tmp_path / "net.onnx", "--data", tmp_path, *words, *out)
    assert found.exit_code == 2 and message in found.output
    missing = invoke(tmp_path / "net.onnx", "--data", tmp_path, *out)
    assert missing.exit_code == 1 and "cannot be read: No such file" in missing.output
    assert not (tmp_path / "out").exists()
