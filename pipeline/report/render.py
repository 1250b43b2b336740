"""One HTML file from a report: no script, no other file, no network, readable in light and dark,
on paper and on a phone. The words are in ``words.py``, the looks in ``template.html.j2`` and
``style.css.j2``. Judges nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from exporters.search.explanation import LayerDamage, LayerNoise
from exporters.search.result import SearchResult
from exporters.search.trial import Trial
from pipeline.report.charts.charts import LABELS_SHOWN, draw_all
from pipeline.report.charts.drawing import Chart
from pipeline.report.model import LabelRow, Report, VariantReport
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
    ("hurts", "Where INT8 hurts"),  # or what search_words.title says
    ("worst", "Largest disagreements"),
    ("provenance", "Provenance"),
)


def render_html(report: Report) -> str:
    """The whole page. Costs about a second, most of it matplotlib's."""
    charts = draw_all(report)
    return (
        _environment()
        .get_template("template.html.j2")
        .render(
            report=report,
            task=training_task(report.model.task),
            default=report.default,
            charts={name: _figure(chart) for name, chart in charts.items()},
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
            recipe=_toml(report.recipe),
            fates=_fates(report),
            layer_rows=_layer_rows(report.search),
            change_rows=_change_rows(report.int8),
            told=search_words,
            scored=score_words,
            shown=report.shown_score,
            score_rows=score_words.rows(report),
            score_labels=score_words.labels(report),
            smaller=words.smaller,
            verdict=words.verdict(report),
            doubts=words.doubts(report),
            summary=words.summary(report),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt field is an error, not an empty cell
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        *("count", "decibels", "lost", "megabytes", "milliseconds", "percent", "points", "power"),
        *("seconds", "share", "signed_power", "span"),
    ):
        environment.filters[name] = getattr(words, name)
    environment.filters |= {"bytes": words.size, "times": words.times}
    environment.globals["missing"] = words.MISSING
    return environment


def _figure(chart: Chart) -> Markup:
    return Markup('<div class="chart" role="img" aria-label="{}">{}</div>').format(
        chart.alt, Markup(chart.svg)
    )


def _has(section: str, report: Report, charts: Mapping[str, Chart]) -> bool:
    """Whether a section has anything to say; the others always do."""
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


def _fates(report: Report) -> list[tuple[Trial, str]]:
    """Every trial with what became of it."""
    search = report.search
    if search is None:
        return []
    return [(trial, search_words.fate(search, trial)) for trial in search.trials]


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


def _toml(recipe: Mapping[str, Any]) -> str:
    """The resolved recipe in the words of its TOML file; null values are left out."""
    plain, sections = [], []
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            sections.append(f"\n[{key}]\n" + "\n".join(_pairs(value)))
        else:
            plain += _pairs({key: value})
    return "\n".join(plain + sections).strip()


def _pairs(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += _pairs(value, f"{prefix}{key}.")
        elif value is not None:
            lines.append(f"{prefix}{key} = {_value(value)}")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = (f"{key} = {_value(item)}" for key, item in value.items() if item is not None)
        return "{ " + ", ".join(inner) + " }"
    if isinstance(value, list | tuple):
        items = [_value(item) for item in value]
        if any(isinstance(item, Mapping) for item in value):
            return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
        return "[" + ", ".join(items) + "]"
    return json.dumps(value, ensure_ascii=False)
