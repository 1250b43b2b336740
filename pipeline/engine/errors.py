"""Errors of the system, reported with the folder and the option that chooses another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError


@contextmanager
def as_store_error(
    folder: Path, option: str = "--artifacts DIR", kept: str = "stages"
) -> Iterator[None]:
    """Raise StoreError for an OSError of this block; it names the folder, the ``option`` that
    chooses another one, and what is ``kept``."""
    try:
        yield
    except OSError as exc:
        raise StoreError(
            f"{folder} cannot be written: {exc.strerror or exc}. Free some space or choose another "
            f"folder with {option}; finished {kept} are kept."
        ) from exc
