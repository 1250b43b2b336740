"""The web runtime, in Node: its parts on their own, its likeness to the Python runtime, its types.
What needs Node, onnxruntime-web or TypeScript and does not find them is not run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import runtime
from runtime.tasks import TASKS

ROOT = Path(runtime.__file__).parents[1]
WEB = ROOT / "runtime" / "web"
PARTS = Path(__file__).parent / "web"
# A browser has no devices to choose, keys to trust or slots to fill.
ELSEWHERE = {"SignatureError", "SlotError"}


def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("not run: node is not installed")
    return found


def test_the_parts_do_what_they_say() -> None:
    files = [str(path) for path in PARTS.glob("*.test.mjs")]
    done = subprocess.run([node(), "--test", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.findall(r"^# pass (\d+)$", done.stdout, re.MULTILINE)[0]) >= 60


def test_the_errors_are_those_of_the_python_runtime() -> None:
    code = (
        f"import * as all from {json.dumps((WEB / 'index.mjs').as_uri())};"
        "const own = Object.values(all).filter((v) => v.prototype instanceof Error);"
        "console.log(JSON.stringify(own.map((v) => [v.name, Object.getPrototypeOf(v).name])))"
    )
    done = subprocess.run(
        [node(), "--input-type=module", "-e", code], capture_output=True, text=True, check=True
    )
    parents = dict(json.loads(done.stdout))
    errors = {n: v for n, v in vars(runtime.errors).items() if isinstance(v, type)}
    assert parents == {
        name: "Error" if name == "PredictorError" else error.__mro__[1].__name__
        for name, error in errors.items()
        if name not in ELSEWHERE
    }


def test_the_tasks_are_those_of_the_python_runtime() -> None:
    code = (
        f"import {{ TASKS }} from {json.dumps((WEB / 'tasks' / 'index.mjs').as_uri())};"
        "const rows = [...TASKS.values()];"
        "console.log(JSON.stringify(rows.map((t) => "
        "[t.name, t.specVersion, t.hasLabels, t.hasThresholds])))"
    )
    done = subprocess.run(
        [node(), "--input-type=module", "-e", code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [
        [task.name, task.spec_version, task.has_labels, task.has_thresholds]
        for task in TASKS.values()
    ]


def test_every_module_is_plain_and_imports_only_its_neighbors() -> None:
    """No package, no bundler: what the folder holds is what runs."""
    modules = set(WEB.rglob("*.mjs"))
    for path in modules:
        imports = re.findall(
            r"^(?:import|export|\}) .*?from \"(.*?)\";", path.read_text("utf-8"), re.M
        )
        assert {(path.parent / name).resolve() for name in imports} <= modules, path.name


def test_the_declarations_name_what_is_exported() -> None:
    code = (
        f"import * as all from {json.dumps((WEB / 'index.mjs').as_uri())};"
        "console.log(JSON.stringify(Object.keys(all)))"
    )
    done = subprocess.run(
        [node(), "--input-type=module", "-e", code], capture_output=True, text=True, check=True
    )
    text = (WEB / "index.d.mts").read_text("utf-8")
    declared = re.findall(r"^export (?:class|function|const) (\w+)", text, re.MULTILINE)
    assert sorted(declared) == sorted(json.loads(done.stdout))


@pytest.mark.full
def test_the_types_are_complete_and_as_declared(tmp_path: Path) -> None:
    """JSDoc, checked by TypeScript as strictly as it can: runtime, page, and an app of them."""
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("not run: tsc is not installed (npm install -g typescript)")
    page = tmp_path / "page"
    shutil.copytree(ROOT / "pipeline" / "web" / "page", page)
    shutil.copytree(WEB, page / "runtime")
    config = json.loads((WEB / "tsconfig.json").read_text("utf-8"))
    config["include"] = [
        str(WEB / "*.mjs"),
        str(WEB / "tasks" / "*.mjs"),
        str(page / "*.mjs"),
        str(PARTS / "types.mts"),
    ]
    (tmp_path / "tsconfig.json").write_text(json.dumps(config), encoding="utf-8")
    done = subprocess.run([tsc, "-p", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
