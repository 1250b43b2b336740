"""One HTML file from a report: no script, no other file, no network, readable in light and dark,
on paper and on a phone. The sentences are in ``text/``, the layout in ``templates/``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w

from exporters.search.explanation import LayerDamage, LayerNoise
from exporters.search.result import SearchResult
from exporters.search.trial import Trial
from pipeline.report.charts.draw import draw_all
from pipeline.report.charts.drawing import Chart
from pipeline.report.charts.labels import LABELS_SHOWN
from pipeline.report.model import LabelRow, Report, VariantReport
from pipeline.report.page import chart_markup, environment
from pipeline.report.text import scores as score_words
from pipeline.report.text import search as search_words
from pipeline.report.text import summary as words
from pipeline.tasks import training_task

# (anchor, title) in reading order; a section of the template shows itself when it is listed
SECTIONS = (
    ("verdict", "Verdict"),
    ("scores", "How good it is"),
    ("data", "Data"),
    ("training", "Training"),
    ("tried", "What was tried"),
    ("variants", "Variants"),
    ("gates", "Gates"),
    ("parity", "Parity"),
    ("speed", "Speed and memory"),
    ("accuracy", "Accuracy by label"),
    ("hurts", "Where INT8 hurts"),  # or another title; see search_words.title
    ("worst", "Largest disagreements"),
    ("provenance", "Provenance"),
)


def render_html(report: Report) -> str:
    """The whole page. Costs about a second, most of it matplotlib's."""
    charts = draw_all(report)
    return (
        environment()
        .get_template("template.html.j2")
        .render(
            report=report,
            task=training_task(report.model.task),
            default=report.default,
            charts={name: chart_markup(chart) for name, chart in charts.items()},
            sections=[
                (name, search_words.title(report) if name == "hurts" else title)
                for name, title in SECTIONS
                if _has(name, report, charts)
            ],
            payoffs=[
                text
                for variant in sorted(report.variants, key=lambda row: row.precision != "int8")
                if (text := words.payoff(report, variant))
            ],
            label_rows=_label_rows(report.default),
            labels_shown=LABELS_SHOWN,
            flips=sum(image.reference_answer != image.candidate_answer for image in report.worst),
            recipe=recipe_toml(report.recipe),
            outcomes=_outcomes(report),
            layer_rows=_layer_rows(report.search),
            change_rows=_change_rows(report.int8),
            search_words=search_words,
            score_words=score_words,
            shown=report.shown_score,
            score_rows=score_words.rows(report),
            score_labels=score_words.labels(report),
            smaller=words.smaller,
            verdict=words.verdict(report),
            doubts=words.doubts(report),
            summary=words.summary(report),
        )
    )


def _has(section: str, report: Report, charts: Mapping[str, Chart]) -> bool:
    """True unless a section that may be empty has nothing to show."""
    if section == "accuracy":
        return "confusion" in charts or "per_label" in charts
    if section == "worst":
        return bool(report.worst)
    if section == "verdict":
        return bool(report.defaults or report.variants)
    if section == "scores":
        return report.scores is not None
    if section == "tried":
        return report.search is not None
    if section == "hurts":
        explained = report.search is not None and report.search.explanation is not None
        return explained or report.flips is not None
    return True


def _outcomes(report: Report) -> list[tuple[Trial, str]]:
    """Every trial with its outcome."""
    search = report.search
    if search is None:
        return []
    return [(trial, search_words.outcome(search, trial)) for trial in search.trials]


def _layer_rows(search: SearchResult | None) -> list[tuple[LayerNoise, LayerDamage | None]]:
    """The layers of the explained variant in the order of the graph."""
    explanation = search.explanation if search else None
    if explanation is None:
        return []
    damage = {row.node: row for row in explanation.damage}
    return [(row, damage.get(row.node)) for row in explanation.noise]


def _change_rows(variant: VariantReport | None) -> list[LabelRow]:
    """The labels of a variant, the one that lost most accuracy first."""
    rows = variant.per_label if variant else ()
    return sorted(rows, key=lambda row: row.variant_percent - row.reference_percent)


def _label_rows(variant: VariantReport | None) -> list[LabelRow]:
    """The default variant's labels, the worst first."""
    rows = variant.per_label if variant else ()
    return sorted(rows, key=lambda row: row.variant_percent)


def recipe_toml(recipe: Mapping[str, Any]) -> str:
    """The resolved recipe as TOML, which has no null: such keys are left out."""
    return tomli_w.dumps(_without_null(recipe)).strip()


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_null(item) for item in value]
    return value
