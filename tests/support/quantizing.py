"""Images, options and an observer that stops the search, for tests of ``quantize-onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from exporters.foreign.model_inputs import InputSpec
from pipeline.cli.main import cli
from pipeline.quantize_file.options import PixelOptions, QuantizeFileOptions

PLANES = InputSpec("x", "float32", (None, 3, 16, 16))


def draw(folder: Path, count: int, seed: int = 0) -> Path:
    """Draw images of 20x24 pixels, each with a color of its own."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (20, 24, 3)) * rng.uniform(0.2, 1, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{seed}-{number:03}.png")
    return folder


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, ["quantize-onnx", *map(str, words)])


BOUNDS = {"int8-u8s8-rr": 1.0, "int8-u8s8": 1.0, "int8-s8s8": 1.0}

WORDS = ("--margin", 25, "--minutes", 100, "--std", "0.5")


def requested(project: Path, out: str, **words: Any) -> QuantizeFileOptions:
    usual: dict[str, Any] = {
        "minutes": 60,
        "threads": 1,
        "margin": None,
        "min_sqnr_db": 20,
        "task": None,
        "pixels": PixelOptions(),
        "calibration_images": 32,
        "validation_images": 32,
    }
    return QuantizeFileOptions(
        project / "net.onnx", project / "images", project / out, **(usual | words)
    )


class Counting:
    """An observer that has the search stopped after some trials, whatever a clock says."""

    def __init__(self, trials: int) -> None:
        self.left = trials

    def note(self, text: str) -> None:
        pass

    def step(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.left -= task == "variants"

    def stopped(self) -> bool:
        return self.left <= 0
