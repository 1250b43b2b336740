"""quantize_file.py and calibration_data.py: from a folder and a stranger's file to one INT8
file, a report, and plain words."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import children
import foreign_networks as networks
import numpy as np
import odd_networks
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper
from PIL import Image

from exporters.errors import ExportError
from exporters.evaluate.tasks import Bounds
from exporters.foreign.agreement import Reference
from exporters.foreign.model_inputs import InputSpec, ModelInputs
from exporters.options import GateOptions
from exporters.search.result import SearchResult
from exporters.search.search_log import SearchLog
from exporters.search.trial import Trial
from pipeline.cli.main import cli
from pipeline.engine.store import Store
from pipeline.errors import DataError
from pipeline.quantize_file.calibration_data import DrawOptions, load
from pipeline.quantize_file.options import PixelOptions, QuantizeFileOptions
from pipeline.quantize_file.run import quantize_file
from pipeline.quantize_file.verdict import write_models
from runtime.manifest import WORTH

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
    return CliRunner().invoke(cli, ["quantize-onnx", *map(str, words)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pictures, and the result of one run over them in "out"."""
    place = tmp_path_factory.mktemp("quantize")
    onnx.save(networks.network(9, ir=4, prelu=True, named=False), place / "net.onnx")
    draw(place / "images", 96)
    return place


BOUNDS = {"int8-u8s8-rr": 1.0, "int8-u8s8": 1.0, "int8-s8s8": 1.0}
WORDS = ("--margin", 25, "--minutes", 100, "--std", "0.5")


@pytest.fixture(scope="module")
def first(place: Path) -> Result:
    return invoke(place / "net.onnx", "--data", place / "images", "--out", place / "out", *WORDS)


def test_one_command_leaves_one_file_that_replaces_the_original(place: Path, first: Result) -> None:
    assert first.exit_code == 0, first.output
    assert "opset raised from 9 to 13" in first.output
    assert "images are stretched to 16x16" in first.output
    assert "stays float: PRelu (onnxruntime has no 8-bit kernel for it)" in first.output
    assert "as fp32 %" in first.output
    assert re.search(
        r"Judged by 64 images: it loses \d+\.\d{3} points of the answers equal to FP32's, and at "
        r"most \d+\.\d{3} with 95 % confidence; the margin is 25",
        first.output,
    )
    report = json.loads((place / "out" / "quantize.json").read_text())
    best = next(row for row in report["trials"] if row["id"] == report["files"][0]["trial"])
    speedup = best["speed"]["speedup"]
    assert ("INT8 does not pay on this CPU" in first.output) is (speedup < WORTH)
    assert f" on this CPU: {speedup:.2f}x " in first.output and best["id"] in report["verdict"][0]
    assert {row["step"] for row in report["trials"]} >= {"schemes", "calibration"}
    assert report["judges"] == 64 and report["figure"] == "as fp32 %"
    bound = report["files"][0]["bound_points"]
    lost = {row["id"]: row["assessment"]["lost_points"] for row in report["trials"]}
    # 64 images without a lost one leave 4.056 points open by the bound of Tango; a loss, more
    assert bound > 4.05 and bound > lost[report["files"][0]["trial"]] and bound < 25
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
    trials = (place / "out" / "trials" / "trials.jsonl").read_bytes()
    again = invoke(place / "net.onnx", "--data", place / "images", "--out", place / "out", *WORDS)
    assert again.exit_code == 0 and "nothing to do" in again.output
    table = first.output[first.output.index("judged by") :]
    assert again.output.endswith(table)
    assert (place / "out" / "trials" / "trials.jsonl").read_bytes() == trials


def test_other_options_start_over_and_no_time_says_so(place: Path, first: Result) -> None:
    out = place / "out2"
    words = (place / "net.onnx", "--data", place / "images", "--out", out, "--std", 1)
    none = invoke(*words, "--minutes", 0.0001)
    assert none.exit_code == 1
    assert "no INT8 candidate was finished: give the search more --minutes" in none.output
    assert "the search is incomplete: schemes" in none.output
    assert "its time was over: give the search more --minutes" in none.output
    assert not (out / "net.int8.onnx").exists()
    identity = (out / "trials" / "identity.json").read_text()
    invoke(*words, "--minutes", 0.0002)
    assert (out / "trials" / "identity.json").read_text() == identity  # time is no other search
    invoke(*words, "--minutes", 0.0001, "--mean", "0.5")
    assert (out / "trials" / "identity.json").read_text() != identity


