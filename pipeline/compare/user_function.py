"""A user's own network or function as one side of a comparison, given as module:callable."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import nn

from pipeline import user_code
from pipeline.errors import PipelineError


def user_function(name: str) -> Any:
    """Import ``module:callable``: a network, a function of images, or a factory of either.

    Returns a torch.nn.Module, or a function from uint8 images [n, h, w, c] to probabilities
    [n, labels]. A factory is called without arguments. Raises PipelineError.
    """
    try:
        function: Any = user_code.imported(name, Path.cwd())
        if not isinstance(function, nn.Module) and _takes_nothing(function):
            function = function()
    except (Exception, SystemExit) as exc:  # it is the user's code
        own = isinstance(exc, user_code.ImportFailed)
        line = user_code.line_of(exc)
        raise PipelineError(
            f"{name} cannot be opened: {exc if own else f'{type(exc).__name__}: {exc}'}"
            f"{'' if line is None else f' (at {line})'}. Expected module:callable with a module "
            "that can be imported from here."
        ) from exc
    if not callable(function):
        raise PipelineError(
            f"{name} is a {type(function).__name__}; expected a torch.nn.Module or a function from "
            "uint8 images [n, h, w, c] to probabilities [n, labels]."
        )
    return function


def _takes_nothing(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )
