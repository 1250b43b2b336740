"""Folders of drawn images, and what is prepared from them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from exporters.export.resize_graph import resize_graph
from pipeline.datasets.arrays import Dataset
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.prepare import prepare
from pipeline.recipe import DataOptions, PreprocessOptions

SIZE = PreprocessOptions(kind="resize", height=12, width=10, color="rgb")

GRAPH = resize_graph(12, 10, "rgb").SerializeToString()

EACH = 10  # images of a class


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """Noise of (width, height), another one for each seed."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def run(root: Path | None, out: Path, workers: int | None = None, **options: Any) -> DatasetInfo:
    out.mkdir(parents=True, exist_ok=True)
    data = DataOptions(kind="images", root=None if root is None else str(root), **options)
    return prepare(data, SIZE, GRAPH, 0, out, lambda *_: None, lambda _: None, workers)


def every(data: Dataset) -> dict[str, tuple[str, np.ndarray, Any]]:
    """id -> (split, pixels, label)."""
    return {
        str(name): (split, image, label)
        for split in ("train", "val", "test")
        for part in [getattr(data, split)]
        for name, image, label in zip(part.ids, part.images, part.labels, strict=True)
    }


def left_out(out: Path) -> dict[str, str]:
    with (out / "left_out.csv").open() as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def note_with(info: DatasetInfo, words: str) -> str:
    notes = [note for note in info.notes if words in note]
    assert len(notes) == 1, info.notes
    return notes[0]


# --- twice ----------------------------------------------------------------------------------


def in_split_folders(pets: Path, root: Path) -> Path:
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        split = ("train", "train", "train", "val", "test")[number % 5]
        target = root / split / path.relative_to(pets).parts[0] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return root
