"""An app's own exceptions, a time limit's or a cancellation's, pass through: at whatever line they
strike, they are not taken for a fault of the bundle, the device or the image."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as states
from PIL import Image, UnidentifiedImageError

import runtime
from runtime import (
    AnswerError,
    BundleFormatError,
    DeviceError,
    InputError,
    Predictor,
    PredictorError,
    Slot,
)
from runtime.origin import is_the_apps, let_through, raised_by

PACKAGE = str(Path(runtime.__file__).parent)
LIBRARIES = (PACKAGE, str(Path(onnxruntime.__file__).parent), str(Path(Image.__file__).parent))
PAGE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


class TimeIsUp(Exception):
    pass


class TimeIsUpAsRuntimeError(RuntimeError):
    pass


class TimeIsUpAsValueError(ValueError):
    pass


KINDS: tuple[type[Exception], ...] = (
    TimeIsUp,
    TimeIsUpAsRuntimeError,
    TimeIsUpAsValueError,
    TimeoutError,
)


@contextmanager
def striking(at: int, kind: type[BaseException]) -> Iterator[list[int]]:
    """Raise ``kind`` at the ``at``-th line that runs in the package, onnxruntime or Pillow, from a
    function of its own, as a signal's handler does. Yields the number of lines so far."""
    lines = [0]

    def strike(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            lines[0] += 1
            if lines[0] == at:
                sys.settrace(None)
                raise kind("the app's own")
        return strike

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        return strike if frame.f_code.co_filename.startswith(LIBRARIES) else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield lines
    finally:
        sys.settrace(before)


def strikes(
    use: Callable[[], object], points: int, kinds: tuple[type[Exception], ...] = KINDS
) -> None:
    """``use`` lets an exception through at ``points`` lines spread over all that it runs."""
    use()  # what is done once is done
    with striking(0, TimeIsUp) as lines:
        use()
    total = lines[0]
    assert total > points
    for number in range(points):
        kind = kinds[number % len(kinds)]
        at = 1 + number * total // points
        with pytest.raises(kind, match="the app's own") as caught, striking(at, kind):
            use()
        assert type(caught.value) is kind, at


@pytest.fixture(scope="module")
def slot(build: Any, tmp_path_factory: pytest.TempPathFactory) -> Slot:
    slot = Slot(tmp_path_factory.mktemp("slot"))
    for number in (1, 2):
        data = build.bundle(edit=lambda m: m.update(model_version=f"{number}.0.0"))  # noqa: B023
        slot.install(data, device="cpu")
    return slot


def test_a_slot_never_opens_its_older_bundle_for_it(slot: Slot) -> None:
    def use() -> None:
        with slot.open("cpu", threads=1) as p:
            assert p.info.model_version == "2.0.0"

    strikes(use, 120)
    strikes(use, 120, (ValueError, OSError))  # which the package catches: the frames decide
    assert slot.state.problem is None


def test_a_call_and_a_stream_let_it_through(gray_bundle: bytes, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    Image.fromarray(PAGE).save(path)
    with Predictor(gray_bundle, device="cpu", threads=1) as p:
        items = [path, path.read_bytes(), PAGE, "no.png"]
        strikes(lambda: p.predict(Image.open(path)), 40)
        strikes(lambda: list(p.stream(items, 2, return_errors=True)), 40)
        expected = p.predict(PAGE)
        assert p.predict(path) == expected


def test_autotune_lets_it_through(
    gray_bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("runtime.autotune._MIN_ROUNDS", 1)
    monkeypatch.setattr("runtime.autotune._TURN_SECONDS", 1e-9)
    with Predictor(gray_bundle, device="cpu", threads=1) as p:
        strikes(lambda: p.autotune(1e-9), 40)


def test_a_signal_s_exception_passes_through(build: Any, monkeypatch: Any) -> None:
    """It may be of a class that onnxruntime raises as well: the handler's frame decides."""

    def handler(*_: object) -> None:
        raise RuntimeError("the app's own")

    before = signal.signal(signal.SIGINT, handler)
    try:
        with Predictor(build.bundle(), device="cpu", threads=1) as p:
            run = p._run

            def interrupted(*arguments: Any) -> Any:
                signal.raise_signal(signal.SIGINT)
                return run(*arguments)

            monkeypatch.setattr(p, "_run", interrupted)
            with pytest.raises(RuntimeError, match="the app's own"):
                p.selftest()
    finally:
        signal.signal(signal.SIGINT, before)


def raised(kind: type[BaseException], *arguments: Any) -> BaseException:
    try:
        raise kind(*arguments)
    except BaseException as exc:
        return exc


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (TimeIsUp(), True),
        (TimeIsUpAsRuntimeError(), True),
        (TimeoutError(), True),
        (TimeoutError("time is up"), True),
        (TimeoutError(errno.ETIMEDOUT, "a network drive"), False),
        (concurrent.futures.CancelledError(), True),
        (concurrent.futures.TimeoutError(), True),
        (asyncio.CancelledError(), True),
        (OSError(errno.EIO, "a disk"), False),
        (ValueError("a value"), False),
        (RuntimeError("a thread"), False),
        (UnidentifiedImageError("no image"), False),
        (states.Fail("a model"), False),
        (InputError("an image"), False),
        (AnswerError("an answer", 1), False),
    ],
)
def test_the_class_tells_whose_it_is(exc: Exception, expected: bool) -> None:
    assert is_the_apps(exc) is expected
    if expected:
        with pytest.raises(type(exc)):
            let_through(exc)
    else:
        let_through(exc)


def test_frames_tell_whose_a_built_in_one_is() -> None:
    """This module takes the part of an app: what it raises itself is not a library's."""
    for kind in (RuntimeError, ValueError, OSError, MemoryError):
        assert not raised_by(raised(kind, "mine"), "onnxruntime")
        with pytest.raises(kind, match="mine"):
            let_through(raised(kind, "mine"))
    let_through(raised(OSError, errno.ENOSPC, "a disk"))  # what a system call reports
    assert raised_by(states.RuntimeException("theirs"), "onnxruntime")
    with pytest.raises(Exception) as caught:  # whatever it is
        Image.open(io.BytesIO(b"junk"))
    assert raised_by(caught.value, "PIL")


def test_too_little_memory_is_not_a_fault_of_a_bundle_or_an_image(
    gray: Predictor, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (MemoryError, RecursionError):

        def short(*_: object, **__: object) -> Any:
            raise kind  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(gray, "_run", short)
            with pytest.raises(kind):
                gray.predict(PAGE)
        with monkeypatch.context() as patch:
            patch.setattr("runtime.onnx_session.onnxruntime.InferenceSession", short)
            with pytest.raises(kind):
                Predictor(build.bundle(), device="cpu")


def test_what_the_libraries_raise_is_still_the_package_s_own_error(
    gray: Predictor, build: Any, tmp_path: Path
) -> None:
    with pytest.raises(BundleFormatError):
        Predictor.from_parts(build.GRAY, None, build.model(build.GRAY)[:-60])
    for junk in (b"", b"junk", b"\x89PNG\r\n\x1a\n junk"):
        with pytest.raises(InputError, match="cannot be decoded"):
            gray.predict(junk)
    with pytest.raises(InputError, match="no\\.png"):
        gray.predict(tmp_path / "no.png")
    with pytest.raises(InputError):
        gray.predict(tmp_path)
    broken = io.BytesIO()
    Image.fromarray(PAGE).save(broken, "png")
    for _ in range(2):
        with pytest.raises(InputError):
            gray.predict(Image.open(io.BytesIO(broken.getvalue()[:-900])))
    gray._run = lambda *_: onnxruntime.InferenceSession(b"junk")
    with pytest.raises(DeviceError, match="CPUExecutionProvider failed on a batch"):
        gray(np.zeros((1, 8, 8, 1), np.uint8))


def test_a_picture_s_own_file_may_fail_as_the_app_likes(gray: Predictor) -> None:
    """Pillow reads an app's file object when its picture is used."""
    data = io.BytesIO()
    Image.fromarray(PAGE).save(data, "png")

    class Remote(io.BytesIO):
        is_gone = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.is_gone:
                raise TimeIsUp("the app's own")
            return super().read(size)

    file = Remote(data.getvalue())
    image = Image.open(file)
    file.is_gone = True
    with pytest.raises(TimeIsUp):
        gray.predict(image)


def test_another_thread_s_exception_passes_through(gray: Predictor) -> None:
    """As PyThreadState_SetAsyncExc raises it: without a frame of its own."""
    import ctypes

    start, outcome = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            start.set()
            while True:
                gray.predict(PAGE)
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    start.wait()
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeIsUp))
    thread.join(30)
    assert [type(exc) for exc in outcome] == [TimeIsUp]
    assert not isinstance(outcome[0], PredictorError)
