"""Differential testing within a budget, and what it keeps for later: the worst images become
regression inputs of the run that the model belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.error_metrics import Difference, difference
from exporters.evaluate.parity import stream
from exporters.explain.first_divergence import LIMITS
from exporters.explain.fuzz import Found, search
from pipeline.compare.result import GeneratedRow
from pipeline.compare.sides import Sides
from pipeline.errors import DataError, StoreError
from pipeline.verify.images import REGRESSION_NAME, Images, find_images, spread

SEEDS = 256  # real images that generated ones are made from
KEPT = 32  # regression inputs of one recipe, for each precision


def searched(
    sides: Sides, images: Images | None, budget: int, step: Callable[[int, int], None]
) -> GeneratedRow | None:
    """Try ``budget`` generated images and keep the worst where there is a run. Raises DataError
    for recorded outputs, which cannot answer, and for foreign files, which take no such images."""
    if not budget:
        return None
    if sides.takes is not None:
        raise DataError(
            f"generated images are uint8 pixels, and the files take {sides.takes.text()}. Leave "
            "--generated out."
        )
    a, b = sides.a.model, sides.b.model
    if images is None or a is None or b is None:
        raise DataError(
            "recorded outputs cannot answer generated images. Give a model on both sides, or leave "
            "--generated out."
        )
    seeds = np.ascontiguousarray(spread(images, SEEDS).pixels)
    found = search(a, b, seeds, budget=budget, progress=step)
    folder = sides.run_folder
    if folder is not None:
        _keep(folder / REGRESSION_NAME, found, sides.precision)
    return GeneratedRow(
        found.tried,
        found.differences[0],
        found.before_climbing,
        found.by_family,
        len(found.images),
        None if folder is None else str(folder / REGRESSION_NAME),
    )


def _keep(file: Path, found: Found, precision: str) -> None:
    """Add to what earlier searches kept; of each precision the worst stay, each image once."""
    rows: dict[str, NDArray[Any]] = {
        "images": found.images,
        "differences": np.array(found.differences, np.float32),
        "precisions": np.array([precision] * len(found.images)),
    }
    if file.exists():
        with np.load(file) as before:
            if before["images"].shape[1:] == found.images.shape[1:]:
                rows = {name: np.concatenate([rows[name], before[name]]) for name in rows}
    flat = rows["images"].reshape(len(rows["images"]), -1)
    _, first = np.unique(flat, axis=0, return_index=True)
    order = first[np.argsort(-rows["differences"][first], kind="stable")]
    of_each = [order[rows["precisions"][order] == name][:KEPT] for name in LIMITS]
    chosen = np.concatenate(of_each)
    aside = file.with_name(f"{file.name}.partial.npz")
    arrays: dict[str, Any] = {name: values[chosen] for name, values in rows.items()}
    try:
        np.savez_compressed(aside, **arrays)
        aside.replace(file)
    except OSError as exc:
        aside.unlink(missing_ok=True)
        raise StoreError(f"{file} cannot be written: {exc}. Free some space.") from exc


def regression(sides: Sides) -> Difference | None:
    """The difference on what was kept; None where nothing was, or a side cannot answer."""
    folder, spec, a, b = sides.run_folder, sides.spec, sides.a.model, sides.b.model
    if folder is None or spec is None or a is None or b is None:
        return None
    if not (folder / REGRESSION_NAME).exists():
        return None
    images = find_images(folder / REGRESSION_NAME, folder, spec).pixels
    before, after = sides.thresholds
    return difference(stream(a, images), stream(b, images), thresholds_a=before, thresholds_b=after)
