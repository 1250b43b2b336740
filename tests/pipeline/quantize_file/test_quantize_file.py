"""``quantize-onnx``: from a foreign model and a folder of images to one INT8 file and a report."""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import children
import foreign_networks as networks
import numpy as np
import odd_networks
import onnx
import onnxruntime as ort
import pytest
from click.testing import Result
from onnx import helper
from quantizing import BOUNDS, PLANES, WORDS, Counting, draw, invoke, requested

from exporters.evaluate.tasks import Bounds
from exporters.foreign.agreement import Reference
from exporters.foreign.model_inputs import ModelInputs
from exporters.options import GateOptions
from exporters.search.result import SearchResult
from exporters.search.search_log import SearchLog
from exporters.search.trial import Trial
from pipeline.quantize_file.options import PixelOptions
from pipeline.quantize_file.run import quantize_file
from pipeline.quantize_file.verdict import write_models
from runtime.manifest import WORTH


def test_one_command_leaves_one_file_that_replaces_the_original(
    project: Path, first: Result
) -> None:
    assert first.exit_code == 0, first.output
    assert "opset raised from 9 to 13" in first.output
    assert re.search("stretched .*16x16", first.output)
    assert re.search("float: PRelu .*8-bit kernel", first.output)
    assert "as fp32 %" in first.output
    assert re.search(
        r"64 images: .*\d+\.\d{3} points .*FP32.* \d+\.\d{3} .*95 % confidence.* 25\b",
        first.output,
    )
    report = json.loads((project / "out" / "quantize.json").read_text())
    assert {row["step"] for row in report["trials"]} >= {"schemes", "calibration"}
    assert report["judges"] == 64 and report["figure"] == "as fp32 %"
    bound = report["files"][0]["bound_points"]
    lost = {row["id"]: row["assessment"]["lost_points"] for row in report["trials"]}
    # 64 images without a lost one leave 4.056 points open by the bound of Tango; a loss, more
    speed = next(
        row["speed"]["speedup"]
        for row in report["trials"]
        if row["id"] == report["files"][0]["trial"]
    )
    verdict = "INT8 pays" if speed >= WORTH else "INT8 does not pay"
    assert f"{verdict} on this CPU: {speed:.2f}x" in first.output
    assert bound > 4.05 and bound > lost[report["files"][0]["trial"]] and bound < 25
    assert report["explanation"]["damage"] and report["files"][0]["name"] == "net.int8.onnx"
    before, after = (
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (project / "net.onnx", project / "out" / "net.int8.onnx")
    )
    for ends in ("get_inputs", "get_outputs"):
        was, now = (
            [(v.name, v.type, v.shape) for v in getattr(s, ends)()] for s in (before, after)
        )
        assert was == now
    partial = [file.name for file in (project / "out").rglob("*.partial")]
    assert not partial


def test_a_second_run_of_the_same_has_nothing_to_do(project: Path, first: Result) -> None:
    trials = (project / "out" / "trials" / "trials.jsonl").read_bytes()
    again = invoke(
        project / "net.onnx", "--data", project / "images", "--out", project / "out", *WORDS
    )
    assert again.exit_code == 0 and "nothing to do" in again.output
    table = first.output[first.output.index("judged by") :]
    assert again.output.endswith(table)
    assert (project / "out" / "trials" / "trials.jsonl").read_bytes() == trials


def test_other_options_start_over_and_too_little_time_is_an_error(
    project: Path, first: Result
) -> None:
    out = project / "out2"
    words = (project / "net.onnx", "--data", project / "images", "--out", out, "--std", 1)
    none = invoke(*words, "--minutes", 0.0001)
    assert none.exit_code == 1
    assert re.search(r"no INT8 candidate .*--minutes", none.output)
    assert re.search(r"incomplete.*: schemes(.|\n)*--minutes", none.output)
    assert not (out / "net.int8.onnx").exists()
    identity = (out / "trials" / "identity.json").read_text()
    invoke(*words, "--minutes", 0.0002)
    assert (out / "trials" / "identity.json").read_text() == identity  # of another time limit
    invoke(*words, "--minutes", 0.0001, "--mean", "0.5")
    assert (out / "trials" / "identity.json").read_text() != identity


def test_a_form_that_loses_too_much_is_written_as_unproven(project: Path) -> None:
    observer = Counting(3)  # fp32 and two forms
    request = requested(project, "strict", min_sqnr_db=90, task="values")
    report = quantize_file(request, observer, observer.stopped)
    assert [trial.id for trial in report.trials] == ["fp32", "int8-u8s8-rr", "int8-u8s8"]
    (file,) = report.files
    assert not report.passed and report.incomplete and not file.proven
    assert file.name == f"net.{file.trial}.unproven.onnx"
    assert [path.name for path in (project / "strict").glob("*.onnx")] == [file.name]
    assert "NOT SHOWN TO BE EQUAL" in report.verdict[0]
    assert re.search(r"output 'y'.* \d+\.\d dB .* [89]0 dB", report.verdict[0])
    assert report.figure == "signal %" and "--minutes" not in " ".join(report.verdict)


