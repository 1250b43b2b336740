"""Bundles that earlier versions wrote open today and give the answers that they gave then; the
runtime of those days opens what is written today. ``make_golden_bundles.py`` wrote them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import WebError
from pipeline.web import onnxruntime_web
from runtime import (
    AttributePrediction,
    Bundle,
    Manifest,
    Predictor,
    SignatureError,
)

FOLDER = Path(__file__).parent / "golden_bundles" / "spec_1"
RECORD = json.loads((FOLDER / "answers.json").read_text("utf-8"))
VARIANTS = [
    (name, variant) for name, answers in RECORD["probabilities"].items() for variant in answers
]


def image(channels: int) -> np.ndarray:
    shape = (20, 30) if channels == 1 else (20, 30, 3)
    return (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)


def manifest(name: str) -> Manifest:
    bundle = Bundle.open(FOLDER / f"{name}.zip")
    bundle.close()
    return bundle.manifest


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_each_variant_answers_as_when_it_was_written(name: str, variant: str) -> None:
    recorded = RECORD["probabilities"][name][variant]
    tolerance = manifest(name).variant(variant).tolerance_on("cpu")
    with Predictor(FOLDER / f"{name}.zip", device="cpu", variant=variant, threads=1) as predictor:
        predictor.selftest()
        pixels = predictor.preprocess(image(predictor.spec.channels))
        answer = predictor.predict(image(predictor.spec.channels))
    np.testing.assert_allclose(probabilities_of(answer), recorded, rtol=0, atol=tolerance)
    assert pixels.shape == predictor.spec.shape


def probabilities_of(answer: Any) -> list[float]:
    if isinstance(answer, AttributePrediction):
        return [attribute.probability for attribute in answer.attributes]
    return list(answer.probabilities)


def test_thresholds_decide_as_when_they_were_written() -> None:
    recorded = RECORD["probabilities"]["multi_label"]["fp32"]
    with Predictor(FOLDER / "multi_label.zip", device="cpu") as predictor:
        answer = predictor.predict(image(3))
    assert isinstance(answer, AttributePrediction)
    assert {a.name: a.threshold for a in answer.attributes} == RECORD["thresholds"]
    assert list(answer.present) == [
        name
        for (name, threshold), probability in zip(
            RECORD["thresholds"].items(), recorded, strict=True
        )
        if probability >= threshold
    ]
    assert predictor.spec.white_level == 4095


def test_the_signature_holds() -> None:
    path = FOLDER / "multi_class_signed.zip"
    with Predictor(path, device="cpu", trusted_keys=[RECORD["public_key"]]) as predictor:
        assert predictor.info.signed_by == RECORD["public_key"]
        assert predictor.info.bundle_id == bundle_id(FOLDER / "multi_class.zip")
    with pytest.raises(SignatureError):
        Predictor(FOLDER / "multi_class.zip", trusted_keys=[RECORD["public_key"]])


def bundle_id(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read("manifest.sha256").decode().strip()


@pytest.mark.parametrize("name", sorted(RECORD["probabilities"]))
def test_its_manifest_and_spec_are_written_with_the_same_bytes(name: str) -> None:
    """What version 1 can express is written as version 1, so that older runtimes open it."""
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        text = archive.read("manifest.json")
        models = [archive.read(n) for n in archive.namelist() if n.startswith("variants/")]
    assert Manifest.from_json(text).to_json().encode() == text
    stamp = Manifest.from_json(text).spec.to_json().encode()
    assert all(stamp in model for model in models)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package of the golden wheel."""
    (path,) = FOLDER.glob("*.whl")
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def run_wheel(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_answers_with_the_runtime_of_its_day(wheel: Path) -> None:
    report = json.loads(
        run_wheel(wheel, "-m", "edgeproof_golden_class", "selftest", "--device", "cpu", "--json")
    )
    assert report["max_difference"] <= report["tolerance"] <= 1e-5


def test_the_runtime_of_that_day_opens_what_is_written_today(
    wheel: Path, gray_bundle: bytes, color_bundle: bytes
) -> None:
    for data in (gray_bundle, color_bundle):
        (wheel / "today.zip").write_bytes(data)
        report = run_wheel(
            wheel,
            "-m",
            "edgeproof_golden_class.runtime",
            "selftest",
            "today.zip",
            "--device",
            "cpu",
            "--json",
        )
        assert json.loads(report)["samples"] == 3


def test_the_web_runtime_gives_the_same_answers() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("not run: node is not installed")
    try:
        onnxruntime_web.read()
    except WebError as exc:
        pytest.skip(f"not run: {exc}")
    script = Path(__file__).parent / "web" / "golden_bundles.mjs"
    done = subprocess.run(
        [node, str(script), str(FOLDER), str(onnxruntime_web.folder())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = {(row["name"], row["variant"]): row for row in map(json.loads, done.stdout.split())}
    assert set(answers) == set(VARIANTS)
    for (name, variant), row in answers.items():
        tolerance = manifest(name).variant(variant).golden_tolerance
        recorded = RECORD["probabilities"][name][variant]
        np.testing.assert_allclose(row["probabilities"], recorded, rtol=0, atol=tolerance)
