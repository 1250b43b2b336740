"""The report as a value: its JSON, older files, and what it derives."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from report_views import Page, shown
from sample_reports import HARDWARE, RUNS, bare, digits, faces

from pipeline.cli.tables import result_table
from pipeline.errors import StoreError
from pipeline.report import model as data
from pipeline.report import render
from pipeline.report.model import (
    ReferenceReport,
    Report,
)
from pipeline.report.model_card import model_card
from runtime.manifest import Default


@pytest.mark.parametrize("name", RUNS)
def test_json_round_trip(name: str, tmp_path) -> None:
    report = RUNS[name]()
    assert Report.from_json(report.to_json()) == report
    data.write(report, tmp_path / "report.json")
    assert data.read(tmp_path / "report.json") == report
    assert HARDWARE.caption() in report.to_json()  # for readers of the JSON


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a report.json"),
        ("[]", "not a report.json"),
        ("{}", "not a report.json"),
        ('{"schema_version": 2, "hardware": {}}', "schema_version 2; expected 1"),
        ('{"schema_version": 1, "hardware": {}}', "does not follow schema 1"),
        (digits().to_json().replace('"p50_ms": 0.0842', '"p50_ms": "fast"'), r"speed\.p50_ms"),
        (digits().to_json().replace('"p50_ms"', '"p50_seconds"', 1), "p50"),
    ],
)
def test_refuses_other_json(text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Report.from_json(text)


def test_missing_file_says_what_to_do(tmp_path) -> None:
    with pytest.raises(StoreError, match="Run the package stage first"):
        data.read(tmp_path / "report.json")


def test_not_a_number_is_never_written() -> None:
    report = replace(digits(), reference=ReferenceReport(accuracy_percent=math.nan))
    with pytest.raises(ValueError, match="JSON compliant"):
        report.to_json()


def test_pictures_of_others_stay_home() -> None:
    private = replace(digits().data, redistributable=False)
    with pytest.raises(ValueError, match="not redistributable"):
        replace(digits(), data=private)
    with pytest.raises(ValueError, match="not redistributable"):  # flipped ones no less
        replace(digits(), data=private, worst=())


def test_reads_a_report_from_before_there_was_a_search() -> None:
    old = json.loads(digits().to_json())
    del old["search"], old["flips"]
    old |= {"notes": [], "private": False}
    for variant in old["variants"]:
        for row in variant["per_label"]:
            del row["lost"], row["won"]
    report = Report.from_json(json.dumps(old))
    assert report.search is None and report.flips is None
    page = Page(render.render_html(report))
    assert not {"tried", "hurts"} & {values.get("id") for _, values in page.tags}
    assert len(list(result_table(report))) == len(list(result_table(digits()))) - 1


def test_explains_the_variant_that_was_looked_into() -> None:
    report = faces()
    assert report.int8 is report.variants[2]
    other = replace(report.variants[2], id="int8-u8u8")
    both = replace(report, variants=(*report.variants[:2], other, report.variants[2]))
    assert both.int8 is both.variants[3]
    defaults = (Default("cpu", "int8-u8u8", "1.3 times the speed of FP32 here"),)
    unexplained = replace(both, defaults=defaults, search=None)
    assert unexplained.int8 is both.variants[2]
    assert replace(report, variants=report.variants[:2]).int8 is None


def test_default_is_that_of_the_cpu() -> None:
    report = digits()
    assert report.default is report.variants[0]
    assert report.fp32 is report.variants[0]
    other = replace(report, defaults=(Default("arm64", "fp16", "not measured here"),))
    assert other.default is report.variants[1]
    assert bare().default is None


def test_reads_a_report_from_before_there_were_scores() -> None:
    old = json.loads(faces().to_json())
    del old["scores"]
    report = Report.from_json(json.dumps(old))
    assert report.scores is None
    page = Page(render.render_html(report)).text
    assert "Majority" in page and "How good it is" not in page
    assert "same images" not in shown(report)
    assert "majority answer" not in model_card(report)
