"""A job: everything that a target needs to answer, in one folder, and the answers read back. The
protocol is raw little-endian arrays beside a JSON list of them, which any language reads.

    JOB/bundle.zip, runtime/, onnx_job.py     for Python: the bundle by the predictor that ships
    JOB/variants/, preprocess.onnx, *.mjs     for JavaScript: the bundle's members as they are
    JOB/tapped/<variant>.onnx                 copies that return their quantized tensors too
    JOB/images.bin, raw-<n>.bin               the model's pixels; images before preprocessing
    JOB/targets/<name>/job.json               what is asked of that target
    JOB/targets/<name>/answers.json, *.bin    what it answered
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.explain.pictures import pictures
from exporters.explain.preprocess_difference import PreprocessGraph
from exporters.graph import onnx_file
from exporters.graph.intermediate_outputs import (
    Tap,
    layer_inputs,
    quantized_tensors,
    with_typed_outputs,
)
from exporters.package.resource_files import files_under
from pipeline.errors import TargetError
from pipeline.targets.table import Target
from runtime import Bundle, ModelSpec, Variant
from runtime.manifest import PREPROCESS_NAME
from runtime.opening import read_golden
from runtime.spec import OUTPUT_NAME

ANSWERS_NAME = "answers.json"
_RUNNERS = ("onnx_job.py", "onnx_job.mjs", "node_job.mjs", "browser_job.html")
BATCH = 20  # images at once: small enough for 256 MB of address space


@dataclass(frozen=True)
class JobVariant:
    """One variant as a job asks for it."""

    row: Variant
    tensors: tuple[Tap, ...]  # in graph order; those that are asked for


@dataclass(frozen=True)
class Job:
    """A folder that was written by :func:`write_job`."""

    folder: Path
    spec: ModelSpec
    bundle_id: str
    variants: tuple[JobVariant, ...]
    images: int  # golden ones first
    golden: int
    raw_shapes: tuple[tuple[int, ...], ...]

    def target_folder(self, target: Target) -> Path:
        """Where that target's question and answers are."""
        return self.folder / "targets" / target.name


@dataclass(frozen=True)
class Answers:
    """What a target answered."""

    about: Mapping[str, Any]  # versions, features, limits: as the target itself sees them
    arrays: Mapping[str, NDArray[Any]]

    def probabilities(self, variant: str) -> NDArray[np.float32]:
        """Of the bundle's own file, [n, labels]."""
        return self.arrays[f"{variant}/probabilities"]

    def tapped(self, variant: str, tensor: str) -> NDArray[Any]:
        """One tensor of the copy that returns it, [n, ...]; "probabilities" are among them."""
        return self.arrays[f"{variant}/tapped/{tensor}"]


