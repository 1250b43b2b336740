"""Setting an environment up in the cache, by the ordinary clients of its package registries, and
removing it. Nothing of the system changes and no root is needed; a folder appears whole or not at
all. Nothing here runs unasked."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from exporters.package.device_wheels import PIP, for_device
from pipeline.errors import TargetError, WebError
from pipeline.targets.browser import ORT_FOLDER
from pipeline.targets.table import (
    ENVIRONMENT_RECORD,
    OLDEST,
    OLDEST_PYTHON,
    Environment,
    absent_programs,
    debian_command,
)
from pipeline.web import onnxruntime_web

INFERENCE = ("numpy", "onnxruntime")  # enough for a predictor, without what onnxruntime requires
_TAIL = 600  # characters of a failed tool's words that an error repeats


def install(environment: Environment) -> Path:
    """Set ``environment`` up, anew if it is there already; returns its folder.

    Raises TargetError when a program is missing or a tool fails; what was there stays then.
    """
    if absent := absent_programs(environment.needs):
        raise TargetError(
            f"{environment.name} cannot be set up without {', '.join(absent)}. Run: "
            f"{debian_command(absent)}"
        )
    folder = environment.folder
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        versions = _STEPS[environment.name](partial)
        record = {"versions": versions, "date": datetime.now(UTC).date().isoformat()}
        (partial / ENVIRONMENT_RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as exc:
        raise TargetError(
            f"{environment.name} cannot be set up in {folder}: {exc}. Free some space, or give "
            "another cache folder with XDG_CACHE_HOME."
        ) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def remove(environment: Environment) -> bool:
    """Delete what was set up; False when there was nothing."""
    there = environment.folder.exists()
    shutil.rmtree(environment.folder, ignore_errors=True)
    return there


def versions(environment: Environment) -> dict[str, str]:
    """What is installed in it, by name; nothing where it is not set up."""
    if not environment.ready:
        return {}
    record = json.loads((environment.folder / ENVIRONMENT_RECORD).read_text(encoding="utf-8"))
    found: dict[str, str] = record["versions"]
    return found


def size_bytes(environment: Environment) -> int:
    """What it takes in the cache."""
    files = environment.folder.rglob("*") if environment.folder.exists() else ()
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _arm64(folder: Path) -> dict[str, str]:
    """Debian's arm64 Python, unpacked and never installed, with the wheels of numpy and
    onnxruntime for just that Python. apt keeps its state in the folder, so that the system's own
    list of packages and architectures stays as it is."""
    state, prefix = folder / "apt", folder / "prefix"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    apt = [
        "apt-get",
        "-qq",
        *("-o", f"Dir::State={state}/state", "-o", f"Dir::State::status={state}/status"),
        *("-o", f"Dir::Cache={state}/cache", "-o", f"Dir::Cache::archives={state}/cache/archives"),
        *("-o", "APT::Architecture=arm64", "-o", "APT::Architectures::=arm64"),
        *("-o", "APT::Install-Recommends=false", "-o", "APT::Sandbox::User="),
        # a hook of the system may clean what was just downloaded
        *("-o", "APT::Keep-Downloaded-Packages=true", "-o", "Debug::NoLocking=true"),
    ]
    clean = {"APT_CONFIG": str(_without_hooks(state))}
    _run([*apt, "update"], env=clean)
    _run([*apt, "install", "--yes", "--download-only", "python3", "libstdc++6"], env=clean)
    archives = sorted((state / "cache/archives").glob("*.deb"))
    if not archives:
        raise TargetError("apt-get downloaded no arm64 package. Is this a Debian mirror?")
    for archive in archives:
        _run(["dpkg-deb", "-x", str(archive), str(prefix)])
    shutil.rmtree(state)
    python = next((prefix / "usr/bin").glob("python3.*")).name.removeprefix("python")
    pip = [*("--target", str(prefix / "site")), *for_device("arm64", python)]
    _run([*PIP, "install", "-q", "--no-deps", *pip, *INFERENCE])
    return {"python": python, **_installed(prefix / "site")}


def _without_hooks(state: Path) -> Path:
    """A configuration of apt that skips the system's hooks, which are meant for its own state."""
    config = state / "apt.conf"
    lines = (
        "#clear DPkg::Post-Invoke;",
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
        "#clear Acquire::GzipIndexes;",
    )
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config


def _onnxruntime_web(folder: Path) -> dict[str, str]:
    """Copy the pinned files of ``pipeline fetch onnxruntime-web``, which are fetched if missing."""
    try:
        if not all((onnxruntime_web.folder() / name).is_file() for name in onnxruntime_web.FILES):
            onnxruntime_web.fetch()
        files = onnxruntime_web.read()
    except WebError as exc:
        raise TargetError(str(exc)) from exc
    (folder / ORT_FOLDER).mkdir(parents=True)
    for name, data in files.items():
        packed = name.endswith(".gz")
        data = gzip.decompress(data) if packed else data
        (folder / ORT_FOLDER / name.removesuffix(".gz")).write_bytes(data)
    return {onnxruntime_web.NAME: onnxruntime_web.VERSION}


def _npm(package: str) -> Callable[[Path], dict[str, str]]:
    def step(folder: Path) -> dict[str, str]:
        # the post-install script of onnxruntime-node asks another registry for CUDA libraries
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        _run(["npm", "install", *quiet, "--prefix", str(folder), package])
        manifest = folder / "node_modules" / package / "package.json"
        return {package: json.loads(manifest.read_text(encoding="utf-8"))["version"]}

    return step


def _venv(python: str, *wanted: str) -> Callable[[Path], dict[str, str]]:
    def step(folder: Path) -> dict[str, str]:
        _run([python, "-m", "venv", "--without-pip", str(folder)])
        there = ("--python", str(folder / "bin/python"))
        _run([*PIP, *there, "install", "-q", "--no-deps", "--upgrade", *wanted])
        (site,) = folder.glob("lib/python3*/site-packages")
        return _installed(site)

    return step


_STEPS: Mapping[str, Callable[[Path], dict[str, str]]] = {
    "arm64": _arm64,
    "web": _onnxruntime_web,
    "node": _npm("onnxruntime-node"),
    "onnxruntime-1.15": _venv(OLDEST_PYTHON, "numpy<2", f"onnxruntime=={OLDEST}"),
    "onnxruntime-newest": _venv(sys.executable, *INFERENCE),
}


def _installed(site: Path) -> dict[str, str]:
    """Name and version of every distribution in a folder."""
    found = (folder.name.removesuffix(".dist-info") for folder in site.glob("*.dist-info"))
    pairs = (name.partition("-") for name in found)
    return {name: version for name, _, version in sorted(pairs)}


def _run(command: list[str], env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-_TAIL:]
        raise TargetError(
            f"{' '.join(command[:4])} ... ended with code {done.returncode}: {said}\n"
            "Is the package index reachable?"
        )
