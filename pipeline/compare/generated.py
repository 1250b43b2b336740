"""Differential testing within a budget. The worst images become regression inputs of the run that
the model belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.error_metrics import Difference, difference
from exporters.evaluate.parity import stream
from exporters.explain.first_divergence import LIMITS
from exporters.explain.fuzz import FuzzResult, fuzz
from exporters.files import atomic_file
from pipeline.compare.pair import ModelPair
from pipeline.compare.result import GeneratedRow
from pipeline.errors import DataError, StoreError
from pipeline.verify.images import REGRESSION_NAME, Images, find_images, spread

SEEDS = 256  # real images that generated ones are made from
KEPT = 32  # regression inputs of one recipe, for each precision


def try_generated(
    pair: ModelPair, images: Images | None, budget: int, step: Callable[[int, int], None]
) -> GeneratedRow | None:
    """Try ``budget`` generated images, and keep the worst in the run's folder if there is one.

    Raises DataError for recorded outputs, which cannot answer, and for foreign files, which take
    other inputs.
    """
    if not budget:
        return None
    if pair.takes is not None:
        raise DataError(
            f"generated images are uint8 pixels, and the files take {pair.takes.text()}. Omit "
            "--generated."
        )
    a, b = pair.a.model, pair.b.model
    if images is None or a is None or b is None:
        raise DataError(
            "recorded outputs cannot answer generated images. Give a model on both sides, or omit "
            "--generated."
        )
    seeds = np.ascontiguousarray(spread(images, SEEDS).pixels)
    result = fuzz(a, b, seeds, budget=budget, progress=step)
    folder = pair.run_folder
    if folder is not None:
        _keep(folder / REGRESSION_NAME, result, pair.precision)
    return GeneratedRow(
        result.tried,
        result.differences[0],
        result.before_climbing,
        result.by_family,
        len(result.images),
        None if folder is None else str(folder / REGRESSION_NAME),
    )


def _keep(file: Path, result: FuzzResult, precision: str) -> None:
    """Add to the images of earlier searches; the worst of each precision stay, each image once."""
    rows: dict[str, NDArray[Any]] = {
        "images": result.images,
        "differences": np.array(result.differences, np.float32),
        "precisions": np.array([precision] * len(result.images)),
    }
    if file.exists():
        with np.load(file) as before:
            if before["images"].shape[1:] == result.images.shape[1:]:
                rows = {name: np.concatenate([rows[name], before[name]]) for name in rows}
    flat = rows["images"].reshape(len(rows["images"]), -1)
    _, first = np.unique(flat, axis=0, return_index=True)
    order = first[np.argsort(-rows["differences"][first], kind="stable")]
    of_each = [order[rows["precisions"][order] == name][:KEPT] for name in LIMITS]
    chosen = np.concatenate(of_each)
    arrays: dict[str, Any] = {name: values[chosen] for name, values in rows.items()}
    try:
        with atomic_file(file) as partial, partial.open("wb") as archive:
            np.savez_compressed(archive, **arrays)
    except OSError as exc:
        raise StoreError(f"{file} cannot be written: {exc}. Free some space.") from exc


def regression_difference(pair: ModelPair) -> Difference | None:
    """Return the difference on the images kept earlier; None where there are none, or where a side
    cannot answer."""
    folder, spec, a, b = pair.run_folder, pair.spec, pair.a.model, pair.b.model
    if folder is None or spec is None or a is None or b is None:
        return None
    if not (folder / REGRESSION_NAME).exists():
        return None
    images = find_images(folder / REGRESSION_NAME, folder, spec).pixels
    before, after = pair.thresholds
    return difference(stream(a, images), stream(b, images), thresholds_a=before, thresholds_b=after)
