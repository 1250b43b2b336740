"""The repository keeps its own promises: the order of stages is written once, fingerprints cover
the imports of a stage, help is quick."""

from __future__ import annotations

import ast
import graphlib
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from pipeline.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 500  # of a file
# The engine decides when a stage runs, not what comes out of it; the recipe's values are in the
# fingerprint themselves.
ENGINE = {
    "pipeline",
    "pipeline.stages",
    "pipeline.engine.stage",
    "pipeline.stages.sources",
    "pipeline.recipe",
    # a report that this version cannot read makes its stage run again
    "pipeline.reports",
    "pipeline.errors",
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("pipeline", "exporters", "runtime")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_fingerprint_covers_every_module_that_a_stage_imports(
    stage: object, graph: grimp.ImportGraph
) -> None:
    module = f"pipeline.stages.{stage.name}"  # type: ignore[attr-defined]
    needed = {module}
    queue = [module]
    while queue:
        for imported in graph.find_modules_directly_imported_by(queue.pop()) - needed - ENGINE:
            needed.add(imported)
            queue.append(imported)
    covered = []
    for source in stage.sources:  # type: ignore[attr-defined]
        assert (ROOT / source).exists(), f"{source} does not exist"
        covered.append(source.removesuffix(".py").replace("/", "."))
    missing = [
        name
        for name in sorted(needed)
        if not any(name == c or name.startswith(c + ".") for c in covered)
        and name not in {"exporters", "runtime", "pipeline.datasets", "pipeline.learning"}
    ]
    assert not missing, f"sources of stage {module} lack {missing}"


def test_an_edited_wheel_writer_reruns_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are rooms: what packs a bundle decides nothing of what is packed."""
    from pipeline.engine import digests, runner
    from pipeline.recipe import load

    recipe = load("mnist")
    edited = "exporters/package/wheel.py"

    def fingerprints() -> dict[str, dict[str, str]]:
        outputs = dict.fromkeys((stage.name for stage in STAGES), "digest")
        return {stage.name: runner.fingerprint(stage, recipe, outputs) for stage in STAGES}

    def source_files(names: tuple[str, ...]) -> dict[str, str]:
        files = digests.source_files(names)
        return {file: "edited" if file == edited else digest for file, digest in files.items()}

    before = fingerprints()
    monkeypatch.setattr(runner, "source_files", source_files)
    after = fingerprints()
    assert [name for name in before if before[name] != after[name]] == ["package"]
    assert runner.differences(before["package"], after["package"]) == (f"source: {edited} changed",)


def test_help_loads_neither_torch_nor_onnx_nor_numpy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\n"
        "from pipeline.cli.main import VERBS, cli\n"
        "for words in ([], ['targets', 'list'], ['quantize'], *([verb] for verb in VERBS)):\n"
        "    result = CliRunner().invoke(cli, [*words, '--help'])\n"
        "    assert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'torchvision', 'onnx', 'onnxruntime', 'numpy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_help_of_the_whole_is_quick() -> None:
    """CPU time, which a busy machine does not change; the best of three, since the first one may
    compile."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "pipeline", "--help"], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_the_readme_lists_the_stages_in_their_order() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [f"| {stage.name} | {stage.summary} |" for stage in STAGES]
    positions = [readme.find(row) for row in rows]
    assert -1 not in positions, f"README.md lacks the row {rows[positions.index(-1)]!r}"
    assert positions == sorted(positions)


def test_the_artifact_readme_names_the_numbered_folders() -> None:
    text = (ROOT / "artifacts" / "README.md").read_text(encoding="utf-8")
    for index, stage in enumerate(STAGES, start=1):
        assert f"{index}_{stage.name}/" in text


# --- sizes and rooms --------------------------------------------------------------------------


def test_functions_are_short_and_files_have_one_subject() -> None:
    lengths, long_files = [], []
    for folder in ("pipeline", "exporters", "runtime"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if len(text.splitlines()) > MOST_LINES:
                long_files.append(str(path.relative_to(ROOT)))
            lengths += [
                node.end_lineno - node.lineno + 1
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
            ]
    assert len(lengths) > 2000
    assert long_files == []
    assert statistics.quantiles(lengths, n=20)[-1] <= 33


def test_the_rooms_of_exporters_have_few_arrows_and_no_circle(graph: grimp.ImportGraph) -> None:
    """Between folders, and files that are in none, imports form a shallow order."""
    arrows = {
        (_room(importer), _room(imported))
        for importer in graph.modules
        if importer.startswith("exporters.")
        for imported in graph.find_modules_directly_imported_by(importer)
        if imported.startswith("exporters.") and _room(imported) != _room(importer)
    }
    assert 10 < len(arrows) <= 30, sorted(arrows)
    order = graphlib.TopologicalSorter[str]()
    for importer, imported in arrows:
        order.add(importer, imported)
    order.prepare()  # raises CycleError


def _room(module: str) -> str:
    return module.split(".")[1]
