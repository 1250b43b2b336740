"""A thousand digits on paper by a hundred writers who never wrote for MNIST: an evaluation of
``p.predict``, from photograph to answer. No image of MNIST is in it, and nothing is trained on it.

How it is made. Each digit has four or five skeletons (glyphs): sevens with and without a bar, ones
with and without a foot, open and closed fours, eights of one stroke and of two rings. A writer is a
set of habits, drawn once: which glyph for each digit, slant, proportions, pen, how steady the hand
is. Each writer writes every digit once. A page is another photograph each time: where and how large
the digit stands, turned by how much, on which paper (white, cream, gray, dark like a blackboard;
plain, ruled, squared), in what ink, under which light, through which lens (blur, noise) and at
which JPEG quality. Everything follows from one seed; other versions of numpy or Pillow may round a
pixel differently.

    python tests/project/paper_digits.py artifacts/mnist/bundle.zip --out FOLDER
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from runtime import Predictor

WRITERS = 100
SEED = 20261125
_SUPERSAMPLING = 2

# Strokes through points, "x,y" in percent of a square, y down, strokes apart by "/". A point
# written twice is a corner.
GLYPHS: dict[int, dict[str, str]] = {
    0: {
        "round": "52,3 22,14 8,48 20,86 50,97 80,86 92,50 80,14 52,3",
        "narrow": "58,2 34,16 24,52 34,88 52,98 70,84 77,46 70,14 56,3",
        "crossing at the top": "70,10 46,3 20,24 12,60 30,94 60,96 84,72 84,32 62,8 40,10 36,20",
        "open at the top": "42,6 18,26 10,58 26,92 54,98 82,80 90,44 76,12 60,5",
    },
    1: {
        "stick": "50,0 50,50 50,100",
        "flag": "28,26 42,14 54,0 54,0 54,50 53,100",
        "long flag": "16,44 36,24 58,0 58,0 57,50 56,100",
        "flag and foot": "30,22 44,12 54,0 54,0 53,50 52,97 / 24,98 52,97 80,96",
    },
    2: {
        "flat foot": "12,26 26,6 54,1 80,14 80,36 54,66 10,97 10,97 50,96 92,95",
        "loop at the foot": "14,24 34,3 68,4 84,26 66,60 32,90 10,92 14,78 34,76 60,90 94,96",
        "like a z": "12,14 44,2 80,4 80,4 48,48 12,94 12,94 50,94 90,92",
        "bent foot": "16,30 24,8 52,0 78,12 76,38 46,68 8,94 24,84 50,90 72,99 92,88",
    },
    3: {
        "round": "14,16 40,1 74,10 76,32 44,46 44,46 80,56 86,80 54,99 12,88",
        "flat top": "14,4 48,3 84,2 84,2 46,40 46,40 82,50 88,78 56,99 12,90",
        "loop in the middle": "16,12 48,0 78,14 66,38 38,46 34,40 44,38 76,52 86,78 56,98 14,90",
        "open wide": "18,10 52,0 80,18 70,38 50,46 70,52 82,74 66,94 40,100 16,92",
    },
    4: {
        "open": "22,2 16,34 12,60 12,60 50,60 92,58 / 70,8 69,52 67,100",
        "open, slanted": "36,0 22,30 6,64 6,64 50,64 94,62 / 64,34 60,66 57,100",
        "closed": "66,100 67,50 68,0 68,0 38,34 6,68 6,68 50,68 94,67",
        "closed, bar last": "62,2 36,32 8,64 8,64 50,66 92,66 / 62,2 62,50 62,100",
        "round shoulder": "20,4 14,30 16,50 34,56 60,52 80,44 / 80,4 76,50 70,100",
    },
    5: {
        "bar of its own": "26,4 23,24 21,44 21,44 52,36 82,52 84,78 54,99 12,90 / 26,4 54,4 86,2",
        "one stroke": "86,3 56,3 28,4 28,4 20,42 20,42 54,38 82,58 76,88 42,99 10,88",
        "angular": "82,4 54,4 26,4 26,4 24,24 22,46 22,46 60,44 82,60 80,84 56,97 14,95",
        "like an s": "82,8 54,2 30,12 24,34 48,44 74,56 80,78 56,98 16,92",
    },
    6: {
        "bent": "74,5 44,12 20,44 14,78 40,99 74,90 82,66 56,52 28,60 16,76",
        "straight back": "60,0 36,34 18,70 28,94 56,99 78,82 70,62 44,58 20,74",
        "large ring": "66,2 38,20 14,54 16,86 46,100 80,88 88,58 60,40 30,48 14,68",
        "small ring": "56,0 36,26 24,58 24,84 42,99 64,92 68,76 52,66 34,72 26,84",
    },
    7: {
        "plain": "10,5 50,4 88,3 88,3 62,48 40,100",
        "bar": "10,5 50,4 86,3 86,3 60,50 38,100 / 32,52 56,50 80,49",
        "hook": "12,22 12,4 12,4 50,4 88,3 88,3 60,50 42,100",
        "hook and bar": "12,20 13,4 13,4 50,5 86,3 86,3 58,50 36,100 / 28,54 54,52 80,50",
        "bent": "10,10 42,6 84,4 78,26 54,60 46,100",
    },
    8: {
        "one stroke": "76,14 48,1 22,16 34,40 66,56 82,80 50,99 18,82 34,56 66,38 78,16",
        "two rings": (
            "50,46 26,34 28,10 52,1 76,12 74,36 50,46 / 50,46 20,60 18,88 50,99 82,88 80,60 50,46"
        ),
        "open at the top": "72,6 44,4 24,20 40,40 68,58 78,82 50,99 22,84 34,58 60,40 76,22 82,10",
        "narrow": "64,10 48,1 34,14 42,38 58,56 66,80 50,99 34,82 42,56 58,38 66,14",
    },
    9: {
        "straight tail": "80,18 54,1 24,12 20,38 48,50 76,36 82,12 82,12 78,56 72,100",
        "bent tail": "80,20 56,0 24,14 22,40 50,50 78,32 82,16 82,50 70,86 44,99 20,92",
        "open ring": "72,12 46,2 22,20 28,44 54,48 78,24 78,24 74,60 66,100",
        "stick next to a ring": "74,30 60,8 34,6 20,28 34,48 60,44 74,24 / 76,4 75,50 73,100",
    },
}

_INKS = {  # RGB, 0 to 255
    "black ballpoint": (28, 28, 34),
    "blue ballpoint": (34, 50, 130),
    "pencil": (96, 96, 100),
    "red": (158, 30, 36),
    "green felt-tip": (20, 96, 60),
}
_PAPERS = {
    "white": (244, 244, 242),
    "cream": (236, 226, 198),
    "gray": (186, 186, 184),
    "yellow note": (246, 228, 120),
    "dark, light pen": (44, 54, 50),
}
_LIGHT_INK = (232, 232, 226)  # chalk, or a gel pen
_LIGHTS = ("falls off", "shadow's edge")
_LINES = ("plain", "plain", "plain", "ruled", "squared")  # three of five have none


@dataclass(frozen=True)
class Writer:
    """Habits of one hand."""

    glyphs: dict[int, str]
    slant: float  # tangent: 0.3 leans 17 degrees to the right
    width: float  # of a digit, its height being 1
    pen: float  # width of the stroke over the height of the digit
    pressure: float  # how much the stroke's width varies, 0.1: by 10 %
    tremor: float  # of the digit's height
    carelessness: float  # how far the skeleton's points stray, of its height


@dataclass(frozen=True)
class Page:
    """One photograph, and how it was made."""

    image: NDArray[np.uint8]  # [height, width, 3], as decoded from its JPEG
    digit: int
    writer: int
    glyph: str
    slant_degrees: float  # the writer's
    turn_degrees: float  # the page's
    pen: float  # width of the stroke over the height of the digit
    height_pixels: float  # of the digit
    paper: str
    lines: str  # "plain", "ruled", "squared"
    light: str  # "falls off" to one side, or "shadow's edge" across the page
    shadow: float  # share of the light that the darkest place lacks
    quality: int  # of the JPEG


def pages(writers: int = WRITERS, seed: int = SEED) -> Iterator[Page]:
    """Every digit once by each writer, writer after writer."""
    for number in range(writers):
        rng = np.random.default_rng([seed, number])
        writer = _writer(rng)
        for digit in range(10):
            yield _page(rng, writer, number, digit)


def _writer(rng: np.random.Generator) -> Writer:
    return Writer(
        glyphs={digit: str(rng.choice(list(variants))) for digit, variants in GLYPHS.items()},
        slant=float(np.clip(rng.normal(0.15, 0.17), -0.3, 0.55)),
        width=rng.uniform(0.45, 0.95),
        pen=float(np.exp(rng.uniform(np.log(0.025), np.log(0.16)))),
        pressure=rng.uniform(0, 0.3),
        tremor=rng.uniform(0, 0.006),
        carelessness=rng.uniform(0.01, 0.035),
    )


def _page(rng: np.random.Generator, writer: Writer, number: int, digit: int) -> Page:
    glyph = writer.glyphs[digit]
    height, width = (round(float(np.exp(rng.uniform(np.log(90), np.log(1000))))) for _ in range(2))
    height, width = max(height, width // 3), max(width, height // 3)
    turn = rng.normal(0, 6)
    curves = _written(rng, GLYPHS[digit][glyph], writer, turn)
    # a fifth to four fifths of the largest size that fits, but not smaller than can be read
    extent = np.concatenate(curves).max(axis=0)  # (x, y), its height being about 1
    room = min(width / (extent[0] + writer.pen), height / (extent[1] + writer.pen))
    size = max(room * rng.uniform(0.2, 0.8), min(28.0, 0.8 * room))  # pixels
    free = np.array([width, height]) - (extent + writer.pen) * size
    corner = writer.pen * size / 2 + free * rng.uniform(0.03, 0.97, 2)
    covered = _inked(rng, [c * size + corner for c in curves], (height, width), writer, size)
    paper, lines = str(rng.choice(list(_PAPERS))), str(rng.choice(_LINES))
    light, shadow = str(rng.choice(_LIGHTS)), rng.uniform(0, 0.35)
    sheet = _sheet(rng, _PAPERS[paper], lines, size, (height, width))
    ink = _LIGHT_INK if paper.startswith("dark") else _INKS[str(rng.choice(list(_INKS)))]
    sheet += (np.array(ink) - sheet) * covered[:, :, None]
    sheet *= _light(rng, light, shadow, (height, width))[:, :, None]
    quality = int(rng.integers(35, 96))
    image = _photographed(rng, sheet, size, quality)
    return Page(
        image,
        digit,
        number,
        glyph,
        slant_degrees=float(np.degrees(np.arctan(writer.slant))),
        turn_degrees=float(turn),
        pen=writer.pen,
        height_pixels=float(size),
        paper=paper,
        lines=lines,
        light=light,
        shadow=float(shadow),
        quality=quality,
    )


# --- the hand -------------------------------------------------------------------------------


def _written(
    rng: np.random.Generator, glyph: str, writer: Writer, turn: float
) -> list[NDArray[np.float64]]:
    """The strokes as this hand writes them once: points (x, y) [n, 2] from (0, 0) on, the height
    being about 1."""
    strokes = [
        np.array([[int(n) / 100 for n in point.split(",")] for point in stroke.split()])
        for stroke in glyph.split("/")
    ]
    angle = np.radians(turn)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shape = np.array([[writer.width, 0], [-writer.slant, 1]]) @ turned
    bend = rng.normal(0, writer.carelessness, (2, 3, 3))
    curves = []
    for points in strokes:
        curve = _smooth(_strayed(points, bend)) @ shape
        curves.append(curve + _trembling(rng, len(curve), writer.tremor))
    low = np.concatenate(curves).min(axis=0)
    return [curve - low for curve in curves]


def _strayed(points: NDArray[np.float64], bend: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points moved as a rubber sheet would be that is pulled at 3 x 3 places: what touched still
    touches. ``bend`` is [2, 3, 3], in heights."""
    x, y = (np.clip(points[:, i], 0, 1) * 2 for i in (0, 1))
    left, top = np.minimum(x.astype(int), 1), np.minimum(y.astype(int), 1)
    u, v = x - left, y - top
    moved = [
        plane[top, left] * (1 - u) * (1 - v)
        + plane[top, left + 1] * u * (1 - v)
        + plane[top + 1, left] * (1 - u) * v
        + plane[top + 1, left + 1] * u * v
        for plane in 3 * bend  # neighbors move alike, so that it takes more to be seen
    ]
    return points + np.stack(moved, axis=1)


