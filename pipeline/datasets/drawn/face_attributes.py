"""The 40 attribute names of CelebA, those of them that are drawn, and which attributes
occur together or exclude each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

RGB = tuple[float, float, float]  # red, green, blue, 0 to 255

# All 40 names of list_attr_celeba.txt, in its order.
ATTRIBUTES: tuple[str, ...] = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
    "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows",
    "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup",
    "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns",
    "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip

# The attributes that are truly drawn, in the official order. Each is plain to see at 64x64.
DRAWN: tuple[str, ...] = (
    "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "Pale_Skin", "Rosy_Cheeks", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings",
    "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necktie",
)  # fmt: skip

HAIR_COLORS: dict[str, RGB] = {
    "Black_Hair": (30, 26, 28),
    "Blond_Hair": (228, 190, 104),
    "Brown_Hair": (108, 64, 34),
    "Gray_Hair": (172, 173, 178),
}
HAIR_SHAPES = ("Straight_Hair", "Wavy_Hair")
# Hair of no official color, so that "not black, blond or brown" doesn't mean gray.
DYED: tuple[RGB, ...] = ((205, 62, 138), (44, 150, 158), (118, 66, 182), (206, 52, 36))
_HAIR_WEIGHTS = (0.29, 0.20, 0.24, 0.16, 0.11)  # in the order of HAIR_COLORS, then dyed

# P(attribute) in two loose clusters of habits, drawn with equal chance per person. They make
# attributes co-occur as they do in life (lipstick with earrings, necktie with mustache), yet
# both clusters know every value, so that no attribute follows from another.
_HABITS: dict[str, tuple[float, float]] = {
    "Bald": (0.07, 0.24),
    "Bangs": (0.44, 0.26),
    "Bushy_Eyebrows": (0.20, 0.42),
    "Eyeglasses": (0.24, 0.32),
    "Goatee": (0.05, 0.36),
    "Heavy_Makeup": (0.48, 0.08),
    "Mouth_Slightly_Open": (0.46, 0.40),
    "Mustache": (0.06, 0.38),
    "Narrow_Eyes": (0.28, 0.28),
    "Pale_Skin": (0.20, 0.16),
    "Rosy_Cheeks": (0.42, 0.16),
    "Smiling": (0.54, 0.44),
    "Wearing_Earrings": (0.50, 0.12),
    "Wearing_Hat": (0.18, 0.24),
    "Wearing_Lipstick": (0.58, 0.10),
    "Wearing_Necktie": (0.12, 0.36),
}
_SHORT_HAIR = (0.14, 0.50)  # P(hair too short to be straight or wavy) in the two clusters


@dataclass(frozen=True)
class Traits:
    """The labels that a person keeps from picture to picture."""

    cluster: int
    bald: bool
    hair_color: str | None  # None: dyed
    hair_shape: str | None  # None: short
    kept: frozenset[str]  # of those of _HABITS that don't change with the day


def sample_traits(rng: np.random.Generator) -> Traits:
    """The labels of one new person that stay from picture to picture."""
    cluster = int(rng.integers(2))
    color = int(rng.choice(len(_HAIR_WEIGHTS), p=_HAIR_WEIGHTS))
    short, wavy, bald = rng.random(3)
    kept = ("Bushy_Eyebrows", "Narrow_Eyes", "Pale_Skin")
    chances = rng.random(len(kept))
    return Traits(
        cluster=cluster,
        bald=bool(bald < _HABITS["Bald"][cluster]),
        hair_color=(*HAIR_COLORS, None)[color],
        hair_shape=None if short < _SHORT_HAIR[cluster] else HAIR_SHAPES[int(wavy < 0.5)],
        kept=frozenset(
            name
            for name, chance in zip(kept, chances, strict=True)
            if chance < _HABITS[name][cluster]
        ),
    )


def dress(traits: Traits, rng: np.random.Generator) -> dict[str, bool]:
    """The attributes of one picture of a person."""
    chances = rng.random(len(_HABITS))
    today = {
        name: bool(chance < odds[traits.cluster])
        for chance, (name, odds) in zip(chances, _HABITS.items(), strict=True)
    }
    hat = today["Wearing_Hat"]
    # A hat hides a bald head, and short hair altogether; longer hair shows below it.
    hair = not traits.bald and not (hat and traits.hair_shape is None)
    true = {name for name, chosen in today.items() if chosen}
    true -= {"Bald", "Bushy_Eyebrows", "Narrow_Eyes", "Pale_Skin"}
    true |= traits.kept
    if hat or not hair:
        true.discard("Bangs")
    if traits.bald and not hat:
        true.add("Bald")
    if hair:
        true |= {name for name in (traits.hair_color, traits.hair_shape) if name}
    return {name: name in true for name in DRAWN}


def sample_attributes(rng: np.random.Generator) -> dict[str, bool]:
    """A consistent value for every attribute of `DRAWN`, of one picture of one new person."""
    return dress(sample_traits(rng), rng)


def check(attributes: Mapping[str, bool]) -> frozenset[str]:
    """The true attributes, or ValueError if they can't all be drawn in one face."""
    true = frozenset(name for name, value in attributes.items() if value)
    unknown = sorted(name for name in attributes if name not in ATTRIBUTES)
    if unknown:
        raise ValueError(f"unknown attributes {unknown}; expected names listed in ATTRIBUTES")
    undrawn = sorted(true - set(DRAWN))
    if undrawn:
        raise ValueError(f"attributes {undrawn} can't be drawn; set them to False (see DRAWN)")
    for group in _exclusive(true):
        exclusive = sorted(true & set(group))
        if len(exclusive) > 1:
            raise ValueError(f"attributes {exclusive} exclude each other; set at most one of them")
    return true


def _exclusive(true: frozenset[str]) -> Iterator[tuple[str, ...]]:
    """Groups of attributes of which a face has at most one."""
    yield tuple(HAIR_COLORS)
    yield HAIR_SHAPES
    for hair in (*HAIR_COLORS, *HAIR_SHAPES, "Bangs", "Wearing_Hat"):
        yield "Bald", hair
    yield "Wearing_Hat", "Bangs"
    if not true & set(HAIR_SHAPES):  # short hair is hidden by a hat, and its color with it
        for color in HAIR_COLORS:
            yield "Wearing_Hat", color
