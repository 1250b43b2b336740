"""The cost of single scales and ranges of an INT8 side compared with a float one, measured by
putting each back into float."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.probabilities import Floats
from exporters.explain.first_divergence import PointPair
from exporters.explain.int8_damage import damages
from pipeline.compare.pair import ModelPair
from pipeline.compare.result import DamageRow
from pipeline.verify.images import Images

_IMAGES = 64  # evenly over the data


def damage_rows(
    pair: ModelPair,
    layers: tuple[PointPair, ...],
    images: Images | None,
    answers_a: Floats,
    answers_b: Floats,
    numeric: NDArray[np.int64],
) -> tuple[DamageRow, ...]:
    """Return the scales and ranges of the INT8 side that cost more than rounding, or are not
    rounding at all; none unless exactly one side is INT8 and both have layers."""
    if not layers or images is None or pair.takes is not None or not len(numeric):
        return ()
    quantized = [form.precision == "int8" for form in (pair.a, pair.b)]
    if sum(quantized) != 1:
        return ()
    name, form, expected = ("A", pair.a, answers_b) if quantized[0] else ("B", pair.b, answers_a)
    if form.graph is None:
        return ()
    if quantized[0]:
        layers = tuple(replace(layer, a=layer.b, b=layer.a) for layer in layers)
    rows = numeric[np.linspace(0, len(numeric) - 1, min(_IMAGES, len(numeric))).astype(np.int64)]
    pixels = np.ascontiguousarray(images.pixels[rows])
    try:
        costs = damages(layers, form.graph, pixels, expected[rows])
    except ExportError:
        return ()  # onnxruntime cannot run it without its own kernels
    return tuple(
        DamageRow(name, cost.layer, cost.words, cost.costly, cost.snr_db, cost.without_db)
        for cost in costs
    )


def failures(rows: tuple[DamageRow, ...]) -> Iterator[str]:
    """Yield a sentence for each row that costs something."""
    yield from (_sentence(row) for row in rows if row.costly)


def remarks(rows: tuple[DamageRow, ...]) -> Iterator[str]:
    """Yield a sentence for each of the others."""
    yield from (_sentence(row) for row in rows if not row.costly)


def _sentence(row: DamageRow) -> str:
    lost = row.without_db - row.snr_db
    cost = f"costs {lost:.1f} dB" if lost > 0 else "costs nothing that these images show"
    return (
        f"{row.layer} of {row.side} in INT8: {row.words}. It {cost}: the log-odds have an SNR of "
        f"{row.snr_db:.1f} dB, and {row.without_db:.1f} dB with only this back in float"
    )
