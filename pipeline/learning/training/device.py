"""The device that trains, and torch's settings for that time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from pipeline.errors import TrainError

_MATRIX = 512  # rows and columns: 2 ms of float32 on one core
_PRODUCTS = 8
_PAYS = 1.2  # times as fast: bfloat16 also costs conversions and accuracy


def resolve_device(requested: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda"; raises TrainError when this machine has none."""
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
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


def mixed_precision(device: torch.device, requested: str) -> torch.dtype | None:
    """The type of mixed precision for "auto", "float32" or "bfloat16"; None: all in float32."""
    if requested == "float32":
        return None
    if requested == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)  # from Ampere on
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if bfloat16_pays() else None


def bfloat16_instructions() -> bool:
    """Return whether this CPU has instructions for products of bfloat16 (AVX-512 BF16 or AMX)."""
    get_capabilities = getattr(torch.cpu, "get_capabilities", dict)  # older torch lacks it
    has: dict[str, object] = get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("amx_tile"))


@cache
def bfloat16_pays() -> bool:
    """Return whether this CPU multiplies matrices faster in bfloat16 than in float32; measures it
    once.

    The instructions alone do not decide: with AVX-512 BF16 an AMD EPYC trains the face network in
    0.6 of the time, and an Intel Xeon without AMX takes 1.45 times as long. There the product takes
    1.8 to 2.0 times as long (20 tries), far enough from the bound for a busy machine.
    """
    if not bfloat16_instructions():  # it would take seconds to measure
        return False
    wide = torch.ones(_MATRIX, _MATRIX)
    return _PAYS * product_seconds(wide.bfloat16()) < product_seconds(wide)


def product_seconds(matrix: Tensor) -> float:
    """CPU time of its product with itself, the minimum of several."""
    seconds = []
    for _ in range(_PRODUCTS):
        start = time.process_time()
        torch.mm(matrix, matrix)
        seconds.append(time.process_time() - start)
    return min(seconds)
