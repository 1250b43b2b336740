"""Attacks by the ONNX files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bundle_builders as build
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from attack_cases.attack import Attack
from attack_cases.forging import member_with
from runtime import AnswerError, BundleFormatError, PredictorError, SelftestError


def model_with(edit: Callable[[onnx.ModelProto], object]) -> Callable[[], bytes]:
    """A bundle whose default variant was edited, with all hashes made to fit."""

    def data() -> bytes:
        model = onnx.load_model_from_string(build.model(build.GRAY))
        edit(model)
        return model.SerializeToString()  # type: ignore[no-any-return]

    return member_with("variants/fp32.onnx", data)


def elsewhere(location: str, name: str = "weights", **keys: str) -> TensorProto:
    """A tensor whose values lie in a file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[64, 3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **keys}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def with_weights(location: str, **keys: str) -> Callable[[onnx.ModelProto], object]:
    return lambda model: model.graph.initializer[2].CopyFrom(elsewhere(location, **keys))


def hidden_in_a_branch(model: onnx.ModelProto) -> None:
    """An If whose branch has the tensor, four messages deep."""
    output = helper.make_tensor_value_info("w", TensorProto.FLOAT, None)
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere("secret.bin"))
    branch = helper.make_graph([constant], "branch", [], [output])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    node = helper.make_node("If", ["yes"], ["weights"], then_branch=branch, else_branch=branch)
    del model.graph.initializer[2]
    model.graph.node.insert(0, node)


def hidden_in_a_function(model: onnx.ModelProto) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere("secret.bin"))
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "weights", [], ["w"], [constant], opset))


def hidden_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(values=elsewhere("secret.bin", "s"), dims=[64, 3])


def compiled(model: onnx.ModelProto) -> None:
    node = helper.make_node(
        "EPContext",
        [],
        ["x"],
        domain="com.microsoft",
        ep_cache_context="/opt/x.so",
        embed_mode=0,
    )
    model.graph.node.insert(0, node)


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "evil"
    model.opset_import.append(helper.make_opsetid("evil", 1))


def short_weights(model: onnx.ModelProto) -> None:
    """The shape promises 192 numbers, the data are four bytes."""
    model.graph.initializer[2].raw_data = bytes(4)


def cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "logits"


def ort_format() -> bytes:
    """A flat buffer begins with an offset and its mark."""
    return b"\x1c\x00\x00\x00ORTM" + build.model(build.GRAY)


