"""A folder of pictures, or arrays, for a foreign model -> calibration and validation inputs that
never share an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from exporters.export.resize_graph import resize_graph
from exporters.foreign.model_inputs import InputSpec, ModelInputs, PixelForm
from exporters.graph.onnx_file import to_bytes
from pipeline.datasets.arrays import UNREADABLE
from pipeline.datasets.decoding.decode import Target, decode_files, refuse_failures
from pipeline.datasets.decoding.workers import Progress
from pipeline.datasets.sources.image_files import SUFFIXES, escaped, visible_files
from pipeline.errors import DataError
from pipeline.quantize_file.options import PixelOptions

FEWEST = 16  # images on either side: fewer give neither ranges nor a share of equal answers
_INPUTS, _LABELS = "inputs", "labels"  # names of arrays


@dataclass(frozen=True)
class DrawOptions:
    """Which inputs to draw, and the form that they are needed in."""

    spec: InputSpec
    options: PixelOptions
    counts: tuple[int, int]  # images to calibrate with and to judge by; fewer where fewer are there
    seed: int  # draws them

    @property
    def multiple(self) -> int:
        """Of images: the fixed batch of the model, or 1."""
        return self.spec.batch or 1


@dataclass(frozen=True)
class ForeignData:
    """What a model is calibrated and judged with."""

    calibration: ModelInputs
    validation: ModelInputs
    labels: NDArray[np.int64] | None  # of the validation images, by folder or as they were given
    folders: tuple[str, ...]  # names of the classes, sorted; () without sub-folders
    digests: tuple[str, ...]  # of what was read, in hexadecimal
    notes: tuple[str, ...]  # what was assumed, for the user to check

    def for_input(self, spec: InputSpec) -> ForeignData:
        """The same for a model whose batch turned out to be another one."""
        parts = (replace(part, spec=spec) for part in (self.calibration, self.validation))
        calibration, validation = parts
        return replace(self, calibration=calibration, validation=validation)


def load(data: Path, draw: DrawOptions, work: Path, progress: Progress) -> ForeignData:
    """Draw and read calibration and validation inputs.

    ``data`` is a folder of image files, whose sub-folders are classes; or an ``.npz`` file with
    "inputs" [n, ...] and perhaps "labels" [n]; or ``inputs.npy`` with an optional ``labels.npy``
    next to it, or a folder of these two. Decoded pixels go into ``work``.

    Raises DataError when there is nothing to read, when too few images are there, or when they do
    not fit the model's input.
    """
    if not data.exists():
        raise DataError(f"--data {data} does not exist; expected a folder of images, or an array.")
    arrays = _array_files(data)
    if arrays is not None:
        return _from_arrays(*arrays, draw)
    if not data.is_dir():
        raise DataError(
            f"--data {data} is a single file; expected a folder of images, an .npz file, or "
            f"{_INPUTS}.npy."
        )
    return _from_images(data, draw, work, progress)


# --- pictures -------------------------------------------------------------------------------


def _from_images(folder: Path, draw: DrawOptions, work: Path, progress: Progress) -> ForeignData:
    spec, options = draw.spec, draw.options
    form, (height, width, channels) = _pixel_form(spec, options)
    files = sorted(f for f in visible_files(folder) if f.name.lower().endswith(SUFFIXES))
    classes = sorted({f.relative_to(folder).parts[0] for f in files if f.parent != folder})
    chosen = _split(len(files), draw, folder)
    targets = [
        Target(tuple(files[i] for i in part), work / f"{name}.npy")
        for part, name in zip(chosen, ("calibration", "validation"), strict=True)
    ]
    graph = resize_graph(height, width, "gray" if channels == 1 else "rgb")
    parts = decode_files(targets, (height, width, channels), to_bytes(graph), progress)
    refuse_failures(parts, "Fetch these files again, or remove them.")
    digests = [part.digests for part in parts]
    pixels = [np.load(target.array, mmap_mode="r") for target in targets]
    rows, twice = _without_copies(digests, draw.multiple)
    labels = None
    if classes and all(f.parent != folder for f in files):
        named = [classes.index(files[i].relative_to(folder).parts[0]) for i in chosen[1]]
        labels = np.array(named, np.int64)[rows]
    notes = [f"images are stretched to {height}x{width} pixels (height x width), {options.color}"]
    if spec.dtype == "float32":
        notes.append(_scale_note(form, options))
    if twice:
        notes.append(f"{twice} validation images are copies of calibration images and left out")
    return ForeignData(
        ModelInputs(spec, pixels[0], form),
        ModelInputs(spec, pixels[1] if len(rows) == len(pixels[1]) else pixels[1][rows], form),
        labels,
        tuple(map(escaped, classes)) if labels is not None else (),
        tuple(digest.hex() for part in digests for digest in part),
        tuple(notes),
    )


def _pixel_form(spec: InputSpec, options: PixelOptions) -> tuple[PixelForm, tuple[int, int, int]]:
    """How pixels become inputs, and their (height, width, channels)."""
    layouts = [x for x in spec.layouts() if options.layout in (None, x)]
    if len(layouts) != 1:
        problem = "could be either" if layouts else "is not an image of 1 or 3 channels"
        raise DataError(
            f"the model's input {spec.text()} {problem}"
            + (f" in layout {options.layout}" if options.layout else "")
            + ". Say --layout nchw or nhwc, or give the inputs themselves: an .npz file with an "
            f"array {_INPUTS!r}."
        )
    height, width, channels = spec.image_shape(layouts[0])
    size = options.size
    if size is None:
        if height is None or width is None:
            raise DataError(
                f"the model's input {spec.text()} has a free height or width. Say which images it "
                "is meant for: --size 224x224 (height x width)."
            )
        size = (height, width)
    if (height or size[0], width or size[1]) != size:
        raise DataError(
            f"--size {size[0]}x{size[1]} does not fit the model's input {spec.text()}; leave "
            "--size out."
        )
    mean, std = options.mean or (0.0,), options.std or (1.0,)
    for name, values in (("--mean", mean), ("--std", std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"{name} has {len(values)} numbers; expected one, or one for each of {channels} "
                "channels."
            )
    if spec.dtype == "uint8" and (options.mean or options.std):
        raise DataError(
            f"the model's input {spec.text()} takes pixels as they are; leave --mean and --std out."
        )
    if min(std) <= 0:
        raise DataError(f"--std {min(std):g} is not positive; expected values such as 0.229.")
    return PixelForm(layouts[0], spec.dtype, mean, std, options.color), (*size, channels)


def _scale_note(form: PixelForm, options: PixelOptions) -> str:
    mean = "[{}]".format(", ".join(f"{value:g}" for value in form.mean))
    deviation = "[{}]".format(", ".join(f"{value:g}" for value in form.std))
    text = f"inputs are (pixel / 255 - {mean}) / {deviation}"
    if options.mean is None and options.std is None:
        text += (
            ", since neither --mean nor --std was given; if the network was trained otherwise, "
            "RANGES AND VERDICT ARE WRONG (for pixels from 0 to 255: --std 0.00392157)"
        )
    return text


def _without_copies(
    digests: Sequence[Sequence[bytes]], batch: int
) -> tuple[NDArray[np.int64], int]:
    """Rows of the validation images whose bytes are no calibration image's, a multiple of
    ``batch`` of them; and how many were copies."""
    calibration = set(digests[0])
    rows = [i for i, digest in enumerate(digests[1]) if digest not in calibration]
    twice = len(digests[1]) - len(rows)
    rows = rows[: len(rows) // batch * batch]
    if len(rows) < FEWEST:
        raise DataError(
            f"{twice} of {len(digests[1])} validation images are copies of calibration images; "
            f"{len(rows)} are left, and at least {FEWEST} are needed. Remove the copies."
        )
    return np.array(rows, np.int64), twice


# --- arrays ---------------------------------------------------------------------------------


def _array_files(data: Path) -> tuple[Path, Path | None] | None:
    """(inputs, labels) when ``data`` is or holds arrays; labels of an .npz lie inside it."""
    if data.suffix == ".npz":
        return data, None
    inputs = data / f"{_INPUTS}.npy" if data.is_dir() else data
    if inputs.suffix != ".npy" or not inputs.is_file():
        return None
    labels = inputs.with_name(f"{_LABELS}.npy")
    return inputs, labels if labels.is_file() and labels != inputs else None


def _from_arrays(file: Path, labels_file: Path | None, draw: DrawOptions) -> ForeignData:
    spec, options = draw.spec, draw.options
    inputs, labels = _read_arrays(file, labels_file, spec)
    form = None
    notes: tuple[str, ...] = ("inputs are taken as they are",)
    if inputs.dtype == np.uint8 and spec.dtype == "float32":
        form, shape = _pixel_form(spec, options)
        _check_shape(file, inputs, (None, *shape), "uint8 pixels")
        notes = (_scale_note(form, options),)
    else:
        if inputs.dtype != spec.dtype:
            raise DataError(
                f"{file} has {inputs.dtype} {inputs.shape}; expected {spec.text()}, or uint8 "
                "pixels [n, h, w, c]."
            )
        _check_shape(file, inputs, spec.shape, spec.text())
    if labels is not None and (labels.shape != (len(inputs),) or labels.dtype.kind not in "iu"):
        raise DataError(
            f"the labels of {file} are {labels.dtype} {labels.shape}; expected whole numbers "
            f"({len(inputs)},), one for each input."
        )
    parts = _split(len(inputs), draw, file)
    return ForeignData(
        ModelInputs(spec, inputs[parts[0]], form),
        ModelInputs(spec, inputs[parts[1]], form),
        None if labels is None else labels[parts[1]].astype(np.int64),
        (),
        tuple(_digest(array) for array in (inputs, labels) if array is not None),
        notes,
    )


def _read_arrays(
    file: Path, labels_file: Path | None, spec: InputSpec
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    try:
        content = np.load(
            file, mmap_mode=None if file.suffix == ".npz" else "r", allow_pickle=False
        )
        if labels_file is not None:
            return content, np.load(labels_file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content, None
        with cast("np.lib.npyio.NpzFile", content) as archive:
            key = next((name for name in (_INPUTS, spec.name) if name in archive), None)
            if key is None:
                raise DataError(
                    f"{file} has arrays {archive.files}; expected {_INPUTS!r} (or the input's "
                    f"name, {spec.name!r}), and perhaps {_LABELS!r}."
                )
            return archive[key], archive.get(_LABELS)
    except UNREADABLE as exc:
        raise DataError(f"{file} cannot be read as numpy arrays: {exc}.") from exc


def _check_shape(
    file: Path, inputs: NDArray[Any], shape: tuple[int | None, ...], what: str
) -> None:
    fits = inputs.ndim == len(shape) and all(
        size is None or size == actual
        for size, actual in zip(shape[1:], inputs.shape[1:], strict=True)
    )
    if not fits:
        sizes = ", ".join("n" if size is None else str(size) for size in (None, *shape[1:]))
        raise DataError(
            f"{file} has {inputs.dtype} {list(inputs.shape)}; expected [{sizes}] for {what}."
        )


def _digest(array: NDArray[Any]) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


# --- both -----------------------------------------------------------------------------------


def _split(
    available: int, draw: DrawOptions, where: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of calibration and validation images, ascending."""
    batch = draw.multiple
    fewest = -(-FEWEST // batch) * batch
    if available < 2 * fewest:
        raise DataError(
            f"{where} has {available} images; expected at least {2 * fewest}: {fewest} to "
            f"calibrate with and {fewest} others to judge by (better {draw.counts[0]} and "
            f"{draw.counts[1]})."
        )
    calibration, validation = draw.counts
    if available < calibration + validation:
        calibration = max(available * calibration // (calibration + validation), fewest)
        validation = max(min(available - calibration, validation), fewest)
        calibration = min(calibration, available - validation)
    order = np.random.default_rng(draw.seed).permutation(available)
    parts = order[:calibration], order[calibration : calibration + validation]
    first, second = (np.sort(part[: len(part) // batch * batch]) for part in parts)
    return first.astype(np.int64), second.astype(np.int64)
