"""What the verbs share: where they print, and how errors of the lower folders become the command
line's."""

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


TRUSTED_KEY = click.option(
    "--trusted-key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Refuse a bundle that this key did not sign: its text, or a file that holds it. May be "
    "repeated.  [default: signatures are not looked at]",
)


def trusted_keys(words: tuple[str, ...]) -> list[str] | None:
    """The public keys of ``--trusted-key``; None where it was not given."""
    from runtime.__main__ import trusted_keys as read

    with plain_errors():
        return read(list(words) or None)


def console() -> Screen:
    """Standard output, as it is now."""
    return Screen(highlight=False, emoji=False, width=_WIDTH)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Errors of ``exporters`` and ``runtime`` as PipelineError, with their own words."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as exc:
        if type(exc).__module__.split(".")[0] in ("exporters", "runtime"):
            raise PipelineError(str(exc)) from exc
        raise
