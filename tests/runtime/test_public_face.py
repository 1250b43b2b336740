"""The names that apps import, and what importing them costs and needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import runtime

ROOT = Path(runtime.__file__).parents[1]
TELEMETRY = "ORT_DISABLE_TELEMETRY"
ERRORS = (
    *("PredictorError", "InputError", "DeviceError", "RuntimeMissing", "SelftestError"),
    *("BundleError", "BundleFormatError", "BundleIntegrityError", "VariantError"),
    *("SignatureError", "SlotError", "AnswerError"),
)
NAMES = (
    *("Predictor", "Prediction", "Candidate", "AttributePrediction", "Attribute"),
    "Values",
    *("PredictorInfo", "SelftestReport", "AutotuneReport", "AutotuneRow"),
    *("Bundle", "Manifest", "ModelSpec", "OutputSpec", "Variant", "Default", "FileEntry"),
    *("Slot", "SlotState"),
    *("__version__", *ERRORS),
)


def python(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_the_public_names_are_these_and_each_is_there() -> None:
    assert sorted(runtime.__all__) == sorted(NAMES) == sorted(dir(runtime))
    assert all(getattr(runtime, name) is not None for name in NAMES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        runtime.Predicter  # noqa: B018


def test_every_error_is_exported_and_is_a_predictor_error() -> None:
    errors = [value for value in vars(runtime.errors).values() if isinstance(value, type)]
    assert {error.__name__ for error in errors} == set(ERRORS)
    for error in errors:
        assert getattr(runtime, error.__name__) is error
        assert issubclass(error, runtime.PredictorError)


def test_importing_the_package_imports_neither_numpy_nor_onnxruntime() -> None:
    found = python("import sys, runtime; print(*{'numpy', 'onnxruntime'} & set(sys.modules))")
    assert found.stdout.strip() == "", found.stderr


def test_using_everything_imports_only_numpy_onnxruntime_and_the_standard_library(
    gray_bundle: bytes, tmp_path: Path
) -> None:
    """An allow-list: what numpy and onnxruntime import themselves is taken off first."""
    (tmp_path / "bundle.zip").write_bytes(gray_bundle)
    code = """if True:
        import json, sys
        import numpy, onnxruntime
        before = set(sys.modules)
        import runtime, runtime.__main__
        p = runtime.Predictor(sys.argv[1])
        p.predict(numpy.zeros((9, 9), numpy.uint8)); p.selftest(); p.warmup()
        print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
    """
    found = python(code, str(tmp_path / "bundle.zip"))
    assert found.returncode == 0, found.stderr
    allowed = set(sys.stdlib_module_names) | {"runtime", "numpy", "onnxruntime"}
    assert set(json.loads(found.stdout)) - allowed == set()


@pytest.mark.parametrize("use", ["from runtime import Predictor", "import runtime.providers"])
def test_without_onnxruntime_the_error_names_both_extras(use: str) -> None:
    found = python(f"import sys; sys.modules['onnxruntime'] = None\n{use}")
    assert found.returncode == 1
    assert "RuntimeMissing: cannot import onnxruntime" in found.stderr
    assert "edgeproof[cpu]" in found.stderr and "edgeproof[gpu]" in found.stderr


def test_an_empty_onnxruntime_is_reported_differently_from_a_missing_one() -> None:
    code = "import sys, types; sys.modules['onnxruntime'] = types.ModuleType('onnxruntime')\n"
    found = python(code + "from runtime import Predictor")
    assert "RuntimeMissing: the module onnxruntime is an empty shell" in found.stderr


def test_both_wheels_at_once_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime import _onnxruntime

    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    assert _onnxruntime.installed_wheels() == list(_onnxruntime.WHEELS)
    assert "are both installed and own the same files" in _onnxruntime.mixture_note()


def test_the_package_works_under_another_name(gray_bundle: bytes, tmp_path: Path) -> None:
    """As in a model's own wheel, where it is a sub-package and the bundle is next to it."""
    package = tmp_path / "edgeproof_digits"
    shutil.copytree(
        Path(runtime.__file__).parent, package / "engine", ignore=lambda *_: ["__pycache__"]
    )
    (package / "bundle.zip").write_bytes(gray_bundle)
    (package / "__init__.py").write_text(
        "from pathlib import Path\n"
        "from .engine import Predictor as _Predictor\n"
        "class Predictor(_Predictor):\n"
        "    def __init__(self, **options):\n"
        "        super().__init__(Path(__file__).with_name('bundle.zip'), **options)\n"
    )
    code = (
        "from edgeproof_digits import Predictor; import sys\n"
        "print(Predictor(device='cpu').selftest().images, 'runtime' in sys.modules)"
    )
    assert python(code, cwd=tmp_path).stdout.split() == ["2", "False"]
    command = [sys.executable, "-m", "edgeproof_digits.engine", "selftest"]
    found = subprocess.run(
        [*command, "edgeproof_digits/bundle.zip"], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.stdout.startswith("passed: 2 images"), found.stderr


def test_the_version_is_that_of_the_project() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11

    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert runtime.__version__ == project["version"]


REPORTS = """if True:
    import os, pathlib
    {first}
    from runtime import Predictor
    with Predictor({path!r}, "cpu", threads=2) as p:
        p.selftest()
    print(sorted(path.name for path in pathlib.Path(os.environ["XDG_CACHE_HOME"]).rglob("*")))
"""


# Where one of these is set, onnxruntime takes itself to be under continuous integration and reports
# nothing of its own accord (names read from the library of 1.32).
INTEGRATION = (
    *("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL"),
    *("CODEBUILD_BUILD_ID", "BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER"),
)


def what_is_written(path: Path, first: str = "", **variables: str) -> str:
    """What a predictor's process leaves in the user's cache folder, on a user's machine."""
    cache = path.parent / f"cache{len(variables)}{len(first)}"
    unset = {TELEMETRY, *INTEGRATION}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    found = subprocess.run(
        [sys.executable, "-c", REPORTS.format(first=first, path=str(path))],
        cwd=ROOT,
        env={**environment, "XDG_CACHE_HOME": str(cache), **variables},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="not run: looks where Linux keeps caches")
def test_onnxruntime_keeps_no_record_of_what_runs(gray_bundle: bytes, tmp_path: Path) -> None:
    """Left alone it does from 1.29 on, as the last lines prove of the one at hand (behind a proxy
    that is none, so that they send nothing)."""
    path = tmp_path / "bundle.zip"
    path.write_bytes(gray_bundle)
    assert what_is_written(path) == "[]"
    assert what_is_written(path, first="import exporters, onnxruntime") == "[]"
    if tuple(map(int, metadata.version("onnxruntime").split(".")[:2])) >= (1, 29):
        nowhere = "http://127.0.0.1:9"
        found = what_is_written(path, **{TELEMETRY: "0", "HTTPS_PROXY": nowhere})
        assert "deviceid" in found
