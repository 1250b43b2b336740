"""The help of the command line is complete: a short summary for each verb, a sentence for each
option."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from pipeline.cli.main import GROUPS, RENAMED, VERBS, cli

MAX_SUMMARY = 60  # characters, so that no terminal breaks the line


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every verb, the verbs of a group of verbs among them, by its full name."""
    context = click.Context(cli)
    for verb in VERBS:
        command = cli.get_command(context, verb)
        assert command is not None
        yield verb, command
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield f"{verb} {name}", inner


COMMANDS = dict(commands())
OPTIONS = [
    pytest.param(option.help or "", id=f"{verb} {option.opts[0]}")
    for verb, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]


def is_sentence(text: str) -> bool:
    """Whether a help text starts with a capital and ends with a period or a default in brackets."""
    return re.fullmatch(r"[A-Z].*(?:\.|\.  \[default: .+\])", text, re.DOTALL) is not None


@pytest.mark.parametrize("text", OPTIONS)
def test_an_option_has_a_sentence(text: str) -> None:
    assert is_sentence(text)


@pytest.mark.parametrize("text", ["", "folder of the results.", "Folder of the results", "Folder"])
def test_anything_else_is_refused(text: str) -> None:
    assert not is_sentence(text)


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_has_a_short_summary(verb: str) -> None:
    shown = VERBS[verb][1] if verb in VERBS else COMMANDS[verb].get_short_help_str(1000)
    assert is_sentence(shown)
    assert len(shown) <= MAX_SUMMARY


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_help_of_a_verb_explains_it(verb: str) -> None:
    text = COMMANDS[verb].help or ""
    assert re.match(r"[A-Z]", text) and "." in text


def test_each_verb_is_in_one_group_and_no_old_name_is() -> None:
    names = [verb for verbs in GROUPS.values() for verb in verbs]
    assert len(names) == len(set(names))
    assert not set(names) & set(RENAMED)
