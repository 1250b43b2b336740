"""The size and the shape of the code: functions, files, stages, and the arrows between rooms."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("pipeline", "exporters", "runtime")
SCRIPTS = (".js", ".mjs", ".mts")
MAX_FUNCTION_P95_LINES = 33
MAX_FILE_LINES = 500
MAX_STAGE_LINES = 80
MAX_ARROWS = 30  # between the rooms of exporters/
Arrows = set[tuple[str, str]]


def files(*endings: str) -> list[Path]:
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in endings
    ]


def lines_of(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def function_lines(source: str) -> list[int]:
    """The length of each function, decorators aside."""
    return [
        node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]


def arrows_between_rooms(package: str) -> Arrows:
    """Pairs (room, imported room); a room is a folder or a file of the package."""
    graph = grimp.build_graph(package)
    pairs = {
        (importer.split(".")[1], imported.split(".")[1])
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if "." in importer and "." in imported
    }
    return {(importer, imported) for importer, imported in pairs if importer != imported}


def circle(arrows: Arrows) -> set[str]:
    """The rooms that a circle keeps: those that remain when rooms without imports are removed
    again and again."""
    rooms = {room for arrow in arrows for room in arrow}
    while free := {room for room in rooms if not any(a == room and b in rooms for a, b in arrows)}:
        rooms -= free
    return rooms


def test_functions_are_short() -> None:
    lengths = sorted(n for path in files(".py") for n in function_lines(path.read_text("utf-8")))
    assert len(lengths) > 1000
    assert lengths[int(0.95 * len(lengths))] <= MAX_FUNCTION_P95_LINES


def test_no_file_is_long() -> None:
    sizes = {str(path.relative_to(ROOT)): lines_of(path) for path in files(".py", *SCRIPTS)}
    assert any(name.endswith(".mjs") for name in sizes)
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


@pytest.mark.parametrize(
    "stage", sorted((ROOT / "pipeline/stages").glob("*.py")), ids=lambda path: path.stem
)
def test_a_stage_is_an_adapter(stage: Path) -> None:
    assert lines_of(stage) <= MAX_STAGE_LINES
    assert max(function_lines(stage.read_text("utf-8")), default=0) <= 40


def test_the_rooms_of_exporters_have_few_arrows_and_no_circle() -> None:
    arrows = arrows_between_rooms("exporters")
    assert ("search", "quantize") in arrows
    assert len(arrows) <= MAX_ARROWS, sorted(arrows)
    assert circle(arrows) == set()


def test_the_measures_above_see_what_they_measure() -> None:
    source = (
        "@cache\ndef a():\n    pass\n\nclass B:\n    async def c(self):\n        x()\n        y()\n"
    )
    assert sorted(function_lines(source)) == [2, 3]
    assert circle({("a", "b"), ("b", "c")}) == set()
    assert circle({("a", "b"), ("b", "a"), ("b", "c")}) == {"a", "b"}
