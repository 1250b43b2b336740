"""The examples run unchanged, each with the command of its first lines."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from exporters.package.bundle_writer import Golden, PackedVariant, write_bundle
from exporters.package.wheel import write_wheel
from pipeline.datasets.drawn.drawn_digits import draw_digit
from runtime import Default, ModelSpec, Predictor

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(
    *words: object, cwd: Path, path: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A fresh Python in ``cwd`` that finds packages in ``path`` and not in this checkout."""
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # FastAPI resolves annotations there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "photo.png"
    path.parent.mkdir()
    Image.fromarray(draw_digit(np.random.default_rng(3), 7)).save(path)
    return path


def test_every_example_is_in_the_table_and_in_a_test() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"| `{path.name}` |" in table
        assert path.stem in tests.partition("def test_every_example")[2]


def test_command_line(bundle: Path, photo: Path, tmp_path: Path) -> None:
    program = EXAMPLES / "command_line.py"
    done = run(program, bundle, photo, photo.parent, cwd=tmp_path, path=str(ROOT))
    with Predictor(bundle, "cpu") as p:
        answer: Any = p.predict(photo)
    line = f"{photo}: {answer.label} ({answer.probability:.0%})"
    assert done.stdout.splitlines() == [line, line]

    (photo.parent / "notes.txt").write_text("no image")
    words = (program, bundle, photo.parent, "--min-probability", "1")
    done = run(*words, cwd=tmp_path, path=str(ROOT), code=1)
    assert done.stdout == f"{photo}: not sure\n"
    assert "image 0 of the stream" in done.stderr and "notes.txt" in done.stderr
    done = run(program, "no.zip", photo, cwd=tmp_path, path=str(ROOT), code=1)
    assert done.stderr.startswith("error: no.zip: cannot be opened")


def test_web_service(bundle: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    testclient = pytest.importorskip("fastapi.testclient")
    monkeypatch.setenv("BUNDLE", str(bundle))
    service = load("web_service")
    with testclient.TestClient(service.app) as client, Predictor(bundle, "cpu", threads=1) as p:
        assert client.get("/health").json()["threads"] == 1
        answer = client.post("/predict", content=photo.read_bytes())
        assert answer.status_code == 200
        expected: Any = p.predict(photo)
        assert answer.json() == json.loads(json.dumps(expected.to_dict()))
        unsure = client.post("/predict?min_probability=1", content=photo.read_bytes())
        assert unsure.json()["accepted"] is False
        broken = client.post("/predict", content=b"no image")
        assert broken.status_code == 422 and "cannot be decoded" in broken.json()["detail"]
        monkeypatch.setattr(service, "MAX_BYTES", 10)
        assert client.post("/predict", content=photo.read_bytes()).status_code == 413


def test_camera(bundle: Path) -> None:
    camera = load("camera")
    random = np.random.default_rng(5)
    page = np.atleast_3d(draw_digit(random, 3)).repeat(3, axis=2)[:, :, :3]

    class Capture:
        """The part of cv2.VideoCapture that is used."""

        left = 5

        def read(self) -> tuple[bool, Any]:
            self.left -= 1
            return (self.left >= 0, page[:, :, ::-1] if self.left >= 0 else None)

    reported: list[str] = []
    frames = camera.frames_of(Capture())
    assert camera.watch(bundle, frames, min_probability=0, report=reported.append) == 5
    with Predictor(bundle, "cpu") as p:
        answer: Any = p.predict(page)
    assert reported == [answer.label]  # once, although it was seen five times
    reported.clear()
    assert camera.watch(bundle, [page], min_probability=1, report=reported.append) == 1
    assert reported == []


def test_make_zipapp(model_wheel: Path, bundle: Path, photo: Path, tmp_path: Path) -> None:
    run(EXAMPLES / "make_zipapp.py", model_wheel, tmp_path / "app.pyz", cwd=tmp_path)
    done = run(tmp_path / "app.pyz", photo, cwd=tmp_path)
    with Predictor(bundle, "cpu") as p:
        answer: Any = p.predict(photo)
    assert done.stdout.startswith(f"{photo} {{'label': '{answer.label}'")
    refused = run(tmp_path / "app.pyz", "no.png", cwd=tmp_path, code=1)
    assert refused.stderr.startswith("error: the image 'no.png'")


@pytest.fixture
def face_wheel(tmp_path: Path) -> Path:
    """A model of two attributes: the mean of the red and of the blue pixels."""
    spec = ModelSpec("faces", "multi-label", 16, 16, 3, ("Red", "Blue"))
    weights = np.zeros((3, 2), np.float32)
    weights[0, 0] = weights[2, 1] = 1 / 16
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["colors"], keepdims=0),
            helper.make_node("MatMul", ["colors", "weights"], ["sums"]),
            helper.make_node("Sub", ["sums", "middle"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
        ],
        "faces",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *spec.shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(np.array([1, 2]), "axes"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.float32(8), "middle"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    data = onnx_file.to_bytes(onnx_file.finished(model, spec))
    bundle = tmp_path / "faces" / "bundle.zip"
    write_bundle(
        bundle,
        spec=spec,
        preprocess=onnx_file.to_bytes(resize_graph(16, 16, "rgb")),
        variants=[PackedVariant(data, "fp32", "fp32", False, 1e-3, (0.5, 0.5))],
        defaults=[Default("cpu", "fp32", "not measured here")],
        golden=Golden((), np.zeros((1, *spec.shape), np.uint8)),
        measurements={},
        model_card="# Colours\n",
    )
    fields = {"version": "1.0.0", "summary": "Sees colours.", "license": "Apache-2.0"}
    return write_wheel(bundle.parent, name="celeba", bundle=bundle, **fields)


def test_two_models(model_wheel: Path, face_wheel: Path, photo: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    for wheel in (model_wheel, face_wheel):
        with zipfile.ZipFile(wheel) as archive:  # what pip does with a wheel of pure Python
            archive.extractall(site)
    Image.new("RGB", (60, 40), (250, 20, 20)).save(photo)
    done = run(EXAMPLES / "two_models.py", photo, cwd=tmp_path, path=str(site))
    assert done.stdout.strip().endswith("; Red")
    refused = run(EXAMPLES / "two_models.py", "no.png", cwd=tmp_path, path=str(site), code=1)
    assert refused.stderr.startswith("error: the image 'no.png'")
