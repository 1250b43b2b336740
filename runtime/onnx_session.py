"""One onnxruntime session: its options, plain errors of loading, and the check that the graph is
the one that the spec describes. Independent of bundles, and of devices but for a provider's
name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ._onnxruntime import onnxruntime
from .devices import CPU_PROVIDER
from .errors import BundleFormatError
from .model_file import check_model_file
from .origin import raised_by
from .spec import (
    INPUT_NAME,
    METADATA_KEY,
    PREPROCESS_INPUT,
    PREPROCESS_OUTPUT,
    ModelSpec,
)

Session = Any  # onnxruntime.InferenceSession, which has no types

_OPTIONS = {
    # Which provider got which node: opening takes as long with it as without (2.84 and 2.87 ms of
    # CPU for a face network), and releases that do not know the entry ignore it.
    "session.record_ep_graph_assignment_info": "1",
    # A thread that spins while it waits for work burns the app's core, or its cgroup's quota.
    "session.intra_op.allow_spinning": "0",
    "session.inter_op.allow_spinning": "0",
}
_EXACT_INT8 = {"session.x64quantprecision": "1"}  # U8U8 kernels: +18 % instructions, no saturation
_SEVERITY_ERROR = 3  # warnings about a graph are for its maker, not for the app's stderr
# onnxruntime's words about a model that it cannot load, and what to do about it.
_LOAD_ERRORS = (
    (
        r"model IR version: (\d+), max supported IR version: (\d+)",
        "it is written in ONNX IR version {0}; this onnxruntime reads up to {1}. {upgrade}",
    ),
    (
        r"Opset (\d+) is under development.*till opset (\d+)",
        "it uses opset {0}; this onnxruntime knows up to {1}. {upgrade}",
    ),
    (
        r"Could not find an implementation for (\w+)",
        "this onnxruntime has no kernel for its operator {0}. {upgrade}",
    ),
    (
        r"[Pp]rotobuf parsing failed|No graph was found|ModelProto does not have a graph",
        "it is not an ONNX model, or a truncated one. Build the bundle again.",
    ),
)
_UPGRADE = "Install a newer onnxruntime, or export with opset 18 and IR version 8."


def create(
    model: bytes,
    provider: str,
    threads: int,
    *,
    provider_options: Mapping[str, str] | None = None,
    exact_int8: bool = False,
    any_size: bool = False,
) -> Session:
    """A session on ``provider`` alone (and the CPU provider, which every other one leans on).

    ``exact_int8`` takes kernels that cannot saturate on x86 without VNNI. ``any_size`` is for a
    graph whose input has another shape at every call.

    The arena stays on: without it the digit graph takes 1.4 times the time at 12 megapixels, and
    memory grows rather than shrinks. The memory pattern, a plan of all buffers that onnxruntime
    keeps for each shape it has met, saves 3 us of 50 where the shape repeats; where it does not,
    the plans pile up (1500 images of different sizes: 37 MB and growing, 14 MB and steady without),
    so ``any_size`` turns it off.

    Raises BundleFormatError for bytes that no device could load, and whatever onnxruntime raises
    for the rest. The caller must ask the session whether it runs on ``provider``.
    """
    check_model_file(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # used by parallel execution only, which is off
    options.log_severity_level = _SEVERITY_ERROR
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = not any_size
    for key, value in {**_OPTIONS, **(_EXACT_INT8 if exact_int8 else {})}.items():
        options.add_session_config_entry(key, value)
    providers: list[Any] = [(provider, dict(provider_options or {}))]
    if provider != CPU_PROVIDER:
        providers.append(CPU_PROVIDER)
    try:
        # enable_fallback=0: without it a failing provider is replaced in silence, even in run()
        return onnxruntime.InferenceSession(
            model, sess_options=options, providers=providers, enable_fallback=0
        )
    except Exception as exc:  # onnxruntime's exceptions have no common base but this
        if not raised_by(exc, "onnxruntime"):
            raise
        if reason := _load_error(str(exc)):
            raise BundleFormatError(f"the model cannot be loaded: {reason}") from exc
        raise


def create_on_cpu(
    model: bytes, threads: int, *, exact_int8: bool = False, any_size: bool = False
) -> Session:
    """A session on the CPU; whatever goes wrong is the model's fault: BundleFormatError."""
    try:
        return create(model, CPU_PROVIDER, threads, exact_int8=exact_int8, any_size=any_size)
    except BundleFormatError:
        raise
    except Exception as exc:  # as above
        if not raised_by(exc, "onnxruntime"):
            raise
        raise BundleFormatError(
            f"the model cannot be loaded by onnxruntime {onnxruntime.__version__}: {exc}"
        ) from exc


