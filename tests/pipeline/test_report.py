"""The report: its JSON, its charts and its page, on two invented but plausible runs."""

from __future__ import annotations

import base64
import io
import math
import random
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import StoreError
from pipeline.hardware import Hardware
from pipeline.report import charts, data, render, words
from pipeline.report.data import (
    BundleReport,
    DataReport,
    DefaultReport,
    Difference,
    Epoch,
    LabelRow,
    ModelReport,
    ReferenceReport,
    Report,
    Speed,
    Speedup,
    StageRow,
    TrainingReport,
    VariantReport,
    WorstImage,
)

HARDWARE = Hardware(
    cpu="Intel(R) Core(TM) i5-7200U CPU @ 2.50GHz",
    architecture="x86_64",
    features=("AVX2",),
    cores=2,
    quota_cores=None,
    memory_mb=16_600,
    os="Linux 6.1.0",
    python="3.11.9",
    versions={"onnxruntime": "1.22.0", "torch": "2.9.0", "numpy": "2.3.0"},
)
ATTRIBUTES = (
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Chubby",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "Pale_Skin",
    "Rosy_Cheeks",
    "Smiling",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necktie",
)


def epochs(number: int, start: float, end: float, accuracy: float) -> tuple[Epoch, ...]:
    noise = random.Random(0)
    rows = []
    for i in range(number):
        share = (i + 1) / number
        loss = start * (end / start) ** (share**0.5)
        found = accuracy - (100 - accuracy) * 6 * (1 - share) ** 2 - noise.random() * 0.05
        rows.append(
            Epoch(i + 1, loss, loss * (0.8 + 0.3 * share), found, 0.1 * (1 - share), 24.1, 13.0)
        )
    return tuple(rows)


