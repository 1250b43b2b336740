"""The contents of a model file in figures; see ``onnx_file.summary``. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The contents of a model file in figures."""

    opset: int
    ir_version: int
    nodes: tuple[tuple[str, int], ...]  # operator -> how often, by name
    parameters: int  # elements of float and 8-bit tensors; scalars (scales, constants) left out
    size_bytes: int
