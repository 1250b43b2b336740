"""The bytes of everything that counts as an image, and the refusal of everything else."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image

from runtime import InputError, Predictor, images
from runtime.images import as_batch, as_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (4, 5, 3), np.uint8)
GRAY = RGB[:, :, 0]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgba(alpha: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.dstack([RGB, np.full((4, 5), alpha, np.uint8)])


OK_ARRAYS = {
    "gray": (GRAY, "rgb", GRAY[:, :, None]),
    "gray with an axis": (GRAY[:, :, None], "bgr", GRAY[:, :, None]),
    "rgb": (RGB, "rgb", RGB),
    "bgr": (RGB, "bgr", RGB[:, :, ::-1]),
    "opaque": (rgba(255), "rgb", RGB),
    "opaque bgr": (rgba(255), "bgr", RGB[:, :, ::-1]),
    "transparent": (rgba(0), "rgb", np.full_like(RGB, 255)),
    "half": (rgba(128), "rgb", np.round((RGB * 128.0 + 255 * 127) / 255).astype(np.uint8)),
    "turned view": (RGB[::-1, ::-2], "rgb", RGB[::-1, ::-2]),
    "one pixel": (GRAY[:1, :1], "rgb", GRAY[:1, :1, None]),
}


@pytest.mark.parametrize("name", OK_ARRAYS)
def test_arrays_come_out_as_rows_of_gray_or_rgb(name: str) -> None:
    array, color, expected = OK_ARRAYS[name]
    found = as_image(array, color)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8 and found.flags.c_contiguous


BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "channels first": (RGB.transpose(2, 0, 1), r"\(3, 4, 5\).*Transpose with x.transpose\(1, 2"),
    "batch": (RGB[None], r"\(1, 4, 5, 3\).*several images as a list"),
    "vector": (GRAY[0], r"has shape \(5,\); expected uint8, rows first, of shape \(H, W\)"),
    "scalar": (np.uint8(3), "is a uint8; expected a numpy array, a path"),
    "two channels": (RGB[:, :, :2], r"\(4, 5, 2\)"),
    "no rows": (RGB[:0], r"\(0, 5, 3\)"),
    "float": (RGB / 255, r"array of float64; .*\(x \* 255\).round"),
    "16 bits": (GRAY.astype(np.uint16), "array of uint16; .*65535 .* 4095"),
    "bool": (GRAY > 3, "array of bool"),
    "int": (GRAY.astype(int), r"array of int64; .*x.astype\('uint8'\)"),
    "object": (GRAY.astype(object), "array of object"),
    "masked": (np.ma.masked_equal(GRAY, 3), r"x.filled\(255\)"),
    "list of rows": ([[1, 2]], "is a list; expected a numpy array"),
    "none": (None, "is a NoneType"),
    "no file": ("no.png", "'no.png'.* expected the path"),
    "no bytes": (b"", "the bytes of the image cannot be decoded"),
    "text": (b"hello", "cannot be decoded .*UnidentifiedImageError"),
    "folder": (Path(), "cannot be decoded"),
    "null in path": ("a\0b", "cannot be decoded"),
    "truncated": (encoded(Image.fromarray(RGB.repeat(50, 0).repeat(50, 1)))[:600], "truncated"),
    "float image": (Image.fromarray(GRAY.astype(np.float32)), "mode F"),
    "32 bits": (Image.fromarray(GRAY.astype(np.int32) * 70000), "expected 0 to 65535"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_the_refusal_of_what_is_not_an_image_says_why(name: str) -> None:
    image, message = BAD_IMAGES[name]
    with pytest.raises(InputError, match=message):
        as_image(image)


def test_color_is_checked() -> None:
    with pytest.raises(InputError, match="color='BGR'; expected 'rgb' or 'bgr'"):
        as_image(RGB, "BGR")
    with pytest.raises(InputError, match="color='bgr' describes arrays, but the image is a bytes"):
        as_image(encoded(Image.fromarray(RGB)), "bgr")


PALETTE = Image.fromarray(GRAY).convert("P")
SIXTEEN = np.array([[0, 257, 65535, 128, 129]], np.uint16)
PILLOW = {
    "RGB": (Image.fromarray(RGB), RGB),
    "L": (Image.fromarray(GRAY), GRAY[:, :, None]),
    "1": (Image.fromarray(GRAY > 99), (GRAY > 99)[:, :, None] * np.uint8(255)),
    "P": (PALETTE, np.repeat(GRAY[:, :, None], 3, 2)),
    "RGBA": (Image.fromarray(rgba(0)), np.full_like(RGB, 255)),
    "LA": (Image.fromarray(GRAY).convert("LA"), np.repeat(GRAY[:, :, None], 3, 2)),
    "I;16": (Image.fromarray(SIXTEEN), np.array([[[0], [1], [255], [0], [1]]], np.uint8)),
    "I": (Image.fromarray(SIXTEEN.astype(np.int32)), np.array([[[0], [1], [255], [0], [1]]])),
    "CMYK": (Image.new("CMYK", (2, 1), (0, 0, 0, 0)), np.full((1, 2, 3), 255)),
    "YCbCr": (Image.new("YCbCr", (2, 1), (255, 128, 128)), np.full((1, 2, 3), 255)),
}


@pytest.mark.parametrize("mode", PILLOW)
def test_pillow_images_of_every_mode(mode: str) -> None:
    image, expected = PILLOW[mode]
    np.testing.assert_array_equal(as_image(image), expected)


def test_path_bytes_and_image_are_the_same(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    path = tmp_path / "bild ä.png"
    image.save(path)
    for source in (image, path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        np.testing.assert_array_equal(as_image(source), RGB)


def test_sixteen_bits_in_a_file_keep_their_grays() -> None:
    np.testing.assert_array_equal(
        as_image(encoded(Image.fromarray(SIXTEEN))).ravel(), [0, 1, 255, 0, 1]
    )


TWELVE = np.array([[0, 8, 9, 2048, 4095]], np.uint16)  # 255 / 4095 of a level each
TWELVE_AS_8 = [0, 0, 1, 128, 255]


def deep_color_png(values: list[tuple[int, int, int]]) -> bytes:
    """A PNG of one row with 16 bits in each of three channels, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    head = struct.pack(">IIBBBBB", len(values), 1, 16, 2, 0, 0, 0)
    row = b"\0" + b"".join(struct.pack(">3H", *value) for value in values)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", compress(row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("form", ["PNG", "TIFF", "TIFF, big endian", "Pillow, 32 bits", "array"])
