"""No code mentions a task by its name but the files of the table of tasks, so that a new task is a
new file in each folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporters.evaluate import tasks as measured
from pipeline import tasks as learned
from runtime.tasks import TASKS

ROOT = Path(__file__).parents[2]
FOLDERS = ("runtime", "exporters", "pipeline")
TABLES = ("runtime/tasks", "runtime/web/tasks", "exporters/evaluate/tasks", "pipeline/tasks")
# A name in quotes, or one that is no word of its own.
NAMES = re.compile(
    "|".join(rf"""["']{name}["']""" if name.isalpha() else re.escape(name) for name in TASKS)
)


def sources() -> list[str]:
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for ending in ("*.py", "*.mjs", "*.mts", "*.j2")
        for path in (ROOT / folder).rglob(ending)
    )


def is_below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)


@pytest.mark.parametrize("path", [path for path in sources() if not is_below(path, TABLES)])
def test_it_mentions_no_task_by_its_name(path: str) -> None:
    lines = (ROOT / path).read_text("utf-8").splitlines()
    assert [line for line in lines if NAMES.search(line)] == []


def test_each_task_has_a_file_in_every_table() -> None:
    for name in TASKS:
        file = name.replace("-", "_")
        assert (ROOT / "runtime" / "tasks" / f"{file}.py").is_file()
        assert (ROOT / "runtime" / "web" / "tasks" / f"{file}.mjs").is_file()
        assert (ROOT / "exporters" / "evaluate" / "tasks" / f"{file}.py").is_file()
        assert (ROOT / "pipeline" / "tasks" / f"{file}.py").is_file()


def test_the_tables_list_the_same_tasks() -> None:
    assert list(TASKS) == list(measured.TASKS) == list(learned.TASKS)


def test_the_pattern_finds_names() -> None:
    for line in ('if task == "multi-class":', "a multi-label model", 'kind = "values"'):
        assert NAMES.search(line)
    assert not NAMES.search("for values in rows.values():")
