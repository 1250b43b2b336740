"""The predictor: pixels in, the model's outputs out; or any image in, an answer out.

Everything that only opening needs is imported when a predictor is opened. A predictor may be
used from many threads at once and, on the CPU, in a forked child (see ``processes.py``); one that
was opened from a path can be pickled.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import numpy as np

from . import _onnxruntime as _onnxruntime  # fail at import, not at the first use, if it is missing
from . import processes
from .errors import BundleFormatError, DeviceError, InputError, PredictorError
from .graph_names import INPUT_NAME, PREPROCESS_INPUT, PREPROCESS_OUTPUT
from .images import as_batch, as_image, renew_locks
from .origin import raised_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from .bundle import ModelParts, Source
    from .errors import AnswerError
    from .onnx_session import Session
    from .reports import AutotuneReport, PredictorInfo, SelftestReport
    from .spec import ModelSpec
    from .tasks import Answer, Arrays

_UINT8 = np.dtype(np.uint8)
_BATCH = 64  # images of a list that are in the model at once: bounds memory, and no faster beyond


class Predictor:
    """One variant of a model, ready on one device.

    ``p(images)`` takes the model's own pixels and never preprocesses; ``p.predict(image)`` takes
    images of any size and always does. ``p.info`` reports what runs where and why.
    """

    _path: str | None = None  # of the bundle; None: it came as bytes, as a file or in parts
    _keys: tuple[str, ...] | None = None  # trusted keys

    def __init__(
        self,
        bundle: Source,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
        *,
        trusted_keys: Iterable[str] | None = None,
    ) -> None:
        """Open a bundle: a path, the bytes of one, or a binary file that can seek.

        ``device`` is "cpu", "cuda" or "openvino", and then runs there or raises DeviceError, or
        "auto", the first of the bundle's devices that works. ``variant`` is one of the bundle's
        ids or "auto", the one that ``autotune`` found fastest here, or else the one that was
        measured best for this kind of device. ``threads`` is for one call on the CPU; by default
        all cores that affinity and cgroup quota leave. With
        ``trusted_keys``, public keys as ``pipeline keygen`` prints them, a bundle that none of
        them signed is refused (SignatureError); without keys, signatures are not checked.

        Raises BundleFormatError, BundleIntegrityError, VariantError, DeviceError, InputError.
        """
        from .bundle import Bundle, reusable_keys

        keys = reusable_keys(trusted_keys)
        if isinstance(bundle, (str, os.PathLike)):
            self._path = os.path.abspath(os.fspath(bundle))  # noqa: PTH100 - the app may change cwd
        self._keys = keys
        self._open(Bundle.open(bundle, keys), device, variant, threads)

    @classmethod
    def from_parts(
        cls,
        spec: ModelSpec,
        preprocess: bytes | None,
        model: bytes | str | os.PathLike[str],
        *,
        thresholds: tuple[float, ...] | None = None,
        variant: str = "fp32",
        portable: bool = True,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Predictor:
        """Open files that are not packed yet, by the very code that ships.

        ``preprocess`` and ``model`` are ONNX files (``model`` as bytes or a path). Without
        ``preprocess`` there is no ``predict``; without ``thresholds`` an attribute is present
        from 0.5. An INT8 model that is not ``portable`` runs with exact kernels where an x86 CPU
        without VNNI would saturate, as it does from a bundle. There are no golden samples, so
        a device other than the CPU is not proved on them. Raises as the constructor does.
        """
        from .bundle import Parts, read_file

        parts = Parts(
            spec,
            preprocess,
            model if isinstance(model, bytes) else read_file(model),
            thresholds=thresholds,
            variant=variant,
            portable=portable,
        )
        predictor = cls.__new__(cls)
        predictor._open(parts, device, variant, threads)
        return predictor

    def _open(self, parts: ModelParts, device: str, variant: str, threads: int | None) -> None:
        from .answers import AnswerCheck
        from .opening import info_of, open_model
        from .tasks import task_named

        try:
            opened, reason = open_model(parts, device, variant, threads)
            self._info = info_of(opened, parts, reason)
        except BaseException:
            parts.close()
            raise
        self._parts = parts
        self._parts_pid = os.getpid()
        self._variant = opened.variant
        self._threads = threads
        self._spec = parts.manifest.spec
        self._shape = self._spec.shape
        self._task = task_named(self._spec.task)
        self._checked = AnswerCheck(self._spec)
        self._names = self._checked.names
        self._run = opened.session.run  # close() replaces it, so a call needs no check
        self._preprocess_session: Session = None
        self._is_closed = False
        self._lock = threading.Lock()  # for what is opened at its first use
        processes.on_fork(self._after_fork)

    @property
    def info(self) -> PredictorInfo:
        """The report about what was opened, where it runs and why."""
        return self._info

    @property
    def spec(self) -> ModelSpec:
        """The contract of the model: what it takes and returns."""
        return self._spec

    def __call__(
        self, images: NDArray[np.uint8], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The one output, float32 [N, ...], of the model's pixels, uint8 [N, h, w, c]: for a model
        with labels its probabilities [N, labels].

        Takes one image [h, w, c] as well; for gray models [h, w] and [N, h, w]; for color
        models one image with alpha, [h, w, 4]. ``out``, if given, is filled and returned. Raises
        InputError for any other shape or dtype, for an empty batch and for a model of several
        outputs, which ``outputs`` gives; DeviceError when the device fails; AnswerError when what
        the model returned is not an answer for each image; ``out`` is then as it was.
        """
        if len(self._names) > 1:
            raise InputError(
                f"the model has the outputs {', '.join(self._names)}; expected one. Call "
                "outputs(images), which gives all of them by name."
            )
        if out is None:
            return self._run_checked(images)[0]
        images = as_batch(images, self._shape)
        self._checked.require_room(out, len(images))
        np.copyto(out, self._run_checked(images)[0])  # 1 us; a buffer bound to the session takes 20
        return out

    def outputs(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Every output by its name, float32 [N, ...], in the order of ``spec.outputs``. Takes and
        raises what a call does."""
        return dict(zip(self._names, self._run_checked(images), strict=True))

    def _run_checked(self, images: NDArray[np.uint8]) -> Arrays:
        """The outputs for the model's pixels, in the spec's order."""
        if not (
            type(images) is np.ndarray
            and images.dtype is _UINT8
            and images.shape[1:] == self._shape
            and images.shape[0]
        ):
            images = as_batch(images, self._shape)
        try:
            arrays = self._run(self._names, {INPUT_NAME: images})
        except PredictorError:
            raise
        except Exception as exc:  # onnxruntime's exceptions have no common base but this
            if not raised_by(exc, "onnxruntime"):
                raise
            from .providers import failed_run

            raise failed_run(self._info.provider, images.shape, exc) from exc
        return self._checked(arrays, len(images))

    @overload
    def predict(
        self,
        image: list[Any] | tuple[Any, ...],
        color: str = "rgb",
        *,
        min_probability: float = 0.0,
    ) -> list[Answer]: ...

    @overload
    def predict(
        self, image: Any, color: str = "rgb", *, min_probability: float = 0.0
    ) -> Answer: ...

    def predict(
        self, image: Any, color: str = "rgb", *, min_probability: float = 0.0
    ) -> Answer | list[Answer]:
        """The answer for one image, or the list of answers for a list or tuple of images.

        An image is an array of any size, [H, W] or [H, W, C] with C in {1, 3, 4}, uint8, its
        colors in the order of ``color`` ("rgb" or "bgr"), or, with Pillow installed, a path,
        the bytes of an image file or a Pillow image. Returns the answer of the model's task: a
        Prediction, an AttributePrediction or Values. Those with probabilities are not ``accepted``
        where they are less probable than ``min_probability``. Raises InputError, and AnswerError
        for an image that the model has no answer for.
        """
        self._check_probability(min_probability)
        if not isinstance(image, (list, tuple)):
            return self._answers(self.preprocess(image, color)[np.newaxis], min_probability)[0]
        return list(self._stream(image, "list", _BATCH, color, min_probability, False))

    @overload
    def stream(
        self,
        images: Iterable[Any],
        batch_size: int = 1,
        color: str = "rgb",
        *,
        min_probability: float = 0.0,
        return_errors: Literal[False] = False,
    ) -> Iterator[Answer]: ...

    @overload
    def stream(
        self,
        images: Iterable[Any],
        batch_size: int = 1,
        color: str = "rgb",
        *,
        min_probability: float = 0.0,
        return_errors: Literal[True],
    ) -> Iterator[Answer | InputError | AnswerError]: ...

    def stream(
        self,
        images: Iterable[Any],
        batch_size: int = 1,
        color: str = "rgb",
        *,
        min_probability: float = 0.0,
        return_errors: bool = False,
    ) -> Iterator[Any]:
        """The answers of images of any size, in their order, while ``images`` is being read.

        At most ``batch_size`` images are held, as the model's pixels, so a stream may be endless.
        With 1 each answer comes before the next image is taken, as a camera wants it; more is
        faster for files. An image that cannot be taken (InputError), or that the model has no
        answer for (AnswerError), ends the stream with an error that says which, after
        the answers of those before it; with ``return_errors`` that error is returned in its place
        and the stream continues. The rest is as in ``predict``.
        """
        self._check_probability(min_probability)
        from .streaming import items_of

        items = items_of(images, batch_size)
        return self._stream(items, "stream", batch_size, color, min_probability, return_errors)

    def _stream(
        self,
        images: Iterable[Any],
        source: str,
        batch_size: int,
        color: str,
        min_probability: float,
        return_errors: bool,
    ) -> Iterator[Any]:
        from .streaming import answers_of

        return answers_of(
            images,
            batch_size=batch_size,
            where=f"image {{}} of the {source}{{}}",
            prepare=lambda image: self.preprocess(image, color),
            answer=lambda pixels: self._answers(pixels, min_probability),
            return_errors=return_errors,
        )

    def preprocess(self, image: Any, color: str = "rgb") -> NDArray[np.uint8]:
        """Return the model's pixels of an image, uint8 [h, w, c]. Raises InputError."""
        array = as_image(image, color, self._spec.white_level)
        try:
            (pixels,) = self._preprocessor().run([PREPROCESS_OUTPUT], {PREPROCESS_INPUT: array})
        except PredictorError:
            raise
        except Exception as exc:  # onnxruntime's exceptions have no common base but this
            if not raised_by(exc, "onnxruntime"):
                raise
            raise InputError(
                f"preprocess.onnx cannot take an image of shape {array.shape}: {exc}"
            ) from exc
        if pixels.shape != self._shape or pixels.dtype != _UINT8:
            raise BundleFormatError(
                f"preprocess.onnx made {pixels.dtype} pixels of shape {pixels.shape}; expected "
                f"uint8, {self._shape}. Build the bundle again."
            )
        return pixels  # type: ignore[no-any-return]

    def selftest(self) -> SelftestReport:
        """Hash every member and run the golden samples where this predictor runs: one by one, in
        pairs and all together, since an answer must not depend on its neighbors in a batch.

        Raises SelftestError for the first sample that does not come out as it was recorded, and
        BundleError for a bundle that was damaged since it was opened.
        """
        from .opening import read_golden
        from .reports import SelftestReport

        parts = self._own_parts()
        parts.verify()
        golden = read_golden(parts)
        for index, image in enumerate(golden.raw):
            golden.check_pixels(index, self.preprocess(image))
        tolerance = self._variant.tolerance_on(self._info.device)
        return SelftestReport(
            variant=self._variant.id,
            provider=self._info.provider,
            images=len(golden.raw),
            samples=len(golden.pixels),
            max_difference=golden.replay(self._variant, self._run_checked, tolerance),
            tolerance=tolerance,
        )

    def autotune(self, seconds: float = 2.0) -> AutotuneReport:
        """Time every variant that passes its golden samples where this predictor runs, for some
        ``seconds``, and remember the fastest in the user's cache folder.

        From then on ``variant="auto"`` opens it here, until the bundle, the CPU, onnxruntime or
        the number of threads changes. This predictor stays as it is. Raises SelftestError
        when no variant passes or there are no golden samples, InputError.
        """
        from .autotune import autotune

        return autotune(self._own_parts(), self._info.device, self._info.threads, seconds)

    def warmup(self, n: int = 3) -> None:
        """Run ``n`` black images one by one, so that the first real call is as fast as the rest.

        Raises InputError."""
        if type(n) is not int or n < 0:
            raise InputError(f"warmup({n!r}); expected a whole number of at least 0.")
        for _ in range(n):
            self._run_checked(np.zeros((1, *self._shape), np.uint8))

    def close(self) -> None:
        """Free the sessions and the file; every later call raises PredictorError."""
        with self._lock:
            self._is_closed = True
            self._run = self._refuse
            self._preprocess_session = None
            self._parts.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Predictor {self._spec.name} {self._info.variant} on {self._info.device}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle holds the path and the bundle's id, and opens again where it is read: the same
        bundle, device and variant, or an error. The bytes of a bundle may be large, so sending
        them is left to the app."""
        self._require_open()
        if self._path is None:
            raise PredictorError(
                "this predictor was not opened from a path, so it cannot be pickled. Send the "
                "bundle's path or bytes, and open it there."
            )
        info = self._info
        state = (self._path, info.bundle_id, info.device, info.variant, self._threads, self._keys)
        return (_unpickled, (type(self), *state))

    def _answers(self, pixels: NDArray[np.uint8], min_probability: float) -> Sequence[Answer]:
        """The answers for the model's pixels [N, h, w, c]."""
        arrays = self._run_checked(pixels)
        return self._task.answers(arrays, self._spec, self._variant.thresholds, min_probability)

    def _check_probability(self, value: object) -> None:
        if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
            raise InputError(f"min_probability={value!r}; expected a number from 0 to 1.")
        if value and not self._task.has_labels:
            raise InputError(
                f"min_probability={value!r}; expected 0, since a model of the task "
                f"{self._task.name} gives no probabilities."
            )

    def _preprocessor(self) -> Session:
        """The session of preprocess.onnx, opened at its first use."""
        session = self._preprocess_session
        if session is None:
            from .opening import open_preprocess

            parts = self._own_parts()
            with self._lock:
                self._require_open()
                session = self._preprocess_session or open_preprocess(parts)
                self._preprocess_session = session
        return session

    def _own_parts(self) -> ModelParts:
        """The bundle, open in this process: a forked child shares its parent's position in the
        file, so it opens the path again."""
        self._require_open()
        if self._parts_pid != os.getpid():
            from .bundle import Bundle, check_same

            with self._lock:
                if self._parts_pid != os.getpid():
                    if self._path is not None:
                        bundle = Bundle.open(self._path, self._keys)
                        check_same(self._path, bundle.id, self._info.bundle_id)
                        self._parts = bundle
                    self._parts_pid = os.getpid()
        return self._parts

    def _after_fork(self) -> None:
        """Adapt to a forked child: locks may have been held, threads and CUDA contexts are gone."""
        renew_locks()
        self._lock = threading.Lock()
        self._parts.renew_lock()
        if self._is_closed:
            return
        if self._info.device == "cpu" and self._info.threads == 1:
            return  # a session of one thread has no pool to miss, and its weights stay shared
        processes.make_immortal(self._run.__self__)
        if self._info.device == "cpu":
            self._run = self._run_in_child
        else:
            self._run = self._refuse_in_child

    def _run_in_child(self, *arguments: Any) -> Any:
        """Replace the session's ``run`` until the child has a session of its own."""
        from .devices import DEVICES
        from .opening import open_variant

        parts = self._own_parts()
        with self._lock:
            self._require_open()
            if self._run == self._run_in_child:
                row = DEVICES[self._info.device]
                opened = open_variant(parts, row, self._variant, self._info.threads)
                self._run = opened.session.run
        return self._run(*arguments)

    def _refuse_in_child(self, *_: object) -> NoReturn:
        raise DeviceError(
            f"this predictor was opened on {self._info.device} before the process forked, and "
            f"{self._info.device} does not survive that. Open it in the child, or start the child "
            "with multiprocessing's 'spawn' or 'forkserver'."
        )

    def _require_open(self) -> None:
        if self._is_closed:
            self._refuse()

    def _refuse(self, *_: object) -> NoReturn:
        """Replace the ``run`` of a closed session."""
        raise PredictorError("this predictor is closed. Open another one.")


def _unpickled(
    cls: type[Predictor],
    path: str,
    bundle_id: str,
    device: str,
    variant: str,
    threads: int | None,
    keys: tuple[str, ...] | None,
) -> Predictor:
    """Open a predictor again; raises BundleIntegrityError where the path has another bundle now."""
    from .bundle import check_same

    predictor = cls(path, device, variant, threads, trusted_keys=keys)
    try:
        check_same(path, predictor.info.bundle_id, bundle_id)
    except BaseException:
        predictor.close()
        raise
    return predictor
