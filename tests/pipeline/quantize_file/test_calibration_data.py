"""Images and arrays for calibration and validation, and those that do not fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from quantizing import PLANES, draw

from exporters.foreign.model_inputs import InputSpec
from pipeline.cli.main import cli
from pipeline.errors import DataError
from pipeline.quantize_file.calibration_data import DrawOptions, load
from pipeline.quantize_file.options import PixelOptions

# --- what does not fit ----------------------------------------------------------------------


def read(data: Path, spec: InputSpec, work: Path, **options: Any) -> Any:
    drawn = DrawOptions(spec, PixelOptions(**options), (64, 64), 0)
    return load(data, drawn, work, lambda done, total: None)


def test_calibration_and_validation_share_no_image(tmp_path: Path) -> None:
    draw(tmp_path / "images", 80)
    first = sorted((tmp_path / "images").iterdir())[0].read_bytes()
    for number in range(20):  # the same picture under other names
        (tmp_path / "images" / f"copy-{number}.png").write_bytes(first)
    result = read(tmp_path / "images", PLANES, tmp_path)
    calibration = {row.tobytes() for row in result.calibration.rows}
    assert not any(row.tobytes() in calibration for row in result.validation.rows)
    assert any("copies" in note for note in result.notes)
    assert result.validation[:2].shape == (2, 3, 16, 16)


@pytest.mark.skipif(sys.platform != "linux", reason="not run: other file systems refuse such names")
def test_folders_whose_names_are_not_utf_8(tmp_path: Path) -> None:
    for seed, name in enumerate((b"caf\xe9", b"bar")):
        draw(tmp_path / "images" / os.fsdecode(name), 40, seed)
    result = read(tmp_path / "images", PLANES, tmp_path)
    assert result.folders == ("bar", "caf\\xe9")  # the report, which is UTF-8, names them


BAD: dict[str, tuple[InputSpec, dict[str, Any], str]] = {
    "free size": (
        InputSpec("x", "float32", (1, 3, None, None)),
        {},
        r"'x' float32 \[1, 3, \?, \?\] .*--size 224x224",
    ),
    "wrong size": (PLANES, {"size": (32, 32)}, "--size 32x32 does not fit"),
    "no image": (
        InputSpec("x", "float32", (1, 10)),
        {},
        r"'x' float32 \[1, 10\] .*--layout .*'inputs'",
    ),
    "unclear": (
        InputSpec("x", "float32", (1, 3, 3, 3)),
        {},
        r"'x' float32 \[1, 3, 3, 3\] .*--layout",
    ),
    "other layout": (PLANES, {"layout": "nhwc"}, r"'x' float32 \[\?, 3, 16, 16\] .*layout nhwc"),
    "mean": (PLANES, {"mean": (0.5, 0.5)}, "--mean has 2 numbers; expected"),
    "std": (PLANES, {"std": (0.0,)}, "--std 0 is not positive"),
    "scaled pixels": (
        InputSpec("x", "uint8", (1, 16, 16, 3)),
        {"mean": (0.5,)},
        "'x' uint8 .*--mean and --std",
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
    with pytest.raises(DataError, match=r"few .*20 images.*32: 16 "):
        read(tmp_path / "few", PLANES, tmp_path)
    with pytest.raises(DataError, match=r"missing .*expected a folder"):
        read(tmp_path / "missing", PLANES, tmp_path)
    with pytest.raises(DataError, match=r"0-\d+\.png is a .*file; expected a folder"):
        read(next((tmp_path / "few").iterdir()), PLANES, tmp_path)
    draw(tmp_path / "few", 20, seed=1)
    (tmp_path / "few" / "0-000.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of \d+ images [^.]*\s.*0-000\.png"):
        read(tmp_path / "few", PLANES, tmp_path)


ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no inputs": ({"a": np.zeros(3)}, r"\['a'\]; expected 'inputs'"),
    "shape": (
        {"inputs": np.zeros((40, 3, 8, 8), np.float32)},
        r"float32 \[40, 3, 8, 8\]; expected \[n, 3, 16, 16\]",
    ),
    "type": ({"inputs": np.zeros((40, 3, 16, 16))}, "float64 .*; expected 'x' float32"),
    "pixels": (
        {"inputs": np.zeros((40, 8, 8, 3), np.uint8)},
        r"uint8 \[40, 8, 8, 3\]; expected \[n, 16, 16, 3\] for uint8 pixels",
    ),
    "labels": (
        {"inputs": np.zeros((40, 3, 16, 16), np.float32), "labels": np.zeros(3, int)},
        r"labels .*data\.npz .*int64 \(3,\); expected .*\(40,\)",
    ),
}


@pytest.mark.parametrize("case", list(ARRAYS))
def test_arrays_that_do_not_fit_are_refused(case: str, tmp_path: Path) -> None:
    arrays, message = ARRAYS[case]
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "data.npz", PLANES, tmp_path)


def test_arrays_in_one_folder_and_pixels_in_an_array(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "inputs.npy", rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(40))
    result = read(tmp_path, PLANES, tmp_path, std=(0.5,))
    assert result.calibration[:1].max() > 1 and result.calibration[:1].shape == (1, 3, 16, 16)
    assert result.labels is not None and len(result.labels) == len(result.validation)


def damaged(folder: Path) -> Iterator[Path]:
    """Archives and arrays that numpy cannot read, each in its own way."""
    np.savez_compressed(folder / "whole.npz", inputs=np.arange(9999.0))
    whole = bytearray((folder / "whole.npz").read_bytes())
    cut = bytes(whole[: len(whole) // 2])
    whole[200:400] = bytes(200)
    for name, data in (("pk", b"PK"), ("cut", cut), ("zeros", bytes(whole)), ("empty", b"")):
        (folder / f"{name}.npz").write_bytes(data)
        yield folder / f"{name}.npz"


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    for file in damaged(tmp_path):
        with pytest.raises(DataError, match=rf"{file.name} .*numpy"):
            read(file, PLANES, tmp_path)
        for words in (("--data", file), ("--data", tmp_path / "whole.npz")):
            result = CliRunner().invoke(cli, ["compare", str(file), str(file), *map(str, words)])
            assert result.exit_code == 1 and isinstance(result.exception, SystemExit), file


def test_an_array_under_the_name_of_an_archive_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "inputs.npy", pixels)
    (tmp_path / "inputs.npy").rename(tmp_path / "inputs.npz")
    assert len(read(tmp_path / "inputs.npz", PLANES, tmp_path).calibration)


def test_hidden_files_and_folders_are_not_data(tmp_path: Path) -> None:
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
    result = read(tmp_path / "images", PLANES, tmp_path)
    assert result.folders == ("bars", "discs") and result.digests == plain.digests
