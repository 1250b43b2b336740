"""Guards of an export beyond the network itself: the exported program, from which the ONNX file
was translated, at every batch size. A difference to it is the translation's; one between it and
the eager network is torch.export's. ``onnx_from_torch`` has already held the file against the
eager network."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from exporters.errors import GraphError
from exporters.export.guard_values import ExportGuard
from exporters.export.onnx_from_torch import PROOF, answers_of, plain_reason, proof_images
from exporters.graph import onnx_file
from exporters.graph.silenced import quiet
from runtime.spec import ModelSpec


def guard_export(
    model: onnx.ModelProto, network: nn.Module, spec: ModelSpec, batch_sizes: tuple[int, ...]
) -> tuple[ExportGuard, ...]:
    """Run file, exported program and eager network on the same images at every batch size.

    Raises GraphError when two of them differ by more than ``PROOF``, and says which two.
    """
    network = copy.deepcopy(network).cpu().eval()
    session = onnx_file.session(model)
    program = _program(network, spec)
    guards = []
    for count in batch_sizes:
        images = proof_images(count, spec)
        eager, exported = answers_of(network, images), answers_of(program, images)
        found = onnx_file.run(session, images)
        guard = ExportGuard(count, _gap(found, eager), _gap(found, exported), _gap(exported, eager))
        _judge(guard)
        guards.append(guard)
    return tuple(guards)


def _program(network: nn.Module, spec: ModelSpec) -> nn.Module:
    example = torch.zeros((2, *spec.shape), dtype=torch.uint8)  # 2: a batch of 1 is specialised
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes=dynamic).module()
    except Exception as exc:  # whatever the network's own code raises
        raise GraphError(
            f"torch.export refuses the network for any batch size: {plain_reason(exc)}."
        ) from exc


def _gap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")


def _judge(guard: ExportGuard) -> None:
    for what, value in (
        ("the exported program and the eager network", guard.program_to_eager),
        ("the ONNX file and the exported program", guard.file_to_program),
        ("the ONNX file and the eager network", guard.file_to_eager),
    ):
        if not value <= PROOF.limit:
            raise GraphError(
                f"at a batch of {guard.batch_size} {what} differ by {value:.2g}; expected at most "
                f"{PROOF.limit:g} ({PROOF.reason})."
            )
