"""From the network section of a recipe to a PyTorch module that takes pixels and returns
probabilities. Knows nothing of training, files or ONNX."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import user_code
from pipeline.errors import RecipeError
from pipeline.learning.networks.edge import edge_network, merge
from pipeline.recipe import Activation, Conv, Dropout, Layer, Linear, NetworkOptions, Pool
from runtime.regular_file import open_regular
from runtime.spec import ModelSpec

# Shape of the features of one image between two layers: (channels, height, width) as long as
# they form an image, (features,) once a linear layer has flattened them.
Shape = tuple[int, ...]

_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "hardswish": lambda: nn.Hardswish(inplace=True),
    "none": nn.Identity,
}
# these return a tuple while they train, unless they are told to leave the auxiliary heads out
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
_AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")  # how the names of their weights begin


class PixelNetwork(nn.Module):
    """Pixels in, probabilities out; this is the module that is exported.

    ``forward`` takes uint8 [N, height, width, channels] and returns float32 probabilities
    [N, labels]: a softmax over the labels, or one sigmoid for each of a multi-label model.
    ``logits`` stops before that and also takes float pixels in 0..255, as augmentation makes.
    """

    mean: Tensor  # in whole pixel values
    scale: Tensor

    def __init__(self, body: nn.Module, options: NetworkOptions, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.options = options
        self.body = body  # normalised float32 [N, C, H, W] -> logits [N, labels]
        mean = _constants(options.mean or (0.5,) * spec.channels)
        std = _constants(options.std or (0.5,) * spec.channels)
        # In units of pixel values, so that dividing by 255 costs no node of its own. They come
        # from the options, so a checkpoint need not hold them. A whole pixel value as mean makes
        # normalising pixels the same as dequantizing them (see exporters/export).
        self.register_buffer("mean", torch.round(255 * mean), persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    def logits(self, pixels: Tensor) -> Tensor:
        """Scores before softmax or sigmoid, [N, labels], of pixels [N, H, W, C] in 0..255."""
        # A view: in memory the result is what torch calls channels_last, the fast layout on CPU.
        x = pixels.permute(0, 3, 1, 2)  # (N, C, H, W)
        x = (x.to(torch.float32) - self.mean) * self.scale  # (N, C, H, W)
        scores: Tensor = self.body(x)  # (N, labels)
        return scores

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities [N, labels] of uint8 pixels [N, H, W, C]."""
        scores = self.logits(pixels)  # (N, labels)
        if self.spec.task == "multi-label":
            return torch.sigmoid(scores)
        return torch.softmax(scores, dim=1)

    @property
    def deployed(self) -> PixelNetwork:
        """The network in the form that ships: what only training needs is folded away. It answers
        as this one does in evaluation mode, up to rounding."""
        if self.options.edge is None or self.options.edge.merged:
            return self
        edge = self.options.edge.model_copy(update={"merged": True})
        options = self.options.model_copy(update={"edge": edge})
        return PixelNetwork(merge(self.body), options, self.spec)

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())


def _constants(values: Sequence[float]) -> Tensor:
    """One for each channel, [1, C, 1, 1], or a single number where all channels agree.

    A single number is much faster: onnxruntime broadcasts three along the last axis of its INT8
    layout at 95 µs for a 64x64 image, and one at 7 µs.
    """
    if len(set(values)) == 1:
        return torch.tensor(values[0])
    return torch.tensor(values).view(1, -1, 1, 1)


def build_network(options: NetworkOptions, spec: ModelSpec) -> PixelNetwork:
    """A network with fresh weights, drawn from torch's default generator.

    Raises RecipeError when its parts do not fit together, or do not fit ``spec``.
    """
    _check_normalisation(options, spec)
    if options.layers:
        body: nn.Module = _from_layers(options.layers, spec)
    elif options.edge is not None:
        body = edge_network(
            options.edge, spec.channels, (spec.height, spec.width), len(spec.labels)
        )
    elif options.torchvision is not None:
        body = _from_torchvision(options.torchvision, options.weights, spec)
    else:
        body = _from_callable(options, spec)
    network = PixelNetwork(body, options, spec)
    if not options.layers:  # those were checked one by one
        _try_out(network)
    return network


