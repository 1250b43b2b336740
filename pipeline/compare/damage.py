"""What single scales and ranges of an INT8 side cost, beside a float one: measured by taking them
back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.probabilities import Floats
from exporters.explain.first_divergence import Pair
from exporters.explain.int8_damage import damages
from pipeline.compare.result import DamageRow
from pipeline.compare.sides import Sides
from pipeline.verify.images import Images

_IMAGES = 64  # evenly over the data


def costs(
    sides: Sides,
    pairs: tuple[Pair, ...],
    images: Images | None,
    found_a: Floats,
    found_b: Floats,
    known: NDArray[np.int64],
) -> tuple[DamageRow, ...]:
    """The places of the INT8 side that cost more than rounding does, or are no rounding; none
    where both sides are INT8, or neither, or where a side cannot be looked into."""
    if not pairs or images is None or sides.takes is not None or not len(known):
        return ()
    quantized = [form.precision == "int8" for form in (sides.a, sides.b)]
    if sum(quantized) != 1:
        return ()
    name, form, expected = ("A", sides.a, found_b) if quantized[0] else ("B", sides.b, found_a)
    if form.graph is None:
        return ()
    if quantized[0]:
        pairs = tuple(replace(pair, a=pair.b, b=pair.a) for pair in pairs)
    rows = known[np.linspace(0, len(known) - 1, min(_IMAGES, len(known))).astype(np.int64)]
    pixels = np.ascontiguousarray(images.pixels[rows])
    try:
        found = damages(pairs, form.graph, pixels, expected[rows])
    except ExportError:
        return ()  # onnxruntime cannot run it without its own kernels
    return tuple(
        DamageRow(name, row.layer, row.words, row.worth, row.snr_db, row.without_db)
        for row in found
    )


def failures(rows: tuple[DamageRow, ...]) -> Iterator[str]:
    """A sentence for each that costs something."""
    yield from (_told(row) for row in rows if row.costly)


def remarks(rows: tuple[DamageRow, ...]) -> Iterator[str]:
    """The others."""
    yield from (_told(row) for row in rows if not row.costly)


def _told(row: DamageRow) -> str:
    lost = row.without_db - row.snr_db
    cost = f"costs {lost:.1f} dB" if lost > 0 else "costs nothing that these images show"
    return (
        f"{row.layer} of {row.side} in INT8: {row.words}. It {cost}: the log-odds have an SNR of "
        f"{row.snr_db:.1f} dB, and {row.without_db:.1f} dB with that alone in float"
    )
