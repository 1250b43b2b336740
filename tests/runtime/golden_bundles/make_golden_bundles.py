"""Write the golden bundles of this version of the product: tiny models in every precision, with the
answers that they gave when they were written. Each later version must open them and answer alike.

    PYTHONPATH=. python tests/runtime/golden_bundles/make_golden_bundles.py FOLDER

``spec_1/`` was written by edgeproof 0.1.0 (the commit and the library versions are in its
``answers.json``), the last version whose only spec version was 1. Never write it again: a version
that changes a format adds a folder of its own.

| file | holds |
|---|---|
| ``multi_class.zip`` | gray 12x12, three labels; fp32, fp16, int8 |
| ``multi_class_signed.zip`` | the same bundle, signed by a throwaway key |
| ``multi_label.zip`` | RGB 10x8, three attributes with thresholds, white level 4095; fp32, int8 |
| ``edgeproof_golden_class-...whl`` | its wheel, with the runtime of its day; deflated |
| ``answers.json`` | public key, versions, and each variant's probabilities for one image |
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

import runtime
from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from exporters.options import ExportOptions, Int8Options
from exporters.package.bundle_writer import (
    Golden,
    PackedVariant,
    device_tolerance,
    golden_tolerance,
    write_bundle,
)
from exporters.package.signing import sign_bundle
from exporters.package.wheel import write_wheel
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.calibration import ImageReader, choose
from exporters.quantize.fp16_from_fp32 import fp16_from_fp32
from exporters.quantize.int8_from_fp32 import quantize, shipped
from runtime import Bundle, Default, ModelSpec, Predictor

CLASSES = ModelSpec("golden-class", "multi-class", 12, 12, 1, ("zero", "one", "two"))
ATTRIBUTES = ModelSpec(
    "golden-label", "multi-label", 10, 8, 3, ("Smiling", "Wearing Hat", "Brille"), white_level=4095
)
THRESHOLDS = (0.5, 0.25, 0.75)
PRIVATE_KEY = b"golden bundles, a throwaway key."  # 32 bytes; it signs nothing else
PORTABLE = {"fp32": True, "fp16": False, "int8": True}


class Network(nn.Module):
    """uint8 [N, h, w, c] -> probabilities [N, labels]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(spec.channels, 4, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(len(spec.labels)),
        )
        self.last = nn.Softmax(1) if spec.task == "multi-class" else nn.Sigmoid()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(images.permute(0, 3, 1, 2).float() / 255) * 8)


def image(channels: int) -> np.ndarray:
    """The image that is asked about: uint8 [20, 30] or [20, 30, 3]."""
    shape = (20, 30) if channels == 1 else (20, 30, 3)
    return (np.arange(np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(shape)


def write(path: Path, spec: ModelSpec, precisions: tuple[str, ...]) -> None:
    torch.manual_seed(4)
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (64, *spec.shape), np.uint8)
    network = Network(spec).eval()
    network(torch.from_numpy(images[:1]))
    fp32 = onnx_from_torch(network, spec, ExportOptions())
    models = {"fp32": fp32}
    if "fp16" in precisions:
        models["fp16"] = fp16_from_fp32(fp32, spec)
    options = Int8Options()
    statistics = ActivationStatistics(fp32, ImageReader(images, choose(len(images), 64, seed=0)))
    models[options.id] = shipped(quantize(fp32, options, statistics), spec, options.id)
    color = "gray" if spec.channels == 1 else "rgb"
    write_bundle(
        path,
        spec=spec,
        preprocess=onnx_file.to_bytes(resize_graph(spec.height, spec.width, color)),
        variants=[
            PackedVariant(
                onnx_file.to_bytes(model),
                name,
                name[:4],
                PORTABLE[name[:4]],
                golden_tolerance(name[:4], PORTABLE[name[:4]]),
                THRESHOLDS if spec.task == "multi-label" else None,
                device_tolerance(name[:4], PORTABLE[name[:4]]),
            )
            for name, model in models.items()
        ],
        defaults=[
            Default("cpu", "fp32", "not measured here"),
            Default("x86_64-vnni", "int8-u8s8-rr", "1.50x as fast as fp32"),
        ],
        golden=Golden((random.integers(0, 256, (14, 9, spec.channels), np.uint8),), images[:3]),
        measurements={"variants": {}},
        model_card=f"# {spec.name}\n",
        model_version="1.2.0",
        provenance={
            "data": {"name": "noise", "synthetic": True, "redistributable": True, "licence": "CC0"}
        },
    )


def sign(path: Path) -> str:
    key = Ed25519PrivateKey.from_private_bytes(PRIVATE_KEY)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "key"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return sign_bundle(path, file)


def write_deflated_wheel(folder: Path, bundle: Path) -> None:
    """The wheel as the product writes it, packed once more: 300 kB become 110."""
    with tempfile.TemporaryDirectory() as aside:
        wheel = write_wheel(
            Path(aside),
            name="golden-class",
            version="1.2.0",
            bundle=bundle,
            summary="Three labels of noise",
            licence="CC0-1.0",
        )
        target = zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_DEFLATED, compresslevel=9)
        with zipfile.ZipFile(wheel) as plain, target:
            for name in plain.namelist():
                target.writestr(zipfile.ZipInfo(name), plain.read(name), zipfile.ZIP_DEFLATED)


def answers(path: Path) -> dict[str, list[float]]:
    """The probabilities of each variant for :func:`image`."""
    with closing(Bundle.open(path)) as bundle:
        variants = [variant.id for variant in bundle.manifest.variants]
    probabilities = {}
    for variant in variants:
        with Predictor(path, device="cpu", variant=variant, threads=1) as predictor:
            pixels = predictor.preprocess(image(predictor.spec.channels))
            probabilities[variant] = predictor(pixels)[0].tolist()
    return probabilities


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    write(folder / "multi_class.zip", CLASSES, ("fp32", "fp16", "int8"))
    write(folder / "multi_label.zip", ATTRIBUTES, ("fp32", "int8"))
    shutil.copyfile(folder / "multi_class.zip", folder / "multi_class_signed.zip")
    key = sign(folder / "multi_class_signed.zip")
    write_deflated_wheel(folder, folder / "multi_class.zip")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    record: dict[str, Any] = {
        "written_by": {
            "edgeproof": runtime.__version__,
            "commit": commit,
            "numpy": np.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "torch": torch.__version__,
        },
        "public_key": key,
        "thresholds": dict(zip(ATTRIBUTES.labels, THRESHOLDS, strict=True)),
        "probabilities": {path.stem: answers(path) for path in sorted(folder.glob("multi_*.zip"))},
    }
    (folder / "answers.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
