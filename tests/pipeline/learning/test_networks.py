"""Networks out of recipe sections: counts, shapes, and what cannot be put together."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import RecipeError, TrainError
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.learning.training.evaluate import probabilities
from pipeline.recipe import NetworkOptions, load, shipped_names
from runtime.spec import ModelSpec

DIGITS = ModelSpec("digits", "multi-class", 28, 28, 1, tuple("0123456789"))
FACES = ModelSpec("faces", "multi-label", 64, 64, 3, ("Smiling", "Eyeglasses", "Bangs"))
CLASSIFIER = {"op": "linear"}


def options(*layers: dict[str, object], **more: object) -> NetworkOptions:
    return NetworkOptions.model_validate({"layers": layers, **more})


EVERYTHING = options(
    {"op": "conv", "out": 4, "kernel": 5, "stride": 2, "activation": "hardswish"},
    {"op": "pool", "kind": "average", "size": 3, "stride": 2},
    {"op": "conv", "out": 8, "groups": 4, "padding": 0, "activation": "silu"},
    {"op": "pool", "size": "global"},
    {"op": "linear", "out": 6, "activation": "relu6"},
    {"op": "dropout", "p": 0.3},
    CLASSIFIER,
)


@pytest.mark.parametrize(
    ("recipe", "labels", "task", "parameters"),
    [
        # by hand: 5*5*1*32+32 + 5*5*32*64+64 + 7*7*64*1024+1024 + 1024*10+10
        ("mnist-textbook", 10, "multi-class", 3_274_634),
        # by hand: 27*32+32 + 9*32*64+64 + 9*64*128+128 + 9*128*256+256 + 256+1
        ("celeba-smile-textbook", 1, "multi-label", 388_673),
    ],
)
def test_textbook_networks_have_the_books_parameters(
    recipe: str, labels: int, task: str, parameters: int
) -> None:
    read = load(recipe)
    size = (read.preprocess.height, read.preprocess.width, read.preprocess.channels)
    spec = ModelSpec(recipe, task, *size, tuple(map(str, range(labels))))  # type: ignore[arg-type]
    assert build_network(read.network, spec).parameter_count == parameters


def test_mnist_has_at_most_60000_parameters() -> None:
    assert build_network(load("mnist").network, DIGITS).parameter_count <= 60_000


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_network_can_be_built(name: str) -> None:
    recipe = load(name)
    labels = recipe.data.labels or recipe.data.attributes or tuple("0123456789")
    task = "multi-label" if recipe.data.kind == "celeba" else "multi-class"
    p = recipe.preprocess
    spec = ModelSpec(name, task, p.height, p.width, p.channels, labels)  # type: ignore[arg-type]
    network = build_network(recipe.network, spec).eval()
    assert network(torch.zeros(2, *spec.shape, dtype=torch.uint8)).shape == (2, len(labels))


@pytest.mark.parametrize(
    ("spec", "network"),
    [
        (DIGITS, options({"op": "conv", "out": 4, "batch_norm": True}, CLASSIFIER)),
        (DIGITS, EVERYTHING),
        (FACES, EVERYTHING),
        (DIGITS, NetworkOptions(torchvision="shufflenet_v2_x0_5")),  # its first layer is adapted
        (FACES, NetworkOptions(torchvision="squeezenet1_1", std=(0.2, 0.3, 0.4))),
    ],
)
def test_pixels_in_probabilities_out(spec: ModelSpec, network: NetworkOptions) -> None:
    torch.manual_seed(0)
    built = build_network(network, spec).eval()
    pixels = torch.randint(0, 256, (3, *spec.shape), dtype=torch.uint8)
    with torch.no_grad():
        answer, logits = built(pixels), built.logits(pixels)
        as_floats = built.logits(pixels.float())
    assert answer.shape == (3, len(spec.labels))
    assert answer.dtype == torch.float32
    assert 0 <= answer.min() <= answer.max() <= 1
    if spec.task == "multi-class":
        torch.testing.assert_close(answer.sum(1), torch.ones(3))
        torch.testing.assert_close(answer, logits.softmax(1))
    else:
        torch.testing.assert_close(answer, logits.sigmoid())
    torch.testing.assert_close(as_floats, logits, rtol=0, atol=0)


def test_pixels_are_normalized_first() -> None:
    network = build_network(options(CLASSIFIER, mean=[0.2], std=[0.4]), DIGITS)
    linear = network.body[1]  # type: ignore[index]
    pixels = torch.full((1, 28, 28, 1), 51, dtype=torch.uint8)  # 0.2 * 255
    torch.testing.assert_close(network.logits(pixels)[0], linear.bias, rtol=0, atol=1e-5)
    brighter = network.logits(pixels + 102)[0]  # one standard deviation more everywhere
    torch.testing.assert_close(brighter, linear.weight.sum(1) + linear.bias, rtol=0, atol=1e-4)


def test_a_callable_is_imported_and_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_networks")
    module.good = lambda classes, channels: nn.Sequential(  # type: ignore[attr-defined]
        nn.Flatten(), nn.Linear(channels * 784, classes)
    )
    module.transposed = lambda classes, channels: nn.Conv2d(channels, classes, 3)  # type: ignore[attr-defined]
    module.large = lambda classes, channels: nn.Conv2d(channels, classes, 40)  # type: ignore[attr-defined]
    module.number = lambda classes, channels: 3  # type: ignore[attr-defined]
    module.kind = lambda classes, channels: nn.Linear  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_networks", module)
    assert (
        build_network(NetworkOptions(callable="my_networks:good"), DIGITS).parameter_count == 7850
    )
    for name, message in [
        ("my_networks:absent", "AttributeError"),
        ("no_such_module_at_all:f", "ModuleNotFoundError"),
        ("my_networks", '"module:function"'),
        ("my_networks:number", r"returned a int; .*torch\.nn\.Module"),
        ("my_networks:kind", r"class Linear; .*torch\.nn\.Module"),
        ("my_networks:large", "28x28x1"),
        ("my_networks:transposed", r"logits of shape \(2, 10\)"),
    ]:
        with pytest.raises(RecipeError, match=message):
            build_network(NetworkOptions(callable=name), DIGITS)


POOL = {"op": "pool"}


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (options({"op": "conv", "out": 4}), "ends with conv 3x3 -> 4;"),
        (options({"op": "linear", "out": 10}), "ends with linear -> 10;"),
        (options({"op": "linear", "activation": "relu"}), r"layers ends with linear;"),
        (options(CLASSIFIER, CLASSIFIER), r"layers\[0\] .*linear"),
        (options(*[POOL] * 5, CLASSIFIER), r"layers\[4\]: max pool 2x2 .* 1x1"),
        (
            options({"op": "conv", "out": 2, "kernel": 31, "padding": 0}, CLASSIFIER),
            r"layers\[0\]: .*28x28",
        ),
        (options({"op": "linear", "out": 9}, POOL, CLASSIFIER), r"layers\[1\]: max pool .* 9\."),
        (options({"op": "conv", "out": 4, "groups": 2}, CLASSIFIER), "groups = 2 .* 1 .* 4 "),
        (options(CLASSIFIER, mean=[0.5, 0.5, 0.5]), r"network\.mean has 3 .* 1,"),
        (options(CLASSIFIER, std=[0.0]), r"network\.std = \[0\.0\]"),
        (NetworkOptions(torchvision="resnet_18"), "'resnet18'"),
    ],
)
def test_layers_that_do_not_fit_together_are_named(network: NetworkOptions, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_network(network, DIGITS)


def test_a_checkpoint_rebuilds_its_network(tmp_path: Path) -> None:
    small = options({"op": "conv", "out": 4, "batch_norm": True}, POOL, CLASSIFIER, mean=[0.1])
    network = build_network(small, DIGITS)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), dtype=np.uint8)
    network(torch.from_numpy(images))  # moves the running statistics away from their start
    network.eval()
    save_checkpoint(tmp_path / "checkpoint.pt", network)
    state = torch.get_rng_state()
    again = load_checkpoint(tmp_path / "checkpoint.pt")
    assert torch.equal(torch.get_rng_state(), state)
    assert again.spec == DIGITS
    assert again.options == small
    assert not again.training
    np.testing.assert_array_equal(probabilities(again, images), probabilities(network, images))


@pytest.mark.parametrize("damage", ["truncated", "absent", "text"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.pt"
    if damage == "truncated":
        save_checkpoint(path, build_network(options(CLASSIFIER), DIGITS))
        path.write_bytes(path.read_bytes()[:-700])
    elif damage == "text":
        path.write_text("not a checkpoint")
    with pytest.raises(TrainError, match=r"checkpoint\.pt .*train .*--force"):
        load_checkpoint(path)


def test_probabilities_are_streamed() -> None:
    network = build_network(options({"op": "dropout"}, CLASSIFIER), DIGITS).train()
    images = np.random.default_rng(1).integers(0, 256, (10, 28, 28, 1), dtype=np.uint8)
    images.flags.writeable = False  # as a memory map is
    steps: list[tuple[int, int]] = []
    answer = probabilities(network, images, batch_size=4, on_step=lambda *s: steps.append(s))
    assert steps == [(4, 10), (8, 10), (10, 10)]
    assert answer.shape == (10, 10)
    assert answer.dtype == np.float32
    assert network.training  # and yet no dropout while it answered:
    np.testing.assert_array_equal(answer, probabilities(network, images, batch_size=4))
    np.testing.assert_allclose(answer, probabilities(network, images), atol=1e-6)
    assert math.isclose(answer.sum(), 10, rel_tol=1e-5)
    assert len(probabilities(network, images[:0])) == 0


# --- the edge family --------------------------------------------------------------------------


def edge(spec: ModelSpec, **more: object) -> PixelNetwork:
    return build_network(NetworkOptions.model_validate({"edge": more}), spec)


def test_one_knob_from_ten_thousand_to_two_million_parameters() -> None:
    sizes = [edge(FACES, width=w).deployed.parameter_count for w in range(2, 37)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 10_000
    assert sizes[-1] > 2_000_000
    # by hand, 9 weights for each pair of channels of 3-16-16-48-48-96-96-128-128, biases, head
    pairs = 3 * 16 + 16 * 16 + 16 * 48 + 48 * 48 + 48 * 96 + 96 * 96 + 96 * 128 + 128 * 128
    biases = 2 * (16 + 48 + 96 + 128)
    assert edge(FACES, width=16).deployed.parameter_count == 9 * pairs + biases + 3 * 129


@pytest.mark.parametrize("size", [8, 12, 16, 28, 40, 47, 64, 128])
@pytest.mark.parametrize("branches", [True, False])
@pytest.mark.parametrize("pool", ["average", "none"])
def test_the_deployed_network_equals_the_trained_one(
    size: int, branches: bool, pool: str, tmp_path: Path
) -> None:
    """After some steps, so that the norms are not trivial, and through the checkpoint's file."""
    spec = ModelSpec("spots", "multi-class", size, size, 3, ("a", "b"))
    torch.manual_seed(0)
    network = edge(spec, width=4, branches=branches, dropout=0.2, pool=pool)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    pixels = torch.randint(0, 256, (16, *spec.shape), dtype=torch.uint8)
    for _ in range(5):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network.logits(pixels), torch.arange(16) % 2)
        loss.backward()
        optimizer.step()
    network.eval()
    deployed = network.deployed.eval()
    kinds = {type(module) for module in deployed.modules()}
    assert nn.BatchNorm2d not in kinds
    assert all(m.kernel_size == (3, 3) for m in deployed.modules() if isinstance(m, nn.Conv2d))
    save_checkpoint(tmp_path / "checkpoint.pt", deployed)
    loaded = load_checkpoint(tmp_path / "checkpoint.pt")
    with torch.inference_mode():
        expected = network.logits(pixels)
        assert torch.allclose(deployed.logits(pixels), expected, atol=1e-5)
        assert torch.equal(loaded.logits(pixels), deployed.logits(pixels))
    assert loaded.deployed is loaded  # there is nothing left to fold
    convolutions = [m for m in deployed.modules() if isinstance(m, nn.Conv2d)]
    smallest = size
    for conv in convolutions:
        smallest = (smallest + 1) // 2 if conv.stride == (2, 2) else smallest
    # halved, rounded up, while at least 4 remain; at most four times
    assert smallest == {8: 4, 12: 6, 16: 4, 28: 4, 40: 5, 47: 6, 64: 4, 128: 8}[size]
    places = smallest**2 if pool == "none" else 1
    linear = next(m for m in deployed.modules() if isinstance(m, nn.Linear))
    assert linear.in_features == convolutions[-1].out_channels * places


