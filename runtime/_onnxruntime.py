"""The one place that imports onnxruntime, so that its absence is explained in one place."""

from __future__ import annotations

import os

from .errors import RuntimeMissing

WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_INSTALL = (
    "Install edgeproof[cpu] (the wheel onnxruntime) for any CPU or edgeproof[gpu] (the wheel "
    "onnxruntime-gpu) for an NVIDIA GPU, never two of them."
)


def installed_wheels() -> list[str]:
    """The installed ones of the wheels that own the module ``onnxruntime``."""
    from importlib import metadata  # here: it takes longer to import than the whole runtime

    installed = []
    for name in WHEELS:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        installed.append(name)
    return installed


def mixture_note() -> str:
    """A sentence about two wheels that were installed over each other; otherwise empty."""
    wheels = installed_wheels()
    if len(wheels) < 2:
        return ""
    return (
        f"The wheels {' and '.join(wheels)} are both installed and own the same files. "
        f"Run: pip uninstall -y {' '.join(wheels)}. {_INSTALL}"
    )


try:
    import onnxruntime
except ImportError as exc:
    raise RuntimeMissing(mixture_note() or f"cannot import onnxruntime: {exc}. {_INSTALL}") from exc

if not hasattr(onnxruntime, "InferenceSession"):  # what uninstalling one of two wheels leaves
    raise RuntimeMissing(
        mixture_note()
        or "the module onnxruntime is an empty shell, as after uninstalling one of two wheels. "
        f"Run: pip uninstall -y {' '.join(WHEELS)}. {_INSTALL}"
    )

# An app that imported onnxruntime before this package started its telemetry (see __init__.py): this
# stops the events, not the thread. onnxruntime takes these words as true.
if os.environ.get("ORT_DISABLE_TELEMETRY", "").lower() in ("1", "true", "yes"):
    onnxruntime.disable_telemetry_events()

__all__ = ["WHEELS", "installed_wheels", "mixture_note", "onnxruntime"]
