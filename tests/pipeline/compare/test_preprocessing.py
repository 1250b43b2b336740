"""Preprocessing of both sides: any pixel that differs is a failure with its cause."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from faults import report
from onnx import numpy_helper
from pets import PREPARED, World

from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from pipeline.cli.main import cli
from pipeline.compare.measure import compare


def behind(*nodes: tuple[str, dict[str, Any]], **constants: Any) -> onnx.ModelProto:
    """The healthy graph with more operators behind it; each takes the result of the one before,
    and constants of its own by the name of their parameter."""
    model = onnx.ModelProto()
    model.CopyFrom(PREPARED)
    end = model.graph.node.pop()
    value = end.input[0]
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for number, (kind, options) in enumerate(nodes):
        names = [value if name == "_" else name for name in options.pop("inputs", ["_"])]
        value = f"more_{number}"
        model.graph.node.append(onnx.helper.make_node(kind, names, [value], name=value, **options))
    model.graph.node.append(onnx.helper.make_node("Identity", [value], ["pixels"], name="pixels"))
    return model


def resized(**attributes: Any) -> onnx.ModelProto:
    """Another way to resample."""
    model = onnx.ModelProto()
    model.CopyFrom(PREPARED)
    (node,) = (node for node in model.graph.node if node.op_type == "Resize")
    kept = [entry for entry in node.attribute if entry.name not in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items())
    return model


def lighter() -> onnx.ModelProto:
    to = onnx.TensorProto
    steps = (
        ("Cast", {"to": to.INT32}),
        ("Add", {"inputs": ["_", "one"]}),
        ("Min", {"inputs": ["_", "top"]}),
        ("Cast", {"to": to.UINT8}),
    )
    return behind(*steps, one=np.int32(1), top=np.int32(255))


def table(values: Any) -> onnx.ModelProto:
    steps = (("Cast", {"to": onnx.TensorProto.INT32}), ("Gather", {"inputs": ["curve", "_"]}))
    return behind(*steps, curve=np.asarray(values, np.uint8))


def reversed_along(axis: int) -> onnx.ModelProto:
    steps = ("Slice", {"inputs": ["_", "start", "end", "axis", "step"]})
    ends = {"start": [-1], "end": [-(2**31)], "axis": [axis], "step": [-1]}
    return behind(steps, **{name: np.array(value, np.int64) for name, value in ends.items()})


def only_of(rows: int) -> onnx.ModelProto:
    """Inverted, but only pictures of so many rows or more: no golden image is as large."""
    model = behind()
    end = model.graph.node.pop()
    graph = [
        ("Shape", [PREPARED.graph.input[0].name], "rows", {"start": 0, "end": 1}),
        ("Less", ["rows", "bound"], "small", {}),
        ("BitwiseNot", [end.input[0]], "inverted", {}),
        ("Where", ["small", end.input[0], "inverted"], "pixels", {}),
    ]
    bound = numpy_helper.from_array(np.array([rows], np.int64), "bound")
    model.graph.initializer.append(bound)
    for kind, inputs, output, options in graph:
        node = onnx.helper.make_node(kind, inputs, [output], name=output, **options)
        model.graph.node.append(node)
    return model


def without_alpha() -> onnx.ModelProto:
    """Takes four channels, and forgets the last, which the healthy graph refuses."""
    model = onnx.ModelProto()
    model.CopyFrom(PREPARED)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "three" if name == "image" else name
    for name, value in (("first", [0]), ("third", [3]), ("channels", [2])):
        stored = numpy_helper.from_array(np.array(value, np.int64), name)
        model.graph.initializer.append(stored)
    inputs = ["image", "first", "third", "channels"]
    model.graph.node.insert(0, onnx.helper.make_node("Slice", inputs, ["three"], name="three"))
    return model


# (fault, graph, sentence in the report)
PREPROCESSING: list[tuple[str, onnx.ModelProto, str]] = [
    ("inverted", behind(("BitwiseNot", {})), r"B's pixels are A's inverted \(255 - x\)"),
    ("BGR", reversed_along(2), "color channels in the reverse order"),
    ("mirrored", reversed_along(1), "mirrored left to right"),
    ("upside down", reversed_along(0), "turned upside down"),
    ("transposed", behind(("Transpose", {"perm": [1, 0, 2]})), "transposed: height and width"),
    ("one level brighter", lighter(), "B's pixels are A's brighter by 1 level"),
    ("gamma", table(np.rint(255 * (np.arange(256) / 255) ** 0.8)), "with a gamma of 0.8"),
    ("one level alone", table(np.where(np.arange(256) == 201, 202, np.arange(256))), "1 levels"),
    ("nearest", resized(mode="nearest", antialias=0), "mode is linear in A and nearest in B"),
    ("cubic", resized(mode="cubic"), "mode is linear in A and cubic in B"),
    ("no antialias", resized(antialias=0), "antialias is 1 in A and 0 in B"),
    *(
        (mode, resized(coordinate_transformation_mode=mode), f"in A and {mode} in B")
        for mode in ("align_corners", "asymmetric")
    ),
    ("another crop", resize_graph(16, 16, "rgb", (15, 16), (16, 16)), r"\d+ of \d+ pictures"),
    ("gray", behind(("Gather", {"inputs": ["_", "red"], "axis": 2}), red=np.array([0, 0, 0])), ""),
    ("only large pictures", only_of(3_000), r"by up to 255 levels"),
    ("alpha", without_alpha(), "color and alpha.*only A refuses it"),
]


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.run(tmp_path_factory.mktemp("runs") / "pets")


@pytest.mark.parametrize(
    ("graph", "expected"), [row[1:] for row in PREPROCESSING], ids=[row[0] for row in PREPROCESSING]
)
def test_any_other_pixel_fails_against_the_checkpoint_of_the_run(
    world: World, run: Path, graph: onnx.ModelProto, expected: str
) -> None:
    bundle = world.bundle("prepared.zip", fp32=world.fp32, preprocess=graph)
    result = compare(str(run / "2_train/checkpoint.pt"), bundle, None)
    assert not result.passed and result.preprocessing.differing > 0
    assert result.difference.max_abs < 1e-4  # the networks are equal
    (failure,) = result.failures
    assert re.search(r"preprocess\.onnx .* of \d+ of \d+ pictures", failure)
    assert "1_data/preprocess.onnx" in failure and "prepared.zip" in failure
    assert re.search(expected, report(result)), report(result)


def test_a_bare_file_and_a_bundle_fail_as_well(world: World, run: Path) -> None:
    mirrored = world.bundle("prepared.zip", fp32=world.fp32, preprocess=reversed_along(1))
    healthy = world.bundle("healthy.zip", fp32=world.fp32, preprocess=PREPARED)
    data = world.path("images.npz")
    for a, b in (
        (str(run / "3_export/fp32.onnx"), mirrored),
        (mirrored, str(run / "3_export/fp32.onnx")),
        (healthy, mirrored),
    ):
        done = CliRunner().invoke(cli, ["compare", a, b, "--data", data])
        assert done.exit_code == 1, done.output
        assert "mirrored left to right" in done.output and "pictures" in done.output


def test_equal_preprocessing_passes_and_names_its_images(world: World, run: Path) -> None:
    checkpoint = str(run / "2_train/checkpoint.pt")
    same = compare(checkpoint, world.bundle("a.zip", fp32=world.fp32, preprocess=PREPARED), None)
    assert same.passed and same.preprocessing.same_file and not same.remarks
    renamed = onnx.ModelProto()
    renamed.CopyFrom(PREPARED)
    renamed.producer_name = "another tool"
    other = compare(checkpoint, world.bundle("b.zip", fp32=world.fp32, preprocess=renamed), None)
    row = other.preprocessing
    assert other.passed and row.pictures > 150 and row.differing == 0 and not row.same_file
    assert f"the same pixels of all {row.pictures} pictures" in report(other)
    assert compare(checkpoint, str(run / "3_export/fp32.onnx"), None).preprocessing.same_file


def test_preprocessing_that_cannot_be_compared_is_reported(
    world: World, run: Path, tmp_path: Path
) -> None:
    bundle = world.bundle("a.zip", fp32=world.fp32, preprocess=PREPARED)
    words = ["compare", world.path("checkpoint.pt"), bundle, "--data", world.path("images.npz")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0 and "PREPROCESSING WAS NOT COMPARED" in done.output
    assert "checkpoint.pt" in done.output.partition("NOT COMPARED")[2]
    bare = world.run(tmp_path / "bare", preprocess=None)
    result = compare(str(bare / "2_train/checkpoint.pt"), bundle, None)
    assert result.preprocessing.unknown and result.preprocessing.unknown in result.remarks
    np.save(tmp_path / "recorded.npy", onnx_file.run(onnx_file.session(world.fp32), world.images))
    recorded = compare(str(tmp_path / "recorded.npy"), bundle, Path(world.path("images.npz")))
    assert "recorded.npy" in recorded.preprocessing.unknown