def test_white_of_12_bits_is_white(form: str) -> None:
    image: Any = Image.fromarray(TWELVE)
    if form.startswith("Pillow"):
        image = Image.fromarray(TWELVE.astype(np.int32))
    elif form == "array":
        image = TWELVE
    elif form.endswith("big endian"):
        swapped = Image.frombytes("I;16B", (5, 1), TWELVE.astype(">u2").tobytes())
        image = encoded(swapped, "TIFF")
    else:
        image = encoded(image, form)
    assert as_image(image, white_level=4095).ravel().tolist() == TWELVE_AS_8
    with pytest.raises(InputError, match="values from 0 to 4095; expected 0 to 4000"):
        as_image(image, white_level=4000)


def test_every_value_is_scaled_alike_with_and_without_a_level() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rounded = (every.astype(np.uint32) + 128) // 257
    for found in (as_image(Image.fromarray(every)), as_image(every, white_level=65535)):
        np.testing.assert_array_equal(found[:, :, 0], rounded)


def test_a_level_leaves_8_bits_alone() -> None:
    for image in (RGB, encoded(Image.fromarray(RGB)), Image.fromarray(RGB)):
        np.testing.assert_array_equal(as_image(image, white_level=4095), RGB)
    with pytest.raises(InputError, match="array of uint16"):
        as_image(np.ma.masked_equal(TWELVE, 9), white_level=4095)


def test_colours_of_16_bits_are_refused_where_white_is_stated() -> None:
    data = deep_color_png([(4095, 0, 0), (65535, 257, 300)])
    # what Pillow reads: the upper 8 bits
    assert as_image(data).tolist() == [[[15, 0, 0], [255, 1, 1]]]
    with pytest.raises(InputError, match=r"16 bits.* 4095"):
        as_image(data, white_level=4095)
    deep = np.array([[[4095, 0, 2048]]], np.uint16)
    assert as_image(deep, white_level=4095).tolist() == [[[255, 0, 128]]]
    assert as_image(deep, "bgr", white_level=4095).tolist() == [[[128, 0, 255]]]


