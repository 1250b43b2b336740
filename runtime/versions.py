"""The order of two versions of a model. Standard library only.

A version is numbers with dots, as PEP 440 and semver write them: "1.2", "v2.0.1", "1.1.0rc2",
"1.1.0-beta.1", "1.0.post1", "1.0.dev3"; what follows a plus sign does not count. Missing numbers
are zeros. Development comes before a, b and rc, these before the release, "post" after it.
"""

from __future__ import annotations

import re

Order = tuple[tuple[int, ...], tuple[int, int], int, float]

_NUMBER = r"\d{1,18}"  # fits 64 bits; a date, too
_VERSION = re.compile(
    rf"v?(?P<release>{_NUMBER}(?:\.{_NUMBER}){{0,9}})"
    rf"(?:[-_.]?(?P<phase>alpha|beta|preview|pre|rc|a|b|c)(?:[-_.]?(?P<phase_number>{_NUMBER}))?)?"
    rf"(?:[-_.]?post[-_.]?(?P<post>{_NUMBER}))?"
    rf"(?:[-_.]?dev[-_.]?(?P<dev>{_NUMBER}))?"
    r"(?:\+[a-z0-9.-]{1,100})?",
    re.ASCII | re.IGNORECASE,
)
_PHASES = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}
_BEFORE_PHASES, _RELEASED = -1, 3
_NEVER = float("inf")  # a version that is not of development comes after those that are


def order(version: str) -> Order | None:
    """A value that compares as the versions do; None for one that is not of this form."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    numbers = [int(number) for number in match["release"].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    post = -1 if match["post"] is None else int(match["post"])
    dev = _NEVER if match["dev"] is None else int(match["dev"])
    if match["phase"] is not None:
        phase = (_PHASES[match["phase"].lower()], int(match["phase_number"] or 0))
    elif match["dev"] is not None and match["post"] is None:
        phase = (_BEFORE_PHASES, 0)
    else:
        phase = (_RELEASED, 0)
    return tuple(numbers), phase, post, dev
