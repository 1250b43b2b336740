"""The choice of a device. onnxruntime itself replaces a provider that does not work with the CPU,
reports it on the C++ side's stderr at best, and continues; here that is an error with its cause.
Independent of bundles.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from . import onnx_session
from ._onnxruntime import installed_wheels, mixture_note, onnxruntime
from .devices import CPU_PROVIDER, DEVICES, Device
from .errors import BundleFormatError, DeviceError
from .onnx_session import Session
from .origin import let_through, raised_by

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


# Messages of CUDA through onnxruntime, their meaning and what to do.
_CAUSES = (
    (
        r"CUDA failure 100\b|no CUDA-capable device",
        "the driver finds no CUDA device. Check nvidia-smi and CUDA_VISIBLE_DEVICES",
    ),
    (
        r"CUDA failure 35\b|driver version is insufficient",
        "the NVIDIA driver is older than the CUDA libraries. Update the driver",
    ),
    (
        r"CUDA failure 2\b|out of memory|Failed to allocate memory|_ALLOC_FAILED",
        "the device's memory is full. Free some, or take a smaller model",
    ),
    (r"CUDA failure \d+: [^;]*[^; ]", "{0}"),
)
_MISSING_LIBRARY = re.compile(r"([\w.+-]+\.so[.\d]*): cannot open shared object")
_MAX_CAUSE_LENGTH = 300  # characters: C++ signatures fill the rest
_stderr_lock = threading.Lock()  # descriptor 2 belongs to the whole process


def choose(device: str, order: Sequence[str], attempt: Callable[[Device], _T]) -> tuple[_T, str]:
    """The result of ``attempt`` for the device that was taken, and why it was taken.

    "auto" tries the devices of ``order``, skipping those where ``attempt`` raises DeviceError;
    any other name is that device or its DeviceError.
    """
    if device != "auto":
        return attempt(_known(device)), f"{device} was requested."
    passed_over = []
    for name in order:
        try:
            taken = attempt(_known(name))
        except DeviceError as exc:  # noqa: PERF203 - a handful of devices
            _log.info("%s passed over: %s", name, exc)
            passed_over.append(f"{name} was passed over: {exc}")
        else:
            return taken, " ".join([f"{name} is the first that works.", *passed_over])
    raise DeviceError(f"none of the devices {list(order)} works. " + " ".join(passed_over))


def open_session(
    model: bytes, device: Device, threads: int, *, exact_int8: bool = False
) -> Session:
    """A session that truly runs on ``device``; raises DeviceError, or BundleFormatError for a
    model that no device could load.

    While another device than the CPU is tried, descriptor 2 and ``sys.stdout`` of the whole
    process are redirected, since its libraries say why they failed only in what they print.
    """
    if device.provider == CPU_PROVIDER:
        return onnx_session.create_on_cpu(model, threads, exact_int8=exact_int8)
    available = onnxruntime.get_available_providers()
    if device.provider not in available:
        raise DeviceError(
            f"{device.name} is not in the installed onnxruntime {onnxruntime.__version__} (it has "
            f"{', '.join(available)}). "
            + (
                mixture_note()
                or f"Run pip uninstall -y {' '.join(installed_wheels()) or 'onnxruntime'}, then "
                f"install {device.extra} "
                f"(the wheel {device.wheel})."
            )
        )
    failure = ""
    with _captured() as printed:
        try:
            if device.preloads and hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed
            session = onnx_session.create(
                model, device.provider, threads, provider_options=_options(device, threads)
            )
        except BundleFormatError:
            raise
        except Exception as exc:  # onnxruntime's exceptions have no common base but this
            if not raised_by(exc, "onnxruntime"):
                raise
            failure = str(exc)
    if not failure and session.get_providers()[0] == device.provider:
        return session
    cause = _cause(device, failure + "".join(printed))
    raise DeviceError(f"{device.name} is not usable: {cause}. {mixture_note()}".rstrip())


def failed_run(provider: str, shape: tuple[int, ...], exc: Exception) -> DeviceError:
    """The error for an exception of onnxruntime on a batch of that shape, with the cause where it
    is known, or else its last line."""
    cause = _known_cause(str(exc)) or _last_line(str(exc))
    return DeviceError(
        f"{provider} failed on a batch of shape {shape}: {cause}. If memory is short, give smaller "
        "batches."
    )


def _options(device: Device, threads: int) -> dict[str, str]:
    more = {device.threads_option: str(threads)} if device.threads_option else {}
    return {**device.options, **more}


def _known(name: object) -> Device:
    if not isinstance(name, str) or name not in DEVICES:
        raise DeviceError(
            f"device {name!r} is unknown; expected 'auto' or one of {', '.join(DEVICES)}."
        )
    return DEVICES[name]


def _cause(device: Device, printed: str) -> str:
    """The reason why the provider did not start, and what to do, from its libraries' output."""
    missing = {*_MISSING_LIBRARY.findall(printed), *_missing_driver(device)}
    causes = []
    if libraries := sorted(missing - {device.driver}):
        causes.append(f"missing libraries: {', '.join(libraries)}. Run {device.libraries}")
    if device.driver in missing:
        causes.append(
            f"there is no driver ({device.driver} is missing). Install the NVIDIA driver, or let "
            "the container see it (docker run --gpus all)"
        )
    if causes:
        return "; ".join(causes)
    return _known_cause(printed) or _last_line(printed)


def _known_cause(printed: str) -> str | None:
    for pattern, cause in _CAUSES:
        if match := re.search(pattern, printed):
            return cause.format(match[0])
    return None


def _last_line(printed: str) -> str:
    lines = printed.strip().splitlines() or ["onnxruntime gave no reason"]
    return lines[-1][:_MAX_CAUSE_LENGTH]


def _missing_driver(device: Device) -> list[str]:
    """The driver's library if it cannot be loaded: the loader only names the first missing one, and
    onnxruntime's logger may be silenced."""
    if device.driver is None or os.name != "posix":
        return []
    try:
        ctypes.CDLL(device.driver)
    except OSError as exc:
        let_through(exc)
        return [device.driver]
    return []


@contextlib.contextmanager
def _captured() -> Iterator[list[str]]:
    """Collect what is printed to descriptor 2 (by C++) and ``sys.stdout`` (by Python)."""
    import tempfile  # here: only trying a device other than the CPU pays for it

    printed: list[str] = []
    with _stderr_lock, tempfile.TemporaryFile() as file, io.StringIO() as python_output:
        try:
            saved = os.dup(2)
        except OSError as exc:  # a daemon that closed it
            let_through(exc)
            saved = None
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stdout(python_output):
                yield printed
        finally:
            if saved is None:
                os.close(2)
            else:
                os.dup2(saved, 2)
                os.close(saved)
            file.seek(0)
            printed += [python_output.getvalue(), file.read().decode(errors="replace")]