def requested(place: Path, out: str, **words: Any) -> QuantizeFileOptions:
    usual: dict[str, Any] = {
        "minutes": 60,
        "threads": 1,
        "margin": None,
        "min_sqnr_db": 20,
        "task": None,
        "pixels": PixelOptions(),
        "calibration_images": 32,
        "validation_images": 32,
    }
    return QuantizeFileOptions(place / "net.onnx", place / "images", place / out, **(usual | words))


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


def test_a_form_that_loses_too_much_is_written_as_unproven(place: Path) -> None:
    observer = Counting(3)  # fp32 and two forms
    request = requested(place, "strict", min_sqnr_db=90, task="values")
    report = quantize_file(request, observer, observer.stopped)
    assert [trial.id for trial in report.trials] == ["fp32", "int8-u8s8-rr", "int8-u8s8"]
    (file,) = report.files
    assert not report.passed and report.incomplete and not file.proven
    assert file.name == f"net.{file.trial}.unproven.onnx"
    assert [path.name for path in (place / "strict").glob("*.onnx")] == [file.name]
    assert "NOT SHOWN TO BE EQUAL" in report.verdict[0]
    assert re.search(r" \d+\.\d dB .* [89]0 dB", report.verdict[0])
    assert report.figure == "signal %" and "--minutes" not in " ".join(report.verdict)


def test_the_exit_code_says_that_a_file_is_not_shown_to_be_equal(place: Path) -> None:
    observer = Counting(2)  # fp32 and one form; the command below finds them in the log
    request = requested(place, "low", min_sqnr_db=150.0, task="values")
    quantize_file(request, observer, observer.stopped)
    words = (place / "net.onnx", "--data", place / "images", "--out", place / "low")
    counts = ("--calibration-images", 32, "--validation-images", 32, "--minutes", 0.0001)
    found = invoke(*words, *counts, "--task", "values", "--min-sqnr", 150)
    assert found.exit_code == 3, found.output
    (file,) = (place / "low").glob("*.onnx")
    assert f"{file.name} is not shown to be equal" in found.output and ".unproven" in file.name
    observer = Counting(2)
    report = quantize_file(replace(request, min_sqnr_db=1.0), observer, observer.stopped)
    assert report.passed and not file.exists()  # the last result's goes


def points(folder: Path) -> Path:
    """Five points (x, y), far more constant than moving; one channel is nearly dead, and the layer
    behind it makes up for that, which 8 bits cannot."""
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=(16, 3, 3, 3)) / 4, rng.normal(size=(16, 16, 3, 3)) / 9
    small[3] *= 0.01
    large[:, 3] *= 40
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"], name="relu1"),
        helper.make_node("Conv", ["r", "w2"], ["c"], name="conv2", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["s"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="points"),
    ]
    constants = {"w1": small, "w2": large, "w": rng.normal(size=(16, 10)) * 2}
    constants["b"] = np.array([8, 12, 24, 12, 16, 18, 10, 25, 22, 61.0])
    tensors = [networks.tensor(name, values) for name, values in constants.items()]
    outputs: dict[str, list[int | str]] = {"y": ["N", 10]}
    model = networks.model(nodes, tensors, shape=["N", 3, 16, 16], outputs=outputs)
    onnx.save(model, folder / "points.onnx")
    return folder / "points.onnx"


