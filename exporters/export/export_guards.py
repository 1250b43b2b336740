"""A comparison of three: the eager network, its exported program and the ONNX file translated from
that program. File and program differ by a fault of the translation, program and eager network by
one of torch.export."""

from __future__ import annotations

import copy

import onnx
import torch
from torch import nn

from exporters.errors import GraphError
from exporters.evaluate.generated_images import noise_images
from exporters.export.guard_values import ExportGuard
from exporters.export.proof import file_answers, network_answers, plain_reason, proved
from exporters.graph import onnx_file
from exporters.graph.silenced import quiet
from runtime.spec import ModelSpec


def guard_export(
    model: onnx.ModelProto, network: nn.Module, spec: ModelSpec, batch_sizes: tuple[int, ...]
) -> tuple[ExportGuard, ...]:
    """Run file, exported program and eager network on the same images at every batch size.

    Raises GraphError that names the two which differ by more than ``PROOF``.
    """
    network = copy.deepcopy(network).cpu().eval()
    session = onnx_file.session(model)
    program = _program(network, spec)
    guards = []
    for count in batch_sizes:
        images = noise_images(spec.shape, count)
        eager, exported = network_answers(network, images), network_answers(program, images)
        answers = file_answers(session, images)
        guards.append(
            ExportGuard(
                batch_size=count,
                program_to_eager=proved(
                    "the exported program and the eager network", exported, eager
                ),
                file_to_program=proved("the ONNX file and the exported program", answers, exported),
                file_to_eager=proved("the ONNX file and the eager network", answers, eager),
            )
        )
    return tuple(guards)


def _program(network: nn.Module, spec: ModelSpec) -> nn.Module:
    example = torch.zeros((2, *spec.shape), dtype=torch.uint8)  # 2: a batch of 1 is specialized
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes=dynamic).module()
    except Exception as exc:  # whatever the network's own code raises
        raise GraphError(
            f"torch.export refuses the network for any batch size: {plain_reason(exc)}."
        ) from exc