def test_a_file_not_shown_to_be_equal_has_an_exit_code_of_its_own(project: Path) -> None:
    observer = Counting(2)  # fp32 and one form; the command below finds them in the log
    request = requested(project, "low", min_sqnr_db=150.0, task="values")
    quantize_file(request, observer, observer.stopped)
    words = (project / "net.onnx", "--data", project / "images", "--out", project / "low")
    counts = ("--calibration-images", 32, "--validation-images", 32, "--minutes", 0.0001)
    result = invoke(*words, *counts, "--task", "values", "--min-sqnr", 150)
    assert result.exit_code == 3, result.output
    (file,) = (project / "low").glob("*.onnx")
    assert f"{file.name} is not shown to be equal" in result.output and ".unproven" in file.name
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


def test_points_are_not_judged_as_classes(project: Path, tmp_path: Path) -> None:
    """As classes nothing is lost, since one number is the largest for every input."""
    observer = Counting(2)
    request = replace(requested(project, "points"), model=points(tmp_path))
    report = quantize_file(request, observer, observer.stopped)
    assert any("judged as values" in note for note in report.notes)
    made = {trial.id: trial for trial in report.trials}
    assert not made["int8-u8s8-rr"].passed and not report.passed
    session = [
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (request.model, project / "points" / report.files[0].name)
    ]
    images = np.random.default_rng(1).random((32, 3, 16, 16), np.float32)
    images *= np.linspace(0.2, 1, 32, dtype=np.float32)[:, None, None, None]
    before, after = (each.run(None, {"x": images})[0] for each in session)
    spread = np.square(before - before.mean(axis=0)).sum()
    assert np.square(before - after).sum() > 0.01 * spread  # 20 dB are asked for


def test_a_guess_is_in_capital_letters(project: Path) -> None:
    session = ort.InferenceSession(project / "net.onnx", providers=["CPUExecutionProvider"])
    (node,) = (value.name for value in session.get_outputs())
    data = project / "five"
    for seed in range(5):
        draw(data / f"class{seed}", 12, seed=seed)
    report = quantize_file(
        replace(
            requested(project, "loud"), data=data, calibration_images=None, validation_images=None
        ),
        Counting(0),
        lambda: True,
    )
    assert node == "y" and "is a GUESS" in report.judged_by
    assert any("IS A GUESS" in note and "--task values" in note for note in report.notes)


def test_a_batch_that_is_free_in_name_only(project: Path, tmp_path: Path) -> None:
    onnx.save(odd_networks.batch_in_name_only(), tmp_path / "net.onnx")
    observer = Counting(2)
    request = replace(requested(project, "single"), model=tmp_path / "net.onnx")
    report = quantize_file(request, observer, observer.stopped)
    (note,) = (note for note in report.notes if note.startswith("prepared"))
    assert "one image at a time" in note and "'N'" in note
    assert "Reshape 'flatten'" in note
    path = project / "single" / report.files[0].name
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["N", 3, 16, 16]
    assert session.run(None, {"x": np.zeros((1, 3, 16, 16), np.float32)})[0].shape == (1, 5)


def test_an_error_of_onnx_becomes_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        onnx.checker.check_model(onnx.ModelProto())

    monkeypatch.setattr("exporters.foreign.foreign_model.prepare", broken)
    result = invoke(
        project / "net.onnx", "--data", project / "images", "--out", project / "net-new"
    )
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert f"reading {project / 'net.onnx'} failed in onnx:" in result.output.replace("\n", "")


def test_values_are_reported_without_a_bound(project: Path) -> None:
    observer = Counting(2)  # fp32 and one form
    request = requested(project, "values", min_sqnr_db=1, task="values")
    report = quantize_file(request, observer, observer.stopped)
    (file,) = report.files
    assert file.bound_points is None and report.figure == "signal %"
    assert re.search(r" 32 images: \d+\.\d dB.* at least 1 ", report.verdict[0])


def test_an_early_ctrl_c_does_not_ask_for_more_time(project: Path) -> None:
    report = quantize_file(requested(project, "early"), Counting(0), lambda: True)
    first, second = report.verdict
    assert "no INT8 candidate" in first and "stopped" in first
    assert "--minutes" not in first + second
    assert (
        "schemes, granularity, calibration, bias correction, transfer, float layers, explanation, "
        "mixed precision, fine-tuning"
    ) in second