def test_points_are_not_judged_as_classes(place: Path, tmp_path: Path) -> None:
    """As classes nothing is lost, since one number is the largest for every input."""
    observer = Counting(2)
    request = replace(requested(place, "points"), model=points(tmp_path))
    report = quantize_file(request, observer, observer.stopped)
    assert any("judged as values: the same number" in note for note in report.notes)
    made = {trial.id: trial for trial in report.trials}
    assert not made["int8-u8s8-rr"].passed and not report.passed
    session = [
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (request.model, place / "points" / report.files[0].name)
    ]
    images = np.random.default_rng(1).random((32, 3, 16, 16), np.float32)
    images *= np.linspace(0.2, 1, 32, dtype=np.float32)[:, None, None, None]
    before, after = (each.run(None, {"x": images})[0] for each in session)
    spread = np.square(before - before.mean(axis=0)).sum()
    assert np.square(before - after).sum() > 0.01 * spread  # 20 dB are asked for


def test_a_guess_is_said_loudly(place: Path) -> None:
    session = ort.InferenceSession(place / "net.onnx", providers=["CPUExecutionProvider"])
    (node,) = (value.name for value in session.get_outputs())
    data = place / "five"
    for seed in range(5):
        draw(data / f"class{seed}", 12, seed=seed)
    report = quantize_file(
        replace(
            requested(place, "loud"), data=data, calibration_images=None, validation_images=None
        ),
        Counting(0),
        lambda: True,
    )
    assert node == "y" and "is a GUESS" in report.judged_by
    assert any("IS A GUESS" in note and "--task values" in note for note in report.notes)


def test_a_batch_that_is_free_in_name_only(place: Path, tmp_path: Path) -> None:
    onnx.save(odd_networks.batch_in_name_only(), tmp_path / "net.onnx")
    observer = Counting(2)
    request = replace(requested(place, "single"), model=tmp_path / "net.onnx")
    report = quantize_file(request, observer, observer.stopped)
    (note,) = (note for note in report.notes if note.startswith("prepared"))
    assert "one image at a time: its batch 'N' is free in name only" in note
    assert "Reshape 'flatten'" in note
    path = place / "single" / report.files[0].name
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["N", 3, 16, 16]
    assert session.run(None, {"x": np.zeros((1, 3, 16, 16), np.float32)})[0].shape == (1, 5)


def test_hidden_files_and_folders_are_no_data(tmp_path: Path) -> None:
    for seed, name in enumerate(("bars", "discs")):
        draw(tmp_path / "images" / name, 20, seed)
    plain = read(tmp_path / "images", PLANES, tmp_path)
    for place in (
        "bars/._0-000.png",
        "__MACOSX/bars/._1.png",
        ".ipynb_checkpoints/1.png",
        ".x.png",
    ):
        (tmp_path / "images" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / place).write_bytes(b"no picture")
    found = read(tmp_path / "images", PLANES, tmp_path)
    assert found.folders == ("bars", "discs") and found.digests == plain.digests


def test_what_the_tools_raise_becomes_one_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        onnx.checker.check_model(onnx.ModelProto())

    monkeypatch.setattr("exporters.foreign.foreign_model.prepare", broken)
    found = invoke(place / "net.onnx", "--data", place / "images", "--out", place / "net-new")
    assert found.exit_code == 1 and "Traceback" not in found.output
    assert f"reading {place / 'net.onnx'} failed in onnx:" in found.output.replace("\n", "")


def test_values_are_told_without_a_bound(place: Path) -> None:
    observer = Counting(2)  # fp32 and one form
    request = requested(place, "values", min_sqnr_db=1, task="values")
    report = quantize_file(request, observer, observer.stopped)
    (file,) = report.files
    assert file.bound_points is None and report.figure == "signal %"
    assert re.search(r" 32 images: \d+\.\d dB.* at least 1 ", report.verdict[0])


def test_an_early_ctrl_c_does_not_ask_for_more_time(place: Path) -> None:
    report = quantize_file(requested(place, "early"), Counting(0), lambda: True)
    none, incomplete = report.verdict
    assert "no INT8 candidate" in none and "stopped" in none
    steps = "schemes, granularity, calibration, bias correction, transfer, float layers, "
    assert f"{steps}explanation, mixed precision, fine-tuning" in incomplete
    assert "--minutes" not in none + incomplete


