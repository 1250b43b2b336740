"""``python -m runtime`` at a device's prompt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
from PIL import Image

import runtime
from runtime import AttributePrediction, Predictor
from runtime.__main__ import main

ROOT = Path(runtime.__file__).parents[1]


@pytest.fixture
def files(gray_bundle: bytes, color_bundle: bytes, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "gray.zip").write_bytes(gray_bundle)
    (tmp_path / "color.zip").write_bytes(color_bundle)
    page = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(page).save(tmp_path / "page.png")
    return {name: str(tmp_path / name) for name in ("gray.zip", "color.zip", "page.png")}


def test_predict_prints_a_line_for_each_image(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", files["gray.zip"], files["page.png"], files["page.png"]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1]
    assert lines[0].startswith(f"{files['page.png']}: ") and lines[0].count("%") == 3


def test_predict_prints_json(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [files["page.png"], "--json", "--top", "2", "--device", "cpu", "--threads", "1"]
    assert main(["predict", files["gray.zip"], *arguments]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["image"] == files["page.png"] and len(answer["top"]) == 2
    assert main(["predict", files["color.zip"], *arguments]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in answer["attributes"]} == {"Smiling", "Eyeglasses"}


def test_predict_prints_the_attributes_that_are_present(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", files["color.zip"], files["page.png"]]) == 0
    expected = Predictor(files["color.zip"]).predict(files["page.png"])
    assert isinstance(expected, AttributePrediction)
    present = [f"{name} {expected[name].probability:.1%}" for name in expected.present]
    assert present
    assert capsys.readouterr().out.strip() == f"{files['page.png']}: {', '.join(present)}"


def test_selftest_and_info(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", files["gray.zip"]]) == 0
    assert capsys.readouterr().out.startswith("passed: 2 images")
    assert main(["selftest", files["gray.zip"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 3
    assert main(["info", files["gray.zip"], "--variant", "int8-u8s8-rr"]) == 0
    assert "variant       int8-u8s8-rr\n" in capsys.readouterr().out
    assert main(["info", files["gray.zip"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["labels"] == ["zero", "one", "two"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["selftest", "no.zip"], "error: no.zip: cannot be opened"),
        (["info", "gray.zip", "--device", "tpu"], "error: device 'tpu' is unknown"),
        (["info", "gray.zip", "--variant", "int4"], "error: the bundle has no variant 'int4'"),
        (["predict", "gray.zip", "gray.zip"], "error: image 0 of the list"),
        (["predict", "gray.zip", "page.png", "--top", "0"], r"error: top(0) asks for no label"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    arguments: list[str],
    message: str,
    files: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([files.get(word, word) for word in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message) and captured.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["fly"], ["predict", "a.zip"], ["info"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_it_runs_as_a_module(files: dict[str, str]) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runtime", *arguments],
            cwd=Path(runtime.__file__).parents[1],
            capture_output=True,
            text=True,
        )

    assert run("--help").stdout.startswith("usage: python -m runtime")
    assert run("selftest", files["gray.zip"]).returncode == 0
    assert run("selftest", "no.zip").returncode == 1


def prompt(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """``python -m runtime`` in a process of its own."""
    environment = {**os.environ, **options.pop("env", {})}
    command = [sys.executable, "-m", "runtime", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, timeout=children.PATIENCE, **options)


def test_letters_that_the_terminal_lacks_are_escaped(files: dict[str, str]) -> None:
    page = Path(files["page.png"]).rename(Path(files["page.png"]).with_name("größe 目.png"))
    for words in (["predict", files["gray.zip"], str(page)], ["info", files["gray.zip"]]):
        plain = prompt(*words, env={"PYTHONIOENCODING": "ascii"}, capture_output=True)
        assert plain.returncode == 0, plain.stderr
        if words[0] == "predict":
            assert b"gr\\xf6\\xdfe \\u76ee.png: " in plain.stdout
    missing = prompt(
        *("predict", files["gray.zip"], "größe"),
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert missing.returncode == 1 and missing.stderr.startswith(b"error: image 0 of the list")


@pytest.mark.skipif(os.name != "posix", reason="not run: pipes end otherwise on Windows")
def test_a_reader_that_leaves_early_is_not_an_error(files: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    found = prompt("info", files["gray.zip"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (found.returncode, found.stderr) == (1, b"")


@pytest.mark.skipif(os.name != "posix", reason="not run: closes descriptors in a shell")
def test_it_runs_with_its_output_closed(files: dict[str, str]) -> None:
    command = f'"$0" -m runtime selftest "{files["gray.zip"]}" >&-'
    found = subprocess.run(["sh", "-c", command, sys.executable], cwd=ROOT, capture_output=True)
    assert (found.returncode, found.stderr) == (0, b"")
