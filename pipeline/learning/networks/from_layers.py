"""Networks put together from the layers of a recipe, each checked against what it gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import nn

from pipeline.errors import RecipeError
from pipeline.recipe import Activation, Conv, Dropout, Layer, Linear, NetworkOptions, Pool
from runtime.spec import ModelSpec

# Shape of the features of one image between two layers: (channels, height, width), or (features,)
# once a linear layer has flattened them.
Shape = tuple[int, ...]

_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "hardswish": lambda: nn.Hardswish(inplace=True),
    "none": nn.Identity,
}


def from_layers(options: NetworkOptions, spec: ModelSpec) -> nn.Sequential:
    """A network of ``options.layers`` with fresh weights; raises RecipeError with the number of the
    layer that does not fit."""
    layers = options.layers
    _check_classifier(layers)
    shape: Shape = (spec.channels, spec.height, spec.width)
    modules: list[nn.Module] = []
    for index, layer in enumerate(layers):
        added, shape = _layer(layer, shape, f"network.layers[{index}]", len(spec.labels))
        modules += added
    return nn.Sequential(*modules)


def _check_classifier(layers: tuple[Layer, ...]) -> None:
    """Raise RecipeError unless the last layer, and no other, is linear without a size."""
    last = layers[-1]
    if not (isinstance(last, Linear) and last.out is None and last.activation == "none"):
        raise RecipeError(
            f"network.layers ends with {_words(last)}; expected the classifier, "
            '{ op = "linear" } without out or activation. Its size follows from the labels.'
        )
    for index, layer in enumerate(layers[:-1]):
        if isinstance(layer, Linear) and layer.out is None:
            raise RecipeError(
                f"network.layers[{index}] is a linear layer without out, but only the last layer "
                "is the classifier. Give it out = a number of features."
            )


def _layer(layer: Layer, shape: Shape, where: str, labels: int) -> tuple[list[nn.Module], Shape]:
    """The modules of one layer, and the shape of their output."""
    if isinstance(layer, Dropout):
        return [nn.Dropout(layer.p)], shape
    if isinstance(layer, Linear):
        return _linear(layer, shape, labels)
    if len(shape) != 3:
        raise RecipeError(
            f"{where}: {_words(layer)} needs an image, but a linear layer before it has flattened "
            f"the features to {shape[0]}. Put it before the first linear layer."
        )
    if isinstance(layer, Conv):
        return _conv(layer, shape, where)
    return _pool(layer, shape, where)


def _conv(layer: Conv, shape: Shape, where: str) -> tuple[list[nn.Module], Shape]:
    channels, height, width = shape
    padding = layer.kernel // 2 if layer.padding is None else layer.padding
    if channels % layer.groups or layer.out % layer.groups:
        raise RecipeError(
            f"{where}: groups = {layer.groups} does not divide both the {channels} input channels "
            f"and the {layer.out} output channels."
        )
    size = [(n + 2 * padding - layer.kernel) // layer.stride + 1 for n in (height, width)]
    _check_size(size, layer, shape, where)
    modules: list[nn.Module] = [
        nn.Conv2d(
            channels,
            layer.out,
            layer.kernel,
            layer.stride,
            padding,
            groups=layer.groups,
            bias=not layer.batch_norm,  # batch norm has a bias of its own
        )
    ]
    if layer.batch_norm:
        modules.append(nn.BatchNorm2d(layer.out))
    return modules + _activation(layer.activation), (layer.out, size[0], size[1])


def _pool(layer: Pool, shape: Shape, where: str) -> tuple[list[nn.Module], Shape]:
    channels, height, width = shape
    if layer.size == "global":
        # the size is known here, so the maximum needs no adaptive pooling, which ONNX lacks
        whole = nn.MaxPool2d((height, width)) if layer.kind == "max" else nn.AdaptiveAvgPool2d(1)
        return [whole], (channels, 1, 1)
    stride = layer.stride or layer.size
    size = [(n - layer.size) // stride + 1 for n in (height, width)]
    _check_size(size, layer, shape, where)
    kind = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
    return [kind(layer.size, stride)], (channels, size[0], size[1])


def _linear(layer: Linear, shape: Shape, labels: int) -> tuple[list[nn.Module], Shape]:
    out = labels if layer.out is None else layer.out
    flatten = [nn.Flatten()] if len(shape) > 1 else []
    modules: list[nn.Module] = [*flatten, nn.Linear(math.prod(shape), out)]
    return modules + _activation(layer.activation), (out,)


def _activation(name: Activation) -> list[nn.Module]:
    return [] if name == "none" else [_ACTIVATIONS[name]()]


def _check_size(size: Iterable[int], layer: Layer, shape: Shape, where: str) -> None:
    if min(size) < 1:
        raise RecipeError(
            f"{where}: {_words(layer)} would leave less than one pixel of its "
            f"{shape[1]}x{shape[2]} input. Remove a pooling layer or a stride before it, or use "
            "larger images."
        )


def _words(layer: Layer) -> str:
    """The name of a layer in messages: ``conv 3x3 -> 32``."""
    if isinstance(layer, Conv):
        return f"conv {layer.kernel}x{layer.kernel} -> {layer.out}"
    if isinstance(layer, Pool):
        size = layer.size if layer.size == "global" else f"{layer.size}x{layer.size}"
        return f"{layer.kind} pool {size}"
    if isinstance(layer, Linear):
        return "linear" if layer.out is None else f"linear -> {layer.out}"
    return f"dropout {layer.p}"
