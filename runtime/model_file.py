"""The check of an ONNX file before onnxruntime parses it: it must be one well-formed file without
parts elsewhere.

A tensor may say that its values are stored elsewhere. Given bytes, onnxruntime then reads a file
below the working directory or, with one special location, the memory of the process. The same holds
for a node that loads what another tool compiled. And onnxruntime takes bytes with the mark of its
own format for that format, not for ONNX. All three are refused here, on any version of onnxruntime.

A file that holds neither of two words cannot do the first two, and almost none does. In the rest
a walk follows the few fields of ``onnx.proto`` under which there can be a tensor and skips all
others unread, at two microseconds each. Independent of specs.
"""

from __future__ import annotations

from typing import NoReturn

from .errors import BundleFormatError

# message -> {field: the message in it}: every way from a model to its tensors and nodes
TENSOR_PATHS = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
# protobuf keeps texts as they are: without this key no onnxruntime reads a tensor from elsewhere
_LOCATION_KEY = b"location"
_OP_TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 4, 13, 14  # of NodeProto and twice of TensorProto
_COMPILED_NODE = b"EPContext"  # names a file, or holds code for a device
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, ONNX has none
_MAX_DEPTH = 100  # of messages in messages, as protobuf's own parsers
_MAX_FIELDS = 1_000_000  # two seconds; a thousand layers have thirty thousand
_MAX_SHIFT = 63  # ten bytes with 7 of 64 bits each
_MAX_FIELD_NUMBER = (1 << 29) - 1  # a parser that keeps 32 bits of a tag would see another
_ORT_FORMAT = b"ORTM"
_LFS_POINTER = b"version https://git-lfs"
_REBUILD = "Build the bundle again."


def check_model_file(data: bytes) -> None:
    """Raise BundleFormatError unless ``data`` is one complete ONNX file."""
    if data.startswith(_LFS_POINTER):
        _refuse("it is the pointer of a Git LFS file. Run git lfs pull.")
    if data[4:8] == _ORT_FORMAT:
        _refuse(f"it is a file in onnxruntime's own format; expected ONNX. {_REBUILD}")
    if _LOCATION_KEY not in data and _COMPILED_NODE not in data:
        return
    try:
        _walk(data)
    except IndexError:
        _refuse_as_no_model(len(data))


def _walk(data: bytes) -> None:
    fields = 0
    stack = [("ModelProto", 0, len(data), 1)]
    while stack:
        message, at, end, depth = stack.pop()
        inner = TENSOR_PATHS[message]
        while at < end:
            fields += 1
            number, wire_type, start, value, at = _field(data, at)
            if at > end or fields > _MAX_FIELDS or depth > _MAX_DEPTH:
                _refuse_as_no_model(start)
            if wire_type == _BYTES and number in inner:
                stack.append((inner[number], start, at, depth + 1))
            elif message == "TensorProto":
                if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value):
                    _refuse(f"a tensor is stored in another file (external data). {_REBUILD}")
            elif message == "NodeProto" and number == _OP_TYPE and data[start:at] == _COMPILED_NODE:
                _refuse(f"it has a node EPContext, which loads compiled code. {_REBUILD}")


def _field(data: bytes, at: int) -> tuple[int, int, int, int, int]:
    """(number, wire type, start and value of the content, start of the next field) of the field
    at ``at``; raises IndexError where the file ends too early."""
    tag, start = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)
    number, wire_type, value = tag >> 3, tag & 7, 0
    if wire_type == _BYTES:
        length = data[start]
        length, start = (length, start + 1) if length < 0x80 else _varint(data, start)
        end = start + length
    elif wire_type == _VARINT:
        value, end = _varint(data, start)
    elif wire_type in (_FIXED32, _FIXED64):
        end = start + (4 if wire_type == _FIXED32 else 8)
    else:
        _refuse_as_no_model(at)
    if not 0 < number <= _MAX_FIELD_NUMBER:
        _refuse_as_no_model(at)
    return number, wire_type, start, value, end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in protobuf's encoding, and the position behind it."""
    value, shift = 0, 0
    while (byte := data[at]) >= 0x80:
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if shift > _MAX_SHIFT:
            _refuse_as_no_model(at)
    return value | byte << shift, at + 1


def _refuse_as_no_model(at: int) -> NoReturn:
    _refuse(f"it is not an ONNX model (byte {at}), or a truncated one. {_REBUILD}")


def _refuse(reason: str) -> NoReturn:
    raise BundleFormatError(f"the model cannot be loaded: {reason}")
