"""Random changes of a whole batch at once, each image differently. Independent of networks, files
and (but for blending) of labels.

Everything is drawn from one generator in a fixed order, so the same generator state gives the same
batch. A change whose option is 0 draws nothing and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Generator, Tensor

from pipeline.recipe import AugmentOptions

_KNOTS = 8  # of a warp, along each side
_THINNEST = 0.6  # of a full erosion: beyond, strokes of two pixels fall to pieces


def augment(pixels: Tensor, options: AugmentOptions, generator: Generator) -> Tensor:
    """Changed copies of uint8 or float pixels [N, H, W, C] in 0..255, in the same range.

    The result is float32 where values between two gray levels arise (all changes but shift alone,
    flip and erase). Pixels that leave the frame are lost; new ones repeat the edge pixel, which is
    background for digits and keeps photographs free of black corners. ``generator`` is on the CPU;
    ``pixels`` may be on any device. With all options at 0 the batch itself is returned.
    """
    if options.stroke:
        pixels = _stroke(pixels, options.stroke, generator)
    if options.rotate or options.scale or options.shear or options.elastic:
        pixels = _resampled(pixels, options, generator)
    elif options.shift:
        pixels = _shift(pixels, int(options.shift), generator)
    if options.flip:
        mirrored = _chance(0.5, pixels, generator)
        pixels = torch.where(mirrored, pixels.flip(2), pixels)
    if options.brightness or options.contrast:
        pixels = _light(pixels, options, generator)
    if options.color:
        pixels = _color(pixels, options.color, generator)
    if options.erase:
        pixels = _erase(pixels, options.erase, generator)
    return pixels


def blend(
    pixels: Tensor, targets: Tensor, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Blend each image of [N, H, W, C] and its target of [N, labels] with those of another one, in
    a share drawn for each from Beta(alpha, alpha); the image's own share is the larger one.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.
    """
    # numpy's generator, seeded by torch's: torch draws no Beta from a given generator
    seed = int(torch.randint(2**31, (1,), generator=generator))
    draw = np.random.default_rng(seed).beta(alpha, alpha, len(pixels)).astype(np.float32)
    own = torch.from_numpy(np.maximum(draw, 1 - draw)).to(targets.device)
    other = torch.randperm(len(pixels), generator=generator).to(targets.device)
    x = pixels.to(torch.float32)
    return (
        torch.lerp(x[other], x, own.view(-1, 1, 1, 1)),
        torch.lerp(targets[other], targets, own.view(-1, 1)),
    )


def _uniform(count: int, extent: float, generator: Generator) -> Tensor:
    """``count`` numbers between -extent and extent, on the CPU, [count]."""
    return (2 * torch.rand(count, generator=generator) - 1) * extent


def _per_image(values: Tensor, pixels: Tensor) -> Tensor:
    """[N] -> [N, 1, 1, 1] where the pixels are."""
    return values.view(-1, 1, 1, 1).to(pixels.device)


def _chance(share: float, pixels: Tensor, generator: Generator) -> Tensor:
    """True for a random share of the images, [N, 1, 1, 1]."""
    return _per_image(torch.rand(len(pixels), generator=generator) < share, pixels)


# --- geometry -------------------------------------------------------------------------------


def _resampled(pixels: Tensor, options: AugmentOptions, generator: Generator) -> Tensor:
    """Rotate, scale, shear, shift and warp in a single resampling, which blurs only once."""
    _, height, width, _ = pixels.shape
    theta = _affine_maps(len(pixels), height, width, options, generator).to(pixels.device)
    # Plane by plane in memory: sampling then takes half the time of channels_last.
    x = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    grid = _source_grid(theta, height, width)  # (N, H, W, 2)
    if options.elastic:
        grid = grid + _warp(len(x), height, width, options.elastic, generator).to(grid.device)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)  # (N, C, H, W)
    # interpolation weights add up to 1 but for rounding
    return x.clamp_(0, 255).permute(0, 2, 3, 1)  # (N, H, W, C)


