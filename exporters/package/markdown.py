"""Untrusted text inside Markdown. Standard library only."""

from __future__ import annotations

import re

# underscores inside a word, as in 5_o_Clock_Shadow, mean nothing
_MARKUP = re.compile(r"[\\`*\[\]<>&|#]|(?<!\w)_|_(?!\w)")


def as_text(text: str) -> str:
    """Escape one line of text so that no part of it is read as Markdown or HTML."""
    return _MARKUP.sub(r"\\\g<0>", text)
