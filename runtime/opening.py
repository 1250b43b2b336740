"""The way from the parts of a model to a session on a device: choosing variant and device, and
proving that both are what was requested. Imported at the first use, since its imports (such as
logging) take longer than all the rest of the runtime."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import autotune_cache, onnx_session
from .answers import AnswerCheck
from .bundle import ModelParts
from .cpu import cpu_targets, startable_threads, usable_threads
from .devices import Device
from .errors import (
    AnswerError,
    BundleFormatError,
    DeviceError,
    InputError,
    SelftestError,
    VariantError,
)
from .golden import MAX_GOLDEN_BYTES, Golden
from .manifest import GOLDEN_NAME, PREPROCESS_NAME, Manifest, Variant
from .onnx_session import Session
from .origin import raised_by
from .providers import choose, failed_run, open_session
from .reports import PredictorInfo
from .spec import INPUT_NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .tasks import Arrays

_log = logging.getLogger(__name__)
_MAX_THREADS = 1024  # onnxruntime makes each, however many; a million take the machine down
# Memory of a session without its threads' stacks: of a small one, and for each byte of its model
# (the bytes read, what onnxruntime parses, folds and packs for its kernels, an image's values).
_SESSION_BYTES = 32 << 20
_SESSION_BYTES_PER_MODEL_BYTE = 4
_EXACT_REASON = (
    " It is not portable and this CPU has no VNNI, so it runs with exact kernels "
    "(session.x64quantprecision=1)."
)


@dataclass(frozen=True)
class OpenedModel:
    """A variant that runs on a device."""

    session: Session
    variant: Variant
    device: Device
    is_exact: bool  # with 8-bit kernels that cannot saturate


@dataclass(frozen=True)
class Reason:
    """Why this device and this variant were taken, a sentence each."""

    device: str
    variant: str

    def __str__(self) -> str:
        return f"device: {self.device} variant: {self.variant}"


def open_model(
    parts: ModelParts, device: str, variant: str, threads: int | None
) -> tuple[OpenedModel, Reason]:
    """Open one variant on one device; raises DeviceError, VariantError and other BundleErrors."""
    count = _thread_count(threads, _spare_bytes(parts))

    def attempt(row: Device) -> tuple[OpenedModel, str]:
        chosen, variant_reason = _variant(parts, variant, row.name, count)
        opened = open_variant(parts, row, chosen, count)
        if row.name != "cpu" and parts.id is not None:
            _prove(opened.session, row, parts, chosen)
        return opened, variant_reason + (_EXACT_REASON if opened.is_exact else "")

    (opened, variant_reason), device_reason = choose(device, parts.manifest.devices, attempt)
    _log.info("opened %s on %s", opened.variant.id, opened.device.provider)
    return opened, Reason(device_reason, variant_reason)


def info_of(opened: OpenedModel, parts: ModelParts, reason: Reason) -> PredictorInfo:
    """The report about what was opened."""
    session = opened.session
    return PredictorInfo(
        device=opened.device.name,
        provider=session.get_providers()[0],
        variant=opened.variant.id,
        target=_targets(opened.device.name)[0],
        threads=session.get_session_options().intra_op_num_threads,
        reason=str(reason),
        model_version=parts.manifest.model_version if parts.id else None,
        bundle_id=parts.id,
        signed_by=parts.signed_by,
        synthetic=parts.manifest.synthetic,
        nodes=onnx_session.nodes_by_provider(session),
    )


def open_variant(parts: ModelParts, device: Device, variant: Variant, threads: int) -> OpenedModel:
    """A session of that variant on that device, checked against the spec."""
    target = _targets(device.name)[0]
    # Only there do the 8-bit kernels saturate: they sum pairs in 16 bits.
    exact = variant.precision == "int8" and not variant.portable and target == "x86_64-avx2"
    session = open_session(parts.read(variant.file), device, threads, exact_int8=exact)
    onnx_session.check_model(session, parts.manifest.spec)
    return OpenedModel(session, variant, device, exact)


def usual_variant(manifest: Manifest, device: str) -> str:
    """The id of the bundle's default for a device."""
    return manifest.default_for(*_targets(device)).variant


