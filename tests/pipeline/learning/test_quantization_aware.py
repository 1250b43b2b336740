"""The forward pass rounds as the INT8 file does, and fine-tuning with it improves that file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
import torch
from int8_variant import int8_from_fp32
from numpy.typing import NDArray
from torch import nn

from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.graph import onnx_file
from exporters.graph.quantized import quantized_weights
from exporters.graph.walk import Graph
from exporters.options import ExportOptions, FineTuneOptions, Int8Options
from exporters.quantize import calibration
from pipeline.datasets.arrays import Dataset, Split
from pipeline.datasets.info import DatasetInfo
from pipeline.errors import TrainError
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.quantization_aware.equalization import equalize
from pipeline.learning.quantization_aware.fake_quantization import (
    ActivationRounding,
    WeightRounding,
    fake_quantized,
    observing,
)
from pipeline.learning.quantization_aware.fine_tuning import FineTuned, fine_tune
from pipeline.learning.training.evaluate import probabilities
from pipeline.learning.training.optimize import build_optimizer, training_loss
from pipeline.learning.training.results import StepProgress
from pipeline.recipe import AugmentOptions, NetworkOptions, TrainOptions
from pipeline.tasks import training_task
from runtime.spec import ModelSpec

SHAPES = ModelSpec("shapes", "multi-class", 12, 12, 1, ("none", "upright", "level"))
SIGNS = replace(SHAPES, name="signs", task="multi-label", labels=("upright", "level"))
TRAIN = TrainOptions(
    epochs=4, batch_size=32, lr=0.1, threads=1, device="cpu", augment=AugmentOptions(shift=1)
)
OPTIONS = FineTuneOptions(epochs=2, lr_factor=0.05, calibration_images=64)


# --- images and networks ----------------------------------------------------------------------


def shapes(count: int, seed: int, spec: ModelSpec) -> Split:
    """Noise with an upright bar, a level bar, neither, or (multi-label) both."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, 12, 12, 1), dtype=np.uint8)
    upright, level = rng.integers(0, 2, (2, count))
    if spec.task == "multi-class":
        level &= 1 - upright
    for image, has_upright, has_level, offset in zip(
        images, upright, level, rng.integers(1, 9, count), strict=True
    ):
        if has_upright:
            image[1:11, offset : offset + 2] += 90
        if has_level:
            image[offset : offset + 2, 1:11] += 90
    both = np.stack([upright, level], 1).astype(np.uint8)
    labels = upright + 2 * level if spec.task == "multi-class" else both
    return Split(images, labels, np.arange(count).astype(np.str_))


def dataset(spec: ModelSpec = SHAPES) -> Dataset:
    counts = {"train": 640, "val": 400, "test": 1}
    info = DatasetInfo(spec.name, spec.task, spec.labels, counts, "0" * 64, True, True, "CC0")
    return Dataset(info, *(shapes(n, seed, spec) for seed, n in enumerate(counts.values())))


def layers(*middle: dict[str, object], activation: str = "relu") -> NetworkOptions:
    first = {"op": "conv", "out": 8, "batch_norm": True, "activation": activation}
    return NetworkOptions.model_validate({"layers": [first, *middle, {"op": "linear"}]})


TRAINED = layers(
    {"op": "pool", "kind": "max", "size": 2},
    {"op": "conv", "out": 16, "batch_norm": True},
    {"op": "pool", "kind": "average", "size": "global"},
)
RECIPES = {
    "no activation": layers(activation="none"),
    "relu, average pool, dropout": layers(
        {"op": "pool", "kind": "average", "size": 2},
        {"op": "dropout", "p": 0.5},
        {"op": "conv", "out": 6, "stride": 2},
        {"op": "linear", "out": 7, "activation": "relu"},
    ),
    "relu6, grouped, global max": layers(
        {"op": "conv", "out": 8, "groups": 8, "activation": "relu6"},
        {"op": "pool", "kind": "max", "size": "global"},
        activation="relu6",
    ),
    "silu": layers(
        {"op": "conv", "out": 6, "activation": "silu", "batch_norm": True},
        {"op": "pool", "kind": "average", "size": "global"},
        activation="silu",
    ),
    "hardswish": layers(
        {"op": "conv", "out": 6, "activation": "hardswish"},
        {"op": "linear", "out": 5, "activation": "hardswish"},
        activation="hardswish",
    ),
}