def test_few_images_are_said_not_to_show_it(place: Path) -> None:
    """As many as are kept by chance: none of 16 answers changes, and a margin of 1 needs 268."""
    for seed in range(8):
        observer = Counting(4)
        request = requested(
            place,
            f"few{seed}",
            margin=1,
            pixels=PixelOptions(std=(0.5,)),
            validation_images=16,
            seed=seed,
        )
        report = quantize_file(request, observer, observer.stopped)
        if report.passed:
            break
    assert report.judges == 16 and report.files[0].bound_points == pytest.approx(14.464, abs=1e-3)
    assert (
        "Judged by 16 images: it loses 0.000 points of the answers equal to FP32's, and at most "
        "14.464 with 95 % confidence; the margin is 1. SO FEW IMAGES CANNOT SHOW that it stays "
        "below the margin: give more to be sure"
    ) in report.verdict[0]


def test_a_file_that_may_saturate_does_not_get_the_plain_name(place: Path, first: Result) -> None:
    report = json.loads((place / "out" / "quantize.json").read_text())
    saturating = next(row for row in report["trials"] if row["can_saturate"])
    plain = next(row for row in report["trials"] if row["id"] == "int8-u8s8-rr")
    trials = tuple(Trial.from_dict(row) for row in (plain, saturating))
    result = SearchResult(trials, (), (saturating["id"],), None, 0.0, False, ())
    log = SearchLog(place / "out" / "trials")
    (place / "names").mkdir(exist_ok=True)
    written = write_models(place / "names", "net", result, log.path, BOUNDS)
    assert [file.name for file in written] == [f"net.{saturating['id']}.onnx"]
    result = SearchResult(trials, (), (plain["id"],), None, 0.0, False, ())
    written = write_models(place / "names", "net", result, log.path, BOUNDS)
    assert [file.name for file in written] == ["net.int8.onnx"]


def test_ctrl_c_keeps_the_best_so_far_and_the_same_command_goes_on(place: Path) -> None:
    out = place / "stopped"
    words = [sys.executable, "-m", "pipeline", "quantize-onnx", place / "net.onnx"]
    words += ["--data", place / "images", "--out", out, *WORDS]
    process = children.start(*words, stdout=-1, stderr=-1, text=True)
    log = out / "trials" / "trials.jsonl"
    children.wait_until(lambda: log.exists() and log.read_text().count("\n") >= 3, process)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=children.PATIENCE)
    assert "Ctrl-C again" in errors
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
    assert json.loads((place / "k" / "quantize.json").read_text())["figure"] == "right %"


# --- what does not fit ----------------------------------------------------------------------


def read(data: Path, spec: InputSpec, work: Path, **options: Any) -> Any:
    draw = DrawOptions(spec, PixelOptions(**options), (64, 64), 0)
    return load(data, draw, work, lambda done, total: None)


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
    "no image": (InputSpec("x", "float32", (1, 10)), {}, r"of 1 or 3 channels.*'inputs'"),
    "unclear": (InputSpec("x", "float32", (1, 3, 3, 3)), {}, "could be either. Say --layout"),
    "other layout": (PLANES, {"layout": "nhwc"}, "of 1 or 3 channels in layout nhwc"),
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
    with pytest.raises(DataError, match="expected a folder"):
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


