"""The proof of an export: the same answers to the same images at every batch size."""

from __future__ import annotations

import re

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from exporters.errors import GraphError
from exporters.graph import onnx_file
from exporters.options import Tolerance

PROOF = Tolerance(
    "max_abs",
    1e-4,
    "float32 sums in another order: 2e-5 was measured between x86 and WebAssembly; "
    "a wrong operator or a wrong layout shows 1e-2 and more",
)
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


def network_answers(network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run a network on a batch; raise GraphError with the batch size when it fails."""
    try:
        with torch.no_grad():
            answers: NDArray[np.float32] = network(torch.from_numpy(images)).numpy()
    except Exception as exc:  # the network's own code
        raise GraphError(
            f"the network fails at a batch of {len(images)}: {plain_reason(exc)}."
        ) from exc
    return answers


def file_answers(
    session: onnxruntime.InferenceSession, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Run an ONNX file on a batch; raise GraphError with the batch size when it fails."""
    try:
        return onnx_file.run(session, images)
    except Exception as exc:  # onnxruntime raises a dozen unrelated classes
        raise GraphError(f"the ONNX file fails at a batch of {len(images)}: {exc}") from exc


def proved(pair: str, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the largest difference of two batches of answers; raise GraphError above ``PROOF``.

    ``pair`` names both sides. Other shapes and values that are not finite are above it as well.
    """
    gap = float(np.abs(a - b).max(initial=0.0)) if a.shape == b.shape else float("inf")
    if not gap <= PROOF.limit:  # true of NaN as well
        raise GraphError(
            f"at a batch of {len(b)} {pair} differ by {gap:.2g} (shapes {a.shape} and {b.shape}); "
            f"expected at most {PROOF.limit:g} ({PROOF.reason})."
        )
    return gap


def plain_reason(exc: BaseException) -> str:
    """Return the first line of the error behind all others, without colors: torch wraps it in
    pages of advice for its own developers."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    kind = type(exc).__name__
    if kind == "GuardOnDataDependentSymNode":
        return (
            "a branch or a shape depends on the values of a tensor, and a graph has no branches. "
            "Compute both sides and choose with torch.where"
        )
    lines = [line.strip() for line in _COLORS.sub("", str(exc)).splitlines() if line.strip()]
    return f"{kind}: {lines[0].rstrip('.')}" if lines else kind