def _smooth(points: NDArray[np.float64], steps: int = 16) -> NDArray[np.float64]:
    """A curve through the points (Catmull and Rom, 1974)."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = p1 + 0.5 * t * (
        p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))
    )
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


def _trembling(rng: np.random.Generator, count: int, tremor: float) -> NDArray[np.float64]:
    knots = rng.normal(0, tremor, (max(count // 5, 2), 2))
    places = np.linspace(0, len(knots) - 1, count)
    return np.stack([np.interp(places, np.arange(len(knots)), k) for k in knots.T], axis=1)


def _inked(
    rng: np.random.Generator,
    curves: Sequence[NDArray[np.float64]],
    shape: tuple[int, int],
    writer: Writer,
    size: float,
) -> NDArray[np.float64]:
    """The share of each pixel that the pen covers, [height, width]."""
    factor = _SUPERSAMPLING
    height, width = shape
    mask = Image.new("L", (width * factor, height * factor))
    draw = ImageDraw.Draw(mask)
    for curve in curves:
        knots = 1 + writer.pressure * rng.uniform(-1, 1, 6)
        pressures = np.interp(np.linspace(0, 5, len(curve)), np.arange(6), knots)
        radii = np.maximum(pressures * writer.pen * size * factor / 2, 0.6)
        for (x0, y0), (x1, y1), r in zip(
            curve[:-1] * factor, curve[1:] * factor, radii, strict=False
        ):
            draw.line((x0, y0, x1, y1), fill=255, width=max(1, round(2 * r)))
            for x, y in ((x0, y0), (x1, y1)):
                draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    small = mask.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, np.float64) / 255 * rng.uniform(0.8, 1.0)


# --- the page -------------------------------------------------------------------------------


def _sheet(
    rng: np.random.Generator,
    tone: tuple[int, int, int],
    lines: str,
    size: float,
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Paper with its lines, [height, width, 3], 0 to 255. Lines are paler than any ink: they are
    8 to 20 % darker than the paper (lighter, on dark paper), as far apart as half of the digit's
    height up to one and a half."""
    sheet = np.ones((*shape, 3)) * (np.array(tone) + rng.normal(0, 4, 3))
    if lines == "plain":
        return sheet
    step = max(size * rng.uniform(0.5, 1.5), 12.0)
    thick = max(1, round(size / 60))
    strength = rng.uniform(0.08, 0.2)
    marked = np.zeros(shape)
    for axis in (0, 1) if lines == "squared" else (0,):
        for start in np.arange(rng.uniform(0, step), shape[axis], step).astype(int):
            marked[(slice(None),) * axis + (slice(start, start + thick),)] = strength
    target = 255.0 if sum(tone) < 300 else 0.0
    return sheet + (target - sheet) * marked[:, :, None]