class Functional(nn.Module):
    """Sums, joins, gates and means, written as expressions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.c = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.up = nn.ConvTranspose2d(16, 6, 2, stride=2)
        self.gate, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        x = torch.relu(x + self.norm(self.b(x)))
        x = torch.cat([x, torch.nn.functional.leaky_relu(self.c(x), 0.1)], 1)
        x = torch.relu(self.up(x))
        x = x.mean((2, 3))
        scores: torch.Tensor = self.head(x * torch.sigmoid(self.gate(x)))
        return scores


class Shuffled(nn.Module):
    """Views of tensors that must be contiguous, and batch norm that cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.b, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(self.a(x), 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        x = self.b(torch.relu_(self.norm(x)))
        scores: torch.Tensor = self.head(x).flatten(1)
        return scores


class Tokens(nn.Module):
    """Linear layers on [N, 5, 5], whose channels are not on axis 1."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 5, 12), nn.Linear(5, 5), nn.Linear(5, 5)
        self.head = nn.Linear(25, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x).flatten(1).unsqueeze(1).expand(-1, 5, -1) * 1.5
        scores: torch.Tensor = self.head(self.c(torch.relu(self.b(x))).flatten(1))
        return scores


def random_network(body: nn.Module | NetworkOptions, seed: int = 0) -> PixelNetwork:
    """Random weights, and random statistics of batch norm."""
    torch.manual_seed(seed)
    if isinstance(body, NetworkOptions):
        network = build_network(body, SHAPES)
    else:
        network = PixelNetwork(body, layers(), SHAPES)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, 0, 0.2)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.3, 2.0)
            module.weight.data[0] *= -1  # a negative factor mirrors the grid, which is symmetric
    return network.eval()


def trained_network(data: Dataset, spec: ModelSpec) -> PixelNetwork:
    """A few hundred steps of plain training."""
    torch.manual_seed(0)
    network = build_network(TRAINED, spec).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, TRAIN)
    order = np.random.default_rng(0)
    for _ in range(160):
        chosen = order.integers(0, len(data.train), 32)
        pixels = torch.from_numpy(data.train.images[chosen])
        labels = torch.from_numpy(data.train.labels[chosen])
        task = training_task(spec.task)
        targets = task.targets(labels, len(spec.labels))
        loss = training_loss(network.logits(pixels), targets, task)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


# --- the file, and the same images through both ------------------------------------------------


def quantized(network: PixelNetwork, images: NDArray[np.uint8], rr: bool = True) -> onnx.ModelProto:
    """The INT8 file of the pipeline, with ranges from 64 images."""
    fp32 = onnx_from_torch(network, network.spec, ExportOptions(batch_sizes=(1, 2)))
    options = Int8Options(reduce_range=rr)
    return int8_from_fp32(fp32, network.spec, options, images, calibration_images=64)


def rounded(network: PixelNetwork, images: NDArray[np.uint8], limit: int = 64) -> PixelNetwork:
    """Rounding in PyTorch, with ranges from the same 64 images."""
    rounding = fake_quantized(network, limit)
    with observing(rounding), torch.no_grad():
        rounding(torch.from_numpy(images[calibration.choose(len(images), 64, 0)]))
    return rounding


def answers(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return onnx_file.run(onnx_file.session(model), images)


def grids_of_file(model: onnx.ModelProto) -> set[tuple[float, int]]:
    """(scale to four digits, zero point) of every quantized tensor of the file."""
    graph = Graph(model)
    grids = set()
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear":
            scale, zero = graph.array(node.input[1]), graph.array(node.input[2])
            assert scale is not None
            assert zero is not None
            grids.add((float(f"{float(scale):.4g}"), int(zero)))
    return grids


def grids_of_rounding(network: PixelNetwork) -> set[tuple[float, int]]:
    grids = set()
    for part in network.modules():
        if isinstance(part, ActivationRounding):
            scale = float(part.high - part.low) / 255
            grids.add((float(f"{scale:.4g}"), round(-float(part.low) / scale)))
    return grids


NETWORKS: dict[str, nn.Module | NetworkOptions] = {
    **RECIPES,
    "functional": Functional(),
    "shuffled": Shuffled(),
}


@dataclass(frozen=True)
class Both:
    network: PixelNetwork
    file: onnx.ModelProto
    rounding: PixelNetwork


@pytest.fixture(scope="module", params=NETWORKS)
def both(request: pytest.FixtureRequest, images: NDArray[np.uint8]) -> Both:
    """A network, its file, and its rounding copy."""
    network = random_network(NETWORKS[request.param])
    return Both(network, quantized(network, images), rounded(network, images))


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return shapes(96, 3, SHAPES).images


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Layers this small gain nothing from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_grid_is_that_of_the_file(both: Both) -> None:
    """The same tensors, each with the scale and zero point that onnxruntime chose."""
    assert grids_of_rounding(both.rounding) == grids_of_file(both.file)


def test_outputs_are_those_of_the_file(both: Both, images: NDArray[np.uint8]) -> None:
    """Nearer to the file's than to those of the float network."""
    file, ours = answers(both.file, images), probabilities(both.rounding, images)
    moved = np.abs(file - probabilities(both.network, images)).mean()
    assert np.abs(file - ours).mean() < 0.5 * moved


@pytest.mark.parametrize(("reduce_range", "limit"), [(True, 64), (False, 127)])
def test_weights_are_the_integers_of_the_file(
    reduce_range: bool, limit: int, images: NDArray[np.uint8]
) -> None:
    """With and without a batch norm that is folded into them."""
    network = random_network(TRAINED)
    in_file = quantized_weights(Graph(quantized(network, images, reduce_range)))
    ours = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(in_file) == len(ours) == 3
    for stored, module in zip(in_file, ours, strict=True):
        weight = module.weight.detach()
        scale = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.ndim - 1)) / limit
        integers = (WeightRounding(0, limit)(weight) / scale).numpy()
        assert np.abs(integers - integers.round()).max() < 1e-3
        values = np.moveaxis(stored.values, stored.channel_axis, 0).astype(np.int64)
        assert np.abs(values).max() == limit
        # folding multiplies in float32, after which a tie may fall to the other side
        same = np.abs(values) == np.abs(integers.round())  # a negative factor turns the sign
        assert same.mean() > 0.99


