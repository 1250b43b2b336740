"""No string of a bundle, a path or an error does anything to the terminal that shows it."""

from __future__ import annotations

import io
import re

import pytest
from click.testing import CliRunner
from rich.markup import escape
from rich.table import Table

from pipeline.cli.console import Screen
from pipeline.cli.main import cli

MOVES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]")
HOSTILE = "evil\x1b[2J\x9b\u202e\u200b"


def test_what_is_printed_moves_no_cursor() -> None:
    out = io.StringIO()
    screen = Screen(file=out, width=200)
    table = Table(HOSTILE, title=escape(HOSTILE))
    table.add_row(escape(HOSTILE))
    screen.print(table)
    screen.print(f"[bold]{escape(HOSTILE)}[/bold]", soft_wrap=True)
    assert out.getvalue().count(r"evil\x1b[2J\x9b\u202e\u200b") == 4
    assert not MOVES.search(out.getvalue())


@pytest.mark.parametrize(
    ("words", "exit_code", "shown"),
    [
        (("plan", "--recipe", f"{HOSTILE}.toml"), 2, "evil"),
        (("plan", "--recipe", "mnist", "--set", f"name={HOSTILE}"), 2, "U+001B"),
        (("inspect", f"{HOSTILE}.zip"), 1, "evil"),
        (("selftest", f"{HOSTILE}.zip"), 1, "evil"),
        (("predict", f"{HOSTILE}.zip", HOSTILE), 1, "evil"),
        (("inspect", "x.zip", "--trusted-key", HOSTILE), 1, "evil"),
        (("show", HOSTILE), 1, "evil"),
        (("quantize-onnx", HOSTILE, "--data", HOSTILE), 1, "evil"),
        (("sign", HOSTILE, "--key", HOSTILE), 1, "evil"),
        (("compare", HOSTILE, HOSTILE), 1, "evil"),
        (("verify", HOSTILE), 1, "evil"),
        (("kit", HOSTILE, "--platform", "arm64"), 1, "evil"),
        (("web", HOSTILE), 1, "evil"),
    ],
)
def test_no_error_moves_the_cursor(
    words: tuple[str, ...], exit_code: int, shown: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result = CliRunner().invoke(cli, words)
    printed = result.output + "".join(capfd.readouterr())
    assert result.exit_code == exit_code and shown in printed
    assert not MOVES.search(printed)
