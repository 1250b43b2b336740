"""The first few of many names, for a message."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5  # examples in a message


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED:,} more"
