"""The one table of devices: a further provider is one more row. Loads no onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field

CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Device:
    """One row of the table."""

    name: str  # what device= takes
    provider: str  # onnxruntime's name
    extra: str  # what to install for it
    wheel: str  # the wheel that the extra brings
    libraries: str = ""  # how to get the libraries that the provider itself needs
    driver: str | None = None  # the library that only the device's driver brings
    preloads: bool = False  # its libraries come as wheels of their own, which must be found first
    options: dict[str, str] = field(default_factory=dict)  # the provider's own
    threads_option: str | None = None  # its option for threads, if it has a pool of its own


DEVICES = {
    row.name: row
    for row in (
        Device("cpu", CPU_PROVIDER, "edgeproof[cpu]", "onnxruntime"),
        Device(
            "cuda",
            "CUDAExecutionProvider",
            "edgeproof[gpu]",
            "onnxruntime-gpu",
            libraries="pip install 'onnxruntime-gpu[cuda,cudnn]'",
            driver="libcuda.so.1",
            preloads=True,
        ),
        # On an x86 CPU; its kernels and compiler are in the wheel. Opening takes 0.1 to 0.2 s, so
        # "auto" tries it only where a bundle's devices name it.
        Device(
            "openvino",
            "OpenVINOExecutionProvider",
            "edgeproof[openvino]",
            "onnxruntime-openvino",
            # ACCURACY: float32 stays float32, also on CPUs where OpenVINO would take bfloat16
            options={"device_type": "CPU", "precision": "ACCURACY"},
            threads_option="num_of_threads",
        ),
    )
}
