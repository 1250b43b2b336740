"""Conversion of anything that shows an image to the form that a graph takes. Two entrances:

- ``as_image``: one image of any size to uint8 [H, W, C], C in {1, 3}, for ``preprocess.onnx``.
- ``as_batch``: the model's own pixels to uint8 [N, h, w, c]. Adds axes, changes no pixel but for
  alpha.

Resizing and color conversion belong to ``preprocess.onnx``, so that every language does them
alike. Pillow is used to decode files and only if it is installed.
"""

from __future__ import annotations

import io
import math
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .origin import let_through, raised_by

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    Pixels = NDArray[np.uint8]

_WHITE = 255
FULL_RANGE = 65535  # white of 16-bit pixels where the model does not state another level
_MAX_PIXELS = 1 << 28  # of an array, which may be a view of next to nothing: a gigabyte with alpha
_ORIENTATION, _UPRIGHT = 0x0112, 1  # of EXIF
# Libraries that decode for Pillow, in addition to the plugins that are registered with it.
_HELPERS = ("olefile", "defusedxml")
_locks = [threading.RLock() for _ in range(16)]  # of Pillow images, which share them by address
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")


def as_image(image: object, color: str = "rgb", white_level: int | None = None) -> Pixels:
    """One image as uint8 [H, W, C], rows first; C is 1 (gray) or 3 (red, green, blue).

    Takes an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (alpha is laid over white) whose
    colors come in the order of ``color`` ("rgb" or "bgr"), or a path, the bytes of an image
    file or a Pillow image, which know their colors. Raises InputError.

    ``white_level`` is the value of 16-bit pixels that is white, as the model's spec states it
    (4095 for 12 bits in files of 16). None: not stated; then files are scaled from 65535, and
    uint16 arrays are refused, since what their white is cannot be seen. An image with a value
    above a stated level is refused.
    """
    if color not in ("rgb", "bgr"):
        raise InputError(f"color={color!r}; expected 'rgb' or 'bgr'.")
    if isinstance(image, np.ndarray):
        if white_level is not None and image.dtype == np.uint16 and _is_plain(image):
            image = _from_16_bit(image, white_level)
        return _checked(image, color)
    if color != "rgb":
        raise InputError(
            f"color={color!r} describes arrays, but the image is a {type(image).__name__}, which "
            "knows its own colors. Leave color out."
        )
    return _checked(_decoded(image, white_level), color)


def as_batch(images: object, shape: tuple[int, int, int]) -> Pixels:
    """The model's pixels as uint8 [N, h, w, c], where ``shape`` is (h, w, c).

    Takes [N, h, w, c] and one image [h, w, c]; for gray models also [N, h, w] and [h, w]; for
    color models also one image with alpha, [h, w, 4]. Where a shape can be read as one image
    and as many, it is one. Raises InputError.
    """
    if not isinstance(images, np.ndarray) or isinstance(images, np.ma.MaskedArray):
        raise InputError(
            f"input 'images' is a {type(images).__name__}; expected {_expected(shape)}. "
            "Stack arrays with np.stack; give files and images of any size to predict()."
        )
    if images.dtype != np.uint8:
        raise InputError(
            f"input 'images' has dtype {images.dtype}; expected {_expected(shape)}. "
            + _dtype_advice(images)
        )
    height, width, channels = shape
    batch: Pixels | None = None
    if images.shape[1:] == shape:  # (N, h, w, c)
        batch = images
    elif images.shape == shape:  # (h, w, c)
        batch = images[np.newaxis]
    elif channels == 1 and images.shape == (height, width):  # (h, w)
        batch = images[np.newaxis, :, :, np.newaxis]
    elif channels == 1 and images.shape[1:] == (height, width):  # (N, h, w)
        batch = images[:, :, :, np.newaxis]
    elif channels == 3 and images.shape == (height, width, 4):  # one image with alpha
        batch = _over_white(images)[np.newaxis]
    if batch is None:
        raise InputError(
            f"input 'images' has shape {images.shape}; expected {_expected(shape)}. "
            + _shape_advice(images.shape, shape)
        )
    if len(batch) == 0:
        raise InputError(
            f"input 'images' has shape {images.shape}, an empty batch; "
            f"expected {_expected(shape)}, N at least 1."
        )
    return np.asarray(batch)  # of a subclass only the plain array


def _checked(array: NDArray[Any], color: str) -> Pixels:
    """Refuse what is not an image; lay alpha over white; put the colors in the order rgb."""
    expected = "uint8, rows first, of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if isinstance(array, np.ma.MaskedArray) or array.dtype != np.uint8:
        raise InputError(
            f"the image is an array of {array.dtype}; expected {expected}. " + _dtype_advice(array)
        )
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim == 3 and array.shape[0] * array.shape[1] > _MAX_PIXELS:
        raise InputError(
            f"the image has shape {array.shape}; expected at most {_MAX_PIXELS} pixels. "
            "Give a part of it, x[::4, ::4] say."
        )
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        advice = "Give several images as a list."
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            advice = "Transpose with x.transpose(1, 2, 0)."
        raise InputError(f"the image has shape {array.shape}; expected {expected}. {advice}")
    if array.shape[2] == 4:
        array = _over_white(array)
    if color == "bgr":
        array = array[:, :, ::-1]
    return np.ascontiguousarray(array)


