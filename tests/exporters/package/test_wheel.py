"""The model's own wheel: what pip makes of it, and that it answers on its own."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import inspect
import io
import os
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import runtime
from exporters.errors import PackageError
from exporters.package.resource_files import files_under
from exporters.package.wheel import write_wheel
from exporters.package.wheel_files._predictor import Predictor as WheelPredictor


def make(folder: Path, bundle: Path, **changes: str) -> Path:
    fields = {
        "name": "digits-small",
        "version": "1.2.0",
        "summary": "Reads four digits.",
        "license": "CC-BY-4.0",
        **changes,
    }
    return write_wheel(folder, bundle=bundle, **fields)


def test_name_record_and_determinism(digits_bundle: Path, tmp_path: Path) -> None:
    wheel = make(tmp_path, digits_bundle)
    assert wheel.name == "edgeproof_digits_small-1.2.0-py3-none-any.whl"
    assert make(tmp_path / "again", digits_bundle).read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        info = "edgeproof_digits_small-1.2.0.dist-info"
        rows = list(csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode())))
        assert [name for name, _, _ in rows] == archive.namelist()
        for name, digest, size in rows[:-1]:
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
            assert (digest, int(size)) == (f"sha256={expected.decode()}", len(data))
        assert rows[-1] == [f"{info}/RECORD", "", ""]
        metadata = archive.read(f"{info}/METADATA").decode()
        assert archive.read("edgeproof_digits_small/bundle.zip") == digits_bundle.read_bytes()
    for line in (
        "Name: edgeproof-digits-small",
        "Requires-Python: >=3.10",
        "Requires-Dist: numpy",
        'Requires-Dist: onnxruntime>=1.15; extra == "cpu"',
        'Requires-Dist: onnxruntime-gpu>=1.18; extra == "gpu"',
        "License: CC-BY-4.0 (model), Apache-2.0 (runtime)",
    ):
        assert line in metadata


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python that sees ``path`` and the installed packages, but not this repository."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )


SCRIPT = """
import sys
import edgeproof_digits_small as model
import numpy as np
assert "onnxruntime" not in sys.modules
p = model.Predictor()
assert isinstance(p, model.runtime.Predictor)
print(p.info.variant, p.selftest().samples, p(np.zeros((12, 12), np.uint8)).shape)
try:
    p(np.zeros((1, 2), np.float32))
except model.InputError:
    print("InputError")
print(sorted(set(model.__all__)) == sorted(model.__all__), len(model.__all__), model.__version__)
assert "runtime" not in sys.modules and "exporters" not in sys.modules
"""


def test_installed_by_pip_it_answers_without_an_argument(
    digits_bundle: Path, tmp_path: Path
) -> None:
    wheel, site = make(tmp_path, digits_bundle), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True, capture_output=True)
    done = run(site, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    count = len(runtime.__all__)
    assert done.stdout.split("\n")[:3] == [
        "fp32 3 (1, 4)",
        "InputError",
        f"True {count} 1.2.0",
    ]


def test_without_its_bundle_the_error_names_the_file_and_what_to_pass(
    digits_bundle: Path, tmp_path: Path
) -> None:
    """As in an app frozen without the package's data."""
    site = tmp_path / "site"
    with zipfile.ZipFile(make(tmp_path, digits_bundle)) as archive:
        archive.extractall(site)
    (site / "edgeproof_digits_small" / "bundle.zip").unlink()
    done = run(site, "-c", "import edgeproof_digits_small as model; model.Predictor()")
    *_, last = done.stderr.strip().split("\n")
    assert "PredictorError" in last
    assert str(site / "edgeproof_digits_small" / "bundle.zip") in last
    assert "--collect-all edgeproof_digits_small" in last


