"""Environments in the cache: set up with the ordinary clients of their package registries, and
removed. The system does not change and root is not needed; a folder appears whole or not at all."""

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
_TAIL = 600  # characters of a failed tool's output that an error repeats


def install(environment: Environment) -> Path:
    """Set up ``environment``, again if it exists; returns its folder.

    Raises TargetError when a program is missing or a tool fails; an existing one stays then.
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
        versions = STEPS[environment.name](partial)
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
    """Delete an environment; False where there was none."""
    existed = environment.folder.exists()
    shutil.rmtree(environment.folder, ignore_errors=True)
    return existed


def versions(environment: Environment) -> dict[str, str]:
    """Return the installed versions by name; none where it is not set up."""
    if not environment.ready:
        return {}
    record = json.loads((environment.folder / ENVIRONMENT_RECORD).read_text(encoding="utf-8"))
    installed: dict[str, str] = record["versions"]
    return installed


def size_bytes(environment: Environment) -> int:
    """Return its size in the cache."""
    files = environment.folder.rglob("*") if environment.folder.exists() else ()
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _arm64(folder: Path) -> dict[str, str]:
    """Unpack, never install, Debian's arm64 Python with wheels of numpy and onnxruntime for it. apt
    keeps its state in the folder, so that the system's packages and architectures stay as they
    are."""
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
        # a hook of the system may remove what was just downloaded
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
    """Write a configuration of apt without the system's hooks, which expect its own state."""
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


def _venv(python: str, *requirements: str) -> Callable[[Path], dict[str, str]]:
    def step(folder: Path) -> dict[str, str]:
        _run([python, "-m", "venv", "--without-pip", str(folder)])
        inside = ("--python", str(folder / "bin/python"))
        _run([*PIP, *inside, "install", "-q", "--no-deps", "--upgrade", *requirements])
        (site,) = folder.glob("lib/python3*/site-packages")
        return _installed(site)

    return step


STEPS: Mapping[str, Callable[[Path], dict[str, str]]] = {
    "arm64": _arm64,
    "web": _onnxruntime_web,
    "node": _npm("onnxruntime-node"),
    "onnxruntime-1.15": _venv(OLDEST_PYTHON, "numpy<2", f"onnxruntime=={OLDEST}"),
    "onnxruntime-newest": _venv(sys.executable, *INFERENCE),
}


def _installed(site: Path) -> dict[str, str]:
    """Return name and version of every distribution in a folder."""
    names = (folder.name.removesuffix(".dist-info") for folder in site.glob("*.dist-info"))
    pairs = (name.partition("-") for name in names)
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
        output = (done.stderr or done.stdout).strip()[-_TAIL:]
        raise TargetError(
            f"{' '.join(command[:4])} ... ended with code {done.returncode}: {output}\n"
            "Check that the package index is reachable."
        )
