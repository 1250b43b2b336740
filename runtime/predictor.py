"""The predictor: pixels in, probabilities out; or any image in, an answer out.

Everything that only opening needs is imported when a predictor is opened. A predictor may be
used from many threads at once, and on the CPU in a forked child.
"""

from __future__ import annotations

import threading
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn, overload

import numpy as np

from . import _onnxruntime as _onnxruntime  # its absence is told here, not at the first use
from .errors import BundleFormatError, DeviceError, InputError, PredictorError
from .images import as_batch, as_image
from .spec import INPUT_NAME, OUTPUT_NAME, PREPROCESS_INPUT, PREPROCESS_OUTPUT

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from .bundle import ModelParts, Source
    from .onnx_session import Session
    from .results import AttributePrediction, Prediction, PredictorInfo, SelftestReport
    from .spec import ModelSpec

_UINT8 = np.dtype(np.uint8)
_OUTPUTS = [OUTPUT_NAME]
_BATCH = 64  # images of a list that are in the model at once: bounds memory, and no faster beyond


class Predictor:
    """One variant of a model, ready on one device.

    ``p(images)`` takes the model's own pixels and never preprocesses; ``p.predict(image)`` takes
    images of any size and always does. ``p.info`` says what runs where and why.
    """

    def __init__(
        self,
        bundle: Source,
        device: str = "auto",
        variant: str = "auto",
        threads: int | None = None,
    ) -> None:
        """Open a bundle: a path, the bytes of one, or a binary file that can seek.

        ``device`` is "cpu" or "cuda", which then runs there or raises DeviceError, or "auto",
        the first of the bundle's devices that works. ``variant`` is one of the bundle's ids or
        "auto", the one that was measured best for this kind of device. ``threads`` is for one
        call on the CPU; by default all cores that affinity and cgroup quota leave.

        Raises BundleFormatError, BundleIntegrityError, VariantError, DeviceError, InputError.
        """
        from .bundle import Bundle

        self._open(Bundle.open(bundle), device, variant, threads)

    @classmethod
    def from_parts(
        cls,
        spec: ModelSpec,
        preprocess: bytes | None,
        model: bytes | str | os.PathLike[str],
        *,
        thresholds: tuple[float, ...] | None = None,
        variant: str = "fp32",
        device: str = "cpu",
        threads: int | None = None,
    ) -> Predictor:
        """A predictor of files that are not packed yet, by the very code that ships.

        ``preprocess`` and ``model`` are ONNX files (``model`` as bytes or a path). Without
        ``preprocess`` there is no ``predict``; without ``thresholds`` an attribute is present
        from 0.5. There are no golden samples, so another device than the CPU is not proved on
        them. Raises as the constructor does.
        """
        from .bundle import Parts, read_file

        parts = Parts(
            spec,
            preprocess,
            model if isinstance(model, bytes) else read_file(model),
            thresholds=thresholds,
            variant=variant,
        )
        predictor = cls.__new__(cls)
        predictor._open(parts, device, variant, threads)
        return predictor

    def _open(self, parts: ModelParts, device: str, variant: str, threads: int | None) -> None:
        from .opening import open_model

        try:
            opened = open_model(parts, device, variant, threads)
        except BaseException:
            parts.close()
            raise
        self._parts = parts
        self._variant = opened.variant
        self._info = opened.info
        self._spec = parts.manifest.spec
        self._shape = self._spec.shape
        self._run = opened.session.run  # close() replaces it, so a call needs no check
        self._preprocess_session: Session = None
        self._is_closed = False
        self._lock = threading.Lock()  # for what is opened at its first use

    @property
    def info(self) -> PredictorInfo:
        """What was opened, where it runs and why."""
        return self._info

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and returns."""
        return self._spec

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities, float32 [N, labels], of the model's pixels, uint8 [N, h, w, c].

        Takes one image [h, w, c] as well; for grey models [h, w] and [N, h, w]; for colour
        models one image with alpha, [h, w, 4]. Raises InputError for any other shape or dtype
        and for an empty batch, DeviceError when the device fails.
        """
        if not (
            type(images) is np.ndarray
            and images.dtype is _UINT8
            and images.shape[1:] == self._shape
            and images.shape[0]
        ):
            images = as_batch(images, self._shape)
        try:
            probabilities: NDArray[np.float32] = self._run(_OUTPUTS, {INPUT_NAME: images})[0]
        except PredictorError:
            raise
        except Exception as exc:  # onnxruntime's exceptions have no common base but this
            raise DeviceError(
                f"{self._info.provider} failed on a batch of shape {images.shape}: {exc} If "
                "memory is short, give smaller batches."
            ) from exc
        return probabilities

    @overload
    def predict(
        self, image: list[Any] | tuple[Any, ...], color: str = "rgb"
    ) -> list[Prediction | AttributePrediction]: ...

    @overload
    def predict(self, image: Any, color: str = "rgb") -> Prediction | AttributePrediction: ...

    def predict(
        self, image: Any, color: str = "rgb"
    ) -> Prediction | AttributePrediction | list[Prediction | AttributePrediction]:
        """The answer for one image, or the list of answers for a list or tuple of images.

        An image is an array of any size, [H, W] or [H, W, C] with C in {1, 3, 4}, uint8, its
        colours in the order of ``color`` ("rgb" or "bgr"), or, with Pillow installed, a path,
        the bytes of an image file or a Pillow image. Returns a Prediction, or an
        AttributePrediction where the model is multi-label. Raises InputError.
        """
        if not isinstance(image, (list, tuple)):
            return self._answers([self.preprocess(image, color)])[0]
        answers: list[Prediction | AttributePrediction] = []
        for start in range(0, len(image), _BATCH):
            batch = image[start : start + _BATCH]
            answers += self._answers(
                [self._item(one, start + i, color) for i, one in enumerate(batch)]
            )
        return answers

    def preprocess(self, image: Any, color: str = "rgb") -> NDArray[np.uint8]:
        """What the model would see of an image: uint8 [h, w, c]. Raises InputError."""
        array = as_image(image, color)
        try:
            (pixels,) = self._preprocessor().run([PREPROCESS_OUTPUT], {PREPROCESS_INPUT: array})
        except PredictorError:
            raise
        except Exception as exc:  # onnxruntime's exceptions have no common base but this
            raise InputError(
                f"preprocess.onnx cannot take an image of shape {array.shape}: {exc}"
            ) from exc
        if pixels.shape != self._shape:
            raise BundleFormatError(
                f"preprocess.onnx made pixels of shape {pixels.shape}; expected {self._shape}. "
                "Build the bundle again."
            )
        return pixels  # type: ignore[no-any-return]

    def selftest(self) -> SelftestReport:
        """Hash every member and run the golden samples where this predictor runs.

        Raises SelftestError for the first sample that does not come out as it was recorded, and
        BundleError for a bundle that was damaged since it was opened.
        """
        from .opening import read_golden
        from .results import SelftestReport

        self._require_open()
        self._parts.verify()
        golden = read_golden(self._parts)
        for index, image in enumerate(golden.raw):
            golden.check_pixels(index, self.preprocess(image))
        return SelftestReport(
            variant=self._variant.id,
            provider=self._info.provider,
            images=len(golden.raw),
            samples=len(golden.pixels),
            max_difference=golden.check_probabilities(self._variant, self(golden.pixels)),
            tolerance=self._variant.golden_tolerance,
        )

    def warmup(self, n: int = 3) -> None:
        """Run ``n`` black images one by one, so that the first real call is as fast as the rest."""
        for _ in range(n):
            self(np.zeros((1, *self._shape), np.uint8))

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

    def _item(self, image: Any, index: int, color: str) -> NDArray[np.uint8]:
        """The pixels of one image of a list; an error says which."""
        try:
            return self.preprocess(image, color)
        except InputError as exc:
            where = f" ({image})" if isinstance(image, (str, PurePath)) else ""
            raise InputError(f"image {index} of the list{where}: {exc}") from exc

    def _answers(self, pixels: list[NDArray[np.uint8]]) -> list[Prediction | AttributePrediction]:
        from .results import AttributePrediction, Prediction

        rows = [tuple(row) for row in self(np.stack(pixels)).tolist()]
        labels, thresholds = self._spec.labels, self._variant.thresholds
        if thresholds is None:
            return [Prediction.from_probabilities(row, labels) for row in rows]
        return [AttributePrediction.from_probabilities(row, labels, thresholds) for row in rows]

    def _preprocessor(self) -> Session:
        """The session of preprocess.onnx, opened at its first use."""
        session = self._preprocess_session
        if session is None:
            from .opening import open_preprocess

            with self._lock:
                self._require_open()
                session = self._preprocess_session or open_preprocess(self._parts)
                self._preprocess_session = session
        return session

    def _require_open(self) -> None:
        if self._is_closed:
            self._refuse()

    def _refuse(self, *_: object) -> NoReturn:
        """Stands where the session's ``run`` stood."""
        raise PredictorError("this predictor is closed. Open another one.")