def open_preprocess(parts: ModelParts) -> Session:
    """The graph from an image to pixels: on every device on one thread of the CPU, where its
    integer arithmetic gives the same bytes everywhere."""
    session = onnx_session.create_on_cpu(parts.read(PREPROCESS_NAME), threads=1, any_size=True)
    onnx_session.check_preprocess(session, parts.manifest.spec)
    return session


def read_golden(parts: ModelParts) -> Golden:
    """The recorded samples; raises SelftestError where there are none."""
    if GOLDEN_NAME not in parts.manifest.files:
        raise SelftestError(
            f"{GOLDEN_NAME} is missing, so nothing can be tested. Build the bundle again."
        )
    if (size := parts.manifest.files[GOLDEN_NAME].size_bytes) > MAX_GOLDEN_BYTES:
        raise BundleFormatError(
            f"{GOLDEN_NAME} has {size} bytes; expected at most {MAX_GOLDEN_BYTES}."
        )
    return Golden.from_npz(parts.read(GOLDEN_NAME), parts.manifest.spec)


def infer(session: Session, pixels: NDArray[np.uint8], check: AnswerCheck) -> Arrays:
    """The outputs for pixels [N, h, w, c]; raises DeviceError and AnswerError."""
    try:
        arrays = session.run(check.names, {INPUT_NAME: pixels})
    except Exception as exc:  # onnxruntime's exceptions have no common base but this
        if not raised_by(exc, "onnxruntime"):
            raise
        raise failed_run(session.get_providers()[0], pixels.shape, exc) from exc
    return check(arrays, len(pixels))


def _spare_bytes(parts: ModelParts) -> int:
    """Memory to leave when the threads have theirs. Parts that are not packed have no sizes."""
    largest = max((file.size_bytes for file in parts.manifest.files.values()), default=0)
    return _SESSION_BYTES + _SESSION_BYTES_PER_MODEL_BYTE * largest


def _thread_count(threads: int | None, spare_bytes: int) -> int:
    """The requested number, or all that affinity, quota and limits leave, the caller's thread
    included."""
    if threads is None:
        return 1 + startable_threads(usable_threads() - 1, spare_bytes)
    if type(threads) is not int or not 1 <= threads <= _MAX_THREADS:
        raise InputError(
            f"threads={threads!r}; expected a whole number from 1 to {_MAX_THREADS}, or None for "
            "all cores that affinity and cgroup quota leave."
        )
    if (possible := 1 + startable_threads(threads - 1, spare_bytes)) < threads:
        raise InputError(
            f"threads={threads}; expected at most {possible}, since the system lets this process "
            "start no more: a limit of processes (ulimit -u, a container's) or of address space "
            f"(ulimit -v), where the model needs some {spare_bytes >> 20} MiB and each thread a "
            "stack and an arena, some 136 MiB. Give fewer, or None for as many as there can be."
        )
    return threads


def _targets(device: str) -> tuple[str, ...]:
    return cpu_targets() if device == "cpu" else (device,)


def _variant(parts: ModelParts, requested: str, device: str, threads: int) -> tuple[Variant, str]:
    """The requested variant, or else the one that was measured: here, or by the maker."""
    manifest = parts.manifest
    if requested != "auto":
        return manifest.variant(requested), f"{requested} was requested."
    if parts.id and (tuned := autotune_cache.recall(parts.id, device, threads)):
        try:
            return manifest.variant(tuned[0]), tuned[1]
        except VariantError:
            _log.info("the remembered variant %r is not in the bundle", tuned[0])
    default = manifest.default_for(*_targets(device))
    return (
        manifest.variant(default.variant),
        f"{default.variant} is the default of {default.target}: {default.reason}",
    )


def _prove(session: Session, device: Device, parts: ModelParts, variant: Variant) -> None:
    """Raise DeviceError unless the golden samples pass on a device that is not the CPU."""
    try:
        golden = read_golden(parts)
        arrays = infer(session, golden.pixels, AnswerCheck(parts.manifest.spec))
        golden.check_together(variant, arrays, variant.tolerance_on(device.name))
    except (AnswerError, SelftestError, DeviceError) as exc:  # of the device, not of the bundle
        raise DeviceError(f"{device.name} fails the golden samples: {exc}") from exc
