"""ONNX files made by others, on inputs of their own."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from faults import report
from onnx import numpy_helper
from pets import LABELS, OPTIONS, World, settled

from exporters.errors import GraphError
from exporters.graph import onnx_file
from exporters.options import TOLERANCES
from pipeline.cli.main import cli
from pipeline.compare.measure import compare
from pipeline.errors import DataError, PipelineError
from pipeline.learning.networks.build import build_network
from pipeline.learning.training.checkpoint import save_checkpoint
from runtime import ModelSpec


def foreign(
    world: World,
    name: str,
    *,
    end: str = "",
    size: int = 8,
    batch: int | str = "n",
    int8: bool = False,
    seed: int = 0,
) -> str:
    """x, float32 [n, 3, size, size], to logits y [n, 4], or to what ``end`` makes of them."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(8, 3, 3, 3)).astype(np.float32)
    stored = {
        "w": weights,
        "b": random.normal(size=8).astype(np.float32),
        "m": random.normal(size=(8, 4)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "weights" if int8 else "w", "b"], ["c"], name="first"),
        make("Relu", ["c"], ["r"], name="relu"),
        make("ReduceMean", ["r", "axes"], ["g"], name="mean", keepdims=0),
        make("MatMul", ["g", "m"], ["z" if end else "y"], name="last"),
    ]
    if int8:
        scale = np.abs(weights).max() / np.float32(127)
        stored["w"] = np.round(weights / scale).astype(np.int8)
        stored["scale"] = np.asarray(scale, np.float32)
        nodes.insert(0, make("DequantizeLinear", ["w", "scale"], ["weights"], name="dequantize"))
    if end:
        nodes.append(make(end, ["z"], ["y"], name="end"))
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "theirs",
        [onnx.helper.make_tensor_value_info("x", kind, [batch, 3, size, size])],
        [onnx.helper.make_tensor_value_info("y", kind, [batch, 4])],
        [numpy_helper.from_array(value, key) for key, value in stored.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return world.save(name, onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))


def their_inputs(world: World, name: str = "theirs.npz", **more: Any) -> Path:
    inputs = np.random.default_rng(5).normal(size=(40, 3, 8, 8)).astype(np.float32)
    np.savez(world.folder / name, **{"inputs": inputs, **more})
    return world.folder / name


@pytest.mark.parametrize(
    ("end", "printed"), [("", ", softmax of the outputs"), ("Softmax", ""), ("Sigmoid", "")]
)
@pytest.mark.parametrize("batch", ["n", 4])
def test_two_foreign_files_are_compared_on_their_own_inputs(
    world: World, end: str, printed: str, batch: int | str
) -> None:
    a = foreign(world, "mine.onnx", end=end, batch=batch)
    data = their_inputs(world, labels=np.arange(40) % 4)
    same = compare(a, a, data)
    assert same.passed and same.difference.max_abs == 0 and same.difference.images == 40
    assert same.tolerance == TOLERANCES["fp32"]
    fits = "" if end != "Sigmoid" else ", labels ignored: they do not fit 4 answers"
    assert same.images == f"inputs of {data}{printed}{fits}"
    assert (same.accuracy_percent is None) == bool(fits)
    b = foreign(world, "mine.int8.onnx", end=end, batch=batch, int8=True)
    near = compare(a, b, data)
    assert near.tolerance == TOLERANCES["int8"] and near.passed
    assert 0 < near.difference.max_abs < 0.1
    other = compare(a, foreign(world, "other.onnx", end=end, batch=batch, seed=1), data)
    assert other.tolerance == TOLERANCES["fp32"] and not other.passed
    if batch == "n":
        assert [row.a for row in other.layers] == ["first", "last", "probabilities"]
        assert "first: 216 of 216 weights differ" in report(other)


def test_the_report_says_what_a_softmax_hides(world: World) -> None:
    """Outputs that all lie higher by the same are the same logits, but other points."""
    a = foreign(world, "mine.onnx")
    model = onnx.load(a)
    model.graph.node[-1].output[0] = "z"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2.5), "up"))
    model.graph.node.append(onnx.helper.make_node("Add", ["z", "up"], ["y"], name="up"))
    result = compare(a, world.save("higher.onnx", model), their_inputs(world))
    assert result.passed and "differ by up to 2.5" in result.images


def test_infinity_at_every_call_is_one_answer(world: World) -> None:
    a = foreign(world, "mine.onnx")
    model = onnx.load(a)
    bias = np.array([np.inf] + [0] * 3, np.float32)
    model.graph.node[-1].output[0] = "z"
    model.graph.initializer.append(numpy_helper.from_array(bias, "high"))
    model.graph.node.append(onnx.helper.make_node("Add", ["z", "high"], ["y"], name="high"))
    result = compare(a, world.save("infinite.onnx", model), their_inputs(world))
    assert not result.passed and "NaN or infinity" in report(result)
    assert "from run to run" not in report(result)


def test_probabilities_of_a_foreign_file_are_what_onnxruntime_puts_out(world: World) -> None:
    a, b = foreign(world, "mine.onnx"), foreign(world, "other.onnx", seed=1)
    data = their_inputs(world)
    with np.load(data) as archive:
        inputs = archive["inputs"]
    outputs = [
        onnx_file.session(onnx_file.load(Path(f))).run(None, {"x": inputs})[0] for f in (a, b)
    ]
    first, second = (torch.from_numpy(values).softmax(1).numpy() for values in outputs)
    result = compare(a, b, data)
    assert result.difference.max_abs == pytest.approx(np.abs(first - second).max(), rel=1e-4)
    np.save(world.folder / "recorded.npy", outputs[0])  # of another tool
    assert compare(str(world.folder / "recorded.npy"), a, data).difference.max_abs < 1e-6
    np.save(world.folder / "inputs.npy", inputs)
    assert compare(a, b, world.folder / "inputs.npy").difference == result.difference


