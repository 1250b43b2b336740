"""What all figures share: where the last run lies, the MNIST network's bundle, and a table with
its caption, printed for people and collected in ``artifacts/bench.json`` for machines.

    make bench                       # figures of artifacts/
    make bench ARTIFACTS=elsewhere   # figures of another run
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.hardware import detect

ROOT = Path(__file__).resolve().parents[2]
Show = Callable[[str, Sequence[str], Sequence[Sequence[object]]], None]


@pytest.fixture(scope="session")
def artifacts() -> Path:
    return ROOT / os.environ.get("ARTIFACTS", "artifacts")


@pytest.fixture(scope="session")
def show(artifacts: Path) -> Iterator[Show]:
    """Print a table: title, names of the columns, rows."""
    caption, tables = detect().caption(), []

    def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        text = [[str(cell) for cell in row] for row in (header, *rows)]
        widths = [max(map(len, column)) for column in zip(*text, strict=True)]
        print(f"\n\n{title}")
        for row in text:
            print("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
        load = os.getloadavg()[0]  # above 1, neighbours were at work during a timing
        print(f"  {caption}, load average {load:.1f}")
        tables.append({"title": title, "header": text[0], "rows": text[1:], "load": load})

    yield table
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = {"caption": caption, "finished": now, "tables": tables}
    artifacts.mkdir(exist_ok=True)
    (artifacts / "bench.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def mnist_bundle(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the last run, or one with the same network untrained: equally fast."""
    path = artifacts / "mnist" / "bundle.zip"
    if path.exists():
        return path
    path = tmp_path_factory.mktemp("mnist") / "bundle.zip"
    _write_untrained(path, "mnist")
    return path


@pytest.fixture(scope="session")
def celeba_bundle(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of celeba."""
    path = artifacts / "celeba" / "bundle.zip"
    if path.exists():
        return path
    path = tmp_path_factory.mktemp("celeba") / "bundle.zip"
    _write_untrained(path, "celeba")
    return path


def _write_untrained(path: Path, name: str) -> None:
    import torch

    from exporters import onnx_file
    from exporters.bundle_writer import Golden, PackedVariant, golden_tolerance, write_bundle
    from exporters.int8_from_fp32 import int8_from_fp32
    from exporters.onnx_from_torch import onnx_from_torch
    from pipeline.datasets.drawn_digits import draw_digit
    from pipeline.learning.networks import build_network
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
    options = recipe.quantize.int8[0]
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


@pytest.fixture(scope="session")
def last_line() -> Callable[..., str]:
    """Run a script in a fresh Python and return the last line that it prints."""

    def run(script: str, *arguments: object) -> str:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1] if done.stdout else ""

    return run