def test_gradients_pass_the_rounding() -> None:
    """Those of weights unchanged; those of activations where the range did not clip."""
    weight = torch.linspace(-1, 1, 12).view(3, 4).requires_grad_()
    WeightRounding(0, 7)(weight).sum().backward()
    assert weight.grad is not None
    assert (weight.grad == 1).all()

    rounding = ActivationRounding()
    rounding.high.fill_(2.0)
    x = torch.tensor([-0.5, 0.003, 1.0, 2.5], requires_grad=True)
    y = rounding(x)
    assert torch.allclose(y, torch.tensor([0.0, 0.0, 1.0, 2.0]), atol=2 / 255 / 2)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


# --- fine-tuning ------------------------------------------------------------------------------


LIMIT = 1  # of weights, which the file's -64..64 then hold exactly


@dataclass(frozen=True)
class Tuned:
    data: Dataset
    network: PixelNetwork  # as it was
    result: FineTuned
    seen: tuple[StepProgress, ...]


@pytest.fixture(scope="module", params=[SHAPES, SIGNS], ids=lambda spec: spec.task)
def tuned(request: pytest.FixtureRequest) -> Tuned:
    """Weights of three levels, which equalization cannot compensate."""
    data = dataset(request.param)
    network = trained_network(data, request.param)
    seen: list[StepProgress] = []
    result = fine_tune(network, data, TRAIN, OPTIONS, LIMIT, seed=3, on_step=seen.append)
    return Tuned(data, network, result, tuple(seen))


