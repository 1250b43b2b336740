"""Round trip with the runtime, determinism, and what a failing write leaves behind."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import full_disk
from int8_variant import int8_from_fp32

from exporters.errors import PackageError
from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from exporters.options import Int8Options
from exporters.package import bundle_writer
from exporters.package.archive import replace_file
from exporters.package.bundle_writer import (
    Golden,
    PackedVariant,
    device_tolerance,
    golden_tolerance,
    write_bundle,
)
from exporters.quantize.fp16_from_fp32 import fp16_from_fp32
from runtime import Bundle, BundleFormatError, Default, ModelSpec, Predictor

PAGE = np.full((20, 20), 200, np.uint8)
DEFAULTS = (Default("cpu", "fp32", "not measured here"),)


def packed(model: Any, name: str, portable: bool = False, **more: Any) -> PackedVariant:
    precision = name.partition("-")[0]
    tolerance = golden_tolerance(precision, portable)
    return PackedVariant(onnx_file.to_bytes(model), name, precision, portable, tolerance, **more)


@pytest.fixture(scope="module")
def parts(digits: Any) -> dict[str, Any]:
    spec: ModelSpec = digits.spec
    int8 = int8_from_fp32(digits.model, spec, Int8Options(), digits.images, calibration_images=32)
    random = np.random.default_rng(0)
    return {
        "spec": spec,
        "preprocess": onnx_file.to_bytes(resize_graph(spec.height, spec.width, "gray")),
        "variants": (
            packed(digits.model, "fp32"),
            packed(fp16_from_fp32(digits.model, spec), "fp16"),
            packed(int8, "int8-u8s8-rr", portable=True),
        ),
        "defaults": DEFAULTS,
        "golden": Golden(
            (
                random.integers(0, 256, (30, 40, 3), dtype=np.uint8),
                random.integers(0, 256, (25, 20), dtype=np.uint8),
            ),
            digits.images[:3],
        ),
        "measurements": {"accuracy": {"fp32": 0.99}},
        "model_card": "# Digits\n",
        "model_version": "2.1.0",
        "provenance": {"data": {"synthetic": True}, "seed": 0},
    }


def test_round_trip_with_the_runtime(parts: dict[str, Any], tmp_path: Path, digits: Any) -> None:
    path = tmp_path / "new folder" / "bundle.zip"
    bundle_id = write_bundle(path, **parts)
    for variant in parts["variants"]:
        with Predictor(path, device="cpu", variant=variant.id) as predictor:
            info = predictor.info
            assert (info.bundle_id, info.model_version) == (bundle_id, "2.1.0")
            assert (info.variant, info.synthetic) == (variant.id, True)
            report = predictor.selftest()
            assert (report.images, report.samples) == (2, 5)
            direct = onnx_file.run(onnx_file.session(variant.model), digits.images)
            assert np.array_equal(predictor(digits.images), direct)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["bundle.zip"]


def test_members_are_those_of_the_specification(parts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    bundle_id = write_bundle(path, **parts)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            "manifest.json",
            "manifest.sha256",
            "MODEL_CARD.md",
            "golden.npz",
            "measurements.json",
            "preprocess.onnx",
            "variants/fp16.onnx",
            "variants/fp32.onnx",
            "variants/int8-u8s8-rr.onnx",
        ]
        assert archive.read("manifest.sha256").decode().strip() == bundle_id
        assert json.loads(archive.read("measurements.json")) == parts["measurements"]
        with np.load(io.BytesIO(archive.read("golden.npz"))) as golden:
            assert sorted(golden.files) == [
                "pixels",
                "probabilities/fp16",
                "probabilities/fp32",
                "probabilities/int8-u8s8-rr",
                "raw/0",
                "raw/1",
            ]
            assert golden["raw/1"].shape == (25, 20, 1)
            assert golden["pixels"].shape == (5, 12, 12, 1)
            assert np.array_equal(golden["pixels"][2:], parts["golden"].pixels)
            assert golden["probabilities/fp32"].dtype == np.float32


def test_same_parts_give_same_bytes(parts: dict[str, Any], tmp_path: Path) -> None:
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    write_bundle(one, **parts)
    write_bundle(two, **parts)
    assert one.read_bytes() == two.read_bytes()


def test_multi_label_carries_its_thresholds(faces: Any, tmp_path: Path) -> None:
    spec = faces.spec
    path = tmp_path / "faces.zip"
    write_bundle(
        path,
        spec=spec,
        preprocess=onnx_file.to_bytes(resize_graph(spec.height, spec.width, "rgb")),
        variants=[packed(faces.model, "fp32", thresholds=(0.2, 0.5, 0.9))],
        defaults=DEFAULTS,
        golden=Golden((), faces.images[:2]),
        measurements={},
        model_card="",
    )
    with Predictor(path, device="cpu") as predictor:
        answer: Any = predictor.predict(faces.images[0])
        assert [attribute.threshold for attribute in answer.attributes] == [0.2, 0.5, 0.9]


def test_fp32_is_as_exact_as_its_network_s_rounding(
    parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.005 let an altered weight pass; 1e-5 is ten times what other targets showed on digits."""

    def tolerances(rounding: float | None = None) -> dict[str, float]:
        with monkeypatch.context() as patch:
            if rounding is not None:
                patch.setattr(bundle_writer, "_rounding", lambda *_: rounding)
            write_bundle(tmp_path / "bundle.zip", **parts)
        with closing(Bundle.open(tmp_path / "bundle.zip")) as bundle:
            return {row.id: row.golden_tolerance for row in bundle.manifest.variants}

    assert 1e-5 <= tolerances()["fp32"] < 5e-5
    assert tolerances(0)["fp32"] == 1e-5
    assert tolerances(7e-6)["fp32"] == pytest.approx(7e-5)  # measured on a ResNet-18
    assert tolerances(0.5)["fp32"] == 1e-3  # such a network has another fault
    assert tolerances(0.5)["int8-u8s8-rr"] == golden_tolerance("int8", True) <= 1e-5
    assert device_tolerance("fp32", False) >= 2**-9  # TF32 keeps 11 bits of each factor


