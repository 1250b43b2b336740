"""Every figure of the report, by name. Charts take the values of ``model.py`` and return pictures
with a text alternative; independent of the HTML around them."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.report.charts import labels, scores, search, training, variants
from pipeline.report.charts.drawing import Chart
from pipeline.report.model import Report

CHARTS: tuple[Callable[[Report], Chart | None], ...] = (
    *training.CHARTS,
    *labels.CHARTS,
    *variants.CHARTS,
    *scores.CHARTS,
    *search.CHARTS,
)


def draw_all(report: Report) -> dict[str, Chart]:
    """Every chart that the report has data for, by the name of its function."""
    drawn = {draw.__name__: draw(report) for draw in CHARTS}
    return {name: chart for name, chart in drawn.items() if chart is not None}
