"""One small colour model with random weights in every form, made in seconds without training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from exporters.options import ExportOptions, Int8Options
from exporters.package.bundle_writer import Golden, PackedVariant, golden_tolerance, write_bundle
from exporters.quantize.fp16_from_fp32 import fp16_from_fp32
from exporters.quantize.int8_from_fp32 import int8_from_fp32
from exporters.quantize.portability import portability
from pipeline.compare.measure import compare
from pipeline.compare.result import Comparison
from pipeline.datasets.arrays import Split, write_info, write_split
from pipeline.datasets.info import DatasetInfo
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training.checkpoint import save_checkpoint
from pipeline.recipe import Conv, Linear, NetworkOptions, Pool
from runtime import Default, ModelSpec

LABELS = ("cat", "dog", "owl", "bee")
CLASSES = ModelSpec("pets", "multi-class", 16, 16, 3, LABELS)
ATTRIBUTES = ModelSpec("pets", "multi-label", 16, 16, 3, LABELS)
OPTIONS = NetworkOptions(
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    layers=(
        Conv(op="conv", out=12, batch_norm=True),
        Pool(op="pool", kind="max", size=2),
        Conv(op="conv", out=16, batch_norm=True),
        Conv(op="conv", out=16),
        Pool(op="pool", kind="average", size="global"),
        Linear(op="linear"),
    ),
)
EXPORT = ExportOptions(batch_sizes=(1, 2))
PREPARED = resize_graph(16, 16, "rgb")


def settled(network: PixelNetwork, seed: int = 0) -> PixelNetwork:
    """Weights and statistics as after a training, with logits that tell images apart."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.2 * torch.randn(module.num_features, generator=random)
            module.running_var = 0.3 + torch.rand(module.num_features, generator=random)
            module.weight.data = 0.5 + torch.rand(module.num_features, generator=random)
            module.bias.data = 0.2 * torch.randn(module.num_features, generator=random)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            gain = 3 if isinstance(module, nn.Linear) else 2
            noise = torch.randn(module.weight.shape, generator=random)
            module.weight.data = gain * noise / module.weight[0].numel() ** 0.5
            if module.bias is not None:
                module.bias.data = 0.3 * torch.randn(module.bias.shape, generator=random)
    return network.eval()


class World:
    """A folder with one healthy model in every form, and images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        random = np.random.default_rng(0)
        # smooth pictures in colour: their channels differ, and so do rows and columns
        coarse = random.integers(0, 256, (120, 4, 4, 3))
        images = coarse.repeat(4, axis=1).repeat(4, axis=2) * 0.8
        images += random.integers(0, 50, images.shape)
        self.images = images.astype(np.uint8)
        np.savez(folder / "images.npz", images=self.images, labels=np.arange(120) % 4)
        self.network = settled(build_network(OPTIONS, CLASSES))
        save_checkpoint(folder / "checkpoint.pt", self.network)
        self.fp32 = onnx_from_torch(self.network, CLASSES, EXPORT)
        self.save("fp32.onnx", self.fp32)
        self.save("fp16.onnx", fp16_from_fp32(self.fp32, CLASSES))
        self.int8 = int8_from_fp32(
            self.fp32, CLASSES, Int8Options(), self.images, calibration_images=64
        )
        self.save("int8.onnx", self.int8)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def save(self, name: str, model: onnx.ModelProto) -> str:
        onnx_file.save(model, self.folder / name)
        return self.path(name)

    def compare(self, a: str, b: str, **options: Any) -> Comparison:
        return compare(a, b, self.folder / "images.npz", **options)

    def bundle(
        self,
        name: str,
        spec: ModelSpec = CLASSES,
        *,
        thresholds: tuple[float, ...] | None = None,
        preprocess: onnx.ModelProto | None = None,
        **models: onnx.ModelProto,
    ) -> str:
        """A bundle of models by the id of their variant; ``_`` stands for ``-``."""
        rows = []
        for key, model in models.items():
            precision = key.partition("_")[0]
            portable = precision == "int8" and portability(model).portable
            data = onnx_file.to_bytes(onnx_file.finished(model, spec))
            tolerance = golden_tolerance(precision, portable)
            row = (key.replace("_", "-"), precision, portable, tolerance, thresholds)
            rows.append(PackedVariant(data, *row))
        raw = np.random.default_rng(3).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        write_bundle(
            self.folder / name,
            spec=spec,
            preprocess=onnx_file.to_bytes(preprocess or PREPARED),
            variants=rows,
            defaults=[Default("cpu", rows[0].id, "not measured here")],
            golden=Golden((raw,), self.images[:2]),
            measurements={},
            model_card="# Pets\n",
        )
        return self.path(name)

    def run(self, folder: Path, preprocess: onnx.ModelProto | None = PREPARED) -> Path:
        """A run with a checkpoint and a data stage, whose images are the world's."""
        (folder / "2_train").mkdir(parents=True)
        (folder / "3_export").mkdir()
        shutil.copy(self.path("checkpoint.pt"), folder / "2_train/checkpoint.pt")
        shutil.copy(self.path("fp32.onnx"), folder / "3_export/fp32.onnx")
        info = DatasetInfo("pets", "multi-class", LABELS, {}, "", True, True, "CC0-1.0")
        random = np.random.default_rng(0)
        split = Split(self.images, random.integers(0, 4, 120), np.arange(120).astype(str))
        (folder / "1_data").mkdir()
        for name in ("train", "val", "test"):
            write_split(folder / "1_data", name, split)
        counts = dict.fromkeys(("train", "val", "test"), 120)
        write_info(folder / "1_data", replace(info, counts=counts))
        if preprocess is not None:
            onnx_file.save(preprocess, folder / "1_data/preprocess.onnx")
        return folder
