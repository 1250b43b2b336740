"""The two kinds of wheel: a model's own, in an environment that holds numpy and onnxruntime and
nothing else, and the project's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from pipeline.recipe import shipped_names

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("pipeline", "exporters", "runtime")
# Code and texts alone have 770,389 bytes, and MNIST would be 11 MB. The second bound is what keeps
# data out: 500 lines of 100 letters have 50,000 bytes, and a file of images or weights has more.
MAX_BYTES = 1_000_000
MAX_MEMBER_BYTES = 50_000
MAX_INSTALLED_MB = 170  # a model with numpy and onnxruntime, byte code included
OFFLINE = ("Retrying (", "from versions: none")  # what pip says when it reaches no index


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)


def pip(*words: object, cwd: Path | None = None) -> None:
    """Run pip of this environment; "not run" where it needs an index and reaches none."""
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", *words, cwd=cwd)
    if done.returncode and any(sign in done.stderr for sign in OFFLINE):
        pytest.skip(f"not run: pip reaches no package index: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr


# --- the model's own wheel --------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(model_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with numpy, onnxruntime and the model, without even pip."""
    folder = tmp_path_factory.mktemp("fresh")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    python = folder / "bin" / "python"
    there = ("--python", python, "install", "-q", "--no-deps", "--retries", "1")
    pip(*there, "--only-binary", ":all:", "numpy", "onnxruntime")
    pip(*there, "--no-index", model_wheel)
    return python


ANSWERS = """if True:
    import sys
    import numpy, onnxruntime
    before = set(sys.modules)
    from edgeproof_mnist import InputError, Predictor
    with Predictor() as p:
        pixels = numpy.zeros((3, 28, 28, 1), numpy.uint8)
        probabilities = p(pixels)
        page = numpy.full((300, 400, 3), 240, numpy.uint8)
        page[80:220, 190:210] = 30
        answer = p.predict(page)
        try:
            p.predict("one.png")
        except InputError as exc:
            refusal = str(exc)
    import importlib.util, json
    absent = [name for name in ("torch", "onnx", "PIL", "click", "pip", "runtime", "exporters")
              if importlib.util.find_spec(name) is None]
    print(json.dumps({
        "shape": probabilities.shape, "type": str(probabilities.dtype), "label": answer.label,
        "sums": [round(float(row.sum()), 4) for row in probabilities], "refusal": refusal,
        "absent": absent,
        "modules": sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
    }))
"""


def test_a_model_answers_where_only_numpy_and_onnxruntime_are(python: Path, tmp_path: Path) -> None:
    done = run(python, "-I", "-c", ANSWERS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["shape"] == [3, 10] and found["type"] == "float32"
    assert found["sums"] == [1, 1, 1]
    assert found["label"] in "0123456789"
    assert "Pillow" in found["refusal"]
    assert found["absent"] == ["torch", "onnx", "PIL", "click", "pip", "runtime", "exporters"]
    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "edgeproof_mnist"}
    assert set(found["modules"]) <= allowed


def test_a_model_tests_itself_at_the_prompt(python: Path, tmp_path: Path) -> None:
    done = run(python, "-I", "-m", "edgeproof_mnist", "selftest", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("passed: 1 images preprocessed to the same bytes; 3 samples")
    info = run(python, "-I", "-m", "edgeproof_mnist", "info", "--json", cwd=tmp_path)
    assert json.loads(info.stdout)["variant"] == "fp32", info.stderr


def test_a_model_and_all_that_it_needs_are_small(python: Path) -> None:
    packages = next(python.parents[1].glob("lib/python*/site-packages"))
    megabytes = sum(f.stat().st_size for f in packages.rglob("*") if f.is_file()) / 1e6
    print(f"numpy, onnxruntime and the model take {megabytes:.0f} MB")
    assert 50 < megabytes <= MAX_INSTALLED_MB


FROZEN = """
import sys
import numpy
from edgeproof_mnist import Predictor, Slot
with Predictor(device="cpu") as p:
    black = numpy.zeros((1, 28, 28, 1), numpy.uint8)
    print(sys.frozen, p.selftest().images > 0, Slot.__name__, p(black).shape)
"""


@pytest.mark.full
def test_a_frozen_app_carries_the_model(model_wheel: Path, tmp_path: Path) -> None:
    """PyInstaller, one folder, without any option: the wheel's own hook finds all it needs."""
    assert run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env").returncode == 0
    python = tmp_path / "env" / "bin" / "python"
    there = ("--python", python, "install", "-q", "--retries", "1")
    pip(*there, "--only-binary", ":all:", "numpy", "onnxruntime", "pyinstaller")
    pip(*there, "--no-index", "--no-deps", model_wheel)
    (tmp_path / "app.py").write_text(FROZEN, encoding="utf-8")
    freeze = ("-m", "PyInstaller", "--noconfirm", "--onedir", "--log-level", "ERROR", "app.py")
    done = run(python, *freeze, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "env")  # the app needs nothing of it
    done = run(tmp_path / "dist" / "app" / "app", cwd=tmp_path)
    assert done.stdout.split("\n")[0] == "True True Slot (1, 10)", done.stderr


# --- the project's wheel ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Names and sizes of the files in the project's wheel, which is built from a copy, so that
    what an earlier build left in the checkout can neither help nor spoil it."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    # setuptools comes with torch; an older one would not read this pyproject.toml
    here = int(metadata.version("setuptools").partition(".")[0]) >= 77
    isolation = ["--no-build-isolation"] if here else []
    pip("wheel", "-q", "--no-deps", *isolation, "--wheel-dir", source / "dist", ".", cwd=source)
    (wheel,) = (source / "dist").iterdir()
    assert wheel.stat().st_size < MAX_BYTES
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


def test_the_project_wheel_holds_every_module_and_what_they_read(members: dict[str, int]) -> None:
    modules = {
        str(file.relative_to(ROOT)) for name in FOLDERS for file in (ROOT / name).rglob("*.py")
    }
    assert modules <= set(members)
    read = {f"pipeline/recipes/{name}.toml" for name in shipped_names()}
    read |= {str(file.relative_to(ROOT)) for file in (ROOT / "pipeline").rglob("*.j2")}
    read |= {f"{name}/py.typed" for name in FOLDERS} | {"runtime/BUNDLE.md"}
    page = (ROOT / "pipeline" / "web" / "page").iterdir()
    modules = (ROOT / "runtime" / "web").glob("*.m*s")
    read |= {str(file.relative_to(ROOT)) for file in (*page, *modules)}
    assert read <= set(members)
    assert any(name.endswith("licenses/NOTICE") for name in members)


def test_the_project_wheel_holds_nothing_else(members: dict[str, int]) -> None:
    tops = {name.partition("/")[0] for name in members}
    (info,) = (name for name in tops if name.endswith(".dist-info"))
    assert tops == {*FOLDERS, info}
    kinds = {Path(name).suffix for name in members if not name.startswith(info)}
    page = {".html", ".css", ".js", ".mjs", ".mts", ".svg", ".txt"}
    read = {".toml", ".j2", ".typed", ".md", ".json", *page}
    assert kinds == {".py", *read}  # not one image of MNIST
    assert max(size for name, size in members.items() if not name.startswith(info)) < (
        MAX_MEMBER_BYTES
    )
