"""Wheels for another machine, by pip's own resolver: the options that name the machine, and the
download of wheels with their requirements."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from exporters.errors import PackageError

# Tags of wheels for a device, the newest first, as a device's own pip would choose.
PLATFORMS = {
    "arm64": ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"),
    "x86_64": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"),
}
MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}  # as uname and wheels call them
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_PYTHON = re.compile(r"3\.\d+")
_TAIL = 600  # characters of pip's output


def for_device(platform: str, python: str) -> list[str]:
    """Return pip's options for wheels of ``platform``, a key of PLATFORMS, and ``python``, as in
    "3.11". Raises PackageError for others."""
    if platform not in PLATFORMS:
        raise PackageError(f"platform {platform!r}; expected one of {', '.join(PLATFORMS)}.")
    if not _PYTHON.fullmatch(python):
        raise PackageError(f"Python {python!r}; expected a version as in 3.11.")
    words = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    return words + [f"--platform={tag}" for tag in PLATFORMS[platform]]


def download(
    folder: Path, requirements: Sequence[str], platform: str, python: str
) -> tuple[Path, ...]:
    """Download ``requirements`` and theirs into ``folder``; returns the wheels sorted by name.

    Raises PackageError when pip finds none, or downloads a wheel for another machine.
    """
    options = ["-q", "-d", str(folder), *for_device(platform, python)]
    command = [*PIP, "download", *options, *requirements]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise PackageError(
            f"pip finds no wheels for Python {python} on {platform}: "
            f"{done.stderr.strip()[-_TAIL:]}\nCheck that the package index is reachable and has an "
            "onnxruntime for that Python."
        )
    wheels = tuple(sorted(folder.glob("*.whl")))
    for wheel in wheels:
        tag = wheel.stem.rpartition("-")[2]
        if tag != "any" and MACHINES[platform] not in tag:
            raise PackageError(f"pip downloaded {wheel.name}; expected wheels for {platform}.")
    return wheels
