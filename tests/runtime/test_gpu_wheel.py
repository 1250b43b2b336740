"""The real ``onnxruntime-gpu`` on a machine without a GPU, where it fails in silence.

Each environment is made here by pip (256 MB without the CUDA libraries, 1.3 GB with them), so
these tests run in ``make test-full`` alone. What cannot be had is skipped as "not run: ...".
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import runtime

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="not run: the cases are those of Linux"),
    pytest.mark.skipif(
        Path("/dev/nvidiactl").exists(), reason="not run: this machine has an NVIDIA driver"
    ),
]

ROOT = Path(runtime.__file__).parents[1]
# Prints, as JSON, the error of device="cuda", then device and reason of "auto".
PROBE = """if True:
    import json, sys
    if "silent" in sys.argv:
        import onnxruntime
        onnxruntime.set_default_logger_severity(4)
    try:
        from runtime import DeviceError, Predictor
        try:
            cuda = Predictor(sys.argv[1], device="cuda").info.device
        except DeviceError as exc:
            cuda = str(exc)
        with Predictor(sys.argv[1], device="auto") as p:
            p.selftest()
            print(json.dumps([cuda, p.info.device, p.info.reason]))
    except ImportError as exc:
        print(json.dumps([type(exc).__name__, "", str(exc)]))
"""
# What onnxruntime does by itself: it prints why CUDA failed and continues with the CPU.
BARE = """if True:
    import sys, zipfile, onnxruntime
    model = zipfile.ZipFile(sys.argv[1]).read("variants/fp32.onnx")
    session = onnxruntime.InferenceSession(model, providers=["CUDAExecutionProvider"])
    print(session.get_providers())
"""
# A driver that is there and whose every call fails with RESULT, an error of cuda.h: 100 is
# CUDA_ERROR_NO_DEVICE, 2 CUDA_ERROR_OUT_OF_MEMORY.
STUB_DRIVER = """
#include <string.h>
static int failed(void) { return RESULT; }
int cuInit(unsigned flags) { return RESULT; }
int cuTensorMapEncodeTiled(void) { return RESULT; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuGetProcAddress_v2(const char *name, void **out, int v, unsigned long f, int *status) {
    *out = (void *)failed;
    if (!strcmp(name, "cuDriverGetVersion")) *out = (void *)cuDriverGetVersion;
    if (!strcmp(name, "cuGetProcAddress")) *out = (void *)cuGetProcAddress_v2;
    if (status) *status = 0;
    return 0;
}
"""


def make_environment(folder: Path, *requirements: str) -> Path:
    """A virtual environment with these wheels, or "not run" with pip's reason."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install(folder, *requirements)
    return folder


def install(environment: Path, *requirements: str) -> None:
    pip = [environment / "bin" / "python", "-m", "pip", "install", "-q"]
    found = subprocess.run([*pip, *requirements], capture_output=True, text=True)
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"not run: cannot install {' '.join(requirements)}: {reason}")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("gpu")
    yield make_environment(folder / "venv", "onnxruntime-gpu", "numpy")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def with_libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cuda")
    yield make_environment(folder / "venv", "onnxruntime-gpu[cuda,cudnn]", "numpy")
    shutil.rmtree(folder)