def speed(p50_ms: float, **changes: object) -> Speed:
    row = Speed(
        p50_ms=p50_ms,
        p90_ms=p50_ms * 1.09,
        p99_ms=p50_ms * 1.4 if p50_ms < 3 else None,  # claimed from 1000 calls
        mean_ms=p50_ms * 1.05,
        n=round(3000 / p50_ms),
        cpu_ms=p50_ms * 1.01,
        images_per_second=1400 / p50_ms,
        batch=32,
        cold_start_ms=231.4,
        rss_mb=58.3,
        peak_rss_mb=61.9,
        threads=1,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def picture(value: int) -> str:
    """A small grey PNG with something on it."""
    y, x = np.mgrid[0:28, 0:28]
    ring = np.exp(-((np.hypot(y - 13.5, (x - 13.5) * (1 + value / 10)) - 8) ** 2) / 5)
    out = io.BytesIO()
    Image.fromarray((ring * 255).astype(np.uint8)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def digits() -> Report:
    """Like a run of ``mnist``: INT8 passes, but does not pay."""
    labels = tuple("0123456789")
    noise = random.Random(1)
    confusion = [[0] * 10 for _ in range(10)]
    for row, total in enumerate((980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)):
        for _ in range(noise.randrange(2, 9)):
            confusion[row][noise.choice([c for c in range(10) if c != row])] += 1
        confusion[row][row] = total - sum(confusion[row])
    rows = tuple(
        LabelRow(label, 99.1 + i / 12, 99.05 + i / 12, images=1000 + i)
        for i, label in enumerate(labels)
    )
    reasons = (
        "not inferior: 2 errors more than PyTorch in 10,000 images, upper bound 0.05 points, "
        "margin 0.15",
        "no class is significantly worse (smallest p after Holm 0.62)",
        "largest difference 0.11 stays under its tolerance of 0.25",
    )
    fp32 = VariantReport(
        id="fp32",
        precision="fp32",
        size_bytes=161_204,
        portable=False,
        portable_reason="float arithmetic may differ in the last bits",
        passed=True,
        verdict_reasons=("the same 10,000 answers", "largest difference 6.0e-07"),
        accuracy_percent=99.53,
        top1_agreement_percent=100.0,
        difference=Difference(max=6e-7, mean=1.1e-9, p99=2.1e-8, p50=0.0, p90=3.1e-10),
        per_label=rows,
        speed=speed(0.0842),
        speedup=Speedup(1.0),
    )
    fp16 = replace(
        fp32,
        id="fp16",
        precision="fp16",
        size_bytes=83_100,
        difference=Difference(max=9e-4, mean=1.9e-6, p99=4.4e-5, p50=1e-9, p90=1.2e-6),
        speed=speed(0.131),
        speedup=Speedup(0.64, 0.63, 0.66, 0.64),
        portable_reason="FP16 is computed differently on each target",
    )
    int8 = replace(
        fp32,
        id="int8-u8s8-rr",
        precision="int8",
        size_bytes=52_480,
        portable=True,
        portable_reason="no pair of weights can overflow 16 bits (7-bit weights)",
        verdict_reasons=reasons,
        accuracy_percent=99.51,
        top1_agreement_percent=99.94,
        difference=Difference(max=0.112, mean=3.4e-4, p99=0.0071, p50=1.2e-6, p90=3.2e-5),
        speed=speed(0.0877),
        speedup=Speedup(0.96, 0.95, 0.97, 0.96),
    )
    worst = tuple(
        WorstImage(
            id=f"test/{2462 + 31 * i}",
            truth=str(i),
            variant="int8-u8s8-rr",
            reference_answer=str(i),
            reference_probability=0.93 - i / 14,
            candidate_answer=str(i if i % 3 else (i + 4) % 10),
            candidate_probability=0.81 - i / 17,
            difference=0.112 - i / 120,
            picture=picture(i),
        )
        for i in range(10)
    )
    return Report(
        recipe={
            "name": "mnist",
            "seed": 0,
            "data": {"kind": "mnist", "root": None, "validation_images": 5000},
            "network": {"layers": [{"op": "conv", "out": 32, "kernel": 3}, {"op": "linear"}]},
            "train": {"epochs": 12, "lr": 0.1, "augment": {"shift": 2.0, "rotate": 10.0}},
            "gate": {"margin_points": 0.15, "alpha": 0.05},
        },
        model=ModelReport(
            "mnist", "1.0.0", "multi-class", labels, (28, 28, 1), 39_722, 2_841_000, "Apache-2.0"
        ),
        data=DataReport(
            name="MNIST",
            counts={"train": 55_000, "val": 5_000, "test": 10_000},
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            synthetic=False,
            redistributable=True,
            licence="CC BY-SA 3.0",
            majority_percent=11.35,
        ),
        hardware=HARDWARE,
        training=TrainingReport(
            epochs(12, 0.61, 0.02, 99.4), 11, 274.0, "cpu", result={"weights": "averaged (EMA)"}
        ),
        reference=ReferenceReport(
            99.53, None, speed(0.412, cold_start_ms=None, rss_mb=None, peak_rss_mb=None)
        ),
        variants=(fp32, fp16, int8),
        defaults=(
            DefaultReport("cpu", "fp32", "INT8 ran at 0.96 times the speed of FP32 here"),
            DefaultReport("x86_64-vnni", "int8-u8s8-rr", "not measured here"),
        ),
        confusion=tuple(map(tuple, confusion)),
        worst=worst,
        stages=tuple(
            StageRow(name, 3.7 * (i + 1) ** 2, f"2026-01-15T10:1{i}:00")
            for i, name in enumerate(
                ["data", "train", "export", "quantize", "validate", "benchmark", "package"]
            )
        ),
        bundle=BundleReport("5f3a" * 16, 412_300),
        created="2026-01-15 10:17",
    )


def faces() -> Report:
    """Like a run of ``celeba`` on generated faces: INT8 pays, FP16 is refused."""
    base, noise = digits(), random.Random(2)
    rows = tuple(
        LabelRow(
            label=name,
            reference_percent=min(found := 99.6 - noise.random() * 7, 100),
            variant_percent=found - noise.random() * 0.3,
            balanced_percent=found - 1.2,
            threshold=round(0.5 + noise.uniform(-0.2, 0.2), 2),
            majority_percent=50 + noise.random() * 42,
            images=100 + noise.randrange(400),
        )
        for name in ATTRIBUTES
    )
    fp32, fp16, int8 = base.variants
    common = {"per_label": rows, "accuracy_percent": 97.61, "balanced_accuracy_percent": 96.4}
    return replace(
        base,
        model=ModelReport(
            "celeba",
            "1.0.0",
            "multi-label",
            tuple(ATTRIBUTES),
            (64, 64, 3),
            388_018,
            24_100_000,
            "CC BY-NC 4.0",
        ),
        data=DataReport(
            name="synthetic faces in CelebA's layout",
            counts={"train": 6_000, "val": 1_000, "test": 1_000},
            sha256="77ab" * 16,
            synthetic=True,
            redistributable=False,
            licence="research only",
            notes=("22 of the 40 attributes are not drawn and were left out",),
            majority_percent=74.2,
        ),
        training=TrainingReport(epochs(8, 0.5, 0.06, 97.5), 8, 171.0, "cpu"),
        reference=ReferenceReport(97.63, 96.41, speed(4.31)),
        variants=(
            replace(fp32, **common, size_bytes=1_561_000, speed=speed(2.09)),
            replace(
                fp16,
                **common,
                size_bytes=784_000,
                passed=False,
                verdict_reasons=(
                    "inferior: upper bound 0.14 points of the mean over attributes, margin 0.10",
                    "Pale_Skin is significantly worse: 12 errors more, p 0.002 after Holm",
                ),
                speed=None,
                speedup=None,
            ),
            replace(
                int8,
                **(common | {"accuracy_percent": 97.60, "balanced_accuracy_percent": 96.38}),
                size_bytes=418_000,
                speed=speed(1.12, p99_ms=None, n=640),
                speedup=Speedup(1.87, 1.84, 1.9, 1.86),
            ),
        ),
        defaults=(DefaultReport("cpu", "int8-u8s8-rr", "1.87 times the speed of FP32 here"),),
        confusion=None,
        worst=tuple(
            replace(
                image,
                picture=None,
                id=f"00{7100 + i}.jpg",
                truth="Smiling: yes",
                reference_answer="Smiling: yes",
                candidate_answer=f"Smiling: {answer}",
            )
            for i, (image, answer) in enumerate(zip(base.worst, ["no", "yes"] * 5, strict=True))
        ),
    )


def bare() -> Report:
    """A run in which nothing passed and whatever may be missing is."""
    full = faces()
    variants = tuple(
        replace(
            variant,
            passed=False,
            verdict_reasons=("inferior: upper bound 0.31 points, margin 0.10",),
            balanced_accuracy_percent=None,
            difference=Difference(max=0.3, mean=0.01, p99=0.1),
            per_label=(),
            speed=None,
            speedup=None,
        )
        for variant in full.variants
    )
    return Report(
        recipe={},
        model=replace(full.model, multiply_adds=None, licence=None),
        data=replace(full.data, majority_percent=None, notes=()),
        hardware=HARDWARE,
        training=TrainingReport(incomplete=True),
        reference=ReferenceReport(accuracy_percent=97.6),
        variants=variants,
    )


RUNS = {"digits": digits, "faces": faces, "bare": bare}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render.render_html(make()) for name, make in RUNS.items()}


# --- report.json ----------------------------------------------------------------------------


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
        ("", "no report.json"),
        ("[]", "no report.json"),
        ("{}", "no report.json"),
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
    assert replace(digits(), data=private, private=True).worst[0].picture


def test_default_is_that_of_the_cpu() -> None:
    report = digits()
    assert report.default is report.variants[0]
    assert report.fp32 is report.variants[0]
    other = replace(report, defaults=(DefaultReport("arm64", "fp16", "not measured here"),))
    assert other.default is report.variants[1]
    assert bare().default is None


# --- words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
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
def test_numbers_in_words(said: str, expected: str) -> None:
    assert said.replace("\N{NARROW NO-BREAK SPACE}", " ") == expected


def test_says_whether_int8_pays() -> None:
    report = digits()
    assert words.payoff(report, report.variants[0]) is None
    slower = words.payoff(report, report.variants[2]) or ""
    assert "INT8 does not pay on this CPU, 0.96×" in slower
    assert "3.1 times smaller" in slower
    faster = words.payoff(faces(), faces().variants[2]) or ""
    assert faster.startswith("int8-u8s8-rr: 1.87× the speed of FP32")
    assert "not measured" in (words.payoff(faces(), faces().variants[1]) or "")


# --- the page -------------------------------------------------------------------------------


class Page(HTMLParser):
    """What the tests look at in a page."""

    void = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag not in self.void:
            self.open.append(tag)
        links = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
        self.references += [values[name] or "" for name in links if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


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
            [name for name in SECTIONS if name not in ("accuracy", "worst")],
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


def test_what_is_missing_is_not_measured(pages: dict[str, str]) -> None:
    text = Page(pages["bare"]).text
    assert text.count("not measured") >= 10
    assert "its speed was not measured here" in text


def test_pictures_or_numbers_alone(pages: dict[str, str]) -> None:
    pictures = [v for tag, v in Page(pages["digits"]).tags if tag == "img"]
    assert len(pictures) == 10
    faces_page = Page(pages["faces"])
    assert not [tag for tag, _ in faces_page.tags if tag == "img"]
    assert "007100.jpg" in faces_page.text
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
            defaults=(DefaultReport("cpu", evil, evil),),
            worst=(replace(report.worst[0], id=evil, truth=evil, candidate_answer=evil),),
            recipe={"name": evil, "data": {evil: [evil]}},
            notes=(evil,),
        )
    )
    assert "<script" not in page
    assert Page(page).open == []
    assert Page(page).text.count(evil) >= 5


# --- charts ---------------------------------------------------------------------------------


def test_charts_leave_matplotlib_as_it_was() -> None:
    def settings() -> dict[str, object]:  # but the backend: to look at it is to choose one
        return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}

    before = settings()
    drawn = charts.draw_all(digits())
    assert settings() == before
    assert set(drawn) == {draw.__name__ for draw in charts.CHARTS}
    assert all(chart.alt.endswith(".") for chart in drawn.values())


def test_charts_are_drawn_in_css_colours_and_repeat_exactly() -> None:
    first, second = charts.parity(digits()), charts.parity(digits())
    assert first == second and first is not None
    assert "var(--orange)" in first.svg and "#0101" not in first.svg


def test_charts_without_data_are_left_out() -> None:
    assert set(charts.draw_all(bare())) == {"parity", "sizes"}


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


def test_recipe_reads_like_its_file() -> None:
    text = render._toml(digits().recipe)
    assert text.startswith('name = "mnist"\nseed = 0\n\n[data]\nkind = "mnist"\n')
    assert "augment.shift = 2.0" in text
    assert '  { op = "conv", out = 32, kernel = 3 },' in text
    assert "root" not in text  # TOML has no null
