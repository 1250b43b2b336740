"""Wheels of another machine than this one, by pip's own resolver: which options name the machine,
and a download of a wheel with everything it requires there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from exporters.errors import PackageError

# What pip asks of a wheel for a device; the newest first, as a device's own pip would choose.
PLATFORMS = {
    "arm64": ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"),
    "x86_64": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"),
}
MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}  # as uname and wheels call them
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_PYTHON = re.compile(r"3\.\d+")
_TAIL = 600  # characters of pip's last words


def for_device(platform: str, python: str) -> list[str]:
    """pip's options for wheels of ``platform``, a key of PLATFORMS, and ``python``, as in "3.11".
    Raises PackageError for others."""
    if platform not in PLATFORMS:
        raise PackageError(f"platform {platform!r}; expected one of {', '.join(PLATFORMS)}.")
    if not _PYTHON.fullmatch(python):
        raise PackageError(f"Python {python!r}; expected a version as in 3.11.")
    words = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    return words + [f"--platform={tag}" for tag in PLATFORMS[platform]]


def download(folder: Path, wanted: Sequence[str], platform: str, python: str) -> tuple[Path, ...]:
    """Put ``wanted`` and all that they require there into ``folder``; returns the wheels by name.

    Raises PackageError when pip finds none, or brings a wheel of another machine.
    """
    command = [*PIP, "download", "-q", "-d", str(folder), *for_device(platform, python), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise PackageError(
            f"pip finds no wheels for Python {python} on {platform}: "
            f"{done.stderr.strip()[-_TAIL:]}\nIs the package index reachable, and is there an "
            "onnxruntime for that Python?"
        )
    wheels = tuple(sorted(folder.glob("*.whl")))
    for wheel in wheels:
        tag = wheel.stem.rpartition("-")[2]
        if tag != "any" and MACHINES[platform] not in tag:
            raise PackageError(f"pip brought {wheel.name}; expected wheels for {platform}.")
    return wheels