def nodes_by_provider(session: Session) -> dict[str, int] | None:
    """The number of nodes of the optimized graph that each provider runs; a subgraph that a
    provider took as a whole counts with all its nodes. None where onnxruntime does not report
    it (1.24 and 1.32 do)."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    counts: dict[str, int] = {}
    try:
        for part in session.get_provider_graph_assignment_info():
            counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    except Exception as exc:  # an undocumented function, which may fail
        if not raised_by(exc, "onnxruntime"):
            raise
        return None
    return counts


def check_model(session: Session, spec: ModelSpec) -> None:
    """Raise BundleFormatError unless the graph has the inputs and outputs of ``spec``."""
    _check_ends(
        session,
        (INPUT_NAME, "tensor(uint8)", (None, *spec.shape)),
        *((output.name, "tensor(float)", (None, *output.shape)) for output in spec.outputs),
    )
    with _text_is_utf8():
        stamp = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if stamp is None:
        raise BundleFormatError(
            f"the model has no metadata {METADATA_KEY!r}; expected its spec. Export it again."
        )
    if ModelSpec.from_json(stamp) != spec:
        raise BundleFormatError(
            f"the model is stamped with another spec ({stamp}) than expected "
            f"({spec.to_json()}). Build the bundle again."
        )


def check_preprocess(session: Session, spec: ModelSpec) -> None:
    """Raise BundleFormatError unless the graph turns an image of any size into pixels."""
    _check_ends(
        session,
        (PREPROCESS_INPUT, "tensor(uint8)", (None, None, None)),
        (PREPROCESS_OUTPUT, "tensor(uint8)", spec.shape),
    )


@contextlib.contextmanager
def _text_is_utf8() -> Iterator[None]:
    """Raise BundleFormatError for a model's text that is not UTF-8: onnxruntime decodes it late."""
    try:
        yield
    except UnicodeDecodeError as exc:
        raise BundleFormatError(
            f"the model has names or metadata that are not UTF-8 ({exc.reason} at byte "
            f"{exc.start}). Build the bundle again."
        ) from exc


_End = tuple[str, str, tuple["int | None", ...]]  # name, type, shape; None: must not be fixed


def _check_ends(session: Session, expected_input: _End, *expected_outputs: _End) -> None:
    for what, nodes, expected in (
        ("inputs", session.get_inputs(), (expected_input,)),
        ("outputs", session.get_outputs(), expected_outputs),
    ):
        with _text_is_utf8():
            ends = [(node.name, node.type, tuple(node.shape)) for node in nodes]
        if len(ends) != len(expected) or not all(map(_fits, ends, expected)):
            raise BundleFormatError(
                f"the graph has the {what} {ends}; expected {[*expected]} (None: any size). "
                "Export it again."
            )


def _fits(end: tuple[str, str, tuple[Any, ...]], expected: _End) -> bool:
    """True where each dimension that must be free is not a number, and each that is known is that
    number or unknown."""
    return (
        end[:2] == expected[:2]
        and len(end[2]) == len(expected[2])
        and all(
            not isinstance(size, int) or size == known
            for size, known in zip(end[2], expected[2], strict=True)
        )
    )


def _load_error(text: str) -> str | None:
    """The fault of a model and what to do, if the model is to blame."""
    for pattern, message in _LOAD_ERRORS:
        if match := re.search(pattern, text, re.DOTALL):
            return message.format(*match.groups(), upgrade=_UPGRADE)
    return None
