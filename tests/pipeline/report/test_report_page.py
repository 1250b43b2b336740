"""The page of a report."""

from __future__ import annotations

import io
import re
import tomllib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from report_views import Page
from rich.console import Console
from sample_reports import HARDWARE, RUNS, digits, faces, scores

from exporters.evaluate.score_values import Scores
from exporters.evaluate.scoring import ModelOutputs, score
from exporters.evaluate.tasks import label_task
from pipeline.cli.tables import result_table
from pipeline.report import render
from pipeline.report.model import (
    TrainingReport,
)
from pipeline.report.model_card import model_card
from pipeline.report.text import scores as score_words
from pipeline.report.text import summary as words
from runtime.manifest import Default
from runtime.spec import ModelSpec


@pytest.mark.parametrize("name", RUNS)
def test_page_is_self_contained_and_well_formed(name: str, pages: dict[str, str]) -> None:
    page = Page(pages[name])
    assert page.open == []
    assert [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")] == []
    assert {link.partition(",")[0].partition("#")[0] for link in page.references} <= {
        "",  # anchors of this page
        "data:image/png;base64",
    }
    assert not re.search(r"url\((?!#)|@import", pages[name])
    assert len(page.ids) == len(set(page.ids))  # two charts would otherwise share clip paths
    anchors = {link[1:] for link in page.references if link.startswith("#")}
    assert anchors <= set(page.ids)
    assert len(pages[name].encode()) < 2_000_000


@pytest.mark.parametrize("name", RUNS)
def test_page_is_accessible(name: str, pages: dict[str, str]) -> None:
    tags = Page(pages[name]).tags
    assert ("html", {"lang": "en"}) in tags
    assert all(values.get("alt") for tag, values in tags if tag == "img")
    assert all(values.get("scope") in ("row", "col") for tag, values in tags if tag == "th")
    images = [values for _, values in tags if values.get("role") == "img"]
    assert images and all(values.get("aria-label") for values in images)
    assert [tag for tag, _ in tags].count("h1") == 1


SECTIONS = [name for name, _ in render.SECTIONS]


@pytest.mark.parametrize(
    ("name", "sections", "said"),
    [
        (
            "digits",
            SECTIONS,
            [
                "fp32 is ready to ship",
                "3 of 3",
                "INT8 does not pay",
                HARDWARE.caption(),
                "lr = 0.1",
            ],
        ),
        (
            "faces",
            SECTIONS,
            [
                "on synthetic data",
                "Synthetic data",
                "2 of 3",
                "refused",
                "Pale_Skin is",
                "n < 1,000",
            ],
        ),
        (
            "bare",
            [
                name
                for name in SECTIONS
                if name not in ("scores", "accuracy", "worst", "tried", "hurts")
            ],
            ["Nothing may ship", "Incomplete training", "0 of 3", "nothing was packaged"],
        ),
    ],
)
def test_golden_structure(
    name: str, sections: list[str], said: list[str], pages: dict[str, str]
) -> None:
    page = Page(pages[name])
    assert [values["id"] for tag, values in page.tags if tag == "section"] == sections
    missing = [words_ for words_ in said if words_ not in page.text]
    assert missing == []
    assert "None" not in page.text
    assert "nan" not in re.findall(r"\w+", page.text)


def test_only_synthetic_data_has_the_banner(pages: dict[str, str]) -> None:
    assert "drawn by a program" not in pages["digits"]
    assert "drawn by a program" in pages["faces"]


@cache
def guesses() -> Scores:
    """Of a network that answers at random, by the code that scores."""
    spec = ModelSpec("guesses", "multi-class", 28, 28, 1, tuple("0123456789"))
    random = np.random.default_rng(0)
    truth = np.arange(400) % 10
    answers = [
        ModelOutputs(name, random.random((400, 10)).astype(np.float32))
        for name in ("PyTorch", "fp32", "fp16", "int8-u8s8-rr")
    ]
    task = label_task(spec.task)
    majority = task.majority_answer(truth, len(spec.labels))
    found = score(task, answers, truth, spec.labels, majority, None, samples=40)
    return Scores(400, 40, found.majority, found.forms)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, []),
        ({"scores": guesses()}, ["NOT BETTER THAN CHANCE"]),
        (
            {
                "training": TrainingReport(
                    incomplete=True, notes=("resumed", "INCOMPLETE: time for 0.4 of 100 epochs")
                )
            },
            ["INCOMPLETE TRAINING"],
        ),
        (
            {"scores": guesses(), "training": TrainingReport(incomplete=True)},
            ["NOT BETTER THAN CHANCE", "INCOMPLETE TRAINING"],
        ),
    ],
    ids=["none", "chance", "incomplete", "both"],
)
def test_a_doubtful_model_is_not_ready_to_ship(
    changes: dict[str, object], named: list[str]
) -> None:
    report = replace(digits(), **changes)  # type: ignore[arg-type]
    assert [doubt.name for doubt in words.doubts(report)] == named
    assert ("ready to ship" in words.verdict(report)) == (not named)
    page = Page(render.render_html(report))
    (hero,) = [values for tag, values in page.tags if tag == "header"]
    assert (hero["class"] == "hero doubt") == bool(named)
    card, console = model_card(report), Console(width=200, record=True, file=io.StringIO())
    for part in result_table(report):
        console.print(part)
    shown = console.export_text()
    for doubt in words.doubts(report):
        assert doubt.name.lower() in page.text.lower() and doubt.text in page.text
        assert f"**{doubt.name}: {doubt.text}**" in card
        assert doubt.name in shown and doubt.text in shown
    if "INCOMPLETE TRAINING" in named and report.training.notes:
        assert "time for 0.4 of 100 epochs" in card


