"""Attacks by the golden samples."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import bundle_builders as build
import numpy as np

from attack_cases.attack import Attack
from attack_cases.forging import member_with, sound_members
from runtime import BundleFormatError, ModelSpec, SelftestError


def golden_with(spec: ModelSpec = build.GRAY, **arrays: Any) -> Callable[[], bytes]:
    """Golden samples with arrays replaced; bytes stand for a whole .npy file."""

    def data() -> bytes:
        sound = dict(np.load(io.BytesIO(sound_members(spec)["golden.npz"])))
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, value in {**sound, **arrays}.items():
                archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy(value))
        return file.getvalue()

    return data


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array))
    return file.getvalue()


def head(text: str, values: bytes = b"") -> bytes:
    data = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + values


def _golden(name: str, why: str, data: Callable[[], bytes], message: str, **more: Any) -> Attack:
    return Attack(
        f"golden: {name}",
        why,
        member_with("golden.npz", data),
        more.get("error", BundleFormatError),
        message,
        member_with("golden.npz", golden_with()),
    )


def deflated_golden() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pixels.npy", bytes(50_000_000))
    return file.getvalue()


GOLDEN = (
    _golden(
        "pickled objects",
        "Loading runs whatever the pickle says.",
        golden_with(pixels=np.array([print])),
        "uint8 or float32",
    ),
    _golden(
        "a shape of 10^18 values",
        "Allocates by the header, before a single value is read.",
        golden_with(
            pixels=head(
                "{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 999999999), }"
            )
        ),
        "expected 999999998000000001 for the shape",
    ),
    _golden(
        "a negative size",
        "-1 times -1 is the right number of bytes.",
        golden_with(
            pixels=head("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -192), }", b"x")
        ),
        "uint8 or float32",
    ),
    _golden(
        "a header that is code",
        "Headers are Python text; nested deep, it takes the parser's stack.",
        golden_with(pixels=head("(" * 5000 + ")" * 5000)),
        "uint8 or float32",
    ),
    _golden(
        "a record dtype",
        "Titles, offsets and sub-arrays: the richest parser in NumPy.",
        golden_with(pixels=np.zeros(3, [("a", "u1"), ("b", "O")])[["a"]]),
        "uint8 or float32",
    ),
    _golden(
        "values cut off",
        "Fewer values than the shape.",
        golden_with(pixels=npy(np.zeros((3, 8, 8, 1), np.uint8))[:-5]),
        "has 187 bytes of values; expected 192",
    ),
    _golden(
        "more values",
        "Bytes that belong to no array.",
        golden_with(pixels=npy(np.zeros((3, 8, 8, 1), np.uint8)) + b"payload"),
        "has 199 bytes of values; expected 192",
    ),
    _golden(
        "no dimensions",
        "len() of it raises in places that expect a list.",
        golden_with(pixels=np.uint8(1)),
        r"pixels are uint8 \(\)",
    ),
    _golden(
        "a bomb inside",
        "The zip in the zip inflates without bound.",
        deflated_golden,
        "would inflate",
    ),
    _golden(
        "bytes behind the inner zip",
        "The strict reading holds inside, too.",
        lambda: golden_with()() + b"payload",
        "behind its end",
    ),
    _golden(
        "answers that are not a number",
        "No difference to them is ever too large.",
        golden_with(**{"probabilities/fp32": np.full((3, 3), np.nan, np.float32)}),
        "differs .* by nan",
        error=SelftestError,
    ),
    _golden(
        "other answers",
        "The model does not compute what was recorded.",
        golden_with(**{"probabilities/fp32": np.zeros((3, 3), np.float32)}),
        "differs from its golden outputs",
        error=SelftestError,
    ),
)
