"""The console that all verbs print to, the name of the program, and errors of the lower folders as
those of the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pipeline.cli.console import Screen
from pipeline.errors import PipelineError

# In a file or a pipe a table is as wide as it needs; without a terminal rich would take 80 columns.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200


def console(*, stderr: bool = False) -> Screen:
    """Standard output or standard error, as it is now."""
    return Screen(stderr=stderr, highlight=False, emoji=False, width=_WIDTH)


def program() -> str:
    """The name that this program was called by, for hints: "pipeline" or "edgeproof"."""
    return click.get_current_context().find_root().info_name or "pipeline"


def trusted_keys(words: tuple[str, ...]) -> list[str] | None:
    """The public keys of ``--trusted-key``; None where it was not given."""
    from runtime.__main__ import trusted_keys as read

    with as_pipeline_errors():
        return read(list(words) or None)


@contextmanager
def as_pipeline_errors() -> Iterator[None]:
    """Re-raise errors of ``exporters`` and ``runtime`` as PipelineError, with the same message."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as exc:
        if type(exc).__module__.split(".")[0] in ("exporters", "runtime"):
            raise PipelineError(str(exc)) from exc
        raise
