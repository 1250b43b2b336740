"""values: any named float outputs, without labels. There is nothing to learn from; the task is for
networks that are trained already."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UntrainedTask:
    """A task that no recipe can train."""

    name: str
    purpose: str  # a clause for the message that refuses a recipe


VALUES = UntrainedTask(
    "values",
    "this task has no labels, so there is nothing to train. It is for trained networks whose "
    "outputs are not labels (pictures, boxes, embeddings): quantize one with "
    "`pipeline quantize-onnx MODEL.onnx --task values`",
)
