"""saturation.py: sums that stop at 16 bits, simulated, against arithmetic done by hand and, in
``make test-full``, against a CPU without VNNI."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import numpy as np
import onnx
import pytest
from int8_variant import int8_from_fp32
from onnx import TensorProto, helper, numpy_helper

from exporters.evaluate.generated_images import extreme_images
from exporters.graph import onnx_file
from exporters.options import Int8Options
from exporters.quantize.portability import portability
from exporters.quantize.saturation import confirm, simulate


def qdq_gemm(weights: Any, activation: type = np.uint8) -> onnx.ModelProto:
    """x uint8 or int8 [1, K] -> DQ -> Gemm with int8 weights [K, out] -> Q -> DQ, all scales 1
    but that of the output, which is 1000."""
    constants = {
        "one": np.float32(1),
        "zero": activation(0),
        "w": np.asarray(weights, np.int8),
        "w_zero": np.int8(0),
        "thousand": np.float32(1000),
        "y_zero": np.uint8(128),
    }
    kind = TensorProto.UINT8 if activation is np.uint8 else TensorProto.INT8
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "zero"], ["x_float"], "DQ_x"),
        helper.make_node("DequantizeLinear", ["w", "one", "w_zero"], ["w_float"], "DQ_w"),
        helper.make_node("Gemm", ["x_float", "w_float"], ["y"], "Gemm_0"),
        helper.make_node("QuantizeLinear", ["y", "thousand", "y_zero"], ["y_q"], "Q_y"),
        helper.make_node("DequantizeLinear", ["y_q", "thousand", "y_zero"], ["z"], "DQ_y"),
    ]
    size, out = np.shape(weights)
    graph = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info("x", kind, [1, size])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, out])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("weights", "pixels", "saturated", "error"),
    [
        ([[127], [127], [127], [127]], [255, 255, 255, 255], 1.0, 2 * (2 * 255 * 127 - 32767)),
        ([[-127], [-127], [0], [0]], [255, 255, 0, 0], 1.0, 2 * 255 * 127 - 32768),
        ([[127], [-127], [127], [-127]], [255, 255, 255, 255], 0.0, 0),  # signs cancel in a pair
        ([[64], [64], [64], [64]], [255, 255, 255, 255], 0.0, 0),  # 7 bits: never
        ([[127], [127], [127], [127]], [128, 128, 128, 128], 0.0, 0),  # kind pixels
        ([[127, 0], [127, 0]], [255, 255], 0.5, 2 * 255 * 127 - 32767),  # one of two outputs
        ([[127], [0], [127]], [255, 255, 255], 0.0, 0),  # an odd row is filled with zero
    ],
)
def test_simulation_by_hand(weights: Any, pixels: Any, saturated: float, error: int) -> None:
    feed = {"x": np.array([pixels], np.uint8)}
    (layer,) = simulate(qdq_gemm(weights), feed)
    assert layer.node == "Gemm_0"
    assert layer.saturated == saturated
    assert layer.worst_steps == pytest.approx(error / 1000)


def test_int8_activations_are_moved_to_uint8_as_on_x86() -> None:
    model = qdq_gemm([[127], [127]], np.int8)
    (bright,) = simulate(model, {"x": np.array([[127, 127]], np.int8)})  # 255 after the move
    (dark,) = simulate(model, {"x": np.array([[-128, -128]], np.int8)})  # 0 after it
    assert (bright.saturated, dark.saturated) == (1.0, 0.0)


@pytest.mark.parametrize("which", ["digits", "faces"])
def test_only_files_that_are_not_portable_saturate(which: str, request: Any) -> None:
    case = request.getfixturevalue(which)
    images = np.concatenate([case.images[:16], extreme_images(case.spec.shape)])
    for reduced in (True, False):
        options = Int8Options(reduce_range=reduced)
        model = int8_from_fp32(case.model, case.spec, options, case.images, calibration_images=48)
        share = max(row.saturated for row in simulate(model, {"images": images}))
        assert portability(model).portable == reduced
        assert (share == 0) == reduced


def test_convolutions_are_simulated_at_their_own_strides_and_pads() -> None:
    """Without the 16-bit limit in the way the simulation's products are onnxruntime's."""
    from exporters.quantize import saturation

    random = np.random.default_rng(0)
    kernel = random.integers(-20, 20, (4, 2, 3, 3)).astype(np.int32)  # two groups
    values = random.integers(0, 256, (2, 4, 9, 8)).astype(np.int32)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], group=2, strides=[2, 1], pads=[1, 0, 1, 2], dilations=[1, 2]
    )
    inputs = saturation.LayerInputs(node, "x", 7, 1.0)
    products = saturation.convolution_products(inputs, kernel, values)
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (0, 2)), constant_values=7)
    import torch

    expected = torch.nn.functional.conv2d(
        torch.from_numpy(padded).double(),
        torch.from_numpy(kernel).double(),
        stride=(2, 1),
        dilation=(1, 2),
        groups=2,
    )
    for group, (rows, matrix) in enumerate(products):
        outputs = (rows @ matrix).reshape(2, -1, 2).transpose(0, 2, 1)
        part = expected[:, 2 * group : 2 * group + 2].numpy().reshape(2, 2, -1)
        assert np.array_equal(outputs, part)  # fewer than 64 positions: all are simulated


def test_confirmation_says_what_this_cpu_can_show(digits: Any) -> None:
    model = int8_from_fp32(
        digits.model, digits.spec, Int8Options(), digits.images, calibration_images=48
    )
    result = confirm(model, {"images": digits.images[:8]}, portable=True)
    assert result.exact_difference == 0  # portable: on every CPU
    assert result.visible == (result.target == "x86_64-avx2")


_COMPARE = """
import sys, numpy as np, onnxruntime as ort
answers = []
for exact in ("0", "1"):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.add_session_config_entry("session.x64quantprecision", exact)
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    answers.append(session.run(None, {"images": np.load(sys.argv[2])})[0])
print(float(np.abs(answers[0] - answers[1]).max()))
"""


@pytest.mark.full
@pytest.mark.parametrize("reduced", [True, False])
def test_an_avx2_cpu_without_vnni_agrees(digits: Any, tmp_path: Path, reduced: bool) -> None:
    """On an emulated Haswell the default kernels differ from exact ones exactly when the
    simulation says that sums stop."""
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("not run: qemu-x86_64 is missing; apt-get install qemu-user-static")
    images = np.concatenate([digits.images[:16], extreme_images(digits.spec.shape)])
    np.save(tmp_path / "images.npy", images)
    options = Int8Options(reduce_range=reduced)
    model = int8_from_fp32(digits.model, digits.spec, options, digits.images, calibration_images=48)
    onnx_file.save(model, tmp_path / "model.onnx")
    command = [qemu, "-cpu", "Haswell", sys.executable, "-c", _COMPARE]
    command += [str(tmp_path / "model.onnx"), str(tmp_path / "images.npy")]
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=children.PATIENCE
    )
    saturates = any(row.saturated > 0 for row in simulate(model, {"images": images}))
    assert (float(run.stdout) > 1e-6) == saturates == (not reduced)


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("size", "stride"), [((2, 2), 1), ((7, 6), 2), ((5, 9), 1)])
def test_automatic_pads_are_those_of_onnxruntime(
    automatic: str, size: tuple[int, int], stride: int
) -> None:
    """Found by running the very convolution."""
    from exporters.quantize import saturation

    if automatic == "VALID" and min(size) < 3:
        return
    options = {"strides": [stride, stride], "kernel_shape": [3, 3]}
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=automatic, **options)
    pads = saturation.explicit_pads(node, (3, 3), size, (stride, stride), (1, 1))
    plain = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, **options)
    answers = []
    for made in (node, plain):
        graph = helper.make_graph(
            [made],
            "conv",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, *size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3), "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        x = np.arange(np.prod(size), dtype=np.float32).reshape(1, 1, *size)
        answers.append(onnx_file.session(model).run(None, {"x": x})[0])
    assert np.array_equal(*answers)
