"""Run a bundle: pixels in, answers out, wherever numpy and onnxruntime are installed.

    from runtime import Predictor

    with Predictor("bundle.zip") as p:
        print(p.predict("digit.png").label)

Only the errors are imported with the package and every other name at its first use. ``import
runtime`` therefore takes a millisecond, and an app can read a manifest without onnxruntime. Where
onnxruntime is missing, ``from runtime import Predictor`` raises RuntimeMissing.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    AnswerError,
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    DeviceError,
    InputError,
    PredictorError,
    RuntimeMissing,
    SelftestError,
    SignatureError,
    SlotError,
    VariantError,
)

if TYPE_CHECKING:
    from .bundle import Bundle
    from .manifest import Default, FileEntry, Manifest, Variant
    from .predictor import Predictor
    from .reports import AutotuneReport, AutotuneRow, PredictorInfo, SelftestReport
    from .slot import Slot, SlotState
    from .spec import ModelSpec, OutputSpec
    from .tasks import Attribute, AttributePrediction, Candidate, Prediction, Values

__version__ = "0.1.0"

# No telemetry: what runs on a device is private. Unless this is set before onnxruntime from 1.29 on
# is imported, it keeps a device id and a record of sessions and errors in the user's cache folder
# and sends them to Microsoft. Its thread also makes a forked child wait forever at its exit, and
# takes 3 MB. An app that wants it sets ORT_DISABLE_TELEMETRY=0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "AnswerError",
    "Attribute",
    "AttributePrediction",
    "AutotuneReport",
    "AutotuneRow",
    "Bundle",
    "BundleError",
    "BundleFormatError",
    "BundleIntegrityError",
    "Candidate",
    "Default",
    "DeviceError",
    "FileEntry",
    "InputError",
    "Manifest",
    "ModelSpec",
    "OutputSpec",
    "Prediction",
    "Predictor",
    "PredictorError",
    "PredictorInfo",
    "RuntimeMissing",
    "SelftestError",
    "SelftestReport",
    "SignatureError",
    "Slot",
    "SlotError",
    "SlotState",
    "Values",
    "Variant",
    "VariantError",
    "__version__",
]


_HOMES = {  # a frozen dataclass takes about half a millisecond to make
    "bundle": ("Bundle",),
    "manifest": ("Default", "FileEntry", "Manifest", "Variant"),
    "predictor": ("Predictor",),
    "reports": ("AutotuneReport", "AutotuneRow", "PredictorInfo", "SelftestReport"),
    "slot": ("Slot", "SlotState"),
    "spec": ("ModelSpec", "OutputSpec"),
    "tasks": ("Attribute", "AttributePrediction", "Candidate", "Prediction", "Values"),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
