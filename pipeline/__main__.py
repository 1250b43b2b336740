"""``pipeline``, ``edgeproof`` and ``python -m pipeline``. Prints what to install when a package of
the command line is missing (the base install is numpy alone)."""

from __future__ import annotations

import os
import sys
import warnings
from io import TextIOWrapper
from pathlib import Path

_NAMES = ("pipeline", "edgeproof")  # console scripts


def main() -> None:
    """Run the command line under the name that it was called by."""
    # OpenMP reads this once, when torch is loaded. By its own default waiting threads spin, which
    # on a busy machine costs eight times the training time (measured: 796 ms a step, else 97).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    called = Path(sys.argv[0]).stem
    name = called if called in _NAMES else _NAMES[0]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a log whose encoding has no check mark must not end a run
            stream.reconfigure(errors="replace")
    try:
        from pipeline.cli.main import cli

        _print_notes_without_source_lines()
        cli(prog_name=name)
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich", "pydantic"):
            raise
        sys.exit(
            f"{name}: the package {exc.name!r} is not installed. The command line needs the "
            "training extra: pip install 'edgeproof[cpu,train]'. Apps and devices do not: "
            "python -m runtime works with numpy and onnxruntime alone."
        )


def _print_notes_without_source_lines() -> None:
    """Print a warning about a renamed key as a note: its cause is in the recipe."""
    from pipeline.errors import RenamedKeyWarning

    usual = warnings.formatwarning

    warnings.formatwarning = lambda message, category, *where: (
        f"note: {message}\n"
        if issubclass(category, RenamedKeyWarning)
        else usual(message, category, *where)
    )


if __name__ == "__main__":
    main()
