"""Parts that all HTML pages share: the template environment and the markup of a chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.text import summary as words

if TYPE_CHECKING:
    from pipeline.report.charts.drawing import (
        Chart,  # it loads matplotlib, which not all pages need
    )

_FILTERS = (
    *("count", "decibels", "lost", "megabytes", "milliseconds", "percent", "points", "power"),
    *("seconds", "share", "signed_power", "span", "times"),
)


def environment(*folders: Path) -> Environment:
    """Templates of ``folders``, then those of the report, with the filters of ``summary.py``."""
    result = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).with_name("templates")]),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelled field is an error, not an empty cell
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters |= {name: getattr(words, name) for name in _FILTERS}
    result.filters["bytes"] = words.size
    result.globals["missing"] = words.MISSING
    return result


def chart_markup(chart: Chart) -> Markup:
    """The chart as an element with its text alternative."""
    return Markup('<div class="chart" role="img" aria-label="{}">{}</div>').format(
        chart.alt, Markup(chart.svg)
    )
