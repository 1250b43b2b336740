"""Augmentation: its invariants, its changes and their directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RecipeError
from pipeline.learning.training.augment import augment, blend
from pipeline.recipe import AugmentOptions, load

EACH = [
    {"shift": 3},
    {"rotate": 20},
    {"scale": 0.2},
    {"shear": 15},
    {"flip": True},
    {"brightness": 0.4},
    {"contrast": 0.4},
    {"stroke": 1.0},
    {"erase": 1.0},
    {"elastic": 1.5},
]
ALL = {key: value for option in EACH for key, value in option.items()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(9))


def bar(count: int) -> torch.Tensor:
    """A bright vertical bar four pixels wide, off center, on black."""
    pixels = torch.zeros(count, 28, 28, 1, dtype=torch.uint8)
    pixels[:, 4:24, 9:13] = 255
    return pixels


def test_without_options_the_batch_itself_comes_back() -> None:
    pixels, draws = noise(4, 8, 8, 3), generator()
    before = draws.get_state()
    assert augment(pixels, AugmentOptions(), draws) is pixels
    assert torch.equal(draws.get_state(), before)


@pytest.mark.parametrize("option", [*EACH, ALL], ids=str)
def test_repeatable_within_range_each_differently_and_on_a_copy(option: dict[str, float]) -> None:
    options = AugmentOptions.model_validate(option)
    pixels = bar(16)
    kept = pixels.clone()
    one, two = augment(pixels, options, generator(1)), augment(pixels, options, generator(1))
    assert torch.equal(one, two)
    assert torch.equal(pixels, kept)
    assert one.shape == pixels.shape
    assert one.min() >= 0
    assert one.max() <= 255
    assert not torch.equal(one, augment(pixels, options, generator(2)))
    pictures = {tuple(image.flatten().tolist()) for image in one}
    # a mirrored bar is one of two pictures, and holes in the background can't be seen
    assert len(pictures) >= {"flip": 2, "erase": 5}.get("+".join(option), 8)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(8, 20),
    width=st.integers(8, 20),
    channels=st.sampled_from([1, 3]),
    floats=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_size_keeps_shape_and_range(
    height: int, width: int, channels: int, floats: bool, seed: int
) -> None:
    pixels = noise(5, height, width, channels)
    changed = augment(
        pixels.float() if floats else pixels, AugmentOptions.model_validate(ALL), generator(seed)
    )
    assert changed.shape == pixels.shape
    assert changed.min() >= 0
    assert changed.max() <= 255


@pytest.mark.parametrize("option", [{"shift": 3}, {"rotate": 45, "scale": 0.3, "shear": 20}])
def test_one_color_has_no_borders(option: dict[str, float]) -> None:
    pixels = torch.full((6, 12, 16, 3), 77, dtype=torch.uint8)
    changed = augment(pixels, AugmentOptions.model_validate(option), generator())
    torch.testing.assert_close(changed.float(), pixels.float(), rtol=0, atol=1e-3)


def test_whole_pixel_shifts_move_the_picture() -> None:
    pixels = bar(64)
    moved = augment(pixels, AugmentOptions(shift=3), generator())
    assert moved.dtype == torch.uint8
    rows = {int((image[:, :, 0] > 0).any(1).nonzero()[0, 0]) for image in moved}
    columns = {int((image[:, :, 0] > 0).any(0).nonzero()[0, 0]) for image in moved}
    assert rows == set(range(1, 8))
    assert columns == set(range(6, 13))
    assert (moved.flatten(1) > 0).sum(1).unique().tolist() == [80]  # nothing lost, nothing blurred


def test_rotation_keeps_angles_in_images_that_are_not_square() -> None:
    """A disc stays a disc of the same size in any frame."""
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(48) - 23.5, indexing="ij")
    disc = (255 * ((x**2 + y**2) < 64)).to(torch.uint8)[None, :, :, None].repeat(8, 1, 1, 1)
    turned = augment(disc, AugmentOptions(rotate=180), generator())
    assert (turned - disc.float()).abs().mean() < 4  # the disc's rim, resampled
    assert ((turned > 127).sum((1, 2, 3)) - (disc[0] > 0).sum()).abs().max() < 12


def test_strokes_get_thicker_and_thinner() -> None:
    pixels = bar(200)
    ink = augment(pixels, AugmentOptions(stroke=1.0), generator()).sum((1, 2, 3)) / (80 * 255)
    assert (ink > 1.3).sum() > 40  # of 100 that are thickened
    assert (ink < 0.9).sum() > 40  # of 100 that are thinned
    assert ink.max() < 1.7  # 6x22 pixels instead of 4x20, no more
    assert ink.min() > 0.5
    some = augment(pixels, AugmentOptions(stroke=0.25), generator())
    untouched = (some == pixels).all(3).all(2).all(1).sum()
    assert 130 < untouched < 170


def test_half_is_mirrored() -> None:
    pixels = noise(400, 6, 6, 1)
    changed = augment(pixels, AugmentOptions(flip=True), generator())
    mirrored = (changed == pixels.flip(2)).all(3).all(2).all(1)
    assert 160 < mirrored.sum() < 240
    assert torch.equal(changed[~mirrored], pixels[~mirrored])


def test_light_scales_as_requested() -> None:
    pixels = torch.full((100, 4, 4, 1), 100, dtype=torch.uint8)
    bright = augment(pixels, AugmentOptions(brightness=0.2), generator())[:, 0, 0, 0]
    assert 80 <= bright.min() < 85
    assert 115 < bright.max() <= 120
    same = augment(pixels, AugmentOptions(contrast=0.2), generator())
    torch.testing.assert_close(same, pixels.float())  # nothing differs from its mean


def test_erased_rectangles_take_the_background() -> None:
    pixels = torch.full((300, 20, 20, 3), 200, dtype=torch.uint8)
    pixels[:, 0, 0] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    changed = augment(pixels, AugmentOptions(erase=0.5), generator())
    holes = (changed != pixels).any(3).sum((1, 2))
    assert 120 < (holes > 0).sum() < 180
    assert holes.max() <= 7 * 7  # a third of each side
    colors = np.unique(changed.flatten(0, 2).numpy(), axis=0)
    assert colors.tolist() == [[1, 2, 3], [200, 200, 200]]


# --- warps, colors and blends ----------------------------------------------------------------


def test_a_warp_moves_places_smoothly_and_by_what_was_asked() -> None:
    ramp = torch.arange(64.0).view(1, 1, 64, 1).expand(200, 64, 64, 1)  # the column as brightness
    moved = augment(ramp, AugmentOptions(elastic=2), generator()) - ramp
    inner = moved[:, 12:-12, 12:-12]
    assert inner.mean().abs() < 0.1
    assert 1.0 < inner.std() < 2.2  # 2 at the knots, less between them
    steps = (inner[:, :, 1:] - inner[:, :, :-1]).abs()
    assert steps.mean() < 0.5  # neighbors move together
    assert moved.view(200, -1).std(1).min() > 0.3  # each image


def test_colors_change_each_channel_and_saturation_within_the_extent() -> None:
    pixels = torch.full((400, 2, 2, 3), 100, dtype=torch.uint8)
    changed = augment(pixels, AugmentOptions(color=0.2), generator())
    means = changed.mean((1, 2))  # (N, 3)
    # channels within 80..120; saturation then moves them by a fifth of their distance to gray
    assert means.min() >= 80 - 0.2 * 27
    assert means.max() <= 120 + 0.2 * 27
    assert (means.std(0) > 8).all()
    assert (means.std(1) > 1).float().mean() > 0.9  # not all channels alike


def test_gray_images_have_no_colors_to_change() -> None:
    with pytest.raises(RecipeError, match=r"augment\.color .*'gray'"):
        load("mnist", ["train.augment.color=0.1"])


def test_blended_images_have_blended_targets() -> None:
    numbers = torch.arange(32.0)
    pixels = numbers.view(32, 1, 1, 1).expand(32, 3, 3, 1).clone()
    targets = torch.eye(32)
    mixed, blended = blend(pixels, targets, 0.4, generator())
    assert torch.equal(targets, torch.eye(32))
    assert torch.allclose(blended.sum(1), torch.ones(32))
    assert torch.allclose(mixed[:, 0, 0, 0], blended @ numbers, atol=1e-4)
    assert (blended.diagonal() >= 0.5 - 1e-6).all()  # the larger share is its own
    assert (blended.diagonal() < 0.999).sum() > 10
    again = blend(pixels, targets, 0.4, generator())
    assert torch.equal(mixed, again[0])
    assert torch.equal(blended, again[1])
