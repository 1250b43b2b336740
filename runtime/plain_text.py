"""Text that shows what it is. Control characters clear terminals and forge lines, bidirectional
ones turn a name around, invisible ones make two names look the same: a bundle must not hold them,
and nothing that is printed does. Independent of bundles."""

from __future__ import annotations

import re

# The general categories Cc, Cf, Cs, Zl and Zp of Unicode 15, written out, so that every reader
# refuses the same; runtime/web/plain_text.mjs has the same ranges.
HIDDEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    r"\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd"
    r"\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    r"\U000e0020-\U000e007f"
)
_HIDDEN = re.compile(f"[{HIDDEN}]")
_BUT_LINES = re.compile(f"(?!\n)[{HIDDEN}]")
_LINE_ENDS = re.compile(r"[ \t]*[\t\n\r]\s*")


def hidden_character(text: str) -> str | None:
    """The first character of ``text`` that does not show, as "U+202E"; None where all do."""
    match = _HIDDEN.search(text)
    return None if match is None else f"U+{ord(match[0]):04X}"


def escaped(text: str, *, keep_lines: bool = False) -> str:
    r"""``text`` with an escape, "\x1b" or "\u202e", for each character that does not show;
    ``keep_lines`` leaves line feeds as they are."""
    return (_BUT_LINES if keep_lines else _HIDDEN).sub(_escape, text)


def one_line(text: str) -> str:
    """``text`` with a blank for each line end and tab, and otherwise as :func:`escaped`."""
    return escaped(_LINE_ENDS.sub(" ", text).strip())


def _escape(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
