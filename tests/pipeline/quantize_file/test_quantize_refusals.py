"""Options, outputs and folders that are refused; results that cannot be written."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import foreign_networks as networks
import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import helper, numpy_helper
from quantizing import WORDS, Counting, draw, invoke, requested

from exporters.errors import ExportError
from exporters.search.search_log import SearchLog
from pipeline.engine.store import Store
from pipeline.quantize_file.run import quantize_file


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--size", "big"), "'big'; expected HEIGHTxWIDTH"),
        (("--size", "0x8"), "'0x8'; expected HEIGHTxWIDTH"),
        (("--mean", "a,b"), "'a,b'"),
        (("--std", "nan"), "'nan'"),
        (("--threads", "0"), "0 is not in the range x>=1"),
        (("--margin", "-1"), "-1.0 is not in the range 0<x<=100"),
        (("--margin", "0"), "0.0 is not in the range 0<x<=100"),
        (("--margin", "nan"), "nan"),
        (("--min-sqnr", "-3"), "-3.0 is not in the range 0<=x<=200"),
        (("--minutes", "nan"), "nan"),
    ],
)
def test_words_that_are_not_numbers_are_refused(
    words: tuple[str, str], fact: str, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    result = invoke(tmp_path / "net.onnx", "--data", tmp_path, *words, *out)
    assert result.exit_code == 2 and words[0] in result.output and fact in result.output
    missing = invoke(tmp_path / "net.onnx", "--data", tmp_path, *out)
    assert missing.exit_code == 1 and "No such file" in missing.output
    assert not (tmp_path / "out").exists()


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_what_does_not_fit_the_data_is_refused_and_leaves_nothing(project: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(project / "plain.npz", inputs=rng.uniform(0, 1, (96, 3, 16, 16)).astype("f"))
    cases: tuple[tuple[str, tuple[object, ...], str], ...] = (
        ("nope", (), "nope.* expected a folder"),
        ("plain.npz", ("--mean", 0.5, "--std", 1), "--mean, --std .*plain[.]npz"),
        ("plain.npz", ("--color", "bgr"), "--color "),
        (
            "images",
            ("--calibration-images", 5000),
            "--calibration-images 5000 .* 80 images .* 16 .* 5000 and 500 ",
        ),
        ("images", ("--validation-images", 70), "--validation-images 70 "),
        ("images", ("--task", "values", "--margin", 2), "--margin "),
    )
    (project / "mine").mkdir()
    before = files_in(project)
    for data, words, message in cases:
        for out in (project / "new" / "deep", project / "mine"):
            result = invoke(project / "net.onnx", "--data", project / data, *words, "--out", out)
            assert result.exit_code == 1 and re.search(message, result.output), result.output
            assert files_in(project) == before


def test_outputs_that_are_not_answers_are_not_taken_for_them(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weights = networks.tensor("w", np.ones((2, 3, 3, 3)))
    onnx.save(networks.model([node], [weights], shape=["N", 3, 16, 16]), tmp_path / "net.onnx")
    draw(tmp_path / "images", 40)
    words = ("--task", "multi-class", "--out", tmp_path / "out")
    result = invoke(tmp_path / "net.onnx", "--data", tmp_path / "images", *words)
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert (
        "--task multi-class does not fit output 'y' [24, 2, 14, 14] of 24 inputs" in result.output
    )


def test_a_first_output_without_values_does_not_hold_answers(tmp_path: Path) -> None:
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
    result = invoke(tmp_path / "net.onnx", "--data", tmp_path / "images", *words)
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert "--task multi-class does not fit output 'flat' [24, 0] of 24 inputs" in result.output


def test_copies_that_are_left_out_do_not_count_as_missing(project: Path, tmp_path: Path) -> None:
    copies = draw(tmp_path / "copies", 64)
    for number in range(10):
        shutil.copyfile(copies / "0-000.png", copies / f"copy-{number}.png")
    observer = Counting(0)
    request = requested(project, "copied", calibration_images=32, validation_images=42)
    report = quantize_file(replace(request, data=copies), observer, observer.stopped)
    assert report.judges <= 42 and any("are copies of" in note for note in report.notes)


def test_a_folder_that_cannot_be_written_names_the_option_of_this_command(project: Path) -> None:
    words = (project / "net.onnx", "--data", project / "images")
    result = invoke(*words, "--out", project / "net.onnx" / "out")
    assert result.exit_code == 1 and "Not a directory" in result.output
    assert "--out DIR" in result.output and "--artifacts" not in result.output
    with Store(project, "held", ()).lock():
        result = invoke(*words, "--out", project / "held")
        assert (project / "held" / ".lock").exists()
    assert f"process {os.getpid()}" in result.output
    assert result.exit_code == 1 and "--out DIR" in result.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: needs /dev/full")
@pytest.mark.parametrize("name", ["net.int8.onnx.partial", "quantize.json.partial"])
def test_results_that_cannot_be_written_name_the_folder_and_the_option(
    project: Path, first: Result, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(project / "out", out)
    (out / "quantize.json").unlink()
    (out / name).symlink_to("/dev/full")
    words = (project / "net.onnx", "--data", project / "images", "--out", out, *WORDS)
    result = invoke(*words)
    assert result.exit_code == 1 and str(out) in result.output and "No space left" in result.output
    assert "--out DIR" in result.output
    assert not [file for file in files_in(out) if file.name.endswith(".partial")]
    assert not (out / "quantize.json").exists()
    assert invoke(*words).exit_code == 0 and (out / "quantize.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: needs /dev/full")
def test_a_full_disk_in_the_middle_of_the_search(project: Path) -> None:
    out = project / "full"
    observer = Counting(2)
    quantize_file(requested(project, "full"), observer, observer.stopped)
    (out / "trials" / "trials.jsonl.partial").symlink_to("/dev/full")
    with pytest.raises(ExportError, match=rf"{out / 'trials'} .*No space left"):
        quantize_file(requested(project, "full"), Counting(9), lambda: False)
    assert not [file for file in files_in(out) if file.name.endswith(".partial")]
    assert [trial.id for trial in SearchLog(out / "trials").trials] == ["fp32", "int8-u8s8-rr"]


def test_someone_elses_folder_of_the_same_name_stays(project: Path, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "notes.txt").write_text("mine")
    for data, message in (
        ("nope", "nope"),
        ("images", "trials"),
    ):
        result = invoke(project / "net.onnx", "--data", project / data, "--out", tmp_path)
        assert result.exit_code == 1 and message in result.output, result.output
        assert [file.name for file in tmp_path.rglob("*")] == ["trials", "notes.txt"]