def test_weights_next_to_a_foreign_file_are_read(world: World, tmp_path: Path) -> None:
    a = foreign(world, "mine.onnx")
    copy = tmp_path / "copy.onnx"
    onnx.save(onnx.load(a), copy, save_as_external_data=True, size_threshold=0, location="w.data")
    data = their_inputs(world)
    assert compare(a, str(copy), data).difference.max_abs == 0
    (tmp_path / "w.data").unlink()
    with pytest.raises(GraphError, match=r"copy\.onnx.*w\.data"):
        compare(a, str(copy), data)


def test_our_pixels_under_other_names_are_still_pixels(world: World) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(world.fp32)
    del model.metadata_props[:]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = {"images": "x", "probabilities": "y"}.get(name, name)
    model.graph.input[0].name, model.graph.output[0].name = "x", "y"
    result = world.compare(world.path("checkpoint.pt"), world.save("renamed.onnx", model))
    assert result.passed and len(result.layers) == 5


@pytest.mark.parametrize(
    ("files", "arrays", "message"),
    [
        ("fp32.onnx mine.onnx", {}, r"takes uint8 pixels \[n, 16, 16, 3\], and .*mine.onnx takes "
         r"'x' float32 \[\?, 3, 8, 8\]; expected the same on both sides. Compare files"),
        ("mine.onnx checkpoint.pt", {}, "mine.onnx takes .*checkpoint.pt takes uint8 pixels"),
        ("mine.onnx large.onnx", {}, r"takes 'x' float32 \[\?, 3, 9, 9\]; expected the same"),
        ("mine.onnx mine.onnx", None, r"no inputs .*float32 \[\?, 3, 8, 8\].*--data"),
        ("mine.onnx mine.onnx", {"inputs": np.zeros((4, 3, 8, 7), np.float32)},
         r"inputs are float32 \[4, 3, 8, 7\]; expected 'x' float32 \[\?, 3, 8, 8\]"),
        ("mine.onnx mine.onnx", {"inputs": np.zeros((4, 3, 8, 8))}, "inputs are float64"),
        ("mine.onnx mine.onnx", {"inputs": np.float32(0)}, r"inputs are float32 \[\]"),
        ("mine.onnx mine.onnx", {"inputs": np.zeros((0, 3, 8, 8), np.float32)}, "has 0 inputs"),
        ("four.onnx four.onnx", {"inputs": np.zeros((6, 3, 8, 8), np.float32)},
         "has 6 inputs; expected at least one, and a multiple of 4"),
        ("mine.onnx mine.onnx", {"images": np.zeros(3)}, 'has the arrays images. Expected the .*'
         r'\[\?, 3, 8, 8\]: a .npz with "inputs"'),
        ("mine.onnx ended.onnx", {}, "expected probabilities on both sides, or logits on both"),
        ("two.onnx mine.onnx", {}, r"two.onnx has 2 outputs \(y, c\); expected one input, and one"),
        ("raw.onnx raw.onnx", {}, r"\[40, 8, 6, 6\] for 40 inputs; expected \[n, labels\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_without_a_traceback(
    world: World, files: str, arrays: dict[str, Any] | None, message: str
) -> None:
    mine = foreign(world, "mine.onnx")
    foreign(world, "large.onnx", size=9)
    foreign(world, "four.onnx", batch=4)
    foreign(world, "ended.onnx", end="Softmax")
    two = onnx.load(mine)
    inner = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["n", 8, 6, 6])
    two.graph.output.append(inner)
    world.save("two.onnx", two)
    del two.graph.output[0]
    world.save("raw.onnx", two)
    data = []
    if arrays is not None:
        data = ["--data", str(their_inputs(world))]
        if arrays:
            np.savez(world.folder / "given.npz", **arrays)
            data = ["--data", world.path("given.npz")]
    done = CliRunner().invoke(cli, ["compare", *map(world.path, files.split()), *data])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    assert re.search(message, " ".join(done.output.split())), done.output


def test_models_of_other_sizes_and_failing_ones_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ModelSpec("pets", "multi-class", 12, 12, 3, LABELS)
    network = settled(build_network(OPTIONS, small))
    save_checkpoint(world.folder / "small.pt", network)
    with pytest.raises(DataError, match=r"small.pt takes uint8 pixels \[n, 12, 12, 3\]"):
        world.compare(world.path("fp32.onnx"), world.path("small.pt"))
    (world.folder / "failing.py").write_text("def function(images): return images @ images[:2]\n")
    monkeypatch.chdir(world.folder)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    with pytest.raises(PipelineError, match=r"failing:function cannot answer .* ValueError"):
        world.compare(world.path("fp32.onnx"), "failing:function")


def test_foreign_files_have_no_generated_images(world: World) -> None:
    mine = foreign(world, "mine.onnx")
    with pytest.raises(DataError, match=r"the files take 'x' float32 \[\?, 3, 8, 8\].*--generated"):
        compare(mine, mine, their_inputs(world), generated=10)