def _check_normalisation(options: NetworkOptions, spec: ModelSpec) -> None:
    for name, values in (("mean", options.mean), ("std", options.std)):
        if values is not None and len(values) != spec.channels:
            raise RecipeError(
                f"network.{name} has {len(values)} values; expected {spec.channels}, one for each "
                f"channel of {spec.color} images."
            )
    if options.std is not None and min(options.std) <= 0:
        raise RecipeError(f"network.std = {list(options.std)}; expected positive values.")


# --- layers of the recipe -------------------------------------------------------------------


def _from_layers(layers: tuple[Layer, ...], spec: ModelSpec) -> nn.Sequential:
    _check_classifier(layers)
    shape: Shape = (spec.channels, spec.height, spec.width)
    modules: list[nn.Module] = []
    for index, layer in enumerate(layers):
        made, shape = _layer(layer, shape, f"network.layers[{index}]", len(spec.labels))
        modules += made
    return nn.Sequential(*modules)


def _check_classifier(layers: tuple[Layer, ...]) -> None:
    """The last layer, and only that, is a linear one that leaves its size to the labels."""
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
    """Modules of one layer, and the shape of what they return."""
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
            f"{where}: groups = {layer.groups} divides not both the {channels} channels that come "
            f"in and the {layer.out} that go out."
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
    features = 1
    for n in shape:
        features *= n
    out = labels if layer.out is None else layer.out
    flatten = [nn.Flatten()] if len(shape) > 1 else []
    modules: list[nn.Module] = [*flatten, nn.Linear(features, out)]
    return modules + _activation(layer.activation), (out,)


def _activation(name: Activation) -> list[nn.Module]:
    return [] if name == "none" else [_ACTIVATIONS[name]()]


def _check_size(size: Iterable[int], layer: Layer, shape: Shape, where: str) -> None:
    if min(size) < 1:
        raise RecipeError(
            f"{where}: {_words(layer)} would leave less than one pixel of the "
            f"{shape[1]}x{shape[2]} that come in. Take out a pooling layer or a stride "
            "before it, or use larger images."
        )


def _words(layer: Layer) -> str:
    """A layer as it is named in messages: ``conv 3x3 -> 32``."""
    if isinstance(layer, Conv):
        return f"conv {layer.kernel}x{layer.kernel} -> {layer.out}"
    if isinstance(layer, Pool):
        size = layer.size if layer.size == "global" else f"{layer.size}x{layer.size}"
        return f"{layer.kind} pool {size}"
    if isinstance(layer, Linear):
        return "linear" if layer.out is None else f"linear -> {layer.out}"
    return f"dropout {layer.p}"


# --- networks of others ---------------------------------------------------------------------


def _from_torchvision(name: str, weights: str | None, spec: ModelSpec) -> nn.Module:
    """A torchvision classifier cut to size, with fresh weights or those of a file (nothing is
    downloaded)."""
    import torchvision

    known: list[str] = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
        raise RecipeError(f"network.torchvision = {name!r} is no torchvision classifier; {hint}")
    # Their default of init_weights, True, comes with a warning that it will change.
    auxiliary = name in _WITH_AUXILIARY_HEADS
    extra = {"aux_logits": False, "init_weights": True} if auxiliary else {}
    body: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=len(spec.labels), **extra
    )
    if weights is not None:
        _take_weights(body, Path(weights).expanduser(), name)
    if spec.channels != 3:
        _adapt_first_conv(body, spec.channels, keep=weights is not None)
    return body


