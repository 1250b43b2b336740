"""The targets as data, one row each. A new target that follows the job's protocol is a new row.
Imports nothing heavy."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from pipeline.errors import TargetError
from runtime.cache_folder import user_cache_folder

Runner = Literal["python", "node", "browser"]


class _Shared(TypedDict, total=False):
    needs: tuple[str, ...]
    machine: str
    environment: str


ENVIRONMENT_RECORD = "environment.json"  # written last: without it the environment is not set up
OLDEST = "1.15.1"  # the oldest onnxruntime that a bundle promises to load on
OLDEST_PYTHON = "python3.11"  # the newest with wheels of that release


@dataclass(frozen=True)
class Environment:
    """An environment in the cache, set up and removed by one command each."""

    name: str
    describes: str
    needs: tuple[str, ...] = ()  # programs needed to set it up

    @property
    def folder(self) -> Path:
        """The folder of the environment, which may not exist."""
        return cache_folder() / self.name

    @property
    def ready(self) -> bool:
        """True where it is completely set up."""
        return (self.folder / ENVIRONMENT_RECORD).exists()


@dataclass(frozen=True)
class Target:
    """One way to run a bundle."""

    name: str
    describes: str  # the kernels that it reaches
    runner: Runner
    environment: str | None = None  # of ENVIRONMENTS; None: this Python
    cpu: str | None = None  # of the emulator; None: the real one
    cpuinfo: str = ""  # /proc/cpuinfo of the emulated CPU, see ``launch.py``
    variables: tuple[str, ...] = ()  # of the environment, "NAME=value"
    needs: tuple[str, ...] = ()  # programs on the PATH, each a key of DEBIAN
    machine: str | None = None  # of the host, where it must be a certain one
    threads: int = 1
    constrained: bool = False
    full: bool = False  # also takes part in ``pipeline verify --full``

    @property
    def emulated(self) -> bool:
        """True for an emulated CPU, whose times do not apply to a device."""
        return self.cpu is not None


# program -> Debian package; the command is printed, never run, since the system is the user's
DEBIAN = {
    "qemu-x86_64-static": "qemu-user-static",
    "qemu-aarch64-static": "qemu-user-static",
    "chromium": "chromium",
    "node": "nodejs",
    "npm": "npm",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "prlimit": "util-linux",
    "taskset": "util-linux",
    "unshare": "util-linux",
    OLDEST_PYTHON: "python3.11-venv",
}

ENVIRONMENTS = (
    Environment("arm64", "Debian's arm64 Python with the aarch64 wheels", ("apt-get", "dpkg-deb")),
    Environment("web", "onnxruntime-web from npm", ("npm",)),
    Environment("node", "onnxruntime-node from npm", ("npm",)),
    Environment("onnxruntime-1.15", f"onnxruntime {OLDEST} in its own venv", (OLDEST_PYTHON,)),
    Environment("onnxruntime-newest", "the newest onnxruntime in its own venv"),
)

# shared by the targets of one kind
_X86: _Shared = {"needs": ("qemu-x86_64-static",), "machine": "x86_64"}
_ARM: _Shared = {"needs": ("qemu-aarch64-static",), "environment": "arm64"}
_WEB: _Shared = {"needs": ("chromium",), "environment": "web"}
_SSE = "flags : fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt"
_AVX = f"{_SSE} avx xsave"
_AVX2 = f"{_AVX} avx2 fma f16c bmi1 bmi2"
# "Features" must not promise more than -cpu keeps: a kernel with dot products would end in SIGILL
_A53 = "Features : fp asimd aes pmull sha1 sha2 crc32\nCPU implementer : 0x41\nCPU part : 0xd03"
_A76 = (
    "Features : fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp lrcpc asimddp\n"
    "CPU implementer : 0x41\nCPU part : 0xd0b"
)
_MAX = (
    "Features : fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp lrcpc asimddp sve i8mm\n"
    "CPU implementer : 0x41\nCPU part : 0xd4f"
)

# All others are compared with the first.
TARGETS = (
    Target("here", "this machine's own kernels", "python", full=True),
    Target(
        "x86_64-sse",
        "x86-64 with SSE only",
        "python",
        cpu="Nehalem",
        cpuinfo=_SSE,
        # numpy's OpenBLAS takes the emulated CPU for a newer one; onnxruntime does not use it
        variables=("OPENBLAS_CORETYPE=Nehalem",),
        **_X86,
    ),
    Target("x86_64-avx", "x86-64 with AVX", "python", cpu="SandyBridge", cpuinfo=_AVX, **_X86),
    Target(
        "x86_64-avx2", "x86-64 with AVX2", "python", cpu="Haswell", cpuinfo=_AVX2, full=True, **_X86
    ),
    Target("arm64-a53", "ARM with NEON", "python", cpu="cortex-a53", cpuinfo=_A53, **_ARM),
    Target(
        "arm64-a76",
        "ARM with dot product",
        "python",
        cpu="cortex-a76",
        cpuinfo=_A76,
        full=True,
        **_ARM,
    ),
    Target("arm64-max", "ARM with SVE and I8MM", "python", cpu="max", cpuinfo=_MAX, **_ARM),
    Target("web", "WebAssembly in Chromium", "browser", full=True, **_WEB),
    Target("web-threads", "WebAssembly in Chromium, 2 threads", "browser", threads=2, **_WEB),
    Target("node", "onnxruntime-node", "node", environment="node", needs=("node",)),
    Target(
        "constrained",
        "1 core at half speed, 256 MB, no network",
        "python",
        needs=("prlimit", "taskset", "unshare"),
        constrained=True,
    ),
    Target("onnxruntime-1.15", f"onnxruntime {OLDEST}", "python", environment="onnxruntime-1.15"),
    Target(
        "onnxruntime-newest", "the newest onnxruntime", "python", environment="onnxruntime-newest"
    ),
)
REFERENCE = TARGETS[0]


def cache_folder() -> Path:
    """Return ``targets`` in the user's cache folder; raises TargetError without one."""
    cache = user_cache_folder()
    if cache is None:
        raise TargetError("this user has no cache folder. Set XDG_CACHE_HOME to an absolute path.")
    return cache / "targets"