def test_pyinstaller_finds_the_hook_by_the_entry_point(digits_bundle: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(make(tmp_path, digits_bundle)) as archive:
        archive.extractall(site)
    ask = (
        "from importlib.metadata import distribution; "
        "(hooks,) = distribution('edgeproof-digits-small').entry_points; "
        "print(hooks.group, hooks.name, *hooks.load()())"
    )
    group, name, folder = run(site, "-c", ask).stdout.split()
    assert (group, name) == ("pyinstaller40", "hook-dirs")
    hook = (Path(folder) / "hook-edgeproof_digits_small.py").read_text(encoding="utf-8")
    compile(hook, "hook", "exec")
    assert 'collect_data_files("edgeproof_digits_small")' in hook


def test_it_answers_from_a_zip_on_the_path(digits_bundle: Path, tmp_path: Path) -> None:
    done = run(make(tmp_path, digits_bundle), "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fp32 3 (1, 4)")


def test_it_answers_at_the_prompt(digits_bundle: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image").new("L", (30, 20))
    image.save(tmp_path / "black.png")
    site = tmp_path / "site"
    with zipfile.ZipFile(make(tmp_path, digits_bundle)) as archive:
        archive.extractall(site)
    done = run(site, "-m", "edgeproof_digits_small", "predict", str(tmp_path / "black.png"))
    assert done.returncode == 0, done.stderr
    assert "black.png: " in done.stdout
    tested = run(site, "-m", "edgeproof_digits_small", "selftest")
    assert tested.stdout.startswith("passed: 1 images")
    refused = run(site, "-m", "edgeproof_digits_small", "predict", "gone.png")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "predict" in run(site, "-m", "edgeproof_digits_small", "--help").stdout
    usage = run(site, "-m", "edgeproof_digits_small", "predict", "--help").stdout
    assert usage.startswith("usage: python -m edgeproof_digits_small predict [")
    assert "IMAGE" in usage and "BUNDLE" not in usage
    slot = run(site, "-m", "edgeproof_digits_small", "install", "--help").stdout
    assert "SLOT BUNDLE" in slot  # another one than the wheel's


SUMMARIES = (
    r"Reads \digits\N and ends in \\",
    'Says "digits"',
    "=?utf-8?q?a=0ARequires-Dist:_evil?=",
    "Lies ziffern, größer als 目: {x} %s " + "w" * 200,
    "Requires-Dist: evil",
)


@pytest.mark.parametrize("summary", SUMMARIES)
def test_any_line_of_text_comes_out_as_it_went_in(
    summary: str, digits_bundle: Path, tmp_path: Path
) -> None:
    wheel = make(tmp_path, digits_bundle, summary=summary, license=f"L {summary}")
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("edgeproof_digits_small-1.2.0.dist-info/METADATA").decode()
        module = ast.parse(archive.read("edgeproof_digits_small/__init__.py"))
    result = message_from_string(text)
    assert result["Summary"] == summary
    assert result["License"] == f"L {summary} (model), Apache-2.0 (runtime)"
    assert [name.split(">")[0] for name in result.get_all("Requires-Dist", [])] == [
        *("numpy", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "cryptography"),
    ]
    assert str(ast.get_docstring(module)).startswith(f"{summary}\n")


def test_what_a_summary_marks_up_is_text_in_the_readme(digits_bundle: Path, tmp_path: Path) -> None:
    wheel = make(tmp_path, digits_bundle, summary="[free](https://evil) <script>x</script> a_b")
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("edgeproof_digits_small-1.2.0.dist-info/METADATA").decode()
    body = message_from_string(text).get_payload()
    assert r"\[free\](https://evil) \<script\>x\</script\> a_b" in body


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Digits"}, "wheel name 'Digits'; expected .*lower-case"),
        ({"name": "a--b"}, "wheel name"),
        ({"name": "a-"}, "wheel name"),
        ({"name": "a" * 101}, "wheel name .* at most 100"),
        ({"version": "01.0"}, "model version '01.0'"),
        ({"version": "\u0661.0"}, "model version"),
        ({"version": "v1"}, r"model version 'v1'; expected numbers with dots.*PEP 440"),
        ({"version": "1.0-beta"}, "model version"),
        ({"summary": ""}, "description ''; expected one line"),
        ({"summary": "two\nlines"}, "description .* expected one line"),
        ({"summary": "a clear\x1b[2J"}, "description .* without .*control characters"),
        ({"license": "a\nRequires-Dist: evil"}, "license .* expected one line"),
        ({"license": "a\rRequires-Dist: evil"}, "license .* expected one line"),
        ({"license": "a\vRequires-Dist: evil"}, "license .* expected one line"),
        ({"summary": "a\x85Requires-Dist: evil"}, "description .* expected one line"),
        ({"summary": "a\u2028Requires-Dist: evil"}, "description .* expected one line"),
        ({"summary": "\u202eslatigid"}, "description .* expected one line"),
        ({"summary": "a\0b"}, "description .* expected one line"),
    ],
)
def test_refusals(
    digits_bundle: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        make(tmp_path, digits_bundle, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "summary",
    [
        r"faces \ digits",
        r"ends with \\",
        r"\N{} \x \u12 \U00 \{",
        'a """ b',
        '"""',
        'ends with "',
        '"begins',
        "it's {name} and %s",
        "digits\u00a0\u2013 na\u00efve \u6570\u5b57 \U0001f600",
        "__import__('os').abort()",
    ],
)
def test_a_summary_is_text_whatever_it_holds(
    digits_bundle: Path, tmp_path: Path, summary: str
) -> None:
    with zipfile.ZipFile(make(tmp_path, digits_bundle, summary=summary)) as archive:
        source = archive.read("edgeproof_digits_small/__init__.py")
        metadata = archive.read("edgeproof_digits_small-1.2.0.dist-info/METADATA").decode()
    docstring = ast.get_docstring(ast.parse(source), clean=False)
    assert docstring is not None and docstring.split("\n")[0] == summary
    assert f"\nSummary: {summary}\n" in metadata


def test_python_that_does_not_compile_is_never_packed(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"tasks/broken.py": b"import ("}
    monkeypatch.setattr("exporters.package.wheel.runtime_files", lambda: broken)
    with pytest.raises(PackageError, match=r"runtime/tasks/broken\.py"):
        make(tmp_path, digits_bundle)
    assert list(tmp_path.iterdir()) == []


def test_the_predictor_of_a_wheel_takes_what_the_runtimes_takes() -> None:
    """Its signature is written by hand in ``wheel_files``; only the bundle may be left out."""
    own = inspect.signature(WheelPredictor.__init__).parameters
    original = inspect.signature(runtime.Predictor.__init__).parameters
    assert list(own) == list(original)
    assert own["bundle"].default is None
    for name in set(original) - {"bundle"}:
        assert own[name] == original[name]


def test_files_are_found_in_sub_folders_as_well(tmp_path: Path) -> None:
    for path in ("a.py", "tasks/b.py", "tasks/deep/c.py", "tasks/note.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path, encoding="utf-8")
    result = files_under(tmp_path, (".py",))
    assert result == {name: name.encode() for name in ("a.py", "tasks/b.py", "tasks/deep/c.py")}
    assert list(result) == sorted(result)


def test_the_wheel_holds_every_module_of_the_runtime(digits_bundle: Path, tmp_path: Path) -> None:
    folder = Path(runtime.__file__).parent
    with zipfile.ZipFile(make(tmp_path, digits_bundle)) as archive:
        names = set(archive.namelist())
    for module in folder.rglob("*.py"):
        assert f"edgeproof_digits_small/runtime/{module.relative_to(folder).as_posix()}" in names
    assert not [name for name in names if "/runtime/web/" in name]


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"cannot be written: .*gone\.zip"):
        make(tmp_path, tmp_path / "gone.zip")
