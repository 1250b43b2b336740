"""Small real bundles, built in milliseconds, for every test of the runtime.

The models are honest ones in the contract's form: pixels in, outputs out; ``bundle`` packs them the
way ``runtime/BUNDLE.md`` says, and lets a test break one thing at a time.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime import Default, FileEntry, Manifest, ModelSpec, OutputSpec, Predictor, Variant
from runtime.spec import METADATA_KEY
from runtime.tasks import task_named

GRAY = ModelSpec("digits", "multi-class", 8, 8, 1, ("zero", "one", "two"))
COLOR = ModelSpec("faces", "multi-label", 6, 5, 3, ("Smiling", "Eyeglasses"))
HEADS = ModelSpec(
    "heads", "values", 8, 8, 1, outputs=(OutputSpec("boxes", (2, 4)), OutputSpec("scores", (3,)))
)
TOLERANCE = 1e-5


def model(
    spec: ModelSpec,
    *,
    ir: int = 8,
    opset: int = 18,
    stamp: str | None = "",
    batch: str | int = "N",
    input_name: str = "images",
    input_type: int = TensorProto.UINT8,
    labels: int | None = None,
) -> bytes:
    """Cast, scale, one fully connected layer, and what the task ends in; ``stamp=None``: no
    metadata. ``labels``: another number of them than the spec's."""
    shapes = {output.name: output.shape for output in spec.outputs}
    if labels is not None:
        shapes = {"probabilities": (labels,)}
    counts = [int(np.prod(shape)) for shape in shapes.values()]
    size = int(np.prod(spec.shape))
    weights = np.random.default_rng(0).normal(size=(size, sum(counts))).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [input_name], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["f", "scale"], ["scaled"]),
            helper.make_node("Reshape", ["scaled", "flat"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
            *_ends(spec, list(shapes)),
        ],
        "model",
        [helper.make_tensor_value_info(input_name, input_type, [batch, *spec.shape])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
            for name, shape in shapes.items()
        ],
        [
            numpy_helper.from_array(np.float32(1 / 255), "scale"),
            numpy_helper.from_array(np.array([0, size]), "flat"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(counts), "counts"),
            *(
                numpy_helper.from_array(
                    np.array([0, *(size or -1 for size in shape)]), f"to_{name}"
                )
                for name, shape in shapes.items()
            ),
        ],
    )
    return _file(graph, ir, opset, spec.to_json() if stamp == "" else stamp)


def _ends(spec: ModelSpec, names: list[str]) -> list[onnx.NodeProto]:
    """Softmax, sigmoid, or a part of the logits for each output."""
    if task_named(spec.task).has_labels:
        last = "Sigmoid" if task_named(spec.task).has_thresholds else "Softmax"
        return [helper.make_node(last, ["logits"], names)]
    parts = [f"part_of_{name}" for name in names]
    return [
        helper.make_node("Split", ["logits", "counts"], parts, axis=1),
        *(helper.make_node("Reshape", [f"part_of_{n}", f"to_{n}"], [n]) for n in names),
    ]


def preprocess(spec: ModelSpec, *, shape: tuple[int, ...] | None = None) -> bytes:
    """Mean of the colors (or gray repeated), then a linear resize to the model's size."""
    height, width, channels = shape or spec.shape
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "last"], ["c"], keepdims=1)
        if channels == 1
        else helper.make_node("Expand", ["f", "three"], ["c"]),
        helper.make_node("Resize", ["c", "", "", "size"], ["r"], mode="linear", axes=[0, 1]),
        helper.make_node("Round", ["r"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["pixels"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "preprocess",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["H", "W", "C"])],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [height, width, channels])],
        [
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([1, 1, 3]), "three"),
            numpy_helper.from_array(np.array([height, width]), "size"),
        ],
    )
    return _file(graph, 8, 18, None)


def _file(graph: onnx.GraphProto, ir: int, opset: int, stamp: str | None) -> bytes:
    file = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
    if stamp is not None:
        helper.set_model_props(file, {METADATA_KEY: stamp})
    return file.SerializeToString()


def golden(spec: ModelSpec, errors: dict[str, float]) -> bytes:
    """Two raw images and one more sample; ``errors``: variant id -> its record's error."""
    with Predictor.from_parts(spec, preprocess(spec), model(spec)) as p:
        rng = np.random.default_rng(1)
        raw = [rng.integers(0, 256, (9 + i, 11, spec.channels), np.uint8) for i in range(2)]
        pixels = np.stack(
            [*(p.preprocess(image) for image in raw), rng.integers(0, 256, spec.shape, np.uint8)]
        )
        arrays: dict[str, Any] = {f"raw/{i}": image for i, image in enumerate(raw)}
        arrays["pixels"] = pixels
        shift = shifted if spec.labels else moved
        for variant, error in errors.items():
            for name, values in p.outputs(pixels).items():
                arrays[f"{name}/{variant}"] = shift(values, error)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def shifted(probabilities: Any, error: float) -> Any:
    """Other probabilities [N, labels] of the same sums: each row's least one grows by ``error``."""
    least = probabilities.argmin(axis=1)[:, None]
    share = np.float32(error) / (1 - np.take_along_axis(probabilities, least, 1))
    return probabilities * (1 - share) + share * (np.arange(probabilities.shape[1]) == least)


def moved(values: Any, error: float) -> Any:
    """Values that differ from others by ``error`` as a share of their largest magnitude."""
    return values + np.float32(error * abs(values).max())


def bundle(
    spec: ModelSpec = GRAY,
    *,
    members: dict[str, bytes] | None = None,
    edit: Callable[[dict[str, Any]], object] = lambda manifest: None,
    pack: Callable[[dict[str, bytes]], object] = lambda members: None,
    error: float = 0.0,
) -> bytes:
    """A bundle with the variants fp32 (the default) and int8-u8s8-rr (the same graph).

    ``members`` are added or replaced before hashing, ``edit`` changes the manifest's JSON before
    its own hash is taken, ``pack`` changes the members after all hashes; by ``error`` the golden
    probabilities are wrong.
    """
    ids = ("fp32", "int8-u8s8-rr")
    files = {
        "preprocess.onnx": preprocess(spec),
        "golden.npz": golden(spec, dict.fromkeys(ids, error)),
        "measurements.json": b"{}",
        **{f"variants/{id}.onnx": model(spec) for id in ids},
        **(members or {}),
    }
    thresholds = (0.5, 0.25) if task_named(spec.task).has_thresholds else None
    manifest = Manifest(
        model_version="1.2.3",
        spec=spec,
        files={
            name: FileEntry(hashlib.sha256(data).hexdigest(), len(data))
            for name, data in files.items()
        },
        variants=tuple(
            Variant(id, f"variants/{id}.onnx", id[:4], False, TOLERANCE, thresholds) for id in ids
        ),
        defaults=(Default("cpu", "fp32", "not measured here"),),
        provenance={"data": {"name": "noise", "synthetic": True}},
    )
    data = json.loads(manifest.to_json())
    edit(data)
    text = json.dumps(data).encode()
    packed = {
        "manifest.json": text,
        "manifest.sha256": hashlib.sha256(text).hexdigest().encode() + b"\n",
        **files,
    }
    pack(packed)
    return zipped(packed)


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()
