"""The caption of a benchmark: the machine and the versions of libraries, none of which is imported.
Linux is read in full; elsewhere unknown values are None. Standard library only."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from runtime.cpu import quota_cores

# Flags of /proc/cpuinfo and their usual names; only those that decide how fast and how exactly
# convolutions run: vector width, 8-bit dot products, half precision.
_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX-INT8",
    "neon": "NEON",  # 32-bit ARM
    "asimd": "NEON",
    "asimdhp": "FP16",
    "asimddp": "DotProd",
    "i8mm": "I8MM",
    "sve": "SVE",
}
# On ARM /proc/cpuinfo has a part number in place of a name; those of common boards.
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "torch", "torchvision", "onnx", "numpy")
_UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes a huge number where there is no limit


@dataclass(frozen=True)
class Hardware:
    """The machine of a benchmark; None is "unknown", never "none"."""

    cpu: str  # "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", "Cortex-A72 (Raspberry Pi 4 Model B)"
    architecture: str  # "x86_64", "aarch64", "arm64"
    features: tuple[str, ...]  # of the CPU: "AVX2", "AVX512-VNNI", "DotProd", ...
    cores: int  # that this process may run on
    quota_cores: float | None  # what its cgroup may use of them on average; None: all
    memory_mb: int | None  # of the machine or of the cgroup, the smaller; 1 MB is 1e6 bytes
    os: str  # "Linux 6.1.0"
    python: str  # "3.11.9"
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries that are installed
    gpu: str | None = None  # "NVIDIA Orin", "2 x NVIDIA H100"; None: no GPU

    def caption(self) -> str:
        """One line, shown under every table of timings."""
        cores = f"{self.cores} core" + ("s" if self.cores != 1 else "")
        if self.quota_cores is not None:
            cores += f" (quota {self.quota_cores:g})"
        parts = [
            f"{self.cpu} ({', '.join(self.features) or 'no vector features known'})",
            cores,
            *([f"{self.memory_mb / 1000:.1f} GB"] if self.memory_mb else []),
            self.gpu or "no GPU",
            f"{self.os} {self.architecture}",
            f"Python {self.python}",
            *(f"{name} {version}" for name, version in self.versions.items()),
        ]
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the caption for readers of the JSON."""
        return {**asdict(self), "features": list(self.features), "caption": self.caption()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Hardware:
        """Read what :meth:`to_dict` wrote; raises TypeError or KeyError for anything else."""
        fields = {key: value for key, value in data.items() if key != "caption"}
        return cls(**{**fields, "features": tuple(fields["features"])})


def detect(root: Path = Path("/")) -> Hardware:
    """Describe this machine; costs some milliseconds, with an NVIDIA driver up to a second.

    ``root`` is the folder of ``proc`` and ``sys``; a test may pass its own.
    """
    info = _cpu_info(root)
    quota = quota_cores(f"{root}/".replace("//", "/"))
    return Hardware(
        cpu=_cpu_name(info, root),
        architecture=platform.machine() or "unknown",
        features=_features(info),
        cores=_usable_cores(),
        quota_cores=None if math.isinf(quota) else quota,
        memory_mb=_memory_mb(root),
        os=f"{platform.system()} {platform.release()}".strip(),
        python=platform.python_version(),
        versions=_versions(_LIBRARIES),
        gpu=_gpu(root),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _cpu_info(root: Path) -> dict[str, str]:
    """The first processor of /proc/cpuinfo, keys in lower case; empty off Linux."""
    first = _read(root / "proc/cpuinfo").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _cpu_name(info: Mapping[str, str], root: Path) -> str:
    if name := info.get("model name"):
        return name
    part = info.get("cpu part", "")
    core = _ARM_PARTS.get(part, f"ARM part {part}" if part else "")
    board = _read(root / "proc/device-tree/model")
    if core:
        return f"{core} ({board})" if board else core
    if platform.system() == "Darwin":
        board = board or _output(["sysctl", "-n", "machdep.cpu.brand_string"])
    return board or platform.processor() or "unknown CPU"


def _features(info: Mapping[str, str]) -> tuple[str, ...]:
    flags = set((info.get("flags") or info.get("features", "")).split())
    return tuple(dict.fromkeys(name for flag, name in _FEATURES.items() if flag in flags))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_mb(root: Path) -> int | None:
    total = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    sizes = [int(total[1]) * 1024] if total else []
    for folder in _cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdigit() and int(text) < _UNLIMITED_BYTES:
                sizes.append(int(text))
    return min(sizes) // 1_000_000 if sizes else None


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's cgroup and all above it, in cgroup v1 and v2.

    In a container the path is the host's while the mount shows only the container's part, so
    folders that do not exist are harmless and the mount's own root is always among them.
    """
    base = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        top = base / controller if controllers else base
        inner = Path(path.lstrip("/"))
        yield top / inner
        yield from (top / parent for parent in inner.parents)


def _versions(names: Iterable[str]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # left out: it took no part in what was measured
    return versions


def _gpu(root: Path) -> str | None:
    """NVIDIA devices by name; runs nvidia-smi only where it is installed."""
    infos = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    matches = (re.search(r"^Model:\s*(.+)$", _read(path), re.MULTILINE) for path in infos)
    names = [match[1].strip() for match in matches if match]
    if not names and shutil.which("nvidia-smi"):
        names = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]).splitlines()
    kinds = dict.fromkeys(names)
    rows = (f"{names.count(kind)} x {kind}" if names.count(kind) > 1 else kind for kind in kinds)
    return ", ".join(rows) or None


def _output(command: list[str]) -> str:
    """The output of a command, or nothing when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