def damaged(folder: Path) -> Iterator[Path]:
    """Archives and arrays that numpy cannot read, each in its own way."""
    np.savez_compressed(folder / "whole.npz", inputs=np.arange(9999.0))
    whole = bytearray((folder / "whole.npz").read_bytes())
    cut = bytes(whole[: len(whole) // 2])
    whole[200:400] = bytes(200)
    for name, data in (("pk", b"PK"), ("cut", cut), ("zeros", bytes(whole)), ("empty", b"")):
        (folder / f"{name}.npz").write_bytes(data)
        yield folder / f"{name}.npz"


def test_damaged_arrays_are_refused_in_words(tmp_path: Path) -> None:
    for file in damaged(tmp_path):
        with pytest.raises(DataError, match="cannot be read as numpy arrays"):
            read(file, PLANES, tmp_path)
        for words in (("--data", file), ("--data", tmp_path / "whole.npz")):
            found = CliRunner().invoke(cli, ["compare", str(file), str(file), *map(str, words)])
            assert found.exit_code == 1 and isinstance(found.exception, SystemExit), file


def test_an_array_under_the_name_of_an_archive_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "inputs.npy", pixels)
    (tmp_path / "inputs.npy").rename(tmp_path / "inputs.npz")
    assert len(read(tmp_path / "inputs.npz", PLANES, tmp_path).calibration)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "big"), "'big'; expected HEIGHTxWIDTH"),
        (("--size", "0x8"), "'0x8'; expected HEIGHTxWIDTH"),
        (("--mean", "a,b"), "'a,b'; expected numbers, separated by commas"),
        (("--std", "nan"), "'nan'; expected numbers, separated by commas"),
        (("--threads", "0"), "0 is not in the range x>=1"),
        (("--margin", "-1"), "-1.0 is not in the range 0<x<=100"),
        (("--margin", "0"), "0.0 is not in the range 0<x<=100"),
        (("--margin", "nan"), "nan; expected a number"),
        (("--min-sqnr", "-3"), "-3.0 is not in the range 0<=x<=200"),
        (("--minutes", "nan"), "nan; expected a number"),
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


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_what_does_not_fit_the_data_is_refused_and_leaves_nothing(place: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(place / "plain.npz", inputs=rng.uniform(0, 1, (96, 3, 16, 16)).astype("f"))
    cases: tuple[tuple[str, tuple[object, ...], str], ...] = (
        ("nope", (), "nope .* expected a folder of images"),
        ("plain.npz", ("--mean", 0.5, "--std", 1), "--mean, --std cannot be used: the inputs in"),
        ("plain.npz", ("--color", "bgr"), "--color cannot be used: .* Leave it out"),
        (
            "images",
            ("--calibration-images", 5000),
            "--calibration-images 5000 cannot be met: .* leave 80 images to calibrate with and 16 "
            "to judge by, and 5000 and 500 are requested",
        ),
        ("images", ("--validation-images", 70), "--validation-images 70 cannot be met: "),
        ("images", ("--task", "values", "--margin", 2), "--margin is for answers, and these"),
    )
    (place / "mine").mkdir()
    before = files_in(place)
    for data, words, message in cases:
        for out in (place / "new" / "deep", place / "mine"):
            found = invoke(place / "net.onnx", "--data", place / data, *words, "--out", out)
            assert found.exit_code == 1 and re.search(message, found.output), found.output
            assert files_in(place) == before


def test_outputs_that_are_no_answers_are_not_taken_for_them(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weights = networks.tensor("w", np.ones((2, 3, 3, 3)))
    onnx.save(networks.model([node], [weights], shape=["N", 3, 16, 16]), tmp_path / "net.onnx")
    draw(tmp_path / "images", 40)
    words = ("--task", "multi-class", "--out", tmp_path / "out")
    found = invoke(tmp_path / "net.onnx", "--data", tmp_path / "images", *words)
    assert found.exit_code == 1 and not (tmp_path / "out").exists()
    assert "--task multi-class does not fit output 'y' [24, 2, 14, 14] of 24 inputs" in found.output


def test_a_first_output_without_values_holds_no_answers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Slice", ["x", "none", "none", "one"], ["q"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    constants = [networks.tensor("w", np.ones((2, 3, 3, 3)))]
    constants += [numpy_helper.from_array(np.array([i]), n) for n, i in (("none", 0), ("one", 1))]
    nodes.insert(1, helper.make_node("Flatten", ["q"], ["flat"]))
    outputs: dict[str, list[int | str]] = {"flat": ["N", 0], "y": ["N", 2, 14, 14]}
    model = networks.model(nodes, constants, shape=["N", 3, 16, 16], outputs=outputs)
    onnx.save(model, tmp_path / "net.onnx")
    draw(tmp_path / "images", 40)
    words = ("--task", "multi-class", "--out", tmp_path / "out")
    found = invoke(tmp_path / "net.onnx", "--data", tmp_path / "images", *words)
    assert found.exit_code == 1 and not (tmp_path / "out").exists()
    assert "--task multi-class does not fit output 'flat' [24, 0] of 24 inputs" in found.output


def test_copies_that_are_left_out_are_no_unmet_number(place: Path, tmp_path: Path) -> None:
    copies = draw(tmp_path / "copies", 64)
    for number in range(10):
        shutil.copyfile(copies / "0-000.png", copies / f"copy-{number}.png")
    observer = Counting(0)
    request = requested(place, "copied", calibration_images=32, validation_images=42)
    report = quantize_file(replace(request, data=copies), observer, observer.stopped)
    assert report.judges <= 42 and any("are copies of" in note for note in report.notes)


def test_a_folder_that_cannot_be_written_has_the_option_of_this_command(place: Path) -> None:
    words = (place / "net.onnx", "--data", place / "images")
    found = invoke(*words, "--out", place / "net.onnx" / "out")
    assert found.exit_code == 1 and "cannot be written: Not a directory. Free" in found.output
    assert "--out DIR" in found.output and "--artifacts" not in found.output
    with Store(place, "held", ()).lock():
        found = invoke(*words, "--out", place / "held")
        assert (place / "held" / ".lock").exists()
    assert f"in use by another run (process {os.getpid()})" in found.output
    assert found.exit_code == 1 and "--out DIR" in found.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: needs /dev/full")
@pytest.mark.parametrize("name", ["net.int8.onnx.partial", "quantize.json.partial"])
def test_results_that_cannot_be_written_are_told(
    place: Path, first: Result, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place / "out", out)
    (out / "quantize.json").unlink()
    (out / name).symlink_to("/dev/full")
    words = (place / "net.onnx", "--data", place / "images", "--out", out, *WORDS)
    found = invoke(*words)
    assert found.exit_code == 1 and f"{out} cannot be written: No space left" in found.output
    assert "--out DIR; finished trials are kept" in found.output
    assert not [file for file in files_in(out) if file.name.endswith(".partial")]
    assert not (out / "quantize.json").exists()
    assert invoke(*words).exit_code == 0 and (out / "quantize.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: needs /dev/full")
def test_a_full_disk_in_the_middle_of_the_search(place: Path) -> None:
    out = place / "full"
    observer = Counting(2)
    quantize_file(requested(place, "full"), observer, observer.stopped)
    (out / "trials" / "trials.jsonl.partial").symlink_to("/dev/full")
    with pytest.raises(ExportError, match=r"the trials in .* cannot be written: No space left"):
        quantize_file(requested(place, "full"), Counting(9), lambda: False)
    assert not [file for file in files_in(out) if file.name.endswith(".partial")]
    assert [trial.id for trial in SearchLog(out / "trials").trials] == ["fp32", "int8-u8s8-rr"]


def test_someone_elses_folder_of_the_same_name_stays(place: Path, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "notes.txt").write_text("mine")
    for data, message in (
        ("nope", "does not exist"),
        ("images", "holds no trials of this command"),
    ):
        found = invoke(place / "net.onnx", "--data", place / data, "--out", tmp_path)
        assert found.exit_code == 1 and message in found.output, found.output
        assert [file.name for file in tmp_path.rglob("*")] == ["trials", "notes.txt"]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_bound_is_the_one_that_a_failing_form_is_told(place: Path, labelled: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 1, (64, 3, 16, 16)) * rng.uniform(0, 2, (64, 3, 1, 1))
    fp32 = (place / "net.onnx").read_bytes()
    changed = onnx.load(place / "net.onnx")
    for tensor in changed.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim > 1:
            values = (values * rng.normal(1, 0.4, values.shape)).astype(values.dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    reference = Reference.of_fp32(
        fp32,
        ["y"],
        ModelInputs(PLANES, rows.astype("f")),
        Bounds(GateOptions(margin_points=5), 20.0),
        labels=rng.integers(0, 5, 64) if labelled else None,
    )
    form = changed.SerializeToString()
    (told, *_) = reference.assess(form, "int8-x", False).failures
    bound = reference.loss_bound(form)
    assert bound and f"and at most {bound:.3f} with 95 % confidence" in told
