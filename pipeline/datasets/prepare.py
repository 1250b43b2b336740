"""Where do the images come from? Finds, checks and decodes the data set that a recipe names and
leaves it as the arrays of ``arrays.py``. Knows nothing of stages, and prints nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from pipeline.datasets.arrays import INFO_NAME, write_info
from pipeline.datasets.info import DatasetInfo
from pipeline.datasets.preparation.arrays_from_celeba import arrays_from_celeba
from pipeline.datasets.preparation.arrays_from_idx import arrays_from_idx
from pipeline.datasets.preparation.arrays_from_images import arrays_from_images
from pipeline.datasets.preparation.preparation import Preparation
from pipeline.datasets.sources.class_folders import check_shown
from pipeline.errors import StoreError
from pipeline.recipe import DataOptions, PreprocessOptions

_SOURCES: dict[str, Callable[[Preparation], DatasetInfo]] = {
    "mnist": arrays_from_idx,
    "idx": arrays_from_idx,
    "celeba": arrays_from_celeba,
    "images": arrays_from_images,
}


def prepare(
    options: DataOptions,
    preprocess: PreprocessOptions,
    preprocess_onnx: bytes,
    seed: int,
    folder: Path,
    on_step: Callable[[str, int, int], None],
    note: Callable[[str], None],
    workers: int | None = None,
) -> DatasetInfo:
    """Write {train,val,test}.{images,labels,ids}.npy and, last, dataset.json into ``folder``; and
    left_out.csv, when images were left out.

    ``preprocess_onnx`` is the graph that ``preprocess`` asks for; every decoded image goes through
    it. ``seed`` decides which faces are generated, nothing else. ``on_step(task, done, total)`` and
    ``note(text)`` are called in this process; notes are kept in the result too. The arrays do not
    depend on ``workers`` (None: every usable core).
    Raises DataError when the source is missing, damaged or contradicts itself, StoreError when the
    disk is full; then, and when the process is killed, there is no dataset.json.
    """
    (folder / INFO_NAME).unlink(missing_ok=True)
    prep = Preparation(options, preprocess, preprocess_onnx, seed, folder, on_step, note, workers)
    try:
        info = _SOURCES[options.kind](prep)
        for label in info.labels:
            check_shown("the label", label)
        prep.write_left_out()
        write_info(folder, info)
    except OSError as exc:
        # None: numpy's own "17154048 requested and 3968 written", a short write
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, None):
            raise
        raise StoreError(
            f"{folder} has no room for the decoded images. Free some space, or give another "
            "folder with --artifacts DIR."
        ) from exc
    return info
