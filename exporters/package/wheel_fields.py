"""Checks of a wheel's metadata. Standard library only, so that a recipe is checked when it is read,
long before anything is packaged."""

from __future__ import annotations

import re

from exporters.errors import PackageError
from runtime.plain_text import hidden_character

_NUMBER = "(0|[1-9][0-9]*)"
_VERSION = re.compile(  # PEP 440, normal form
    rf"{_NUMBER}(\.{_NUMBER})*((a|b|rc){_NUMBER})?(\.post{_NUMBER})?(\.dev{_NUMBER})?"
)
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 100  # characters of a name or version, which become those of a file


def check_fields(name: str, version: str, summary: str, license: str) -> None:
    """Raise PackageError unless a wheel ``edgeproof_<name>-<version>`` can be installed and its
    metadata can be read."""
    check_names(name, version)
    for what, text in (("description", summary), ("license", license)):
        if not text.strip() or hidden_character(text):
            raise PackageError(
                f"{what} {text!r}; expected one line of text without control characters."
            )


def check_names(name: str, version: str) -> None:
    """Raise PackageError unless a wheel and the files named after it can have this name and
    version."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise PackageError(
            f"wheel name {name!r}; expected at most {_LONGEST} lower-case letters, digits and "
            "single hyphens between them, as in my-model. Change the recipe's name."
        )
    if not _VERSION.fullmatch(version) or len(version) > _LONGEST:
        raise PackageError(
            f"model version {version!r}; expected numbers with dots, as in 1.0.0 or 1.1.0rc2 "
            "(PEP 440), or pip cannot install the wheel. Set package.model_version."
        )
