"""Every command line that a message, a help text, a template, a comment or a page names exists: the
verb, by its new name, and each option."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cli.main import RENAMED, VERBS, cli

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("pipeline", "exporters", "runtime", "docs", "examples", "artifacts", "Makefile")
SUFFIXES = (".py", ".toml", ".md", ".j2", ".html", ".js", ".mjs", ".mts", "")
# A mention in code: after a backtick, "Run: " or "$", or in a comment's block of code. (The one of
# the list that is not a command is the first line of what a signature covers.)
IN_CODE = re.compile(
    r"(?:`|Run: |[$] |^# {4,})(?:pipeline|edgeproof) (?!bundle 1)([a-z][a-z-]*)([^`\n]*)",
    re.MULTILINE,
)
ANYWHERE = re.compile(
    rf"\b(?:pipeline|edgeproof) ({'|'.join((*VERBS, *RENAMED))})\b(?! stage)([^`\n]*)"
)


def files() -> list[Path]:
    paths = list(ROOT.glob("*.md"))
    for folder in FOLDERS:
        path = ROOT / folder
        paths += [path] if path.is_file() else sorted(path.rglob("*"))
    named = [path for path in paths if path.is_file() and path.suffix in SUFFIXES]
    return [path for path in named if path.name != "CHANGELOG.md"]


def texts(path: Path) -> Iterator[str]:
    """The strings and comments of Python; any other file as a whole."""
    content = path.read_text("utf-8")
    if path.suffix != ".py":
        yield content
        return
    nodes = list(ast.walk(ast.parse(content)))
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in joined for part in node.values}
    yield from ("".join(map(_written, node.values)) for node in joined)
    for node in nodes:
        if isinstance(node, ast.Constant) and id(node) not in parts:
            yield str(node.value)  # bytes, too
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def _written(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return "pipeline" if "program()" in ast.unparse(part) else "X"


def fault(verb: str, rest: str) -> str | None:
    """What is wrong with a command line; None if it exists."""
    if verb not in VERBS:
        return f"there is no verb {verb!r}"
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    rest = re.split(r"[`)]|[.;,] |[.]$", rest, maxsplit=1)[0]
    if isinstance(command, click.Group) and (inner := re.match(r" ([a-z]+)", rest)):
        if inner[1] not in command.commands:
            return f"there is no verb {verb} {inner[1]}"
        command = command.commands[inner[1]]
    options = {word for parameter in command.params for word in parameter.opts} | {"--help"}
    unknown = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", rest)) - options
    return f"{verb} has no option {', '.join(sorted(unknown))}" if unknown else None


def faults(text: str) -> Iterator[str]:
    for pattern in (IN_CODE, ANYWHERE):
        for match in pattern.finditer(text):
            if reason := fault(match[1], match[2]):
                yield f"{match[0].strip()!r}: {reason}"


def test_there_are_commands_to_look_at() -> None:
    assert sum(len(ANYWHERE.findall(text)) for path in files() for text in texts(path)) > 80


@pytest.mark.parametrize("folder", sorted({path.relative_to(ROOT).parts[0] for path in files()}))
def test_every_named_command_exists(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in files()
        if path.relative_to(ROOT).parts[0] == folder and path.name != "renamed.py"
        for text in texts(path)
        for problem in faults(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Run: pipeline rnu all", "rnu"),
        ("see `edgeproof quantise`", "quantise"),
        ("fetched by pipeline package --web", "package"),
        ("with pipeline run --frocc, for one", "--frocc"),
        ("`pipeline targets instal web`", "instal"),
        ("$ pipeline kit bundle.zip --kit arm64", "--kit"),
    ],
)
def test_a_command_that_does_not_exist_is_found(text: str, problem: str) -> None:
    assert any(problem in reason for reason in faults(text))


@pytest.mark.parametrize(
    "text",
    [
        "Run: pipeline run all --force. What else, or --frocc?",
        "the pipeline knows what it does",
        "`pipeline targets install web`",
        "`edgeproof kit B --platform arm64` (see --kit)",
    ],
)
def test_a_command_that_exists_is_not(text: str) -> None:
    assert list(faults(text)) == []