def test_a_transparent_colour_of_a_file_becomes_white() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    found = as_image(encoded(red, transparency=(255, 0, 0)))
    np.testing.assert_array_equal(found, np.full((2, 2, 3), 255))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation_is_respected(orientation: int, upright: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = as_image(encoded(Image.fromarray(RGB), exif=exif))
    np.testing.assert_array_equal(found, upright(RGB))


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("1", (200, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 19_999)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(InputError, match="has 200x100 pixels; expected at most 19999"),
    ):
        as_image(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="DecompressionBombError"):
        as_image(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert as_image(data).shape == (100, 200, 1)


def test_without_pillow_files_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(InputError, match="Run pip install pillow"):
        as_image(b"\x89PNG")


SHAPES = {
    (8, 8, 1): [(1, 8, 8, 1), (5, 8, 8, 1), (8, 8), (5, 8, 8), (8, 8, 8), (8, 8, 1)],
    (6, 5, 3): [(1, 6, 5, 3), (4, 6, 5, 3), (6, 5, 3), (6, 5, 4)],
    (8, 1, 1): [(8, 1, 1), (8, 1), (3, 8, 1), (2, 8, 1, 1)],
}


@pytest.mark.parametrize(("shape", "found"), [(s, f) for s, rows in SHAPES.items() for f in rows])
def test_a_batch_gets_the_axes_that_it_lacks(
    shape: tuple[int, int, int], found: tuple[int, ...]
) -> None:
    pixels = RNG.integers(0, 256, found, np.uint8)
    if found[-1] == 4:
        pixels[..., 3] = 255
    batch = as_batch(pixels, shape)
    assert batch.shape[1:] == shape
    np.testing.assert_array_equal(
        batch.ravel(), pixels[..., :3].ravel() if found[-1] == 4 else (pixels.ravel())
    )


@pytest.mark.parametrize(
    ("found", "shape", "message"),
    [
        (
            (1, 3, 64, 64),
            (64, 64, 3),
            r"input 'images' has shape \(1, 3, 64, 64\); expected \(N, 64, 64, 3\), uint8, rows "
            r"first\. Transpose with x\.transpose\(0, 2, 3, 1\)\.",
        ),
        ((3, 64, 64), (64, 64, 3), r"Transpose with x\.transpose\(1, 2, 0\)"),
        ((5, 64), (8, 8, 1), r"Reshape with x\.reshape\(-1, 8, 8, 1\)"),
        ((8, 9), (8, 8, 1), r"predict\(\)"),
        ((8, 8, 3), (8, 8, 1), r"go through predict\(\)"),
        ((0, 8, 8, 1), (8, 8, 1), "an empty batch; expected .* N at least 1"),
        ((0, 8, 8), (8, 8, 1), "an empty batch"),
        ((), (8, 8, 1), r"has shape \(\)"),
        ((1, 1, 8, 8, 1), (8, 8, 1), r"\(1, 1, 8, 8, 1\)"),
    ],
)
def test_the_refusal_of_another_shape_says_how_to_fix_it(
    found: tuple[int, ...], shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        as_batch(np.zeros(found, np.uint8), shape)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 8, 8, 1)), r"has dtype float64; .*\(x \* 255\)"),
        (np.zeros((1, 8, 8, 1), np.int8), "has dtype int8"),
        (np.zeros((1, 8, 8, 1), bool), "has dtype bool"),
        ([np.zeros((8, 8), np.uint8)], r"is a list; .*np\.stack"),
        (np.ma.masked_equal(np.zeros((1, 8, 8, 1), np.uint8), 0), "is a MaskedArray"),
        ("digit.png", r"is a str; .*predict\(\)"),
        (None, "is a NoneType"),
    ],
)
def test_the_refusal_of_another_type_says_how_to_fix_it(images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_batch(images, (8, 8, 1))


ANY_ARRAY = st.builds(
    np.zeros,
    st.one_of(
        nps.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=9),
        st.sampled_from([(8, 8), (8, 8, 1), (2, 8, 8, 1), (8, 8, 4), (3, 8, 8)]),
    ),
    st.one_of(nps.scalar_dtypes(), st.just(np.dtype(np.uint8)), st.just(np.dtype(object))),
)


@settings(max_examples=200, deadline=None)
@given(array=ANY_ARRAY, shape=st.sampled_from([(8, 8, 1), (8, 8, 3)]))
def test_any_array_is_a_batch_or_an_input_error(
    array: np.ndarray[Any, Any], shape: tuple[int, int, int]
) -> None:
    try:
        batch = as_batch(array, shape)
    except InputError as exc:
        assert "expected" in str(exc)
    else:
        assert batch.shape[1:] == shape and batch.dtype == np.uint8 and len(batch) > 0


@settings(max_examples=200, deadline=None)
@given(image=st.one_of(ANY_ARRAY, st.binary(max_size=99), st.integers(), st.lists(st.integers())))
def test_anything_is_an_image_or_an_input_error(image: Any) -> None:
    try:
        found = as_image(image)
    except InputError as exc:
        assert "expected" in str(exc)
    else:
        assert found.ndim == 3 and found.shape[2] in (1, 3) and found.dtype == np.uint8


# --- one Pillow image in many threads -----------------------------------------------------------


class Watched(io.BytesIO):
    """An image file that notes how many threads read it at once, and gives them time to meet."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._lock, self._inside, self.most = threading.Lock(), 0, 0

    def read(self, size: int | None = -1, /) -> bytes:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(0.002)
        try:
            return super().read(size)
        finally:
            with self._lock:
                self._inside -= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_a_lazy_picture_is_read_by_one_thread_at_a_time(mode: str) -> None:
    """Pillow reads a file at the first use of its image: two threads read it wrong."""
    pixels = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: read lazily, too
    Image.fromarray(pixels).convert(mode).save(data, "png", exif=exif)
    expected = as_image(data.getvalue())
    for _ in range(3):
        file, start = Watched(data.getvalue()), threading.Barrier(4)
        image = Image.open(file)

        def ask(_: int) -> Any:
            start.wait()  # noqa: B023
            return as_image(image)  # noqa: B023

        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(ask, range(4)):
                np.testing.assert_array_equal(found, expected)
        assert file.most == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_does_not_wait_for_a_lock_that_nobody_holds(gray_bundle: bytes) -> None:
    page = Image.new("L", (9, 9), 7)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in images._locks:
                stack.enter_context(lock)
            held.set()
            done.wait()

    with Predictor(gray_bundle, device="cpu", threads=1) as p:
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # ends it if it waits
            os._exit(p.preprocess(page).shape != (8, 8, 1))
        done.set()
        holder.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