def test_a_variant_that_lost_what_the_network_gained_is_doubtful() -> None:
    """A wide margin lets a variant pass that answers at random."""
    own, lost = scores("multi-class", tuple("0123456789"), "mnist-textbook"), guesses()
    fp32 = replace(lost.forms[1], id="fp32")
    mixed = replace(own, forms=(own.forms[0], fp32, *own.forms[2:]))
    assert [d.name for d in words.doubts(replace(digits(), scores=mixed))] == [
        "NOT BETTER THAN CHANCE"
    ]


@pytest.mark.parametrize("objective", ["balanced", "accuracy"])
def test_headline_figures_are_those_of_the_thresholds_that_ship(objective: str) -> None:
    report = faces()
    report = replace(report, recipe={**report.recipe, "gate": {"thresholds": objective}})
    default, shown = report.default, report.shown_score
    assert default is not None and shown is not None
    page = Page(render.render_html(report)).text
    assert f"{words.percent(default.accuracy_percent)} are right with the" in words.summary(report)
    for metric, value in (
        ("accuracy", default.accuracy_percent),
        ("balanced_accuracy", default.balanced_accuracy_percent),
    ):
        note = score_words.shipped(report, metric)
        chosen = metric.startswith(objective)
        assert note.startswith("[") == chosen and ("thresholds chosen for it" in note) != chosen
        assert words.percent(value) in page and note in page


def test_what_is_missing_is_not_measured(pages: dict[str, str]) -> None:
    text = Page(pages["bare"]).text
    assert text.count("not measured") >= 10
    assert "its speed was not measured" in text


def test_pictures_or_numbers_alone(pages: dict[str, str]) -> None:
    pictures = [v for tag, v in Page(pages["digits"]).tags if tag == "img"]
    assert len(pictures) == 10 + 4  # those that differ most, those that flipped
    faces_page = Page(pages["faces"])
    assert not [tag for tag, _ in faces_page.tags if tag == "img"]
    assert "007100.jpg" in faces_page.text
    assert "007323.jpg" in faces_page.text  # the last of those that flipped
    assert "may not be passed on" in faces_page.text


def test_hostile_names_are_escaped() -> None:
    evil = '</svg></style><script>alert("1")</script>&$\\frac{'
    report = digits()
    labels = (evil, *report.model.labels[1:])
    rows = tuple(
        replace(row, label=label)
        for row, label in zip(report.variants[0].per_label, labels, strict=True)
    )
    fp32 = replace(report.variants[0], id=evil, per_label=rows, verdict_reasons=(evil,))
    page = render.render_html(
        replace(
            report,
            model=replace(report.model, name=evil, labels=labels),
            variants=(fp32, *report.variants[1:]),
            defaults=(Default("cpu", evil, evil),),
            worst=(replace(report.worst[0], id=evil, truth=evil, candidate_answer=evil),),
            recipe={"name": evil, "data": {evil: [evil]}},
        )
    )
    assert "<script" not in page
    assert Page(page).open == []
    assert Page(page).text.count(evil) >= 5


def test_recipe_reads_like_its_file() -> None:
    text = render.recipe_toml(digits().recipe)
    assert text.startswith('name = "mnist"\nseed = 0\n\n[data]\nkind = "mnist"\n')
    recipe = tomllib.loads(text)
    assert recipe["train"]["augment"]["shift"] == 2.0
    assert recipe["network"]["layers"][0] == {"op": "conv", "out": 32, "kernel": 3}
    assert "root" not in text  # TOML has no null
