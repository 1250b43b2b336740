"""What all figures share: a table with its caption, printed for people and collected in
``artifacts/bench.json`` for machines. (Fixtures of the last run and its bundles: one folder
up.)

    make bench                       # figures of artifacts/
    make bench ARTIFACTS=elsewhere   # figures of another run
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.hardware import detect

ROOT = Path(__file__).resolve().parents[2]
Show = Callable[[str, Sequence[str], Sequence[Sequence[object]]], None]


@pytest.fixture(scope="session")
def show(artifacts: Path) -> Iterator[Show]:
    """Print a table: title, names of the columns, rows."""
    caption, tables = detect().caption(), []

    def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        text = [[str(cell) for cell in row] for row in (header, *rows)]
        widths = [max(map(len, column)) for column in zip(*text, strict=True)]
        print(f"\n\n{title}")
        for row in text:
            print("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
        load = os.getloadavg()[0]  # above 1, neighbours were at work during a timing
        print(f"  {caption}, load average {load:.1f}")
        tables.append({"title": title, "header": text[0], "rows": text[1:], "load": load})

    yield table
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = {"caption": caption, "finished": now, "tables": tables}
    artifacts.mkdir(exist_ok=True)
    (artifacts / "bench.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def last_line() -> Callable[..., str]:
    """Run a script in a fresh Python and return the last line that it prints."""

    def run(script: str, *arguments: object) -> str:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1] if done.stdout else ""

    return run
