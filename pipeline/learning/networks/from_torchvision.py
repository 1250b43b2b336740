"""Classifiers of torchvision by name, cut to size. Nothing is downloaded."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import RecipeError
from pipeline.recipe import NetworkOptions
from runtime.regular_file import open_regular
from runtime.spec import ModelSpec

# these return a tuple while they train, unless they are built without auxiliary heads
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
_AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")  # prefixes of the names of their weights


def from_torchvision(options: NetworkOptions, spec: ModelSpec) -> nn.Module:
    """A torchvision classifier with fresh weights or those of a file.

    Raises RecipeError for an unknown name, or weights of another network.
    """
    import torchvision

    name = options.torchvision or ""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}."
        raise RecipeError(f"network.torchvision = {name!r} is not a torchvision classifier; {hint}")
    # Their default of init_weights, True, comes with a warning that it will change.
    auxiliary = name in _WITH_AUXILIARY_HEADS
    extra = {"aux_logits": False, "init_weights": True} if auxiliary else {}
    body: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=len(spec.labels), **extra
    )
    if options.weights is not None:
        _load_weights(body, Path(options.weights).expanduser(), name)
    if spec.channels != 3:
        _adapt_first_conv(body, spec.channels, keep=options.weights is not None)
    return body


def _load_weights(body: nn.Module, file: Path, name: str) -> None:
    """Load all weights but those of a classifier of another size; raises RecipeError."""
    published = _read_weights(file, name)
    own = body.state_dict()
    classifier = [key.rpartition(".")[0] for key in own][-1]
    differing = sorted(
        key
        for key in {*own, *published}
        if key.rpartition(".")[0] != classifier
        and (key not in own or key not in published or published[key].shape != own[key].shape)
    )
    if differing:
        raise RecipeError(
            f"network.weights = {str(file)!r} is not of torchvision's {name}: {len(differing)} of "
            f"{len(own)} weights are missing, unknown or of another shape, {differing[0]} for "
            "one. Name the network that the file belongs to."
        )
    fitting = {k: v for k, v in published.items() if k in own and v.shape == own[k].shape}
    body.load_state_dict(fitting, strict=False)


def _read_weights(file: Path, name: str) -> dict[str, Tensor]:
    """The weights of a file, less those of auxiliary heads, which published files hold."""
    try:
        with open_regular(file) as stream:
            weights: dict[str, Tensor] = torch.load(stream, map_location="cpu", weights_only=True)
        if not all(isinstance(value, Tensor) for value in weights.values()):
            raise TypeError
        heads = _AUXILIARY_HEADS if name in _WITH_AUXILIARY_HEADS else ()
        return {key: value for key, value in weights.items() if not key.startswith(heads)}
    except Exception as exc:  # torch.load raises many kinds on files that are none of its own
        # torch's own text on its format is long and advises to execute the file's code
        reason = exc if isinstance(exc, OSError) else type(exc).__name__
        raise RecipeError(
            f"network.weights = {str(file)!r} cannot be read: {reason}. Expected a file of weights "
            f"(a state dict) of torchvision's {name}, as torchvision.models publishes it."
        ) from exc


def _adapt_first_conv(body: nn.Module, channels: int, keep: bool) -> None:
    """Replace the convolution that takes rgb by one that takes ``channels``, in place.

    To ``keep`` trained weights, each channel gets an equal part of their sum over rgb, so that a
    gray image gives the same features as in color.
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