def test_without_pooling_the_position_of_a_feature_matters() -> None:
    """The same spot in two corners: equal answers after the mean, different ones without."""
    here = np.full((1, 64, 64, 3), 90, np.uint8)
    there = here.copy()
    here[:, 8:14, 8:14] = 255
    there[:, 50:56, 50:56] = 255
    wide = ModelSpec("spots", "multi-class", 64, 96, 3, ("a", "b"))
    assert edge(wide, width=2, pool="none").logits(torch.zeros(1, 64, 96, 3)).shape == (1, 2)
    apart = {}
    for pool in ("average", "none"):
        torch.manual_seed(0)
        network = edge(FACES, width=4, pool=pool).eval()
        with torch.inference_mode():
            first, second = (network.logits(torch.from_numpy(x)) for x in (here, there))
        apart[pool] = float((first - second).abs().max() / first.abs().max())
    assert apart["none"] > 4 * apart["average"], apart


# --- weights that a user has ------------------------------------------------------------------


def test_pretrained_weights_but_for_a_classifier_of_another_size(tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    source = torchvision.models.squeezenet1_1(weights=None)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    more = {"torchvision": "squeezenet1_1", "weights": str(tmp_path / "weights.pth")}
    faces = build_network(options(**more), FACES)
    first = faces.body.get_submodule("features.0")
    assert torch.equal(first.weight, source.features[0].weight)  # type: ignore[arg-type]
    gray = build_network(options(**more), DIGITS).body.get_submodule("features.0")
    summed = source.features[0].weight.sum(1, keepdim=True)  # type: ignore[operator]
    assert torch.allclose(gray.weight, summed)  # type: ignore[arg-type]
    # a checkpoint needs no other file
    save_checkpoint(tmp_path / "checkpoint.pt", faces)
    (tmp_path / "weights.pth").unlink()
    assert load_checkpoint(tmp_path / "checkpoint.pt").options.weights is None


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: None, r"weights\.pth.*No such file"),
        (
            lambda file: file.write_bytes(b"no weights"),
            "UnpicklingError.*torchvision",
        ),
        (
            lambda file: torch.save({"a": torch.zeros(2)}, file),
            r"torchvision's squeezenet1_1.* \d+ of 52 ",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / "weights.pth")
    network = options(torchvision="squeezenet1_1", weights=str(tmp_path / "weights.pth"))
    with pytest.raises(RecipeError, match=message):
        build_network(network, FACES)


