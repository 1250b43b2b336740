"""Two small networks, exported once: gray digits with batch norm and every kind of pool, and
colored faces with a residual sum and two fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from exporters.options import ExportOptions
from exporters.package.bundle_writer import Golden, PackedVariant, write_bundle
from runtime import Default, ModelSpec

DIGITS = ModelSpec("digits", "multi-class", 12, 12, 1, ("zero", "one", "two", "three"))
FACES = ModelSpec("faces", "multi-label", 16, 16, 3, ("Smiling", "Eyeglasses", "Bald"))


def conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(1, 8),
            nn.MaxPool2d(2),
            conv(8, 12),
            nn.AvgPool2d(2),
            conv(12, 16),
        )
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        return torch.softmax(self.head(self.body(pixels).mean((2, 3))), dim=1)


class Faces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv(3, 8), conv(8, 8)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images.permute(0, 3, 1, 2).float() / 255)
        x = torch.relu(x + self.block(x))
        return torch.sigmoid(self.head(self.pool(x)))


def settled(network: nn.Module, seed: int) -> nn.Module:
    """Random weights with batch norm statistics that are not the neutral ones."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                assert tensor is not None
                tensor.data = 0.2 * torch.randn(tensor.shape, generator=random)
            for tensor in (module.running_var, module.weight):
                assert tensor is not None
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=random)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            noise = torch.randn(module.weight.shape, generator=random)
            module.weight.data = noise * 2 / module.weight[0].numel() ** 0.5
            if module.bias is not None:
                module.bias.data = 0.1 * torch.randn(module.bias.shape, generator=random)
    return network.eval()


@dataclass(frozen=True)
class Case:
    spec: ModelSpec
    network: nn.Module
    model: onnx.ModelProto  # fp32
    images: NDArray[np.uint8]  # [96, h, w, c]
    labels: NDArray[np.int64]


def case(spec: ModelSpec, network: nn.Module) -> Case:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (96, *spec.shape), dtype=np.uint8)
    images[::2] //= 3  # dark ones, too
    shape = (96,) if spec.task == "multi-class" else (96, len(spec.labels))
    labels = random.integers(0, len(spec.labels) if len(shape) == 1 else 2, shape)
    return Case(spec, network, onnx_from_torch(network, spec, ExportOptions()), images, labels)


@pytest.fixture(scope="session")
def digits() -> Case:
    return case(DIGITS, settled(Digits(), 1))


@pytest.fixture(scope="session")
def digits_bundle(digits: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the digits with one variant; tests that change it copy it first."""
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    write_bundle(
        path,
        spec=digits.spec,
        preprocess=onnx_file.to_bytes(resize_graph(12, 12, "gray")),
        variants=[PackedVariant(onnx_file.to_bytes(digits.model), "fp32", "fp32", False, 1e-3)],
        defaults=[Default("cpu", "fp32", "not measured here")],
        golden=Golden((np.zeros((20, 20), np.uint8),), digits.images[:2]),
        measurements={},
        model_card="# Digits\n",
    )
    return path


@pytest.fixture(scope="session")
def faces() -> Case:
    return case(FACES, settled(Faces(), 2))
