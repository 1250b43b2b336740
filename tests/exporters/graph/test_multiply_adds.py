"""multiply_adds.py against counts by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.graph.multiply_adds import multiply_adds


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, tuple[int, ...]],
    shape: tuple[object, ...] = ("N", 3, 8, 10),
) -> onnx.ModelProto:
    """``x`` of this shape to ``y``, with weights of zeros."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(np.zeros(size, np.float32), name)
                for name, size in weights.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )


def node(kind: str, *inputs: str, out: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [out], **attributes)


@pytest.mark.parametrize(
    ("nodes", "weights", "shape", "expected"),
    [
        # 8x10 outputs of 16 channels, 27 weights each
        ([node("Conv", "x", "w", pads=[1] * 4)], {"w": (16, 3, 3, 3)}, None, 8 * 10 * 16 * 27),
        # without padding and with stride 2: (8 - 3) // 2 + 1 = 3 by 4
        ([node("Conv", "x", "w", strides=[2, 2])], {"w": (16, 3, 3, 3)}, None, 3 * 4 * 16 * 27),
        # depthwise: 9 weights for each output
        (
            [node("Conv", "x", "w", pads=[1] * 4, group=3)],
            {"w": (3, 1, 3, 3)},
            None,
            8 * 10 * 3 * 9,
        ),
        # each of 8x10x3 inputs goes to 5 channels of 2x2 outputs
        (
            [node("ConvTranspose", "x", "w", strides=[2, 2])],
            {"w": (3, 5, 2, 2)},
            None,
            8 * 10 * 3 * 5 * 4,
        ),
        ([node("Gemm", "x", "w", "b")], {"w": (20, 7), "b": (7,)}, ("N", 20), 20 * 7),
        ([node("Gemm", "x", "w", transB=1)], {"w": (7, 20)}, ("N", 20), 20 * 7),
        ([node("MatMul", "x", "w")], {"w": (20, 7)}, ("N", 5, 20), 5 * 20 * 7),
        # two in a row; the operators between them cost nothing
        (
            [
                node("Conv", "x", "w", out="c"),
                node("Relu", "c", out="r"),
                node("GlobalAveragePool", "r", out="g"),
                node("Flatten", "g", out="f"),
                node("Gemm", "f", "v"),
            ],
            {"w": (4, 3, 1, 1), "v": (4, 2)},
            None,
            8 * 10 * 4 * 3 + 4 * 2,
        ),
        ([node("Relu", "x")], {}, None, 0),
        # a size that nobody knows
        ([node("Conv", "x", "w")], {"w": (4, 3, 1, 1)}, ("N", 3, "H", "W"), None),
    ],
)
def test_by_hand(
    nodes: list[onnx.NodeProto],
    weights: dict[str, tuple[int, ...]],
    shape: tuple[object, ...] | None,
    expected: int | None,
) -> None:
    assert multiply_adds(model(nodes, weights, shape or ("N", 3, 8, 10))) == expected


def test_the_batch_is_one() -> None:
    fixed = model([node("Conv", "x", "w")], {"w": (4, 3, 1, 1)}, (32, 3, 8, 10))
    assert multiply_adds(fixed) == 8 * 10 * 4 * 3


def test_branches_are_not_guessed() -> None:
    branch = helper.make_graph(
        [node("Conv", "x", "w", out="z")],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("ReduceMax", "x", out="m", keepdims=0),
        node("Cast", "m", out="b", to=TensorProto.BOOL),
        node("If", "b", then_branch=branch, else_branch=branch),
    ]
    assert multiply_adds(model(nodes, {"w": (4, 3, 1, 1)})) is None