def environment(name: str) -> Environment:
    """Return the environment of that name, or the one that the target of that name needs."""
    for row in ENVIRONMENTS:
        if row.name == name:
            return row
    for target in TARGETS:
        if target.name == name and target.environment is not None:
            return environment(target.environment)
        if target.name == name:
            raise TargetError(
                f"target {name} needs nothing in the cache; {missing(target) or 'it is ready'}."
            )
    available = ", ".join(row.name for row in ENVIRONMENTS)
    raise TargetError(f"there is no target {name!r} to set up; expected one of {available}.")


def select(names: tuple[str, ...]) -> tuple[Target, ...]:
    """Return the targets for ``names`` in the table's order, without names all of them.

    An environment's name selects all targets that run in it, a prefix all that begin with it.
    Raises TargetError for a name that selects none.
    """
    chosen: set[str] = set()
    for name in names:
        matches = {
            target.name
            for target in TARGETS
            if name in (target.name, target.environment) or target.name.startswith(f"{name}-")
        }
        if not matches:
            available = ", ".join(target.name for target in TARGETS)
            raise TargetError(f"there is no target {name!r}; expected one of {available}.")
        chosen |= matches
    return tuple(t for t in TARGETS if not names or t.name in chosen or t is REFERENCE)


def missing(target: Target) -> str | None:
    """Return the reason why ``target`` cannot run yet, with a command that helps, or None."""
    if target.machine not in (None, platform.machine()):
        return f"needs an {target.machine} machine; this one is {platform.machine()}"
    if absent := absent_programs(target.needs):
        return f"{', '.join(absent)} not found: {debian_command(absent)}"
    if target.environment is not None and not environment(target.environment).ready:
        return f"not set up: pipeline targets install {target.environment}"
    return None


def absent_programs(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the programs that are not on the PATH."""
    return tuple(name for name in names if shutil.which(name) is None)


def debian_command(programs: tuple[str, ...]) -> str:
    """Return the command that installs programs on Debian and its derivatives."""
    packages = dict.fromkeys(DEBIAN[name] for name in programs)
    return f"sudo apt-get install {' '.join(packages)}"
