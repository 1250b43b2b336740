"""A small bundle of a digit model and the wheel made of it, for tests of what the project ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.export.digit_graph import digit_graph
from exporters.graph import onnx_file
from exporters.package.bundle_writer import Golden, PackedVariant, write_bundle
from exporters.package.wheel import write_wheel
from pipeline.datasets.drawn.drawn_digits import draw_digit
from runtime import Default, ModelSpec

SPEC = ModelSpec("mnist", "multi-class", 28, 28, 1, tuple("0123456789"))


def _model() -> bytes:
    """One fully connected layer with random weights: made in milliseconds, without torch."""
    size, labels = int(np.prod(SPEC.shape)), len(SPEC.labels)
    weights = np.random.default_rng(0).normal(size=(size, labels)).astype(np.float32) / 255
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["floats"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SPEC.shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", labels])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return onnx_file.to_bytes(onnx_file.finished(model, SPEC))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    random = np.random.default_rng(0)
    write_bundle(
        path,
        spec=SPEC,
        preprocess=onnx_file.to_bytes(digit_graph()),
        variants=[PackedVariant(_model(), "fp32", "fp32", False, 1e-3)],
        defaults=[Default("cpu", "fp32", "not measured here")],
        golden=Golden(
            (draw_digit(random, 4),), random.integers(0, 256, (2, *SPEC.shape), np.uint8)
        ),
        measurements={},
        model_card="# Digits\n",
    )
    return path


@pytest.fixture(scope="session")
def model_wheel(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wheel(
        tmp_path_factory.mktemp("dist"),
        name="mnist",
        version="1.0.0",
        bundle=bundle,
        summary="Reads digits.",
        license="Apache-2.0",
    )