def _take_weights(body: nn.Module, file: Path, name: str) -> None:
    """Load all weights but those of a classifier of another size; raises RecipeError."""
    try:
        with open_regular(file) as stream:
            found: dict[str, Tensor] = torch.load(stream, map_location="cpu", weights_only=True)
        if name in _WITH_AUXILIARY_HEADS:  # published files hold them, for training alone
            found = {k: v for k, v in found.items() if not k.startswith(_AUXILIARY_HEADS)}
        shapes = {key: tuple(value.shape) for key, value in found.items()}
    except Exception as exc:  # torch.load raises many kinds on files that are none of its own
        # torch's own text on its format is long and advises to execute what the file says
        reason = exc if isinstance(exc, OSError) else type(exc).__name__
        raise RecipeError(
            f"network.weights = {str(file)!r} cannot be read: {reason}. Expected a file of weights "
            f"(a state dict) of torchvision's {name}, as torchvision.models publishes it."
        ) from exc
    own = body.state_dict()
    last = [key.rpartition(".")[0] for key in own][-1]  # the classifier's layer
    other = sorted(
        key
        for key in {*own, *shapes}
        if key.rpartition(".")[0] != last
        and (key not in own or shapes.get(key) != tuple(own[key].shape))
    )
    if other:
        raise RecipeError(
            f"network.weights = {str(file)!r} is not of torchvision's {name}: {len(other)} of "
            f"{len(own)} weights are missing, unknown or of another shape, {other[0]} for one. "
            "Name the network that the file belongs to."
        )
    fitting = {k: v for k, v in found.items() if k in own and shapes[k] == tuple(own[k].shape)}
    body.load_state_dict(fitting, strict=False)


def _adapt_first_conv(body: nn.Module, channels: int, keep: bool) -> None:
    """Replace the convolution that takes rgb by one that takes ``channels``, in place.

    To ``keep`` trained weights, each channel gets an equal part of their sum over rgb, so that a
    grey image is seen as it was in colour.
    """
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            parent, _, leaf = name.rpartition(".")
            new = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]  # a pair, typed as a tuple
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            if keep:
                with torch.no_grad():
                    new.weight.copy_(module.weight.sum(1, keepdim=True) / channels)
                    if new.bias is not None and module.bias is not None:
                        new.bias.copy_(module.bias)
            setattr(body.get_submodule(parent), leaf, new)
            return
    raise RecipeError(
        f"this torchvision network has no first convolution of 3 channels to adapt to {channels}. "
        'Choose another one, or set preprocess.color = "rgb".'
    )


def _from_callable(options: NetworkOptions, spec: ModelSpec) -> nn.Module:
    """What "module:function" returns for (classes=..., channels=...)."""
    reference = options.callable or ""
    try:
        function = user_code.imported(reference, options.folder)
        body = function(classes=len(spec.labels), channels=spec.channels)
    except (Exception, SystemExit) as exc:  # it is the user's code: whatever it raises
        failed = str(exc)
        if not isinstance(exc, user_code.ImportFailed):
            failed = f"{type(exc).__name__}: {exc}"
        raise RecipeError(
            f"network.callable = {reference!r} failed with {failed}{_at(exc)}. Expected a "
            "function that can be imported and called as function(classes=..., channels=...)."
        ) from exc
    if isinstance(body, nn.Module):
        return body
    kind = f"the class {body.__name__}" if isinstance(body, type) else f"a {type(body).__name__}"
    raise RecipeError(
        f"network.callable = {reference!r} returned {kind}; expected an instance of "
        "torch.nn.Module from float32 [N, channels, height, width] to logits [N, classes]."
    )


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


def _at(exc: BaseException) -> str:
    """Where in the user's code, for the end of a message."""
    line = user_code.line_of(exc)
    return "" if line is None else f" (at {line})"


def _try_out(network: PixelNetwork) -> None:
    """Run two blank images through a network that others wrote; raises RecipeError."""
    spec = network.spec
    _check_numbers(network.body)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            scores: Any = network.logits(torch.zeros(2, *spec.shape, dtype=torch.uint8))
    except Exception as exc:  # the many ways in which sizes can be wrong
        raise RecipeError(
            f"the network cannot take images of {spec.height}x{spec.width}x{spec.channels}: "
            f"{exc}{_at(exc)}. Expected a module from float32 [N, {spec.channels}, {spec.height}, "
            f"{spec.width}] to logits [N, {len(spec.labels)}]; some need larger images."
        ) from exc
    finally:
        network.train(was_training)
    expected = (2, len(spec.labels))
    if not isinstance(scores, Tensor) or tuple(scores.shape) != expected:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise RecipeError(
            f"the network returned {found} for 2 images; expected logits of shape {expected}."
        )