def answering(*nodes: Any) -> Callable[[onnx.ModelProto], object]:
    """Nodes that make "probabilities" of the model's own, "own"."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "own"
        model.graph.node.extend(nodes)
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "rows_axis"))

    return edit


def _model(
    name: str,
    why: str,
    edit: Callable[[onnx.ModelProto], object],
    message: str,
    error: type[PredictorError] = BundleFormatError,
) -> Attack:
    clean = model_with(lambda model: None)
    return Attack(name, why, model_with(edit), error, message, clean)


def _file(name: str, why: str, data: Callable[[], bytes], message: str, member: str = "") -> Attack:
    member = member or "variants/fp32.onnx"
    return Attack(name, why, member_with(member, data), BundleFormatError, message)


EXTERNAL = "a tensor .*in another file"
MODELS = (
    _model(
        "two rows for each image",
        "The second image is answered by a copy of the first one's row.",
        answering(helper.make_node("Concat", ["own", "own"], ["probabilities"], axis=0)),
        r"for 1 image; expected float32 \(1, 3\)",
        AnswerError,
    ),
    _model(
        "logits for probabilities",
        "Every number reads as a probability: 8 454.2 %.",
        answering(helper.make_node("Log", ["own"], ["probabilities"])),
        "expected probabilities from 0 to 1",
        AnswerError,
    ),
    _model(
        "a batch that is mixed",
        "Right for one image, and another one's answer in a list of them.",
        answering(
            helper.make_node("ReduceMean", ["own", "rows_axis"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["own", "mean"], ["apart"]),
            helper.make_node("Sub", ["own", "apart"], ["probabilities"]),
        ),
        "mixes the images",
        SelftestError,
    ),
    _model(
        "weights in another file",
        "onnxruntime, given bytes, looks for it below the working directory.",
        with_weights("secret.bin"),
        EXTERNAL,
    ),
    _model(
        "weights in /etc/passwd",
        "Reads any file, and gives it back as answers.",
        with_weights("/etc/passwd"),
        EXTERNAL,
    ),
    _model(
        "weights in a parent folder",
        "The same for those who refuse absolute paths only.",
        with_weights("../../secret.bin"),
        EXTERNAL,
    ),
    _model(
        "weights in memory",
        "onnxruntime's own mark for 'the offset is an address of this process'.",
        with_weights("*/_ORT_MEM_ADDR_/*", offset="4096", length="768"),
        EXTERNAL,
    ),
    _model(
        "weights in a device",
        "/dev/zero never ends.",
        with_weights("/dev/zero", offset="0", length=str(1 << 60)),
        EXTERNAL,
    ),
    _model(
        "weights in another file, in a branch",
        "Checkers that look at initializers only do not see it.",
        hidden_in_a_branch,
        EXTERNAL,
    ),
    _model(
        "weights in another file, in a function",
        "The same, in a function of the model's own.",
        hidden_in_a_function,
        EXTERNAL,
    ),
    _model(
        "weights in another file, sparse",
        "The same, in a sparse tensor.",
        hidden_sparse,
        EXTERNAL,
    ),
    Attack(
        "preprocessing with weights in another file",
        "The second graph of the bundle, opened at the first image.",
        member_with("preprocess.onnx", lambda: _preprocess_elsewhere()),
        BundleFormatError,
        EXTERNAL,
    ),
    _model(
        "a node of compiled code",
        "EPContext names a file or holds a binary for a device's own loader.",
        compiled,
        "a node EPContext",
    ),
    _file(
        "onnxruntime's own format",
        "Taken by its mark, parsed by other code, seen by no check of ONNX.",
        ort_format,
        "onnxruntime's own format",
    ),
    _file(
        "a Git LFS pointer as model",
        "Packed from a repository that was cloned without LFS.",
        lambda: b"version https://git-lfs.github.com/spec/v1\n",
        "pointer of a Git LFS file",
    ),
    _file(
        "a truncated model",
        "An export that was cut.",
        lambda: build.model(build.GRAY)[:-40],
        "ONNX model.* or a truncated one",
    ),
    _file(
        "a picture as model",
        "Protobuf has no mark of its own; anything may look like it.",
        lambda: b"\x89PNG\r\n\x1a\n" + bytes(500),
        "ONNX model",
    ),
    _file("an empty model", "Zero bytes are valid protobuf.", lambda: b"", "ONNX model"),
    _file(
        "5,000 nested graphs",
        "A parser that recurses runs out of stack.",
        lambda: _nested(5_000),
        "cannot be loaded",
    ),
    _file(
        "a newer IR version",
        "Names both numbers, so that one knows what to install.",
        lambda: build.model(build.GRAY, ir=99),
        r"IR version 99; this onnxruntime reads up to \d+",
    ),
    _file(
        "a newer opset",
        "Names both numbers.",
        lambda: build.model(build.GRAY, opset=99),
        r"opset 99; this onnxruntime knows up to \d+",
    ),
    _model(
        "an operator of nobody's",
        "Runs only where its library is loaded.",
        unknown_operator,
        "cannot be loaded",
    ),
    _model(
        "weights shorter than their shape",
        "Reads behind the end of the buffer.",
        short_weights,
        "cannot be loaded",
    ),
    _model("a cycle", "No order to run it in.", cyclic, "cannot be loaded"),
    _file(
        "no stamp",
        "Nothing states what this model takes.",
        lambda: build.model(build.GRAY, stamp=None),
        "has no metadata 'edgeproof.spec'",
    ),
    _file(
        "a stamp that is not text",
        "onnxruntime decodes it when it is asked for, and raises an error of Python's own.",
        lambda: build.model(build.GRAY).replace(b"multi-class", b"multi-\xff\xfe\xff\xfe\xff"),
        "names or metadata that are not UTF-8",
    ),
    _file(
        "an input whose name is not text",
        "The same, for the names of inputs and outputs.",
        lambda: build.model(build.GRAY, input_name="imagex").replace(b"imagex", b"imag\xff\xfe"),
        "names or metadata that are not UTF-8",
    ),
    _file(
        "a fixed batch",
        "Fails at the second image.",
        lambda: build.model(build.GRAY, batch=1),
        "the graph has the inputs",
    ),
    _file(
        "float pixels",
        "Takes them scaled, or not: nobody knows.",
        lambda: build.model(build.GRAY, input_type=TensorProto.FLOAT),
        "the graph has the inputs",
    ),
    _file(
        "preprocessing to another size",
        "The model would see other pixels than it was trained on.",
        lambda: build.preprocess(build.GRAY, shape=(9, 8, 1)),
        "the graph has the outputs",
        member="preprocess.onnx",
    ),
)


def _preprocess_elsewhere() -> bytes:
    model = onnx.load_model_from_string(build.preprocess(build.GRAY))
    model.graph.initializer[0].CopyFrom(elsewhere("secret.bin", model.graph.initializer[0].name))
    return model.SerializeToString()  # type: ignore[no-any-return]


def _nested(depth: int) -> bytes:
    """graph { node { attribute { g { node ..., written from the inside; "location" makes the
    runtime walk it."""
    data = b"location"
    for i in range(depth):
        tag = (b"\x0a", b"\x32", b"\x2a")[i % 3]  # Graph.node, Attribute.g, Node.attribute
        length, size = b"", len(data)
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        data = tag + length + bytes([size]) + data
    length, size = b"", len(data)
    while size >= 0x80:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return b"\x08\x08\x3a" + length + bytes([size]) + data
