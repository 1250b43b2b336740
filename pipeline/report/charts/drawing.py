"""Style, colors and axes that all charts share, and a finished figure as inline SVG that follows
the reader's light or dark mode. matplotlib without pyplot, so no state is left behind.

Colors are CSS variables, named in ``style.css.j2``: matplotlib draws with placeholder colors,
which are replaced in the finished SVG. The series have the colors of Okabe and Ito, distinct for
people with any color vision (https://jfly.uni-koeln.de/color/); markers differ as well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pipeline.report.text.summary import power

INK, MUTED, GRID, PAPER = "#010101", "#010102", "#010103", "#010104"
BLUE, ORANGE, PURPLE, GRAY, RED = "#010105", "#010106", "#010107", "#010108", "#010109"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--card",
    BLUE: "--blue",
    ORANGE: "--orange",
    PURPLE: "--purple",
    GRAY: "--gray",
    RED: "--red",
}
_PRECISION = {"fp32": (BLUE, "o"), "fp16": (PURPLE, "s"), "int8": (ORANGE, "D")}
_OTHER = (GRAY, "^")
WIDTH = 5.8  # inches of 72 units: narrow enough that its text is readable on a phone
_STYLE: Any = {  # Any: the names are a closed type that differs between versions
    "svg.fonttype": "none",  # text stays text: selectable, small, in the page's font
    "text.parse_math": False,  # a label may hold a dollar sign
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.major.pad": 6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Chart:
    """A picture and its text alternative."""

    svg: str
    alt: str


P = ParamSpec("P")
Points = Sequence[tuple[float, float]]
Box = tuple[float, float, float, float]  # left, bottom, right, top


def styled(draw: Callable[P, Chart | None]) -> Callable[P, Chart | None]:
    """Draw with our style and restore matplotlib's settings afterwards."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Chart | None:
        with mpl.rc_context({**_STYLE, "svg.hashsalt": draw.__name__}):
            return draw(*args, **kwargs)

    return wrapped


def blank_figure(height: float, width: float = WIDTH) -> Figure:
    """A figure without axes; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def new_figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; sizes in inches."""
    figure = blank_figure(height, width)
    return figure, figure.add_subplot()


def to_chart(figure: Figure, name: str, alt: str) -> Chart:
    """The figure as inline SVG: no XML head, ids of its own, colors as CSS variables."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg\b[^>]*?)\swidth="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?)\sheight="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return Chart(svg, alt)


def look(precision: str) -> tuple[str, str]:
    """Color and marker of a precision."""
    return _PRECISION.get(precision, _OTHER)


def plain_log(axes: Axes, which: str) -> None:
    """Plain numbers at 1, 2 and 5 of each decade instead of powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def powers(axes: Axes) -> None:
    """Powers of ten along x, in the format of ``text/summary.py``."""
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value, digits=0)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def best_steps(points: Points, sign: int = 1) -> list[tuple[float, float]]:
    """The points, from left to right, at which ``sign`` * y is larger than at all before."""
    steps: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not steps or sign * y > sign * steps[-1][1]:
            steps.append((x, y))
    return steps


def staircase(axes: Axes, steps: Points) -> None:
    """Join :func:`best_steps`, from the bottom of the axes to their right edge."""
    line = [(steps[0][0], axes.get_ylim()[0]), *steps, (axes.get_xlim()[1], steps[-1][1])]
    axes.step(*zip(*line, strict=True), where="post", color=INK, lw=1.1, alpha=0.5, zorder=2)


def short(text: str, width: int) -> str:
    """The text on one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def short_path(name: str, width: int) -> str:
    """The end of a node's or tensor's name, which is more specific than its beginning."""
    return name if len(name) <= width else "…" + name[1 - width :]


# --- names next to points -------------------------------------------------------------------

_CHARACTER = 6.0  # points that a character of 11-point text is wide, about
_LINE = 13.0  # points that a line of it is high
_NEAR = 15.0  # offset in points of a name right above or below its point; farther ones are tied
# Offsets in points of a name's near end (or middle) from its point, the nearest and most usual
# ones first.
_OFFSETS = [
    (side * (9 if lift else 11), lift)
    for lift in (0, 11, -11, _NEAR, -_NEAR, 24, -24, 36, -36, 48, -48)
    for side in ((1, -1) if abs(lift) != _NEAR else (0,))
]
_SHARES = {1: 0.0, 0: 0.5, -1: 1.0}  # of a name's width left of its end, by side
_ALIGNMENTS = {1: "left", 0: "center", -1: "right"}


def name_points(axes: Axes, named: Sequence[tuple[float, float, str]], others: Points = ()) -> None:
    """Write names next to points (x, y, name) so that they cover neither each other nor the points,
    ``others`` (x, y) among them. A name that had to move away is tied to its point by a line.

    The axes must have their final limits, since offsets are tried out in the finished figure.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]  # a figure, no subfigure
    scale = 72 / figure.dpi  # pixels to points
    frame = axes.get_window_extent()
    limits = (frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    points = np.array([*((x, y) for x, y, _ in named), *others]).reshape(-1, 2)
    spots = [(float(x) * scale, float(y) * scale) for x, y in axes.transData.transform(points)]
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in spots]
    for number, ((x, y, name), spot) in enumerate(zip(named, spots, strict=False)):
        boxes = {offset: _box(name, spot, offset) for offset in _OFFSETS}
        costs = {
            offset: _cost(box, taken, limits) + abs(offset[1]) for offset, box in boxes.items()
        }
        best = min(costs, key=costs.__getitem__)
        taken.append(boxes[best])
        far = abs(best[1]) > _NEAR
        axes.annotate(
            name,
            (x, y),
            best,
            textcoords="offset points",
            ha=_ALIGNMENTS[np.sign(best[0])],
            va="center",
            arrowprops={"arrowstyle": "-", "color": GRAY, "lw": 0.7} if far else None,
            gid=f"halo{number}",  # style.css.j2 keeps lines off it
        )


def _box(name: str, spot: tuple[float, float], offset: tuple[float, float]) -> Box:
    """The box of a name at an offset from its point."""
    width = _CHARACTER * len(name)
    left = spot[0] + offset[0] - width * _SHARES[np.sign(offset[0])]
    middle = spot[1] + offset[1]
    return left, middle - _LINE / 2, left + width, middle + _LINE / 2


def _cost(box: Box, taken: Sequence[Box], limits: Box) -> float:
    """Square points that a box covers of others, and how far it leaves the axes, dearly."""
    covered = sum(_overlap(box, other) for other in taken)
    inside = _overlap(box, limits)
    outside = (box[2] - box[0]) * (box[3] - box[1]) - inside
    return 10 * covered + 20 * outside


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)
