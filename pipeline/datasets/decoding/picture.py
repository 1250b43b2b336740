"""One image file: read within limits, decoded, and described by facts that the model's pixels no
longer show (16 bits, further frames, transparency)."""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from runtime.images import as_image, has_deep_color

Pixels = NDArray[np.uint8]

# More than any picture within Pillow's limit of 89 million pixels takes, four channels of 16 bits,
# uncompressed; a sparse or mistaken file of a terabyte would end in memory instead
MOST_BYTES = 1 << 30
_ORIENTATION, _UPRIGHT = 0x0112, 1  # of EXIF
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH = 24  # where an IHDR chunk, the first of every file, has it
_PNG_HEAD = 1 << 12  # bytes in which an acTL chunk of an animation comes, before the pixels
_ONE_BYTE = 257  # 16-bit values to one of 8 bits


@dataclass(frozen=True)
class Facts:
    """The format of a file, and what decoding leaves out."""

    kind: str = ""  # "JPEG, RGB": format and Pillow's mode
    turned: bool = False  # by its EXIF orientation
    transparent: bool = False  # it may have pixels that are laid over white
    frames: bool = False  # more than one picture, of which the first is used
    peak: int | None = None  # the largest value of a file of 16 bits; None: it has 8 or fewer
    deep_color: bool = False  # 16 bits in several channels, of which Pillow reads the upper 8


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises DataError for a file that is too large, and for a
    pipe, a socket or a device, which would block or never end. Raises OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError("is not a regular file but a pipe, a socket, a device or a folder")
    if status.st_size > MOST_BYTES:
        raise DataError(
            f"has {status.st_size / 2**30:,.1f} GiB; expected an image file of at most "
            f"{MOST_BYTES >> 30} GiB"
        )
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


def decode(data: bytes, white_level: int | None) -> Pixels:
    """Return ``as_image`` of the file. Raises DataError for a picture that is too large, since a
    recipe cannot raise the limit as an app can, and InputError as ``as_image`` does."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", Image.DecompressionBombWarning
        )  # refused here, with a reason
        try:
            with Image.open(io.BytesIO(data)) as image:
                size = (image.width, image.height)
        except Image.DecompressionBombError:
            raise DataError(_too_large(f"more than {2 * (limit or 0):,}", limit)) from None
        except Exception:  # as_image gives the reason
            return as_image(data, white_level=white_level)
    if limit is not None and size[0] * size[1] > limit:
        raise DataError(_too_large(f"{size[0]}x{size[1]}", limit))
    return as_image(data, white_level=white_level)


def _too_large(pixels: str, limit: int | None) -> str:
    return (
        f"has {pixels} pixels; the predictor takes at most {limit or 0:,} on a device too. Save it "
        "smaller, or cut it into parts"
    )


def facts_of(data: bytes) -> tuple[Facts, NDArray[Any] | None]:
    """Return the facts, and the pixels of a gray 16-bit file, int [H, W], else None.

    Raises what Pillow raises.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data))
    with image:
        deep_color = has_deep_color(image)  # first: getexif may load the pixels
        transparent = "A" in image.getbands() or "transparency" in image.info
        turned = image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
        kind = f"{image.format}, {image.mode}"
        values: NDArray[Any] | None = None
        peak: int | None = None
        if deep_color:
            peak = max(high for _, high in _extrema(image)) * _ONE_BYTE
        elif image.mode.startswith("I"):
            values = np.asarray(image)
            peak = int(values.max(initial=0))
    return Facts(kind, turned, transparent, _has_frames(data), peak, deep_color), values


def _has_frames(data: bytes) -> bool:
    """Return whether there is a second picture; damage behind the first one is ignored."""
    from PIL import Image

    if data.startswith(_JPEG):  # phones append previews and gain maps
        return False
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            return bool(getattr(image, "is_animated", False))
    except Exception:  # Pillow's decoders raise nearly every type there is
        return False


def _extrema(image: Any) -> tuple[tuple[int, int], ...]:
    color = image.convert("RGB") if image.mode in ("P", "PA") else image
    extrema: tuple[tuple[int, int], ...] = color.getextrema()
    bands = {4: 3, 2: 1}.get(len(extrema), len(extrema))  # without transparency
    return extrema[:bands]


def may_be_special(data: bytes) -> bool:
    """Return whether ``facts_of`` might report several frames or 16 bits; cheap, for millions of
    files."""
    if data.startswith(_JPEG):
        return False
    if data.startswith(_PNG):
        deep = data[_PNG_BIT_DEPTH : _PNG_BIT_DEPTH + 1] == b"\x10"
        return deep or b"acTL" in data[:_PNG_HEAD]
    return True