def test_a_verdict_by_too_few_images_warns(project: Path) -> None:
    """As many as are kept by chance: none of 16 answers changes, and a margin of 1 needs 268."""
    for seed in range(8):
        observer = Counting(4)
        request = requested(
            project,
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
    assert re.search(
        r"16 images: .*0\.000 points .*14\.464 .*95 % confidence.* 1\. SO FEW IMAGES",
        report.verdict[0],
    )


def test_a_file_that_may_saturate_does_not_get_the_plain_name(project: Path, first: Result) -> None:
    report = json.loads((project / "out" / "quantize.json").read_text())
    saturating = next(row for row in report["trials"] if row["can_saturate"])
    plain = next(row for row in report["trials"] if row["id"] == "int8-u8s8-rr")
    trials = tuple(Trial.from_dict(row) for row in (plain, saturating))
    result = SearchResult(trials, (), (saturating["id"],), None, 0.0, False, ())
    log = SearchLog(project / "out" / "trials")
    (project / "names").mkdir(exist_ok=True)
    written = write_models(project / "names", "net", result, log.path, BOUNDS)
    assert [file.name for file in written] == [f"net.{saturating['id']}.onnx"]
    result = SearchResult(trials, (), (plain["id"],), None, 0.0, False, ())
    written = write_models(project / "names", "net", result, log.path, BOUNDS)
    assert [file.name for file in written] == ["net.int8.onnx"]


def test_ctrl_c_keeps_the_best_so_far_and_the_same_command_continues(project: Path) -> None:
    out = project / "stopped"
    words = [sys.executable, "-m", "pipeline", "quantize-onnx", project / "net.onnx"]
    words += ["--data", project / "images", "--out", out, *WORDS]
    process = children.start(*words, stdout=-1, stderr=-1, text=True)
    log = out / "trials" / "trials.jsonl"
    children.wait_until(lambda: log.exists() and log.read_text().count("\n") >= 3, process)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=children.PATIENCE)
    assert "Traceback" not in errors and "Ctrl-C again" in errors
    if process.returncode == 0 and "incomplete" in output:  # else it was done before the signal
        assert (out / "net.int8.onnx").exists()
    tried = log.read_text()
    again = invoke(project / "net.onnx", "--data", project / "images", "--out", out, *WORDS)
    assert again.exit_code == 0 and "incomplete" not in again.output
    assert log.read_text().startswith(tried)


def test_labels_that_the_model_does_not_know_are_not_used(project: Path) -> None:
    data = project / "classes"
    for number in range(5):
        draw(data / f"class{number}", 12, seed=number)
    result = invoke(
        project / "net.onnx", "--data", data, "--out", project / "c", "--minutes", 0.001, "--std", 1
    )
    assert "labels are NOT used: FP32 has" in result.output
    for file in (data / "class4").iterdir():
        file.unlink()
    result = invoke(
        project / "net.onnx", "--data", data, "--out", project / "c", "--minutes", 0.001
    )
    assert re.search("labels are not used: 4 sub-folders.* 5 classes", result.output)


def test_labels_judge_where_fp32_knows_them(project: Path) -> None:
    session = ort.InferenceSession(project / "net.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    inputs = (rng.uniform(0, 1, (96, 3, 16, 16)) * rng.uniform(0, 2, (96, 3, 1, 1))).astype("f")
    labels = session.run(None, {"x": inputs})[0].argmax(axis=1)
    np.savez(project / "known.npz", inputs=inputs, labels=labels)
    result = invoke(
        project / "net.onnx",
        "--data",
        project / "known.npz",
        "--out",
        project / "k",
        "--minutes",
        0.001,
    )
    assert "FP32 has 100.00 % of the labels right" in result.output
    assert re.search(r"judged by accuracy .*margin 0\.5 points", result.output)
    assert json.loads((project / "k" / "quantize.json").read_text())["figure"] == "right %"


@pytest.mark.parametrize("labeled", [True, False])
def test_a_failing_form_names_its_bound(project: Path, labeled: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 1, (64, 3, 16, 16)) * rng.uniform(0, 2, (64, 3, 1, 1))
    fp32 = (project / "net.onnx").read_bytes()
    changed = onnx.load(project / "net.onnx")
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
        labels=rng.integers(0, 5, 64) if labeled else None,
    )
    form = changed.SerializeToString()
    (failure, *_) = reference.assess(form, "int8-x", False).failures
    bound = reference.loss_bound(form)
    assert bound and f"and at most {bound:.3f} with 95 % confidence" in failure
