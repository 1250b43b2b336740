"""Networks of the user's own code."""

from __future__ import annotations

from torch import nn

from pipeline import user_code
from pipeline.errors import RecipeError
from pipeline.recipe import NetworkOptions
from runtime.spec import ModelSpec


def from_callable(options: NetworkOptions, spec: ModelSpec) -> nn.Module:
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
