"""The runtime on the oldest Python and onnxruntime that it is written for, and on newer Pythons;
each in an environment of its own, so in ``make test-full`` alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import children
import pytest

import runtime

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(os.name != "posix", reason="not run: looks for python3.x in PATH"),
]

ROOT = Path(runtime.__file__).parents[1]
USE = """if True:
    import os, pickle, platform, sys
    import numpy, onnxruntime
    from runtime import Bundle, Predictor, Slot
    path, folder = sys.argv[1:]
    page = numpy.full((30, 40, 3), 240, numpy.uint8)
    for variant in Bundle.open(path).manifest.variants:
        with Predictor(path, "cpu", variant.id, 2) as p:
            assert p.selftest().max_difference <= variant.golden_tolerance
            expected = p.predict(page)
            assert pickle.loads(pickle.dumps(p)).predict(page) == expected
            assert [expected] == list(p.stream([page]))
            if os.fork() == 0:
                sys.exit(p.predict(page) != expected)
            assert os.wait()[1] == 0
            assert p.autotune(0.02).remembered_in
    slot = Slot(folder)
    slot.install(path, device="cpu")
    assert slot.open("cpu").predict(page) == expected
    print(platform.python_version(), onnxruntime.__version__)
"""


@pytest.mark.parametrize(
    ("python", "requirements"),
    [
        ("python3.10", ("onnxruntime==1.15.1", "numpy<2")),
        ("python3.10", ("onnxruntime", "numpy")),
        ("python3.11", ("onnxruntime==1.15.1", "numpy==1.24.*")),
        ("python3.12", ("onnxruntime", "numpy")),
        ("python3.13", ("onnxruntime", "numpy")),
    ],
)
def test_all_that_a_device_does(
    python: str, requirements: tuple[str, ...], gray_bundle: bytes, tmp_path: Path
) -> None:
    base = shutil.which(python)
    if base is None or subprocess.run([base, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"not run: there is no {python}")
    environment, path = tmp_path / "venv", tmp_path / "bundle.zip"
    path.write_bytes(gray_bundle)
    subprocess.run([base, "-m", "venv", environment], check=True)
    there = environment / "bin" / "python"
    pip = [there, "-m", "pip", "install", "-q", "--only-binary", ":all:", *requirements]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"not run: cannot install {' '.join(requirements)}: {reason}")
    found = subprocess.run(
        [there, "-c", USE, path, tmp_path / "slot"],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=children.PATIENCE,
    )
    assert found.returncode == 0, found.stderr
    print(f"{found.stdout.splitlines()[-1]} on {sys.platform}")
    shutil.rmtree(environment)
