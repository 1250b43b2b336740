"""A loop over camera frames that reports an answer when it is sure and the answer has changed.

    from camera import watch

    camera = cv2.VideoCapture(0)
    watch("bundle.zip", frames_of(camera))

OpenCV's frames are arrays [H, W, 3] with blue first, so ``color="bgr"``. Nothing here needs OpenCV
itself: any iterator over such frames will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from runtime import Prediction, Predictor


def frames_of(camera: Any) -> Iterator[Any]:
    """The frames of a cv2.VideoCapture until it ends."""
    while True:
        read, frame = camera.read()
        if not read:
            return
        yield frame


def watch(
    bundle: str,
    frames: Iterable[Any],
    min_probability: float = 0.9,
    report: Callable[[str], None] = print,
) -> int:
    """Report each new answer and return the number of frames."""
    seen, last = 0, None
    with Predictor(bundle) as predictor:
        predictor.warmup()  # so that the first frame is not late
        # batch_size is 1: each answer comes before the next frame is fetched
        for answer in predictor.stream(frames, color="bgr", min_probability=min_probability):
            seen += 1
            if not answer.accepted:
                continue  # a blurred frame, say: wait for a better one
            text = answer.label if isinstance(answer, Prediction) else ", ".join(answer.present)
            if text != last:
                report(text)
                last = text
    return seen
