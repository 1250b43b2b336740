"""``pipeline`` and ``python -m pipeline``: says what to install when the command line's own
packages are missing (the base install is numpy alone)."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from .cli import cli
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich", "pydantic"):
            raise
        sys.exit(
            f"pipeline: the package {exc.name!r} is not installed. The command line needs the "
            "training extra: pip install 'edgeproof[cpu,train]'. Apps and devices do not: "
            "python -m runtime works with numpy and onnxruntime alone."
        )
    cli(prog_name="pipeline")


if __name__ == "__main__":
    main()
