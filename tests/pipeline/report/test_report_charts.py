"""The charts of a report."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from sample_reports import bare, clipping, digits, digits_search

from pipeline.report import render
from pipeline.report.charts import drawing, variants
from pipeline.report.charts.draw import CHARTS, draw_all
from pipeline.report.model import (
    LabelRow,
)


def test_charts_leave_matplotlib_as_it_was() -> None:
    def settings() -> dict[str, object]:  # but the backend: to look at it is to choose one
        return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}

    before = settings()
    drawn = draw_all(digits())
    assert settings() == before
    # all but the chart of attributes
    assert set(drawn) == {draw.__name__ for draw in CHARTS} - {"label_scores"}
    assert all(chart.alt.endswith(".") for chart in drawn.values())


def test_charts_are_drawn_in_css_colors_and_repeat_exactly() -> None:
    first, second = variants.parity(digits()), variants.parity(digits())
    assert first == second and first is not None
    assert "var(--orange)" in first.svg and "#0101" not in first.svg


def test_search_charts_show_what_was_found() -> None:
    drawn = draw_all(digits())
    tried = drawn["tried"]
    assert tried.alt.startswith("7 ") and "fp32 loses 0.00 points at 1.00" in tried.alt
    assert "var(--red)" in tried.svg  # refused ones, and the gate's margin
    assert ">int8-u8s8-rr</text>" in tried.svg and ">int8-u8s8</text>" not in tried.svg
    assert "Conv_1 gives back 0.8 dB" in drawn["layers"].alt
    assert "relu_1 clips 0.0048" in drawn["activations"].alt
    # the ends of the histogram that 8 bits do not reach are red; without clipping none is
    assert "var(--red)" in drawn["activations"].svg
    search = digits_search()
    whole = replace(
        search.explanation,
        clippings=(clipping("relu_0", high=6.0, highest=6.0, used=1, clipped=0),),
    )
    unclipped = draw_all(replace(digits(), search=replace(search, explanation=whole)))
    assert "var(--red)" not in unclipped["activations"].svg


def test_changes_by_label_need_a_change() -> None:
    report = digits()
    rows = tuple(replace(row, lost=0, won=0) for row in report.variants[2].per_label)
    same = replace(
        report, variants=(*report.variants[:2], replace(report.variants[2], per_label=rows))
    )
    assert "label_changes" in draw_all(report)
    assert "label_changes" not in draw_all(same)


@pytest.mark.parametrize("seed", range(5))
def test_names_next_to_points_do_not_overlap(seed: int) -> None:
    figure, axes = drawing.new_figure(3.9)
    random_ = np.random.default_rng(seed)
    x, y = random_.uniform(0, 1, 6), random_.choice([0.0, 0.02, 0.5], 6)
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.4, 1))
    named = [
        (float(a), float(b), f"int8-name-{i}") for i, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    drawing.name_points(axes, named)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    boxes = [box for box in boxes if box.width > 0]
    assert len(boxes) == len(named)
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert not any(a.shrunk(0.9, 0.7).overlaps(b.shrunk(0.9, 0.7)) for a, b in pairs)


def test_charts_without_data_are_left_out() -> None:
    assert set(draw_all(bare())) == {"parity", "sizes"}


def test_many_labels_stay_small() -> None:
    report = digits()
    labels = tuple(f"species {i}" for i in range(100))
    counts = np.random.default_rng(0).poisson(0.3, (100, 100)) + 90 * np.eye(100, dtype=int)
    rows = tuple(LabelRow(label, 95.0, 94.9) for label in labels)
    large = replace(
        report,
        model=replace(report.model, labels=labels),
        confusion=tuple(map(tuple, counts.tolist())),
        variants=tuple(replace(variant, per_label=rows) for variant in report.variants),
    )
    page = render.render_html(large)
    assert "the 40 lowest" in page
    assert len(page.encode()) < 2_000_000
