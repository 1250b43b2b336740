"""The picture around a drawn face: the background, and what a camera adds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from pipeline.datasets.drawn.canvas import SUPERSAMPLING, ink, oval
from pipeline.datasets.drawn.person import sample_color

Pixels = npt.NDArray[np.uint8]  # (height, width, 3)


def background(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Draw a soft gradient of random colors with a few spots and bars, supersampled."""
    base = rng.uniform(40, 220, 3)
    grid = base + rng.uniform(0.1, 1.0) * rng.uniform(-75, 75, (4, 3, 3))
    colorful = rng.uniform(0.15, 0.85)  # most walls and gardens are
    grid = grid.mean(2, keepdims=True) * (1 - colorful) + grid * colorful
    coarse = Image.fromarray(np.clip(grid, 0, 255).astype(np.uint8))
    # Smooth at the final size only: the picture is reduced to it, and this is four times faster.
    fine = coarse.resize((width, height), Image.Resampling.BILINEAR)
    doubled = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    image = fine.resize(doubled, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image, "RGBA")
    count = int(rng.integers(0, 7))
    for x, y, size, shape, alpha in rng.random((6, 5))[:count]:
        color = ink(sample_color(rng), 0.15 + 0.55 * float(alpha))
        points = oval(0, 0, 1, 1, power=2 if shape < 0.6 else 9, n=24)
        reach = np.array([0.08 + 0.3 * size, 0.08 + 0.5 * size * (1 - shape)]) * doubled[0]
        placed = points * reach + np.array([x * doubled[0], y * doubled[1]])
        draw.polygon(placed.ravel().tolist(), fill=color)
    return image


def expose(image: Image.Image, rng: np.random.Generator) -> Pixels:
    """Add what a camera adds: blur, contrast, light from one side, a color cast, noise."""
    blur, contrast, gain, gx, gy, sigma = (
        float(v)
        for v in rng.uniform((0, 0.82, 0.80, -0.32, -0.22, 1.0), (0.8, 1.12, 1.16, 0.32, 0.22, 7.0))
    )
    cast = rng.uniform(0.94, 1.06, 3)
    if blur > 0.3:  # below, it would cost time and change nothing
        image = image.filter(ImageFilter.BoxBlur(blur))
    width, height = image.size
    # Rows of 3 * width float32 numbers: numpy is several times slower along an axis of length 3.
    across = np.repeat(np.linspace(1 - gx, 1 + gx, width), 3).astype(np.float32)
    down = np.linspace(-gy, gy, height).astype(np.float32)
    tint = np.tile(gain * contrast * cast, width).astype(np.float32)
    pixels = np.asarray(image).reshape(height, -1).astype(np.float32)
    pixels += 128 / contrast - 128  # with the factor in `tint`: contrast about 128
    pixels *= across + down[:, None]
    pixels *= tint
    pixels += np.repeat(_noise(rng, height, width) * np.float32(sigma), 3, axis=1)
    return pixels.clip(0, 255, out=pixels).astype(np.uint8).reshape(height, width, 3)


def _noise(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return noise of mean 0 and deviation 1 from the sum of two bytes: faster than a normal."""
    dice = rng.integers(0, 256, (2, height, width), dtype=np.uint8)
    noise: npt.NDArray[np.float32] = dice[0].astype(np.float32) + dice[1]
    noise -= 255
    noise /= 104.5  # sqrt((256**2 - 1) / 6)
    return noise
