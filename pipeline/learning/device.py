"""Where training runs, and torch's settings for that time. Knows nothing of data and networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import TrainError


def resolve_device(asked: str) -> torch.device:
    """The device behind "auto", "cpu" or "cuda"; raises TrainError when it is not there."""
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        reason = f"torch {torch.__version__} was built " + (
            f"for CUDA {built} but finds no usable GPU or driver" if built else "without CUDA"
        )
        raise TrainError(
            f'train.device = "cuda", but {reason}. Install a CUDA build of torch and a driver, or '
            'set train.device = "auto".'
        )
    return torch.device("cuda")


@contextmanager
def torch_settings(device: torch.device, threads: int) -> Iterator[None]:
    """Threads, random state and determinism for the time of training."""
    threads_before = torch.get_num_threads()
    cudnn = torch.backends.cudnn
    cudnn_before = (cudnn.deterministic, cudnn.benchmark)
    torch.set_num_threads(threads)
    # On the CPU every kernel used here gives the same bits at the same thread count anyway.
    # torch.use_deterministic_algorithms would refuse what some networks need on a GPU.
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with torch.random.fork_rng(devices=[0] if device.type == "cuda" else []):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = cudnn_before
        torch.set_num_threads(threads_before)


def mixed_precision(device: torch.device, asked: str) -> torch.dtype | None:
    """The type of mixed precision behind "auto", "float32" or "bfloat16"; None computes in
    float32.

    On a CPU with units for bfloat16, training the face network takes 0.6 of the time; without
    them it would take longer.
    """
    if asked == "float32":
        return None
    if asked == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if bfloat16_units() else None


def bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    find = getattr(torch.cpu, "get_capabilities", dict)  # older torch cannot tell
    has: dict[str, object] = find()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("amx_tile"))