def _affine_maps(
    count: int, height: int, width: int, options: AugmentOptions, generator: Generator
) -> Tensor:
    """Maps [N, 2, 3] from positions in the result to positions in the source, in units of half a
    frame, as for ``affine_grid``."""
    angle = _uniform(count, math.radians(options.rotate), generator)
    shear = torch.tan(_uniform(count, math.radians(options.shear), generator))
    zoom_x = 1 / (1 + _uniform(count, options.scale, generator))
    zoom_y = 1 / (1 + _uniform(count, options.scale, generator))
    shift_x = _uniform(count, 2 * options.shift / width, generator)
    shift_y = _uniform(count, 2 * options.shift / height, generator)
    cos, sin = torch.cos(angle), torch.sin(angle)
    aspect = height / width  # in units of a frame that is not square a rotation is none
    # zoom * shear * rotation, with the columns and rows brought to those units
    row_x = torch.stack(
        [zoom_x * (cos + shear * sin), zoom_x * aspect * (shear * cos - sin), shift_x], 1
    )
    row_y = torch.stack([zoom_y * sin / aspect, zoom_y * cos, shift_y], 1)
    return torch.stack([row_x, row_y], 1)  # (N, 2, 3)


def _source_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """The source position of each pixel of the result, [N, H, W, 2]: ``affine_grid`` by sums
    instead of products of matrices, in a fifth of the time."""
    xs = (2 * torch.arange(width, device=theta.device) + 1) / width - 1  # centers of pixels
    ys = (2 * torch.arange(height, device=theta.device) + 1) / height - 1
    grid = theta.new_empty(len(theta), height, width, 2)
    for axis in (0, 1):
        by_x, by_y, shift = theta[:, axis].unbind(1)  # (N,)
        rows = torch.addcmul(shift[:, None], by_y[:, None], ys)  # (N, H)
        torch.addcmul(rows[:, :, None], by_x[:, None, None], xs, out=grid[..., axis])
    return grid


def _warp(count: int, height: int, width: int, extent: float, generator: Generator) -> Tensor:
    """Smooth random moves of every position, of standard deviation ``extent`` pixels at the knots
    of the field, in units of half a frame, [N, H, W, 2].

    Source of the idea: Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural
    Networks Applied to Visual Document Analysis", 2003; knots a seventh of the frame apart replace
    their Gaussian filter, which costs more.
    """
    knots = torch.randn(count, 2, _KNOTS, _KNOTS, generator=generator)
    knots *= torch.tensor([2 * extent / width, 2 * extent / height]).view(1, 2, 1, 1)
    field = F.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
    return field.permute(0, 2, 3, 1)


def _shift(pixels: Tensor, extent: int, generator: Generator) -> Tensor:
    """Move by whole pixels, which needs no interpolation: half the cost of ``_resampled``."""
    count, height, width, _ = pixels.shape
    rows = _moved(count, height, extent, generator).to(pixels.device)  # (N, H)
    columns = _moved(count, width, extent, generator).to(pixels.device)  # (N, W)
    images = torch.arange(count, device=pixels.device)
    return pixels[images[:, None, None], rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)


def _moved(count: int, size: int, extent: int, generator: Generator) -> Tensor:
    """For each image the source rows (or columns) of a random move, [N, size]."""
    by = torch.randint(-extent, extent + 1, (count, 1), generator=generator)
    return (torch.arange(size) + by).clamp_(0, size - 1)


# --- light ----------------------------------------------------------------------------------


def _light(pixels: Tensor, options: AugmentOptions, generator: Generator) -> Tensor:
    """Scale the distance to each image's mean, then the whole."""
    x = pixels.to(torch.float32)
    contrast = _per_image(1 + _uniform(len(x), options.contrast, generator), x)
    brightness = _per_image(1 + _uniform(len(x), options.brightness, generator), x)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return torch.addcmul(mean * (1 - contrast) * brightness, x, contrast * brightness).clamp_(
        0, 255
    )


