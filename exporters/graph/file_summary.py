"""What a model file holds, as a value: ``onnx_file.summary`` reads it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """What stands in a model file."""

    opset: int
    ir_version: int
    nodes: tuple[tuple[str, int], ...]  # operator -> how often, by name
    parameters: int  # elements of float and 8-bit tensors; scalars (scales, constants) left out
    size_bytes: int
