"""What tests of several folders share: a recipe so small that the whole road takes seconds, and the
bundles of the last run, or stand-ins for them (ARTIFACTS=FOLDER names the folder of that run)."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import children
import numpy as np
import pytest

if "bench" not in sys.argv:  # the figures of make bench are of the product's own threads
    # before torch is loaded: on layers this small more threads only wait for each other, busily
    os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
LABELS = ("bar", "pole", "box")
IDX_FILES = {"train": 360, "t10k": 90}  # images
RECIPE = """
name = "tiny"
description = "three drawn shapes"
seed = 1
[data]
kind = "idx"
root = "{root}"
labels = ["bar", "pole", "box"]
validation_images = 60
license = "CC0-1.0"
redistributable = true
[preprocess]
kind = "resize"
[network]
layers = [
  {{ op = "conv", out = 8, stride = 2, batch_norm = true }},
  {{ op = "conv", out = 8, stride = 2, batch_norm = true }},
  {{ op = "pool", kind = "average", size = 7 }},
  {{ op = "dropout", p = 0.1 }},
  {{ op = "linear" }},
]
[train]
epochs = 4
batch_size = 20
lr = 0.05
ema = 0.9
threads = 1
checkpoint_seconds = 0 # after each step, so that a kill always hits a run that can go on
[export]
batch_sizes = [1, 3]
[quantize]
fp16 = false
calibration_images = 64
int8 = [{{ id = "int8-u8s8-rr" }}]
search.minutes = 0
[gate]
margin_points = 10 # 90 images cannot show less than 3
[benchmark]
seconds = 0.05
[package]
golden_raw = 1
golden_images = 3
"""


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist has its mark from the first
        os.environ[children.MARK] = str(os.getpid())


def pytest_runtest_teardown() -> None:
    children.end_all()


@pytest.hookimpl(trylast=True)  # the workers of pytest-xdist have ended by then
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves a process behind, and end that process."""
    if hasattr(session.config, "workerinput"):
        return
    left = children.left_behind(os.environ[children.MARK])
    for process, what in left.items():
        print(f"\nleft behind: process {process}, started in {what}", file=sys.stderr)
        children.kill(process)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _draw(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bright shapes on dark noise, each at its own place, and their classes."""
    labels = np.arange(count) % len(LABELS)
    images = rng.integers(0, 40, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(0, 6, 2)
        if LABELS[label] == "bar":
            image[row + 8 : row + 12, 4:24] += 180
        elif LABELS[label] == "pole":
            image[4:24, column + 8 : column + 12] += 180
        else:
            image[row + 4 : row + 18, column + 4 : column + 18] += 180
    return images, labels


def _idx_bytes(values: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def _write_tiny(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in IDX_FILES.items():
        images, labels = _draw(count, rng)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(_idx_bytes(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(_idx_bytes(labels))
    recipe = folder / "tiny.toml"
    recipe.write_text(RECIPE.format(root=folder.as_posix()), encoding="utf-8")
    return recipe


@pytest.fixture(scope="session")
def write_tiny() -> Callable[[Path], Path]:
    """Write images and recipe of three distinct shapes into a folder; return the recipe."""
    return _write_tiny


@pytest.fixture(scope="session")
def tiny_images() -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Nine images uint8 [28, 28] that no run has seen, and the name of each one's class."""

    def draw() -> tuple[np.ndarray, np.ndarray]:
        images, labels = _draw(9, np.random.default_rng(7))
        return images.astype(np.uint8), np.array(LABELS)[labels]

    return draw


@pytest.fixture(scope="session")
def artifacts() -> Path:
    return ROOT / os.environ.get("ARTIFACTS", "artifacts")


@pytest.fixture(scope="session")
def mnist_bundle(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the last run, or one with the same network untrained: equally fast."""
    return _bundle(artifacts, tmp_path_factory, "mnist")


@pytest.fixture(scope="session")
def celeba_bundle(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of celeba; the stand-in has 40 attributes."""
    return _bundle(artifacts, tmp_path_factory, "celeba")


def _bundle(artifacts: Path, factory: pytest.TempPathFactory, name: str) -> Path:
    path = artifacts / name / "bundle.zip"
    if not path.exists():
        path = factory.mktemp(name) / "bundle.zip"
        _write_untrained(path, name)
    return path


def _write_untrained(path: Path, name: str) -> None:
    import torch
    from int8_variant import int8_from_fp32

    from exporters.export.onnx_from_torch import onnx_from_torch
    from exporters.graph import onnx_file
    from exporters.options import Int8Options
    from exporters.package.bundle_writer import (
        Golden,
        PackedVariant,
        golden_tolerance,
        write_bundle,
    )
    from pipeline.datasets.drawn.drawn_digits import draw_digit
    from pipeline.learning.networks.build import build_network
    from pipeline.recipe import load
    from pipeline.stages.data import preprocess_graph
    from runtime import Default, ModelSpec

    recipe, random = load(name), np.random.default_rng(0)
    spec = ModelSpec("mnist", "multi-class", 28, 28, 1, tuple("0123456789"))
    thresholds, raw = None, draw_digit(random, 4)
    if name == "celeba":
        spec = ModelSpec(name, "multi-label", 64, 64, 3, tuple(f"Attribute {i}" for i in range(40)))
        thresholds, raw = (0.5,) * 40, random.integers(0, 256, (218, 178, 3), np.uint8)
    images = random.integers(0, 256, (512, *spec.shape), np.uint8)
    torch.manual_seed(0)
    network = build_network(recipe.network, spec).eval()
    fp32 = onnx_from_torch(network, spec, recipe.export)
    options = Int8Options()
    models = {"fp32": fp32, options.id: int8_from_fp32(fp32, spec, options, images)}
    write_bundle(
        path,
        spec=spec,
        preprocess=preprocess_graph(recipe.preprocess),
        variants=[
            PackedVariant(
                onnx_file.to_bytes(model),
                variant,
                variant[:4],
                False,
                golden_tolerance(variant[:4], False),
                thresholds,
            )
            for variant, model in models.items()
        ],
        defaults=[Default("cpu", "fp32", "not measured here")],
        golden=Golden((raw,), images[:8]),
        measurements={},
        model_card="# Untrained, for timings\n",
    )