def _color(pixels: Tensor, extent: float, generator: Generator) -> Tensor:
    """Scale each of three channels, and the distance to gray, of rgb pixels."""
    gains = 1 + _uniform(3 * len(pixels), extent, generator).view(-1, 1, 1, 3)
    saturation = _per_image(1 + _uniform(len(pixels), extent, generator), pixels)
    x = pixels.to(torch.float32) * gains.to(pixels.device)
    return torch.lerp(x.mean(3, keepdim=True), x, saturation).clamp_(0, 255)


# --- strokes --------------------------------------------------------------------------------


def _stroke(pixels: Tensor, share: float, generator: Generator) -> Tensor:
    """Thicken or thin bright strokes: blend with the maximum or minimum over 3x3 pixels.

    A full blend moves each edge of a stroke by one pixel, much for digits of 28x28 whose strokes
    are two to four pixels wide; so the strength is uniform up to full for thicker strokes, and
    to ``_THINNEST`` for thinner ones, where a full blend would wipe fine strokes out.
    """
    strength = torch.rand(len(pixels), generator=generator)
    draw = torch.rand(len(pixels), generator=generator)
    thick = (draw < share / 2).nonzero()[:, 0]
    thin = ((draw >= share / 2) & (draw < share)).nonzero()[:, 0]
    # Plain comparisons vectorize on uint8: max_pool2d, which also computes the position of the
    # maximum, took thirty times as long.
    result = pixels.to(torch.float32)
    if result is pixels:
        result = pixels.clone()
    for images, extreme, limit in ((thick, torch.maximum, 1.0), (thin, torch.minimum, _THINNEST)):
        selected = pixels[images.to(pixels.device)]
        blend = _per_image(strength[images] * limit, pixels)
        edge = _over_neighbors(_over_neighbors(selected, extreme, 1), extreme, 2)
        result[images.to(pixels.device)] = torch.lerp(
            selected.to(torch.float32), edge.to(torch.float32), blend
        ).clamp_(0, 255)
    return result


def _over_neighbors(
    pixels: Tensor, extreme: Callable[[Tensor, Tensor], Tensor], dim: int
) -> Tensor:
    """The extreme of each pixel and its two neighbors along ``dim``, same shape."""
    size = pixels.shape[dim]
    pairs = extreme(pixels.narrow(dim, 0, size - 1), pixels.narrow(dim, 1, size - 1))
    inner = extreme(pairs.narrow(dim, 0, size - 2), pixels.narrow(dim, 2, size - 2))
    first, last = pairs.narrow(dim, 0, 1), pairs.narrow(dim, size - 2, 1)
    return torch.cat([first, inner, last], dim)


# --- holes ----------------------------------------------------------------------------------


def _erase(pixels: Tensor, share: float, generator: Generator) -> Tensor:
    """Blank one rectangle, each side a tenth to a third of the frame, in a share of the images.

    The color is that of the image's first pixel, its background. Source of the idea: Zhong et
    al., "Random Erasing Data Augmentation", 2017.
    """
    count, height, width, _ = pixels.shape
    inside_rows = _interval(count, height, generator).to(pixels.device)[:, :, None, None]
    inside_columns = _interval(count, width, generator).to(pixels.device)[:, None, :, None]
    hole = _chance(share, pixels, generator) & inside_rows & inside_columns  # (N, H, W, 1)
    return torch.where(hole, pixels[:, :1, :1, :], pixels)


def _interval(count: int, size: int, generator: Generator) -> Tensor:
    """For each image a random stretch of 0.1 to 0.33 of ``size``, as booleans [N, size]."""
    length = size * (0.1 + 0.23 * torch.rand(count, 1, generator=generator))
    start = (size - length) * torch.rand(count, 1, generator=generator)
    position = torch.arange(size) + 0.5
    return (position >= start) & (position < start + length)