def right(answer: NDArray[np.float32], split: Split) -> float:
    """The share of right answers, mean over labels."""
    decided = answer.argmax(1) if split.labels.ndim == 1 else answer > 0.5
    return float((decided == split.labels).mean())


def on_coarse_grid(network: PixelNetwork) -> PixelNetwork:
    """Weights -LIMIT..LIMIT times a scale, so that those of the file are multiples of 64."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.data = WeightRounding(0, LIMIT)(module.weight.data)
    return network


def file_answers(network: PixelNetwork, data: Dataset) -> NDArray[np.float32]:
    return answers(quantized(network, data.train.images), data.val.images)


def test_the_file_of_the_fine_tuned_network_is_better(tuned: Tuned) -> None:
    data, val = tuned.data, tuned.data.val
    in_float = right(probabilities(tuned.network, val.images), val)
    before = right(file_answers(on_coarse_grid(tuned.network), data), val)
    after = right(file_answers(on_coarse_grid(tuned.result.network), data), val)
    assert in_float > 0.99
    assert before < 0.9
    assert after > 0.95
    # what was promised is what the file does
    first, best = tuned.result.validations[0], tuned.result.best
    assert before == pytest.approx(first.val_accuracy_percent / 100, abs=0.01)
    assert after == pytest.approx(best.val_accuracy_percent / 100, abs=0.01)


def test_the_result_is_a_float_network_of_the_same_kind(tuned: Tuned) -> None:
    result = tuned.result
    assert result.network.state_dict().keys() == tuned.network.state_dict().keys()
    assert [type(m) for m in result.network.modules()] == [type(m) for m in tuned.network.modules()]
    assert not result.network.training
    assert all(p.is_contiguous() and p.requires_grad for p in result.network.parameters())
    for name, value in tuned.network.named_buffers():  # statistics of batch norm are frozen
        assert torch.equal(value, result.network.get_buffer(name)), name


def test_progress_and_validations_are_reported(tuned: Tuned) -> None:
    validations, last = tuned.result.validations, tuned.seen[-1]
    assert [(line.epoch, line.equalized) for line in validations][:2] == [(0, False), (0, True)]
    assert [line.epoch for line in validations] == [0, 0, 1, 2]
    assert tuned.result.best == min(validations, key=lambda line: line.val_loss)
    assert tuned.result.best.epoch > 0
    steps = 2 * (640 // 32)
    assert [p.step for p in tuned.seen] == list(range(1, steps + 1))
    assert (last.steps, last.epochs, last.epoch) == (steps, 2, 2)
    assert last.val_accuracy_percent == validations[2].val_accuracy_percent
    assert max(p.lr for p in tuned.seen) == pytest.approx(0.1 * 0.05, rel=0.05)


def test_the_seed_decides_every_bit(tuned: Tuned) -> None:
    before = {k: v.clone() for k, v in tuned.network.state_dict().items()}
    torch.manual_seed(99)  # independent of the caller's state
    state = torch.get_rng_state()
    again = fine_tune(tuned.network, tuned.data, TRAIN, OPTIONS, LIMIT, seed=3)
    other = fine_tune(tuned.network, tuned.data, TRAIN, OPTIONS, LIMIT, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in tuned.result.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
        assert torch.equal(before[key], tuned.network.state_dict()[key])
    assert again.validations == tuned.result.validations
    assert other.validations[2:] != again.validations[2:]


def test_the_original_network_is_returned_where_nothing_helps() -> None:
    """No channels to equalize, and steps that ruin the weights."""
    network = random_network(RECIPES["hardswish"])
    wild = replace(OPTIONS, lr_factor=20.0, epochs=1)
    result = fine_tune(network, dataset(), TRAIN, wild, 64, seed=0)
    assert [(line.epoch, line.equalized) for line in result.validations] == [(0, False), (1, False)]
    assert result.best is result.validations[0]
    assert result.best.val_loss < result.validations[1].val_loss
    for key, value in result.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key])


# --- equalization -----------------------------------------------------------------------------


def spread(network: PixelNetwork) -> PixelNetwork:
    """Scale every channel by its own factor between 1/64 and 8, and the next layer by its inverse.
    Nothing changes in float, but the largest channels decide the min-max ranges."""
    network = copy.deepcopy(network)
    weighted = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm, following in zip(norms, weighted[1:], strict=True):
            factors = 2.0 ** torch.linspace(-6, 3, len(norm.weight))
            factors = factors[torch.randperm(len(factors))]
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            following.weight.div_(factors.view(1, -1, *[1] * (following.weight.ndim - 2)))
    return network


def test_equalization_changes_the_file_not_the_function(tuned: Tuned) -> None:
    """It repairs what an outlier channel spoiled, without training."""
    data, val = tuned.data, tuned.data.val
    network = spread(tuned.network)
    reference = probabilities(network, val.images)
    spoiled = np.abs(file_answers(network, data) - reference).mean()
    equal = copy.deepcopy(network)
    assert equalize(equal, [torch.from_numpy(data.train.images[:64])]) == 2
    assert np.abs(probabilities(equal, val.images) - reference).max() < 1e-4
    assert np.abs(file_answers(equal, data) - reference).mean() < 0.1 * spoiled


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("no activation", 1),  # conv, batch norm, flatten, linear
        ("relu, average pool, dropout", 3),
        ("relu6, grouped, global max", 0),  # a limit at 6 is none at 6 times a factor
        ("silu", 0),
        ("functional", 0),  # sums, joins and gates tie the channels of their inputs together
        ("shuffled", 1),  # the two layers behind the views
        ("tokens", 0),
    ],
)
def test_only_layers_that_pass_factors_on_are_equalized(
    name: str, pairs: int, images: NDArray[np.uint8]
) -> None:
    network = random_network(Tokens() if name == "tokens" else NETWORKS[name])
    before = probabilities(network, images)
    assert equalize(network, [torch.from_numpy(images)]) == pairs
    assert np.abs(probabilities(network, images) - before).max() < 1e-5


# --- what cannot be done ----------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"lr_factor": 0.0}, {"calibration_images": 0}])
def test_options_of_fine_tuning_are_refused_when_they_are_made(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} = .*; expected"):
        replace(OPTIONS, **change)  # type: ignore[arg-type]


class Moody(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :3] if x.mean() > 0 else x.flatten(1)[:, 3:6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_range": 0}, "weight_range is 0; expected 1 to 127"),
        ({"weight_range": 128}, "weight_range is 128; expected 1 to 127"),
        ({"options": replace(OPTIONS, epochs=0)}, "expected epochs >= 1"),
        ({"network": PixelNetwork(Moody(), layers(), SHAPES)}, "Moody cannot be traced"),
        ({"dataset": replace(dataset(), val=shapes(0, 0, SHAPES))}, "and 0 for validation"),
        ({"options": replace(OPTIONS, lr_factor=1e30)}, "the loss is .* at step .*lr_factor"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    request: dict[str, object] = {
        "network": random_network(TRAINED),
        "dataset": dataset(),
        "train": TRAIN,
        "options": OPTIONS,
        "weight_range": 64,
        "seed": 0,
    }
    with pytest.raises(TrainError, match=message):
        fine_tune(**{**request, **change})  # type: ignore[arg-type]
