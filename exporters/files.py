"""Files that are there whole or not at all. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A name to write to; at the end what was written becomes ``file``, or on an error goes."""
    aside = file.with_name(f"{file.name}.partial")
    try:
        yield aside
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
