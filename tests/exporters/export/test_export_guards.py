"""Eager network, exported program and file are compared in pairs."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from exporters.errors import GraphError
from exporters.export.export_guards import guard_export


def test_all_three_agree_at_every_batch_size(digits: Any) -> None:
    guards = guard_export(digits.model, digits.network, digits.spec, (1, 2, 7, 64))
    assert [guard.batch_size for guard in guards] == [1, 2, 7, 64]
    for guard in guards:
        assert guard.file_to_eager < 1e-5 and guard.program_to_eager < 1e-5


def test_a_file_of_another_training_is_refused(digits: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(digits.model)
    tensor = next(t for t in model.graph.initializer if t.name == "Conv_1.weight")
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    with pytest.raises(GraphError, match=r"batch of 1 .*ONNX file.*exported program"):
        guard_export(model, digits.network, digits.spec, (1, 2))


class OnlyTwo(nn.Module):
    """A network that takes one batch size only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(images.reshape(2, -1).float()[:, :4], dim=1)


def test_a_program_of_one_batch_size_is_refused(digits: Any) -> None:
    with pytest.raises(GraphError, match=r"torch\.export.*any batch size"):
        guard_export(digits.model, OnlyTwo(), digits.spec, (1, 2))
