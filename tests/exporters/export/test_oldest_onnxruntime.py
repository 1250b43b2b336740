"""Every variant on the oldest supported onnxruntime, in an environment of its own: it loads, and
it answers as the newest does. Part of ``make test-full``; needs the package index."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from int8_variant import int8_from_fp32

from exporters.graph import onnx_file
from exporters.options import Int8Options
from exporters.quantize.fp16_from_fp32 import fp16_from_fp32
from exporters.quantize.portability import portability

OLDEST = "1.15.1"
PYTHON = "python3.11"  # the newest with wheels of that version
RUN = """
import sys
import numpy as np
import onnxruntime as ort
images = np.load("images.npy")
for name in sys.argv[1:]:
    session = ort.InferenceSession(name + ".onnx", providers=["CPUExecutionProvider"])
    np.save(name + ".npy", session.run(["probabilities"], {"images": images})[0])
print(ort.__version__)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = shutil.which(PYTHON)
    if base is None:
        pytest.skip(f"not run: there is no {PYTHON}")
    folder = tmp_path_factory.mktemp("oldest")
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    wanted = [f"onnxruntime=={OLDEST}", "numpy<2"]
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"not run: pip cannot install onnxruntime {OLDEST}: {done.stderr[-300:]}")
    return python


@pytest.mark.full
@pytest.mark.parametrize("which", ["digits", "faces"])
def test_oldest_answers_as_the_newest(
    which: str, request: Any, python: Path, tmp_path: Path
) -> None:
    case = request.getfixturevalue(which)
    few = Int8Options()
    int8 = int8_from_fp32(case.model, case.spec, few, case.images, calibration_images=48)
    assert portability(int8).portable
    models = {
        "fp32": (case.model, 1e-5),
        "fp16": (fp16_from_fp32(case.model, case.spec), 1e-3),
        "int8": (int8, 1e-6),  # portable: only the float softmax or sigmoid may differ
    }
    np.save(tmp_path / "images.npy", case.images)
    for name, (model, _) in models.items():
        onnx_file.save(model, tmp_path / f"{name}.onnx")
    done = subprocess.run(
        [str(python), "-c", RUN, *models], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == OLDEST
    for name, (model, tolerance) in models.items():
        newest = onnx_file.run(onnx_file.session(model), case.images)
        oldest = np.load(tmp_path / f"{name}.npy")
        assert np.abs(newest - oldest).max() <= tolerance, name
