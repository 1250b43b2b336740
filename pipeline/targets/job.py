"""A job: everything that a target needs to compute its outputs, in one folder, and the outputs read
back. The protocol is raw little-endian arrays with a JSON list of them, which any language reads.

    JOB/bundle.zip, runtime/, onnx_job.py     for Python: the bundle by the predictor that ships
    JOB/variants/, preprocess.onnx, *.mjs     for JavaScript: the bundle's members as they are
    JOB/tapped/<variant>.onnx                 copies that return their quantized tensors too
    JOB/images.bin, raw-<n>.bin               the model's pixels; images before preprocessing
    JOB/targets/<name>/job.json               the request to that target
    JOB/targets/<name>/answers.json, *.bin    its outputs
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
    """One variant of a job."""

    row: Variant
    tensors: tuple[Tap, ...]  # requested, in graph order


@dataclass(frozen=True)
class VerificationJob:
    """A folder that was written by :func:`write_job`."""

    folder: Path
    spec: ModelSpec
    bundle_id: str
    variants: tuple[JobVariant, ...]
    images: int  # golden ones first
    golden: int
    raw_shapes: tuple[tuple[int, ...], ...]

    def target_folder(self, target: Target) -> Path:
        """Return the folder of that target's request and outputs."""
        return self.folder / "targets" / target.name


@dataclass(frozen=True)
class TargetOutputs:
    """The outputs of a target."""

    about: Mapping[str, Any]  # versions, features, limits, reported by the target itself
    arrays: Mapping[str, NDArray[Any]]

    def probabilities(self, variant: str) -> NDArray[np.float32]:
        """Return those of the bundle's own file, [n, labels]."""
        return self.arrays[f"{variant}/probabilities"]

    def tapped(self, variant: str, tensor: str) -> NDArray[Any]:
        """Return one tensor of the copy with more outputs, [n, ...]; "probabilities" is one."""
        return self.arrays[f"{variant}/tapped/{tensor}"]


def write_job(
    folder: Path,
    bundle_path: Path,
    images: NDArray[np.uint8],
    *,
    variants: Sequence[str] = (),
    all_tensors: bool = True,
    float_layers: bool = False,
) -> VerificationJob:
    """Write a job about a bundle: its golden samples, then ``images`` [n, h, w, c].

    ``variants`` are ids, by default all. ``all_tensors`` requests every quantized tensor, otherwise
    only the last ones. ``float_layers`` also requests the inputs of layers of float files. Every
    member is hashed as it is read. Raises TargetError, and PredictorError for a damaged bundle.
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
    ids: Sequence[str],
    all_tensors: bool,
    float_layers: bool,
) -> VerificationJob:
    manifest, golden = bundle.manifest, read_golden(bundle)
    if images.shape[1:] != manifest.spec.shape or images.dtype != np.uint8:
        raise TargetError(
            f"the images are {images.dtype} {images.shape}; expected uint8 (n, "
            f"{', '.join(map(str, manifest.spec.shape))}), the model's pixels."
        )
    rows = [manifest.variant(name) for name in ids] or list(manifest.variants)
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
    return VerificationJob(
        folder,
        manifest.spec,
        str(bundle.id),
        tuple(variants),
        len(everything),
        len(golden.pixels),
        tuple(raw.shape for raw in raws),
    )


def _drawn(preprocess: bytes, spec: ModelSpec) -> Iterator[NDArray[np.uint8]]:
    """Draw small pictures, gray and in color, that a bundle's graph takes: golden ones are few, and
    other people's bundles may have none."""
    graph = PreprocessGraph(onnx_file.from_bytes(preprocess, PREPROCESS_NAME))
    sizes = ((1, 1), (3, 2), (spec.height, spec.width), (37, 53), (spec.height * 2 + 1, 90))
    for picture in pictures(sizes):
        if picture.pixels.shape[2] != 4 and graph(picture.pixels) is not None:
            yield picture.pixels


@dataclass(frozen=True)
class ImageLimits:
    """The maximum number of images for a target: an emulator takes some 30 times as long."""

    plain: Mapping[str, int]  # precision -> images through the bundle's own file
    tapped: int  # images through the copy that returns quantized tensors


def ask(job: VerificationJob, target: Target, limits: ImageLimits) -> Path:
    """Write the request to one target; returns its folder, without older outputs."""
    folder = job.target_folder(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    request = {
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
    (folder / "job.json").write_text(json.dumps(request, indent=1), encoding="utf-8")
    return folder


def read_outputs(folder: Path) -> TargetOutputs:
    """Read a target's outputs; raises TargetError when it did not finish, or gave another number of
    rows than requested."""
    try:
        requested = json.loads((folder / "job.json").read_text(encoding="utf-8"))["variants"]
        answers = json.loads((folder / ANSWERS_NAME).read_text(encoding="utf-8"))
        arrays = {
            name: np.fromfile(folder / row["file"], row["dtype"]).reshape(row["shape"])
            for name, row in answers["arrays"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TargetError(f"{folder.name} left no readable answers: {exc}.") from exc
    for variant in requested:
        rows = {f"{variant['id']}/{OUTPUT_NAME}": variant["plain"]}
        names = [OUTPUT_NAME, *variant["tensors"]] if variant["tensors"] else []
        rows |= {f"{variant['id']}/tapped/{name}": variant["images"] for name in names}
        for name, count in rows.items():
            if count and (given := len(arrays.get(name, ()))) != count:
                raise TargetError(
                    f"{folder.name} gave {given} rows of {name} for {count} images; expected "
                    "one for each. Its onnxruntime runs batches of this model wrongly."
                )
    return TargetOutputs(answers["about"], arrays)