def write_job(
    folder: Path,
    bundle_path: Path,
    images: NDArray[np.uint8],
    *,
    variants: Sequence[str] = (),
    all_tensors: bool = True,
    float_layers: bool = False,
) -> Job:
    """Write a job about a bundle: its golden samples, then ``images`` [n, h, w, c].

    ``variants`` are ids, by default all. ``all_tensors`` asks for every quantized tensor, or else
    for the last ones alone; ``float_layers`` for the inputs of layers of float files, too. Every
    member is hashed as it is read. Raises TargetError, and PredictorError for a bundle that is
    damaged.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "targets").mkdir(parents=True)
        (folder / "variants").mkdir()
        (folder / "tapped").mkdir()
        for name in _RUNNERS:
            source = resources.files("pipeline.targets.runners") / name
            (folder / name).write_bytes(source.read_bytes())
        for path, data in files_under(resources.files("runtime"), (".py",)).items():
            (folder / "runtime" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "runtime" / path).write_bytes(data)
        shutil.copyfile(bundle_path, folder / "bundle.zip")
        bundle = Bundle.open(folder / "bundle.zip")
        try:
            return _write(folder, bundle, images, variants, all_tensors, float_layers)
        finally:
            bundle.close()
    except OSError as exc:
        raise TargetError(
            f"the job cannot be written to {folder}: {exc}. Free some space."
        ) from exc


def _write(
    folder: Path,
    bundle: Bundle,
    images: NDArray[np.uint8],
    wanted: Sequence[str],
    all_tensors: bool,
    float_layers: bool,
) -> Job:
    manifest, golden = bundle.manifest, read_golden(bundle)
    if images.shape[1:] != manifest.spec.shape or images.dtype != np.uint8:
        raise TargetError(
            f"the images are {images.dtype} {images.shape}; expected uint8 (n, "
            f"{', '.join(map(str, manifest.spec.shape))}), the model's pixels."
        )
    rows = [manifest.variant(name) for name in wanted] or list(manifest.variants)
    variants = []
    for row in rows:
        data = bundle.read(row.file)
        (folder / "variants" / f"{row.id}.onnx").write_bytes(data)
        model = onnx_file.from_bytes(data, row.file)
        tensors = tuple(t for t in quantized_tensors(model) if all_tensors or t.last)
        if float_layers and not tensors:
            tensors = layer_inputs(model)
        if tensors:
            tapped = with_typed_outputs(model, [tensor.name for tensor in tensors])
            onnx_file.save(tapped, folder / "tapped" / f"{row.id}.onnx")
        variants.append(JobVariant(row, tensors))
    preprocess = bundle.read(PREPROCESS_NAME)
    (folder / "preprocess.onnx").write_bytes(preprocess)
    raws = (*golden.raw, *_drawn(preprocess, manifest.spec))
    for number, raw in enumerate(raws):
        (folder / f"raw-{number}.bin").write_bytes(raw.tobytes())
    everything = np.concatenate([golden.pixels, images])
    (folder / "images.bin").write_bytes(everything.tobytes())
    return Job(
        folder,
        manifest.spec,
        str(bundle.id),
        tuple(variants),
        len(everything),
        len(golden.pixels),
        tuple(raw.shape for raw in raws),
    )


def _drawn(preprocess: bytes, spec: ModelSpec) -> Iterator[NDArray[np.uint8]]:
    """Small pictures, grey and in color, that a bundle's graph takes: golden ones are few, and a
    stranger's bundle may have none."""
    graph = PreprocessGraph(onnx_file.from_bytes(preprocess, PREPROCESS_NAME))
    sizes = ((1, 1), (3, 2), (spec.height, spec.width), (37, 53), (spec.height * 2 + 1, 90))
    for picture in pictures(sizes):
        if picture.pixels.shape[2] != 4 and graph(picture.pixels) is not None:
            yield picture.pixels


@dataclass(frozen=True)
class Limits:
    """The most images that a target is asked for: an emulator takes some 30 times as long."""

    plain: Mapping[str, int]  # precision -> images through the bundle's own file
    tapped: int  # images through the copy that returns quantized tensors


def ask(job: Job, target: Target, limits: Limits) -> Path:
    """Write what is asked of one target; returns its folder, without older answers."""
    folder = job.target_folder(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    question = {
        "images_shape": [job.images, *job.spec.shape],
        "raw_shapes": [list(shape) for shape in job.raw_shapes],
        "batch": BATCH,
        "threads": target.threads,
        "providers": ["wasm" if target.runner == "browser" else "cpu"],
        "variants": [
            {
                "id": variant.row.id,
                "portable": variant.row.portable,
                "plain": min(job.images, limits.plain[variant.row.precision]),
                "images": min(job.images, limits.tapped),
                "tensors": [tensor.name for tensor in variant.tensors],
            }
            for variant in job.variants
        ],
    }
    (folder / "job.json").write_text(json.dumps(question, indent=1), encoding="utf-8")
    return folder


def read_answers(folder: Path) -> Answers:
    """Map what a target wrote into memory; raises TargetError when it did not finish, or answered
    for another number of images than it was asked."""
    try:
        asked = json.loads((folder / "job.json").read_text(encoding="utf-8"))["variants"]
        found = json.loads((folder / ANSWERS_NAME).read_text(encoding="utf-8"))
        arrays = {
            name: np.fromfile(folder / row["file"], row["dtype"]).reshape(row["shape"])
            for name, row in found["arrays"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TargetError(f"{folder.name} left no readable answers: {exc}.") from exc
    for variant in asked:
        rows = {f"{variant['id']}/{OUTPUT_NAME}": variant["plain"]}
        names = [OUTPUT_NAME, *variant["tensors"]] if variant["tensors"] else []
        rows |= {f"{variant['id']}/tapped/{name}": variant["images"] for name in names}
        for name, count in rows.items():
            if count and (answers := len(arrays.get(name, ()))) != count:
                raise TargetError(
                    f"{folder.name} gave {answers} rows of {name} for {count} images; expected "
                    "one for each. Its onnxruntime runs batches of this model wrongly."
                )
    return Answers(found["about"], arrays)