def changed(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda parts: {**parts, **changes}


def wrong_model(parts: dict[str, Any]) -> dict[str, Any]:
    broken = dataclasses.replace(parts["variants"][1], model=b"not a model")
    return {**parts, "variants": (parts["variants"][0], broken)}


def other_spec(parts: dict[str, Any]) -> dict[str, Any]:
    return {**parts, "spec": dataclasses.replace(parts["spec"], name="letters")}


def wrong_id(parts: dict[str, Any]) -> dict[str, Any]:
    return {**parts, "variants": (dataclasses.replace(parts["variants"][0], id="float"),)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_model, "no ONNX model"),
        (other_spec, "stamped with another spec"),
        (wrong_id, "variant 'float' has precision 'fp32'"),
        (changed(preprocess=b"nothing"), "no ONNX model"),
        (changed(variants=()), "no variants to pack"),
        (changed(golden=Golden((), np.zeros((0, 12, 12, 1), np.uint8))), "no golden images"),
        (changed(golden=Golden((), np.zeros((1, 9, 9, 1), np.uint8))), r"\(1, 9, 9, 1\)"),
        (
            changed(golden=Golden((PAGE,), np.zeros((1, 9, 9, 1), np.uint8))),
            r"uint8 \(1, 9, 9, 1\); expected uint8 \('n', 12, 12, 1\)",
        ),
        (changed(golden=Golden((), np.zeros((1, 12, 12, 1)))), "are float64"),
        (changed(measurements={"p50": float("nan")}), "measurements cannot be written as JSON"),
        (changed(provenance={"seed": np.int64(1)}), "provenance cannot be written as JSON"),
        (changed(defaults=()), "no default for 'cpu'"),
        (changed(defaults=(Default("cpu", "int4", "?"),)), "unknown variant 'int4'"),
    ],
)
def test_a_failure_keeps_the_last_good_bundle(
    parts: dict[str, Any], change: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(b"the last good one")
    with pytest.raises(PackageError, match=message):
        write_bundle(path, **change(parts))
    assert path.read_bytes() == b"the last good one"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle.zip"]


def test_a_full_disk_keeps_the_last_good_bundle(parts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(b"the last good one")
    refusal = pytest.raises(PackageError, match=r"cannot be written: .*too large.*Nothing was re")
    with refusal, full_disk():
        write_bundle(path, **parts)
    assert path.read_bytes() == b"the last good one"
    assert os.listdir(tmp_path) == ["bundle.zip"]  # noqa: PTH208 - names alone


@pytest.mark.parametrize("error", [KeyboardInterrupt, BundleFormatError])
def test_whatever_the_check_raises_leaves_nothing_behind(
    error: type[BaseException], tmp_path: Path
) -> None:
    def refuse(aside: Path) -> None:
        assert aside.read_bytes() == b"new"
        raise error

    path = tmp_path / "file.zip"
    path.write_bytes(b"old")
    with pytest.raises(error):
        replace_file(path, b"new", refuse)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.zip"]