def _over_white(rgba: NDArray[Any]) -> Pixels:
    """[h, w, 4] to [h, w, 3] in integers, rounded to nearest; opaque pixels keep their bytes."""
    alpha = rgba[:, :, 3:].astype(np.uint16)
    mixed = rgba[:, :, :3] * alpha + _WHITE * (_WHITE - alpha)  # at most 65025: fits 16 bits
    return ((mixed + _WHITE // 2) // _WHITE).astype(np.uint8)


def _decoded(image: object, white_level: int | None) -> NDArray[Any]:
    """The pixels of a path, of an image file's bytes or of a Pillow image."""
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        # Pillow reads a file at the first use of its image, and two threads at once read it wrong.
        with _locks[id(image) // 64 % len(_locks)]:
            return _decode(lambda: image, "the Pillow image", white_level)
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        what = "the bytes of the image"
        return _decode(lambda: _pillow().open(io.BytesIO(data)), what, white_level)
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        return _decode(lambda: _pillow().open(path), f"the image {path!r}", white_level)
    raise InputError(
        f"the image is a {type(image).__name__}; expected a numpy array, a path, the bytes of an "
        "image file or a Pillow image."
    )


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as exc:
        let_through(exc)
        raise InputError(
            "image files need Pillow, which is not installed. Run pip install pillow, or give the "
            "decoded image as an array."
        ) from exc
    return Image


def renew_locks() -> None:
    """Replace the locks in a forked child, where no thread is left to release them."""
    _locks[:] = [threading.RLock() for _ in _locks]


def _plugins() -> set[str]:
    """The packages that read image files for Pillow."""
    registered = getattr(sys.modules.get("PIL.Image"), "OPEN", {}).values()
    return {*_HELPERS, *(factory.__module__.partition(".")[0] for factory, _ in registered)}


def _decode(open_image: Any, what: str, white_level: int | None) -> NDArray[Any]:
    """The upright pixels of a Pillow image; every failure in it becomes an InputError."""
    try:
        image = open_image()
        _refuse_bomb(image, what)
        return _pixels(image, white_level)
    except InputError:
        raise
    except Exception as exc:  # Pillow's decoders raise nearly every type there is
        if not raised_by(exc, "PIL", _plugins()):
            raise
        if isinstance(exc, FileNotFoundError):
            raise InputError(f"{what} does not exist; expected the path of an image file.") from exc
        raise InputError(
            f"{what} cannot be decoded ({type(exc).__name__}: {exc}); expected a complete image "
            "file of a format that Pillow reads."
        ) from exc


def _refuse_bomb(image: Image.Image, what: str) -> None:
    """Refuse, before any pixel is decoded, what is larger than Pillow's own limit."""
    limit = _pillow().MAX_IMAGE_PIXELS  # an app that trusts its files may raise it
    if limit is not None and image.width * image.height > limit:
        raise InputError(
            f"{what} has {image.width}x{image.height} pixels; expected at most {limit}. If the "
            "file can be trusted, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def _pixels(image: Image.Image, white_level: int | None) -> NDArray[Any]:
    """uint8 [H, W], [H, W, 3] or [H, W, 4] of any mode, turned upright by its EXIF orientation."""
    if white_level is not None and has_deep_color(image):
        raise InputError(
            "the image has colors of 16 bits, of which Pillow reads the upper 8 alone, and the "
            f"model's white level is {white_level}. Decode it with another library and give "
            "predict() the uint16 array, or save it with 8 bits, scaled from that level."
        )
    if image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError(
            "the image has floating-point pixels (mode F), whose white is unknown; "
            "convert it to 8 bits."
        )
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image), white_level)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))  # convert copies


def has_deep_color(image: Image.Image) -> bool:
    """True for an image that is not loaded yet whose file has several channels of 16 bits. Pillow
    reads such pixels as 8 bits and leaves out the lower half."""
    if len(image.getbands()) < 2:
        return False
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))  # "RGB;16B"


def _from_16_bit(values: NDArray[Any], white_level: int | None) -> Pixels:
    """16-bit pixels to 8 bits, rounded; Pillow's own conversion would cut everything to white."""
    white = FULL_RANGE if white_level is None else white_level
    if values.size and (values.min() < 0 or values.max() > white):
        advice = "Convert it to 8 bits."
        if white_level is not None:
            advice = "That is the model's white level; scale the pixels as its training images."
        raise InputError(
            f"the image has values from {values.min()} to {values.max()}; "
            f"expected 0 to {white}. {advice}"
        )
    return ((values.astype(np.uint32) * _WHITE + white // 2) // white).astype(np.uint8)


def _is_plain(array: NDArray[Any]) -> bool:
    return not isinstance(array, np.ma.MaskedArray) and array.size <= 4 * _MAX_PIXELS


def _expected(shape: tuple[int, int, int]) -> str:
    return f"({', '.join(map(str, ('N', *shape)))}), uint8, rows first"


def _dtype_advice(array: NDArray[Any]) -> str:
    if isinstance(array, np.ma.MaskedArray):
        return "A mask has no meaning here: fill it with x.filled(255)."
    if array.dtype.kind == "f":
        return (
            "Normalization is inside the model: give the pixels as decoded, or, if they are "
            "between 0 and 1, (x * 255).round().astype('uint8')."
        )
    if array.dtype == np.uint16:
        return (
            "Scale to 8 bits from the value that is white: (x * 255.0 / white).round()"
            ".astype('uint8'), where white is 65535 for pixels of 16 bits, 4095 for 12 bits."
        )
    return "If the values are 0 to 255, convert with x.astype('uint8')."


def _shape_advice(given: tuple[int, ...], shape: tuple[int, int, int]) -> str:
    height, width, channels = shape
    if given[1:] == (channels, height, width):
        return "Transpose with x.transpose(0, 2, 3, 1)."
    if given == (channels, height, width):
        return "Transpose with x.transpose(1, 2, 0)."
    if len(given) == 2 and given[1] == math.prod(shape):
        return f"Reshape with x.reshape(-1, {height}, {width}, {channels})."
    return "Images of another size or color go through predict()."
