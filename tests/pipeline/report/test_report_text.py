"""The findings of a report as sentences: on the page, in the model card, in the terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from report_views import Page, shown
from rich.console import Console
from sample_reports import (
    ATTRIBUTES,
    bare,
    digits,
    digits_search,
    faces,
    faces_search,
    trial,
)

from exporters.evaluate.score_values import Baseline, Estimate
from exporters.quantize.saturation_values import Confirmation, LayerSaturation
from pipeline.cli.tables import result_table
from pipeline.report import render
from pipeline.report.model import (
    Report,
)
from pipeline.report.model_card import model_card
from pipeline.report.text import scores as score_words
from pipeline.report.text import search as search_words
from pipeline.report.text import summary as words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.milliseconds(0.08424), "0.0842 ms"),
        (words.milliseconds(1234.5), "1,234 ms"),
        (words.milliseconds(None), "not measured"),
        (words.percent(99.525), "99.53 %"),
        (words.points(-0.02), "−0.02"),
        (words.points(-0.001), "0.00"),
        (words.points(0.1), "+0.10"),
        (words.size(999), "999 B"),
        (words.size(44_600), "44.6 kB"),
        (words.size(999_900), "1.00 MB"),
        (words.size(3_274_634), "3.27 MB"),
        (words.size(None), "not measured"),
        (words.seconds(0.44), "0.4 s"),
        (words.seconds(271), "4 min 31 s"),
        (words.power(3.14e-7), "3.1×10⁻⁷"),
        (words.power(1e-8, digits=0), "10⁻⁸"),
        (words.power(0.0124), "0.012"),
        (words.power(0.0), "0"),
        (words.times(1.949), "1.95×"),
    ],
)
def test_formatted_numbers(text: str, expected: str) -> None:
    assert text.replace("\N{NARROW NO-BREAK SPACE}", " ") == expected


def test_gain_of_int8() -> None:
    report = digits()
    assert words.payoff(report, report.variants[0]) is None
    slower = words.payoff(report, report.variants[2]) or ""
    assert [
        fact for fact in ("INT8 does not pay", "0.96×", "3.1 times") if fact not in slower
    ] == []
    faster = words.payoff(faces(), faces().variants[2]) or ""
    assert faster.startswith("int8-u8s8-rr") and "1.87×" in faster
    refused = words.payoff(faces(), faces().variants[1])
    assert refused is not None and "fp16" in refused and "refused" in refused
    untimed = words.payoff(report, replace(report.variants[1], speedup=None)) or ""
    assert "fp16" in untimed and "1.9 times" in untimed and "not measured" in untimed


def test_formatted_numbers_of_the_search() -> None:
    texts = [
        words.share(0.318),
        words.share(0.000182),
        words.share(4e-7),
        words.share(1.0),
        words.share(0.0),
        words.decibels(49.37),
        words.decibels(200.0),
        words.decibels(-1.2),
        words.lost(0.02),
        words.lost(-0.17),
        words.signed_power(-6.3e-5),
        words.span((-1.25, 4.9591)),
        words.seconds(180.2),
    ]
    assert [text.replace("\N{NARROW NO-BREAK SPACE}", " ") for text in texts] == [
        *("32 %", "0.018 %", "under 0.001 %", "100 %", "0 %"),
        *("49.4 dB", "equal", "−1.2 dB", "0.02", "−0.17", "−6.3×10⁻⁵", "−1.25 to 4.96", "3 min"),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp32", ["test split"]),
        ("int8-u8s8-rr", ["test split"]),
        ("int8-u8s8", ["not portable"]),
        ("int8-u8u8", ["slower", "int8-u8s8-rr"]),
        ("int8-s8s8", ["62.400 points", "0.15"]),
        ("int8-dynamic", ["no fully connected layer"]),
        ("int8-u8s8-rr-tensor", ["4.2 dB", "int8-u8s8-rr"]),
        ("int8-s8s8-bc", ["not portable", "slower", "1.4 dB", "int8-u8s8-rr"]),
    ],
)
def test_outcome_of_a_trial(name: str, expected: list[str]) -> None:
    search = digits_search()
    more = (
        trial("int8-u8s8-rr-tensor", 0.02, 0.96, 45.2, portable=True),
        trial("int8-s8s8-bc", 0.0, 0.7, 48.0),
    )
    search = replace(search, trials=(*search.trials, *more))
    outcome = search_words.outcome(search, search.by_id[name])
    facts = ("test split", "not portable", "slower", "dB", "62.400 points")
    assert [fact for fact in expected if fact not in outcome] == []
    extra = [fact for fact in facts if fact in outcome and fact not in " ".join(expected)]
    assert extra == []


def test_says_which_layers_saturate() -> None:
    by_id = digits_search().by_id
    text = search_words.saturation(by_id["int8-u8s8"])
    assert text.replace("\N{NARROW NO-BREAK SPACE}", " ") == (
        "saturates: Conv_0 32 %, Conv_1 0.018 %"
    )
    assert search_words.saturation(by_id["int8-u8s8-rr"]) == ""
    kind = replace(by_id["int8-u8s8"], saturation=(LayerSaturation("Conv_0", 0.0, 0.0),))
    assert search_words.saturation(kind) == "sums could saturate; none did"


def test_an_incomplete_search_lists_the_steps_that_it_left_out() -> None:
    assert search_words.left_out(digits()) is None
    report = replace(digits(), search=faces_search())
    over = search_words.left_out(report) or ""
    assert "3 minutes" in over and "mixed precision, fine-tuning" in over
    stopped = replace(report, search=replace(faces_search(), seconds=60.0))
    assert "3 minutes" not in (search_words.left_out(stopped) or "3 minutes")
    page = Page(render.render_html(report)).text
    assert page.count("mixed precision, fine-tuning") == 2  # at the top, and where it belongs


def test_a_drop_is_claimed_only_where_there_is_one() -> None:
    report = digits()
    assert search_words.title(report) == "Where INT8 hurts"
    slow = replace(report.variants[2], passed=False)  # timed, so its answers were good enough
    bound = replace(report, variants=(*report.variants[:2], slow))
    assert search_words.title(bound) == "Where INT8 hurts"
    assert words.standing(slow) != words.standing(replace(slow, speed=None))
    assert words.standing(slow) in (search_words.loss(bound) or "")
    assert "0.96×" in (words.payoff(bound, slow) or "")
    int8 = replace(slow, speed=None, speedup=None)
    refused = replace(report, variants=(*report.variants[:2], int8))
    assert search_words.title(refused) == "Why did accuracy drop?"
    assert words.standing(int8) in (search_words.loss(refused) or "")
    # refused on validation data already, so that no INT8 came to the test split
    search = digits_search()
    explanation = replace(search.explanation, variant="int8-s8s8")
    early = replace(
        report,
        variants=report.variants[:2],
        flips=None,
        search=replace(search, explanation=explanation),
    )
    assert search_words.title(early) == "Why did accuracy drop?"
    assert "int8-s8s8 (refused" in (search_words.layer_finding(early) or "")


def test_names_the_layer_that_costs_most() -> None:
    finding = search_words.layer_finding(faces()) or ""
    facts = ("/features/0/block/conv/Conv_quantized_0", "int8-u8s8-rr", "4.4 dB")
    assert [fact for fact in facts if fact not in finding] == []
    none = search_words.layer_finding(digits()) or ""
    assert "1 dB" in none and "int8-u8s8-rr" in none and "Conv" not in none


def test_model_card_says_what_int8_gains() -> None:
    slower, faster = model_card(digits()), model_card(faces())
    for card, report in ((slower, digits()), (faster, faces())):
        assert f"## What INT8 gains\n\n- {words.payoff(report, report.variants[2])}" in card
    assert "What INT8 gains" not in model_card(bare())


def test_show_has_every_trial_in_80_columns() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    for part in result_table(replace(faces(), search=faces_search())):
        console.print(part, soft_wrap=isinstance(part, str))
    text = console.export_text()
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert ["int8-u8s8", "refused", "0.12", "30.1", "408", "1.96x", "no:", "1", "layer"] in lines
    assert ["int8-u8u8-bc", "passed", "-0.02", "51.6", "408", "1.31x", "yes"] in lines
    assert "incomplete: no mixed precision, fine-tuning" in text
    assert max(len(line.rstrip()) for line in text.splitlines() if "int8-" in line) <= 80


def test_show_has_majority_and_baseline_next_to_accuracy() -> None:
    report = faces()
    text = shown(report, 100)
    own = report.shown_score
    assert own is not None and own.id == "int8-u8s8-rr"
    assert own.own.accuracy is not None and own.over_baseline is not None
    lines = [line[1:].rstrip() for line in text.splitlines()]
    (line,) = [line for line in lines if line.startswith("int8-u8s8-rr") and "[" in line]
    for estimate in (own.own.accuracy, own.own.balanced_accuracy, own.own.average_precision):
        assert estimate is not None
        assert f"{estimate.value:.2f} [{estimate.low:.1f}, {estimate.high:.1f}]" in line
    assert any(line.startswith("celeba-textbook") for line in lines)
    gained = [line for line in lines if line.startswith("  gained over it")]
    assert len(gained) == 2 and f"+{own.over_baseline.accuracy.value:.2f}" in gained[0]  # type: ignore[union-attr]
    narrow = [line.rstrip() for line in shown(report).splitlines()]
    assert max(len(line) for line in narrow if "[" in line and "In brackets" not in line) <= 80
    assert "24.10 million multiply-adds" in text
    assert "above, and in what ships, those chosen for balanced accuracy" in text
    assert "Balanced accuracy is the mean of the classes' recalls" in shown(digits())
    assert "same images" not in shown(bare())


def test_a_missing_baseline_is_reported_with_the_command() -> None:
    why = "not trained here: pipeline run validate --recipe celeba-textbook"
    full = faces()
    assert full.scores is not None
    report = replace(
        full, scores=replace(full.scores, baseline=Baseline("celeba-textbook", missing=why))
    )
    for text in (shown(report, 200), Page(render.render_html(report)).text, model_card(report)):
        assert f"names celeba-textbook as its baseline: {why}" in text
    assert report == Report.from_json(report.to_json())


def test_a_baseline_with_few_labels_says_how_many() -> None:
    full = faces()
    assert full.scores is not None and full.scores.baseline is not None
    few = replace(full.scores, baseline=replace(full.scores.baseline, common_labels=1))
    names = [row.name for row in score_words.rows(replace(full, scores=few))]
    assert "gained over it, 1 label" in names


def test_attributes_are_sorted_by_what_they_gain() -> None:
    rows = score_words.labels(faces())
    gains = [row.over_majority.value for row in rows if row.over_majority]
    assert len(gains) == len(ATTRIBUTES) and gains == sorted(gains, reverse=True)


def test_undefined_figures_are_called_undefined() -> None:
    full = faces()
    assert full.scores is not None
    without = {
        form.id: replace(
            form,
            labels=tuple(
                replace(row, own=replace(row.own, average_precision=None))
                if row.label == "Bald"
                else row
                for row in form.labels
            ),
        )
        for form in full.scores.forms
    }
    report = replace(full, scores=replace(full.scores, forms=tuple(without.values())))
    page = Page(render.render_html(report)).text
    assert "undefined" in page
    assert "over 17 (no test image has Bald)" in page


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(1.0, 0.2, 1.8), "won"),
        (Estimate(-1.0, -1.8, -0.2), "lost"),
        (Estimate(0.1, -0.2, 0.4), ""),
        (Estimate(0.1, 0.0, 0.4), ""),
        (Estimate(5.0), ""),
        (None, ""),
    ],
)
def test_a_gain_is_claimed_only_beyond_chance(estimate: Estimate | None, expected: str) -> None:
    assert score_words.verdict(estimate) == expected


def test_model_card_has_accuracy_with_its_interval() -> None:
    report = digits()
    own = report.shown_score
    assert own is not None and own.own.accuracy is not None
    card = model_card(report)
    found = f"{own.own.accuracy.value:.2f} [{own.own.accuracy.low:.2f}, "
    assert f"| fp32 | {found}" in card
    assert "| mnist-textbook | " in card and "| majority answer | " in card
    assert "and 2,841,000 multiply-adds for an image" in card


@pytest.mark.parametrize(
    ("visible", "fact"),
    [
        (False, "(x86_64-vnni)"),
        (True, " 0.0004 "),
    ],
)
def test_visibility_of_saturation_on_this_cpu(visible: bool, fact: str) -> None:
    target = "x86_64-avx2" if visible else "x86_64-vnni"
    report = digits()
    assert report.search is not None
    row = Confirmation(target, visible, 4e-4, 1e-4)
    trials = tuple(replace(trial, confirmation=row) for trial in report.search.trials)
    assert search_words.confirmed(report) == ""
    seen = replace(report, search=replace(report.search, trials=trials))
    assert fact in search_words.confirmed(seen)