@pytest.fixture
def bundle_path(gray_bundle: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "bundle.zip"
    path.write_bytes(gray_bundle)
    return path


def probe(environment: Path, bundle: Path, *words: str, **variables: str) -> tuple[str, str, str]:
    """(error of cuda, device of auto, reason of auto); nothing may reach stderr."""
    found = subprocess.run(
        [environment / "bin" / "python", "-c", PROBE, bundle, *words],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    cuda, device, reason = json.loads(found.stdout)
    return cuda, device, reason


@pytest.mark.parametrize("logger", ["loud", "silent"])
def test_without_cuda_libraries_each_is_named(plain: Path, bundle_path: Path, logger: str) -> None:
    cuda, device, reason = probe(plain, bundle_path, logger)
    assert cuda.startswith("cuda is not usable: missing libraries: ") and "libcublas" in cuda
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in cuda
    assert "there is no driver (libcuda.so.1 is missing)" in cuda
    assert device == "cpu" and f"cuda was passed over: {cuda}" in reason


def test_what_the_cpp_side_prints_goes_into_the_reason(plain: Path, bundle_path: Path) -> None:
    """The bare session spills it; here it is the reason, and stderr stays empty."""
    command = [plain / "bin" / "python", "-c", BARE, bundle_path]
    bare = subprocess.run(command, capture_output=True, text=True)
    assert bare.stdout == "['CPUExecutionProvider']\n"
    (spilled,) = set(re.findall(r"(lib\S+): cannot open shared object", bare.stderr))
    cuda, _, reason = probe(plain, bundle_path)
    assert spilled in cuda and spilled in reason


def test_cuda_path_that_is_set_changes_nothing(plain: Path, bundle_path: Path) -> None:
    """With it onnxruntime raises an error of its own, which names no library."""
    for folder in ("/usr/local/cuda", "/nowhere"):
        cuda, device, _ = probe(plain, bundle_path, CUDA_PATH=folder)
        assert cuda.startswith("cuda is not usable: missing libraries: ") and "libcublas" in cuda
        assert device == "cpu"


@pytest.mark.parametrize("logger", ["loud", "silent"])
def test_with_libraries_the_driver_is_what_is_missing(
    with_libraries: Path, bundle_path: Path, logger: str
) -> None:
    cuda, device, reason = probe(with_libraries, bundle_path, logger)
    assert cuda.startswith("cuda is not usable: there is no driver (libcuda.so.1 is missing)")
    assert "missing libraries" not in cuda
    assert device == "cpu" and cuda in reason


@pytest.mark.parametrize(
    ("version", "result", "cause"),
    [
        (99000, 100, "the driver finds no CUDA device"),
        (1000, 100, "the NVIDIA driver is older"),
        (99000, 2, "the device's memory is full"),
        (99000, 999, "CUDA failure 999: unknown error."),
    ],
)
def test_a_driver_that_fails(
    with_libraries: Path, bundle_path: Path, tmp_path: Path, version: int, result: int, cause: str
) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("not run: no gcc to build a stand-in for libcuda.so.1")
    source = tmp_path / "stub.c"
    source.write_text(STUB_DRIVER)
    library = tmp_path / "libcuda.so.1"
    defined = [f"-DVERSION={version}", f"-DRESULT={result}"]
    subprocess.run(["gcc", "-shared", "-fPIC", *defined, "-o", library, source], check=True)
    cuda, device, _ = probe(with_libraries, bundle_path, LD_LIBRARY_PATH=str(tmp_path))
    assert cause in cuda
    assert device == "cpu"


def test_the_cpu_wheel_over_the_gpu_wheel_and_what_uninstalling_one_leaves(
    bundle_path: Path, tmp_path: Path
) -> None:
    both = make_environment(tmp_path / "venv", "onnxruntime-gpu", "numpy")
    install(both, "onnxruntime")
    cuda, device, reason = probe(both, bundle_path)
    assert "are both installed and own the same files" in cuda
    assert device == "cpu" and cuda in reason
    pip = [both / "bin" / "python", "-m", "pip"]
    subprocess.run([*pip, "uninstall", "-q", "-y", "onnxruntime"], check=True)
    error, _, message = probe(both, bundle_path)
    assert error == "RuntimeMissing" and "is an empty shell" in message
    shutil.rmtree(both)


def test_neither_wheel(bundle_path: Path, tmp_path: Path) -> None:
    bare = make_environment(tmp_path / "venv", "numpy")
    error, _, message = probe(bare, bundle_path)
    assert error == "RuntimeMissing"
    assert "edgeproof[cpu]" in message and "edgeproof[gpu]" in message
