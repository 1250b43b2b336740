"""Attacks by the named outputs of a model without labels: its spec, its graph, its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import bundle_builders as build
import numpy as np

from attack_cases.attack import Attack
from attack_cases.forging import forged
from attack_cases.golden_attacks import golden_with
from runtime import AnswerError, BundleFormatError, OutputSpec, PredictorError, SelftestError

HEADS = build.HEADS


def heads() -> bytes:
    """The clean twin."""
    return forged(lambda manifest: None, {}, spec=HEADS)  # type: ignore[no-any-return]


def _spec(name: str, why: str, edit: Callable[[dict[str, Any]], object], message: str) -> Attack:
    def evil() -> bytes:
        return forged(lambda m: edit(m["spec"]), {}, spec=HEADS)  # type: ignore[no-any-return]

    return Attack(f"outputs: {name}", why, evil, BundleFormatError, message, heads)


def _output(title: str, why: str, message: str, **change: Any) -> Attack:
    return _spec(title, why, lambda spec: spec["outputs"][0].update(change), message)


def _member(
    name: str,
    why: str,
    member: str,
    data: Callable[[], bytes],
    message: str,
    error: type[PredictorError] = BundleFormatError,
) -> Attack:
    def evil() -> bytes:
        return forged(lambda m: None, {member: data()}, spec=HEADS)  # type: ignore[no-any-return]

    return Attack(f"outputs: {name}", why, evil, error, message, heads)


def _golden(
    name: str,
    why: str,
    message: str,
    error: type[PredictorError] = BundleFormatError,
    **arrays: Any,
) -> Attack:
    return _member(name, why, "golden.npz", golden_with(HEADS, **arrays), message, error)


def _graph(name: str, why: str, outputs: tuple[OutputSpec, ...], message: str) -> Attack:
    spec = replace(HEADS, outputs=outputs)
    return _member(
        name,
        why,
        "variants/fp32.onnx",
        lambda: build.model(spec, stamp=HEADS.to_json()),
        message,
    )


def not_finite() -> bytes:
    """A model whose weights are infinite."""
    return build.model(HEADS).replace(  # type: ignore[no-any-return]
        np.float32(1 / 255).tobytes(), np.float32(np.inf).tobytes()
    )


boxes, scores = HEADS.outputs
OUTPUTS = (
    _output(
        "the same name twice",
        "Which of the two is meant depends on the reader.",
        "scores",
        name="scores",
    ),
    _output("two names that differ in case", "One file on Windows.", "Scores", name="Scores"),
    _output("a name that is a path", "Unpacked, it lands elsewhere.", r"\.\./x", name="../x"),
    _output("a name of a golden array", "Its record passes for raw images.", "raw", name="raw"),
    _output("a name of a device", "Windows opens the printer.", "LPT1", name="LPT1"),
    _output(
        "a name that does not show",
        "Two names look the same.",
        r"outputs\[0\]\.name has U\+200B",
        name="scores\u200b",
    ),
    _output("an escape in a name", "Clears the terminal.", r"U\+001B", name="a\x1b[2J"),
    _output("a name of another script", "Cyrillic o.", "name", name="b\u043exes"),
    _output("a name of 1,000 letters", "Longer than a member's.", "name", name="n" * 1000),
    _output("10^9 values", "Whoever makes room for it is gone.", "1000000000", shape=[10**9]),
    _output("10^12 values", "The same in two axes.", "1000000", shape=[10**6, 10**6]),
    _output("a negative size", "-2 times -4 is 8.", "-2", shape=[-2, -4]),
    _output("a size of zero", "An answer without values.", "0", shape=[0]),
    _output("a size that is true", "True is 1 in Python.", "(?i)true", shape=[True]),
    _output("100 axes", "More than arrays can have.", "100 axes", shape=[1] * 100),
    _output("another type", "Pickles are objects, too.", "object", dtype="object"),
    _output("an unknown key", "A reader that ignores it differs.", "unit", unit="m"),
    _spec(
        "500 of them",
        "As many members of the record.",
        lambda s: s.update(outputs=[{**s["outputs"][0], "name": f"o{i}"} for i in range(500)]),
        "500 outputs",
    ),
    _spec("none", "A model that answers nothing.", lambda s: s.update(outputs=[]), "0 outputs"),
    _spec("no list", "Its keys pass for one.", lambda s: s.update(outputs={"a": 1}), "outputs"),
    _spec(
        "labels as well",
        "Probabilities that nobody checks.",
        lambda s: s.update(labels=["a"]),
        "labels",
    ),
    _spec(
        "in an older spec",
        "An older reader would not look at them.",
        lambda s: s.update(spec_version=1),
        "outputs",
    ),
    _spec(
        "of a task with labels",
        "One spec in two writings, of which two readers see different ones.",
        lambda s: s.update(task="multi-class", labels=["a", "b"]),
        "boxes.*scores.*probabilities",
    ),
    _spec("an unknown task", "It means nothing here.", lambda s: s.update(task="x"), "task 'x'"),
    _graph("in another order", "Boxes pass for scores.", (scores, boxes), "outputs"),
    _graph("one fewer", "The other is asked for in vain.", (boxes,), "outputs"),
    _graph(
        "one more",
        "An output that nothing checks.",
        (boxes, scores, OutputSpec("extra", (1,))),
        "outputs",
    ),
    _graph(
        "another shape",
        "Eight numbers, and other boxes.",
        (OutputSpec("boxes", (4, 2)), scores),
        "outputs",
    ),
    _member(
        "not finite",
        "No comparison with NaN is ever false.",
        "variants/fp32.onnx",
        not_finite,
        "NaN or infinity",
        AnswerError,
    ),
    _golden(
        "a record that lacks one",
        "Half of the answer is tested.",
        "masks/fp32",
        **{"masks/fp32": np.zeros((3, 2, 4), np.float32)},
    ),
    _golden(
        "a record of another shape",
        "Broadcasting compares one box with all.",
        "boxes/fp32",
        **{"boxes/fp32": np.zeros((3, 1, 4), np.float32)},
    ),
    _golden(
        "other values",
        "The model does not compute what was recorded.",
        "differs from its golden outputs",
        SelftestError,
        **{"scores/fp32": np.zeros((3, 3), np.float32)},
    ),
    _golden(
        "a record of infinities",
        "As a share of infinity every difference is nothing.",
        "differs from its golden outputs by nan",
        SelftestError,
        **{"scores/fp32": np.full((3, 3), np.inf, np.float32)},
    ),
)
