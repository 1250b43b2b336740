"""A network from the network section of a recipe. Independent of training, files and ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import user_code
from pipeline.errors import RecipeError
from pipeline.learning.networks.edge import from_edge
from pipeline.learning.networks.from_layers import from_layers
from pipeline.learning.networks.from_torchvision import from_torchvision
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.recipe import NetworkOptions
from runtime.spec import ModelSpec


def _from_callable(options: NetworkOptions, spec: ModelSpec) -> nn.Module:
    """The module that "module:function" returns for (classes=..., channels=...).

    Raises RecipeError with the user's line when the code fails or returns something else.
    """
    reference = options.callable or ""
    try:
        function = user_code.imported(reference, options.folder)
        body = function(classes=len(spec.labels), channels=spec.channels)
    except (Exception, SystemExit) as exc:  # the user's code may raise anything
        reason = str(exc)
        if not isinstance(exc, user_code.ImportFailed):
            reason = f"{type(exc).__name__}: {exc}"
        raise RecipeError(
            f"network.callable = {reference!r} failed with {reason}{user_code.at_line(exc)}. "
            "Expected a function that can be imported and called as function(classes=..., "
            "channels=...)."
        ) from exc
    if isinstance(body, nn.Module):
        return body
    kind = f"the class {body.__name__}" if isinstance(body, type) else f"a {type(body).__name__}"
    raise RecipeError(
        f"network.callable = {reference!r} returned {kind}; expected an instance of "
        "torch.nn.Module from float32 [N, channels, height, width] to logits [N, classes]."
    )


# By key of the network section: a module from normalized float32 [N, C, H, W] to logits
# [N, labels]. Each raises RecipeError when its options do not fit together, or do not fit the spec.
SOURCES: Mapping[str, Callable[[NetworkOptions, ModelSpec], nn.Module]] = {
    "layers": from_layers,
    "edge": from_edge,
    "torchvision": from_torchvision,
    "callable": _from_callable,
}


def build_network(options: NetworkOptions, spec: ModelSpec) -> PixelNetwork:
    """A network with fresh weights, drawn from torch's default generator.

    Raises RecipeError when its parts do not fit together, or do not fit ``spec``.
    """
    _check_normalization(options, spec)
    source = next(key for key in SOURCES if getattr(options, key) not in (None, ()))
    network = PixelNetwork(SOURCES[source](options, spec), options, spec)
    if source != "layers":  # those were checked one by one
        _check_numbers(network.body)
        _check_logits(network)
    return network


def _check_normalization(options: NetworkOptions, spec: ModelSpec) -> None:
    for name, values in (("mean", options.mean), ("std", options.std)):
        if values is not None and len(values) != spec.channels:
            raise RecipeError(
                f"network.{name} has {len(values)} values; expected {spec.channels}, one for each "
                f"channel of {spec.color} images."
            )
    if options.std is not None and min(options.std) <= 0:
        raise RecipeError(f"network.std = {list(options.std)}; expected positive values.")


def _check_numbers(body: nn.Module) -> None:
    """Raise RecipeError unless all numbers are float32 on the CPU."""
    for name, value in (*body.named_parameters(), *body.named_buffers()):
        kind = str(value.dtype).removeprefix("torch.")
        if (value.is_floating_point() or value.is_complex()) and value.dtype != torch.float32:
            raise RecipeError(
                f"{name} of the network is {kind}; expected float32. Call .float() on the network."
            )
        if value.device.type != "cpu":
            raise RecipeError(
                f"{name} of the network is on {value.device}; expected the CPU. train.device says "
                "where it is trained."
            )


def _check_logits(network: PixelNetwork) -> None:
    """Raise RecipeError unless two blank images give logits of the right shape."""
    spec = network.spec
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            scores: Any = network.logits(torch.zeros(2, *spec.shape, dtype=torch.uint8))
    except Exception as exc:  # sizes can be wrong in many ways
        raise RecipeError(
            f"the network fails on images of {spec.height}x{spec.width}x{spec.channels}: "
            f"{exc}{user_code.at_line(exc)}. Expected a module from float32 [N, {spec.channels}, "
            f"{spec.height}, {spec.width}] to logits [N, {len(spec.labels)}]; some need larger "
            "images."
        ) from exc
    finally:
        network.train(was_training)
    expected = (2, len(spec.labels))
    if not isinstance(scores, Tensor) or tuple(scores.shape) != expected:
        returned = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise RecipeError(
            f"the network returned {returned} for 2 images; expected logits of shape {expected}."
        )
