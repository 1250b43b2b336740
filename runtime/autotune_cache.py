"""Results of ``autotune`` on this device, kept in the user's cache folder as long as bundle, CPU,
onnxruntime and number of threads stay the same.

There is one file for each bundle, device and number of threads. A record is only advice: it can
only name one of the bundle's own variants, so a forged one costs time and nothing else. A stale,
foreign or damaged record is ignored.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from pathlib import Path

from ._onnxruntime import onnxruntime
from .cache_folder import user_cache_folder
from .cpu import cpu_identity
from .origin import let_through

_log = logging.getLogger(__name__)
_FORMAT = 1
_MAX_BYTES = 1 << 16  # a record has some hundred


def conditions(bundle_id: str, device: str, threads: int) -> dict[str, object]:
    """The conditions under which a measurement holds."""
    return {
        "format": _FORMAT,
        "bundle_id": bundle_id,
        "device": device,
        "threads": threads,
        "cpu": cpu_identity(),
        "onnxruntime": onnxruntime.__version__,
    }


def path_of(bundle_id: str, device: str, threads: int) -> Path | None:
    """The file of a record; None where the user has no cache folder."""
    folder = user_cache_folder()
    name = f"{bundle_id}-{device}-{threads}.json"
    return folder / "autotune" / name if folder else None


def recall(bundle_id: str, device: str, threads: int) -> tuple[str, str] | None:
    """The remembered (variant, reason); None without a record that holds here and now.

    Where nothing was ever tuned, this is one failing look-up of a file.
    """
    path = path_of(bundle_id, device, threads)
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            record = json.loads(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        let_through(exc)
        _log.info("%s is ignored: %s", path, exc)
        return None
    expected = conditions(bundle_id, device, threads)
    if not isinstance(record, dict) or any(record.get(k) != v for k, v in expected.items()):
        _log.info("%s is ignored: it was measured under other conditions", path)
        return None
    variant, reason = record.get("variant"), record.get("reason")
    return (variant, reason) if isinstance(variant, str) and isinstance(reason, str) else None


def remember(
    bundle_id: str, device: str, threads: int, variant: str, reason: str, speedups: dict[str, float]
) -> str | None:
    """Write a record, aside first and then renamed; returns its path, or None where the cache
    folder cannot be written, which is not a reason to fail."""
    import tempfile  # here: only autotune pays for it

    path = path_of(bundle_id, device, threads)
    if path is None:
        return None
    finite = {name: value for name, value in speedups.items() if math.isfinite(value)}
    record = {
        **conditions(bundle_id, device, threads),
        "variant": variant,
        "reason": reason,
        "speedups": finite,  # for people
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    except OSError as exc:
        let_through(exc)
        _log.warning("the result of autotune cannot be kept in %s: %s", path, exc)
        return None
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            json.dump(record, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            Path(aside).unlink()
        let_through(exc)
        _log.warning("the result of autotune cannot be kept in %s: %s", path, exc)
        return None
    return str(path)
