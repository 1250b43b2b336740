"""The real ``onnxruntime-openvino``, whose CPU device runs on any x86 machine: the proof that a
provider is one row of the table. The environment is made here by pip (some 70 MB), so this runs in
``make test-full`` alone."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runtime

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        platform.machine().lower() not in ("x86_64", "amd64"),
        reason="not run: OpenVINO's wheel is for x86",
    ),
]

ROOT = Path(runtime.__file__).parents[1]
PROBE = """if True:
    import json, sys
    import numpy
    from runtime import DeviceError, Predictor
    found = {}
    pixels = numpy.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), numpy.uint8)
    with Predictor(sys.argv[1], "cpu", "int8-u8s8-rr", 1) as p:
        expected = p(pixels)
    with Predictor(sys.argv[1], "openvino", "int8-u8s8-rr", 1) as p:
        found["info"] = p.info.to_dict()
        found["selftest"] = p.selftest().to_dict()
        found["difference"] = float(abs(p(pixels) - expected).max())
        found["tuned"] = p.autotune(0.05).to_dict()
    with Predictor(sys.argv[1], "auto", threads=1) as p:
        found["auto"] = [p.info.device, p.info.reason]
    try:
        Predictor(sys.argv[1], "cuda")
    except DeviceError as exc:
        found["cuda"] = str(exc)
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("openvino") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "onnxruntime-openvino", "numpy"]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"not run: cannot install onnxruntime-openvino: {reason}")
    yield folder
    shutil.rmtree(folder)


def probe(environment: Path, bundle: bytes, folder: Path) -> Any:
    path = folder / "bundle.zip"
    path.write_bytes(bundle)
    done = subprocess.run(
        [environment / "bin" / "python", "-c", PROBE, path],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_openvino_is_taken_where_it_is_asked_for(
    environment: Path, build: Any, tmp_path: Path
) -> None:
    data = build.bundle(edit=lambda d: d.update(devices=["cuda", "openvino", "cpu"]))
    found = probe(environment, data, tmp_path)
    info = found["info"]
    assert info["device"] == info["target"] == "openvino"
    assert info["provider"] == "OpenVINOExecutionProvider"
    assert info["nodes"] is None or set(info["nodes"]) == {"OpenVINOExecutionProvider"}
    assert found["selftest"]["provider"] == "OpenVINOExecutionProvider"
    assert found["difference"] <= 1e-5
    assert found["tuned"]["device"] == "openvino" and len(found["tuned"]["rows"]) == 2
    device, reason = found["auto"]
    assert device == "openvino" and "openvino is the first that works." in reason
    assert "cuda was passed over: cuda is not in the installed onnxruntime" in reason
    assert "Run pip uninstall -y onnxruntime-openvino, then install edgeproof[gpu]" in found["cuda"]


def test_auto_takes_openvino_only_where_the_bundle_names_it(
    environment: Path, gray_bundle: bytes, tmp_path: Path
) -> None:
    device, reason = probe(environment, gray_bundle, tmp_path)["auto"]
    assert device == "cpu" and "openvino was passed over" not in reason


def test_a_provider_that_computes_otherwise_is_passed_over(
    environment: Path, build: Any, tmp_path: Path
) -> None:
    """A record that no device reproduces: 0.05 is more than golden_tolerance allows, and less than
    device_tolerance where the bundle gives one."""

    def with_tolerance(manifest: Any) -> None:
        for row in manifest["variants"]:
            row.update(golden_tolerance=1e-5, device_tolerance=0.1)

    found = probe(environment, build.bundle(error=0.05, edit=with_tolerance), tmp_path)
    assert found["selftest"]["tolerance"] == 0.1
    assert 0.04 < found["selftest"]["max_difference"] < 0.06
