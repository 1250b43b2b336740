"""The caption of a benchmark, on invented machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import hardware
from pipeline.hardware import Hardware, detect

PI = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU part\t: 0xd0b\n\nprocessor\t: 1\n"
XEON = "processor\t: 0\nmodel name\t: Some Xeon\nflags\t\t: fpu sse avx2 avx512f avx512_vnni\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_round_trips() -> None:
    here = detect()
    assert Hardware.from_dict(json.loads(json.dumps(here.to_dict()))) == here
    assert here.cores >= 1
    assert here.versions["numpy"]
    assert here.caption() in here.to_dict().values()
    assert "\n" not in here.caption()


@pytest.mark.parametrize(
    ("cpuinfo", "model", "name", "features"),
    [
        (XEON, None, "Some Xeon", ("AVX2", "AVX-512", "AVX512-VNNI")),
        (PI, "Raspberry Pi 5\0", "Cortex-A76 (Raspberry Pi 5)", ("NEON", "FP16", "DotProd")),
        (PI, None, "Cortex-A76", ("NEON", "FP16", "DotProd")),
        (PI.replace("0xd0b", "0x123"), None, "ARM part 0x123", ("NEON", "FP16", "DotProd")),
    ],
)
def test_cpu(tmp_path, cpuinfo: str, model: str | None, name: str, features: tuple) -> None:
    files = {"proc/cpuinfo": cpuinfo}
    if model is not None:
        files["proc/device-tree/model"] = model
    described = detect(machine(tmp_path, files))
    assert (described.cpu, described.features) == (name, features)


@pytest.mark.parametrize(
    ("files", "cores", "memory_mb"),
    [
        ({}, None, None),
        ({"proc/meminfo": "MemTotal:  1000000 kB\n"}, None, 1024),
        (
            {  # cgroup v2; the parent is tighter
                "proc/meminfo": "MemTotal:  1000000 kB\n",
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.max": "256000000\n",
            },
            0.5,
            256,
        ),
        (
            {  # cgroup v1; in a container the path is the host's
                "proc/self/cgroup": "3:memory:/docker/x\n2:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            1.5,
            None,
        ),
    ],
)
def test_limits(tmp_path, files: dict[str, str], cores: float, memory_mb: int) -> None:
    described = detect(machine(tmp_path, files))
    assert (described.quota_cores, described.memory_mb) == (cores, memory_mb)


def test_gpu_from_the_driver(tmp_path) -> None:
    card = "Model: \t\t NVIDIA H100\nIRQ: 1\n"
    files = {f"proc/driver/nvidia/gpus/{i}/information": card for i in "01"}
    assert detect(machine(tmp_path, files)).gpu == "2 x NVIDIA H100"


def test_an_unknown_machine(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hardware.platform, "processor", lambda: "")
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    described = detect(tmp_path)
    assert (described.cpu, described.features, described.gpu) == ("unknown CPU", (), None)
    assert "no vector features known" in described.caption()
    assert "no GPU" in described.caption()


def test_quota_is_in_the_caption() -> None:
    described = Hardware("CPU", "x86_64", ("AVX2",), 1, 0.5, 256, "Linux 6.1", "3.11.9")
    assert "CPU (AVX2), 1 core (quota 0.5), 0.3 GB, no GPU" in described.caption()


def test_versions_are_read_without_importing() -> None:
    code = (
        "import sys; from pipeline.hardware import detect; detect();"
        "print([m for m in ('numpy', 'torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    root = Path(hardware.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
