"""``pipeline`` and ``python -m pipeline``: says what to install when the command line's own
packages are missing (the base install is numpy alone)."""

from __future__ import annotations

import os
import sys
import warnings
from io import TextIOWrapper


def main() -> None:
    """Run the command line."""
    # OpenMP reads this once, when torch is loaded. By its own default waiting threads spin, which
    # on a busy machine costs eight times the training time (measured: 796 ms a step, else 97).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from pipeline.cli.main import cli
        from pipeline.recipe import RenamedKeyWarning
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich", "pydantic"):
            raise
        sys.exit(
            f"pipeline: the package {exc.name!r} is not installed. The command line needs the "
            "training extra: pip install 'edgeproof[cpu,train]'. Apps and devices do not: "
            "python -m runtime works with numpy and onnxruntime alone."
        )
    # a user's mistake is in the recipe, not in the line of code that found it
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *place: (
        f"note: {message}\n"
        if issubclass(category, RenamedKeyWarning)
        else usual(message, category, *place)
    )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a log whose encoding has no check mark must not end a run
            stream.reconfigure(errors="replace")
    cli(prog_name="pipeline")


if __name__ == "__main__":
    main()