@pytest.mark.parametrize(
    ("name", "size", "heads"),
    [("googlenet", 64, {"aux1", "aux2"}), ("inception_v3", 96, {"AuxLogits"})],
)
def test_auxiliary_heads_of_published_weights_are_left_out(
    name: str, size: int, heads: set[str], tmp_path: Path
) -> None:
    import torchvision

    published = torchvision.models.get_model(name, weights=None, init_weights=False).state_dict()
    assert heads <= {key.partition(".")[0] for key in published}
    torch.save(published, tmp_path / "weights.pth")
    faces = ModelSpec("faces", "multi-label", size, size, 3, FACES.labels)
    network = build_network(options(torchvision=name, weights=str(tmp_path / "weights.pth")), faces)
    own = network.body.state_dict()
    assert heads.isdisjoint(key.partition(".")[0] for key in own)
    taken = [key for key in own if not key.startswith("fc.")]
    assert all(torch.equal(own[key], published[key]) for key in taken)
    # anything else that is unknown is refused as before
    torch.save({**published, "aux3.bias": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(RecipeError, match=r"1 of \d+ weights .*aux3\.bias"):
        build_network(options(torchvision=name, weights=str(tmp_path / "weights.pth")), faces)


def test_weights_need_a_torchvision_network() -> None:
    with pytest.raises(ValueError, match=r"weights .*torchvision"):
        options(CLASSIFIER, weights="file.pth")