def _light(
    rng: np.random.Generator, light: str, shadow: float, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """How much of the light reaches each place: it falls off to one side, or behind the soft edge
    of a hand's shadow."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    along = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)  # -1 to 1
    if light == "falls off":
        return np.asarray(1 - shadow * (along + 1) / 2)
    edge, soft = rng.uniform(-0.5, 0.5), rng.uniform(0.1, 0.4)
    return np.asarray(1 - shadow / (1 + np.exp(-4 * (along - edge) / soft)))


def _photographed(
    rng: np.random.Generator, sheet: NDArray[np.float64], size: float, quality: int
) -> NDArray[np.uint8]:
    """Through a lens that is a little out of focus, a noisy sensor and a JPEG file."""
    image = Image.fromarray(np.clip(sheet, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.012) * size)))
    noisy = np.asarray(image, np.float64) + rng.normal(0, rng.uniform(0, 7), (*sheet.shape[:2], 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(
        file, "JPEG", quality=quality
    )
    return np.asarray(Image.open(file))


# --- the evaluation -------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """A page and what a predictor made of it."""

    page: Page
    answer: int
    probability: float

    @property
    def right(self) -> bool:
        """Whether it was read."""
        return self.answer == self.page.digit


def read(predictor: Predictor, written: Sequence[Page]) -> list[Reading]:
    """Every page through ``predict``."""
    results = [predictor.predict(page.image) for page in written]
    return [
        Reading(page, int(answer.label), answer.probability)
        for page, answer in zip(written, results, strict=True)
    ]


def accuracy(readings: Sequence[Reading]) -> float:
    """Percent."""
    return 100 * sum(reading.right for reading in readings) / len(readings)


_GROUPS: dict[str, Callable[[Page], str]] = {
    "digit": lambda page: str(page.digit),
    "pen over height": lambda page: _bin(page.pen, (0.04, 0.07, 0.11)),
    "slant, degrees": lambda page: _bin(page.slant_degrees, (0, 8, 16, 24)),
    "turn, degrees": lambda page: _bin(abs(page.turn_degrees), (4, 8, 12)),
    "height, pixels": lambda page: _bin(page.height_pixels, (40, 80, 160, 320)),
    "paper": lambda page: page.paper,
    "lines": lambda page: page.lines,
    "light": lambda page: page.light,
    "shadow": lambda page: _bin(page.shadow, (0.12, 0.24)),
    "JPEG quality": lambda page: _bin(page.quality, (55, 75)),
}


def _bin(value: float, edges: Sequence[float]) -> str:
    index = int(np.searchsorted(edges, value, side="right"))
    if index == 0:
        return f"under {edges[0]:g}"
    if index == len(edges):
        return f"{edges[-1]:g} and more"
    return f"{edges[index - 1]:g} to {edges[index]:g}"


def table(readings: Sequence[Reading]) -> Iterator[str]:
    """Accuracy by condition, one line each; last the glyphs that were misread most."""
    yield f"{accuracy(readings):.1f} % of {len(readings)} digits read"
    for title, key in _GROUPS.items():
        groups: dict[str, list[Reading]] = {}
        for reading in readings:
            groups.setdefault(key(reading.page), []).append(reading)
        ordered = sorted(groups.items(), key=_order)
        cells = (f"{name}: {accuracy(rows):.1f} ({len(rows)})" for name, rows in ordered)
        yield f"  {title:<16} " + ",  ".join(cells)
    glyphs: dict[tuple[int, str], list[Reading]] = {}
    for reading in readings:
        glyphs.setdefault((reading.page.digit, reading.page.glyph), []).append(reading)
    worst = sorted(glyphs.items(), key=lambda pair: accuracy(pair[1]))[:6]
    rates = (f"{digit} {name}: {accuracy(rows):.0f} ({len(rows)})" for (digit, name), rows in worst)
    yield f"  {'worst glyphs':<16} " + ",  ".join(rates)


def _order(pair: tuple[str, list[Reading]]) -> tuple[float, str]:
    first = pair[0].split()[0]
    if first == "under":
        return (-1e9, "")
    try:
        return (float(first), "")
    except ValueError:
        return (0.0, pair[0])


def contact_sheet(readings: Sequence[Reading], columns: int = 10) -> Image.Image:
    """The pages, 150 pixels each, with what was written and what was read."""
    side, caption = 150, 16
    rows = max(-(-len(readings) // columns), 1)
    sheet = Image.new("RGB", (columns * (side + 6), rows * (side + caption + 6)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, reading in enumerate(readings):
        x, y = (number % columns) * (side + 6), (number // columns) * (side + caption + 6)
        image = Image.fromarray(reading.page.image)
        image.thumbnail((side, side))
        sheet.paste(image, (x, y + caption))
        label = f"{reading.page.digit} read as {reading.answer} ({reading.probability:.2f})"
        draw.text((x, y + 2), label, fill="black")
    return sheet


def main() -> int:
    """Evaluate a bundle; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, help="folder for contact sheets: failures, a sample")
    parser.add_argument("--writers", type=int, default=WRITERS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--variant", default="auto")
    options = parser.parse_args()
    written = list(pages(options.writers, options.seed))
    with Predictor(options.bundle, variant=options.variant) as predictor:
        readings = read(predictor, written)
        print(f"{options.bundle}, variant {predictor.info.variant}")
    print("\n".join(table(readings)))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        contact_sheet([r for r in readings if not r.right]).save(options.out / "failures.png")
        sample = readings[::11]  # all digits come in turn
        contact_sheet(sample).save(options.out / "sample.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
