"""The report: its JSON, its charts and its page, on two invented but plausible runs."""

from __future__ import annotations

import base64
import io
import json
import math
import random
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from exporters.evaluate.parity_values import Assessment
from exporters.evaluate.score_values import Baseline, Estimate, Scores
from exporters.evaluate.scoring import OBJECTIVES, ModelOutputs, Scored, score
from exporters.evaluate.tasks import label_task
from exporters.quantize.saturation_values import Confirmation, LayerSaturation
from exporters.search.explanation import Clipping, Explanation, LayerDamage, LayerNoise
from exporters.search.result import SearchResult
from exporters.search.trial import Speed as TrialSpeed
from exporters.search.trial import Trial
from pipeline.cli.tables import result_table
from pipeline.datasets.arrays import Dataset, Split
from pipeline.datasets.info import DatasetInfo
from pipeline.errors import StoreError
from pipeline.hardware import Hardware
from pipeline.learning.training.results import EpochMetrics
from pipeline.report import model as data
from pipeline.report import render
from pipeline.report.charts import charts, drawing
from pipeline.report.images import FLIPPED_IMAGES, Answers, flips
from pipeline.report.model import (
    BundleReport,
    DataSummary,
    Flips,
    LabelRow,
    ModelReport,
    ReferenceReport,
    Report,
    StageRow,
    TrainingReport,
    VariantReport,
    WorstImage,
)
from pipeline.report.model_card import model_card
from pipeline.report.text import scores as score_words
from pipeline.report.text import search as search_words
from pipeline.report.text import summary as words
from pipeline.reports import Difference
from pipeline.timing.values import Speed, Speedup
from runtime.manifest import Default
from runtime.spec import ModelSpec

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


def epochs(number: int, start: float, end: float, accuracy: float) -> tuple[EpochMetrics, ...]:
    noise = random.Random(0)
    rows = []
    for i in range(number):
        share = (i + 1) / number
        loss = start * (end / start) ** (share**0.5)
        found = accuracy - (100 - accuracy) * 6 * (1 - share) ** 2 - noise.random() * 0.05
        rows.append(
            EpochMetrics(
                i + 1, 0.1 * (1 - share), loss, loss * (0.8 + 0.3 * share), found, 24.1, 13.0
            )
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


def trial(
    name: str,
    lost: float,
    speedup: float,
    sqnr_db: float,
    *,
    step: str = "schemes",
    margin: float = 0.15,
    size_bytes: int = 52_480,
    accuracy: float = 99.4,
    **changes: object,
) -> Trial:
    """A finished trial; beyond the margin it was refused."""
    failures = () if lost < margin else (f"it loses {lost:.3f} points; the margin is {margin:g}",)
    row = Trial(
        id=name,
        precision=name.partition("-")[0],
        step=step,
        options={"id": name},
        seconds=1.8,
        size_bytes=size_bytes,
        assessment=Assessment(
            not failures, failures, accuracy - lost, lost, 0.02 + lost / 100, sqnr_db
        ),
        speed=TrialSpeed(0.0842 / speedup, speedup, speedup),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def clipping(tensor: str, high: float, highest: float, used: float, clipped: float) -> Clipping:
    """An activation after a ReLU whose values fall off exponentially."""
    edges = np.linspace(0, highest, 65)
    counts = np.exp(-12 * edges[:-1] / highest) * 400_000
    return Clipping(
        tensor, 0.0, high, 0.0, highest, clipped, used, tuple(int(value) for value in counts)
    )


def digits_search() -> SearchResult:
    """Nothing beats FP32; the chosen INT8 form is offered for its size."""
    stops = (LayerSaturation("Conv_0", 0.318, 108.1), LayerSaturation("Conv_1", 0.00018, 6.5))
    trials = (
        trial("fp32", 0.0, 1.0, 200.0, step="as exported", size_bytes=161_204),
        trial("fp16", 0.0, 0.64, 77.1, step="as listed", size_bytes=83_100),
        trial("int8-u8s8-rr", 0.02, 0.96, 49.4, portable=True),
        trial("int8-u8s8", 0.0, 0.97, 52.2, saturation=stops),
        trial("int8-u8u8", 0.02, 0.74, 53.3, portable=True, size_bytes=52_700),
        trial("int8-s8s8", 62.4, 0.23, 8.1, saturation=stops),
        trial(
            "int8-u8s8-rr-entropy",
            0.31,
            0.96,
            38.9,
            portable=True,
            step="calibration",
            timed_as="int8-u8s8-rr",
        ),
        Trial("int8-dynamic", "int8", "dynamic heads", {}, 0.1, error="no fully connected layer"),
    )
    noise = (
        LayerNoise("Conv_0", "Conv", 39.5, 41.2),
        LayerNoise("Conv_1", "Conv", 36.8, 37.6),
        LayerNoise("Gemm_0", "Gemm", 39.9, 200.0),
    )
    return SearchResult(
        trials=trials,
        front=("fp32", "int8-u8s8", "int8-u8s8-rr"),
        chosen=("fp32", "fp16", "int8-u8s8-rr"),
        explanation=Explanation(
            "int8-u8s8-rr",
            noise,
            (LayerDamage("Conv_1", 3.7e-4, 0.83), LayerDamage("Conv_0", -2.1e-4, -0.12)),
            (clipping("relu_1", 4.96, 6.34, 0.80, 4.8e-5), clipping("relu_0", 4.9, 5.5, 0.9, 0.0)),
        ),
        seconds=23.3,
    )


def faces_search() -> SearchResult:
    """INT8 pays; the time ran out; one activation has an outlier and many layers have names."""
    stops = (LayerSaturation("node_Conv_20", 0.053, 31.0),)
    common = {"margin": 0.1, "accuracy": 96.9, "size_bytes": 418_000}
    forms = [
        (f"int8-u8s8-rr{suffix}", 0.02 + 0.011 * i, 1.87, 41.2 + i)
        for i, suffix in enumerate(["", "-tensor", "-percentile", "-mse", "-percentile-bc"])
    ]
    trials = [
        trial("fp32", 0.0, 1.0, 200.0, step="as exported", **common | {"size_bytes": 1_561_000}),
        trial("fp16", 0.0, 0.9, 78.2, step="as listed", **common | {"size_bytes": 784_000}),
        *(trial(*form, **common, portable=True) for form in forms),
        trial("int8-u8s8", 0.12, 1.96, 30.1, **common, saturation=stops),
        trial("int8-s8s8", 0.28, 1.11, 29.4, **common, saturation=stops),
        trial("int8-u8u8", -0.01, 1.31, 44.6, **common, portable=True),
        trial("int8-u8u8-bc", -0.02, 1.31, 51.6, **common, portable=True, timed_as="int8-u8u8"),
        trial("int8-u8s8-rr-fdw", 0.0, 1.42, 55.0, **common, portable=True, step="float depthwise"),
        trial("int8-u8s8-rr-mixed1", 0.01, 1.66, 47.0, **common, step="mixed precision"),
        trial("int8-u8s8-rr-mixed2", 0.0, 1.52, 49.0, **common, step="mixed precision"),
        trial("int8-dynamic", 0.0, 0.24, 60.0, **common, step="dynamic heads"),
    ]
    nodes = [f"/features/{i}/block/conv/Conv_quantized_{i}" for i in range(24)]
    return SearchResult(
        trials=tuple(trials),
        front=("int8-u8s8-rr", "int8-u8s8-rr-mixed1", "int8-u8s8-rr-mixed2", "int8-u8s8-rr-fdw"),
        chosen=("fp32", "fp16", "int8-u8s8-rr", "int8-u8s8-rr-fdw"),
        explanation=Explanation(
            "int8-u8s8-rr",
            tuple(LayerNoise(n, "Conv", 38 - i / 2, 44 - i / 5) for i, n in enumerate(nodes)),
            tuple(LayerDamage(n, 1e-3 / (i + 1), 4.8 / (i + 1) - 0.4) for i, n in enumerate(nodes))[
                :16
            ],
            (
                clipping("/features/3/act/Relu_output_0_with_a_long_name", 250.0, 250.0, 0.03, 0.0),
                *(clipping(f"relu_{i}", 6.0, 6.0 + i, 0.7, i / 100) for i in range(1, 8)),
            ),
        ),
        seconds=180.2,
        incomplete=True,
        untried=("mixed precision", "fine-tuning"),
    )


def scored(spec: ModelSpec, forms: tuple[str, ...], baseline: str) -> Scored:
    """Scores of invented answers; the baseline's are worse."""
    random = np.random.default_rng(0)
    labels = len(spec.labels)
    if spec.task == "multi-class":
        truth = np.arange(400) % labels
        present: np.ndarray = truth[:, None] == np.arange(labels)
    else:
        truth = (random.random((400, labels)) < np.linspace(0.02, 0.5, labels)).astype(np.uint8)
        present = truth == 1

    def answers(name: str, noise: float) -> ModelOutputs:
        logits = 4.0 * present + noise * random.normal(size=present.shape)
        found = (1 / (1 + np.exp(2 - logits))).astype(np.float32)
        halves = {objective: np.full(labels, 0.5) for objective in OBJECTIVES}
        return ModelOutputs(name, found, halves if spec.task == "multi-label" else {})

    own = [answers(name, 1.0) for name in ("PyTorch", *forms)]
    task = label_task(spec.task)
    majority = task.majority_answer(truth, len(spec.labels))
    return score(task, own, truth, spec.labels, majority, answers(baseline, 1.5), samples=40)


@cache
def scores(task: str, labels: tuple[str, ...], baseline: str) -> Scores:
    spec = ModelSpec("scored", task, 28, 28, 1, labels)
    found = scored(spec, ("fp32", "fp16", "int8-u8s8-rr"), baseline)
    return Scores(
        400,
        40,
        found.majority,
        found.forms,
        Baseline(baseline, None, found.baseline, len(labels), 388_673, 61_000_000),
    )


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
        LabelRow(label, 99.1 + i / 12, 99.05 + i / 12, images=1000 + i, lost=i % 3, won=i % 2)
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
            "quantize": {"search": {"minutes": 3.0, "validation_images": 5_000}},
            "gate": {"margin_points": 0.15, "alpha": 0.05},
        },
        model=ModelReport(
            "mnist", "1.0.0", "multi-class", labels, (28, 28, 1), 39_722, 2_841_000, "Apache-2.0"
        ),
        data=DataSummary(
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
            Default("cpu", "fp32", "INT8 ran at 0.96 times the speed of FP32 here"),
            Default("x86_64-vnni", "int8-u8s8-rr", "not measured here"),
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
        scores=scores("multi-class", labels, "mnist-textbook"),
        search=digits_search(),
        flips=Flips(
            "int8-u8s8-rr",
            lost=4,
            won=2,
            still_wrong=1,
            answers=10_000,
            images=tuple(
                image for image in worst if image.reference_answer != image.candidate_answer
            ),
        ),
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
            balanced_before_percent=found - 1.4,
            threshold=round(0.5 + noise.uniform(-0.2, 0.2), 2),
            reference_threshold=0.5,
            lost=noise.randrange(9),
            won=noise.randrange(7),
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
        data=DataSummary(
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
        defaults=(Default("cpu", "int8-u8s8-rr", "1.87 times the speed of FP32 here"),),
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
        scores=scores("multi-label", ATTRIBUTES, "celeba-textbook"),
        search=faces_search(),
        flips=Flips(
            "int8-u8s8-rr",
            lost=31,
            won=27,
            still_wrong=0,
            answers=18_000,
            images=tuple(
                replace(
                    base.worst[0],
                    picture=None,
                    id=f"00{7300 + i}.jpg",
                    truth="Smiling",
                    reference_answer="Smiling",
                    candidate_answer="no Smiling",
                )
                for i in range(24)
            ),
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
    assert slower.startswith("INT8 does not pay on this CPU: 0.96× the speed of FP32")
    assert slower.endswith("int8-u8s8-rr is offered for its size, 3.1 times smaller.")
    faster = words.payoff(faces(), faces().variants[2]) or ""
    assert faster.startswith("int8-u8s8-rr: 1.87× the speed of FP32")
    refused = words.payoff(faces(), faces().variants[1])
    assert refused == "fp16 was refused by the gate; its speed was not measured."
    untimed = words.payoff(report, replace(report.variants[1], speedup=None)) or ""
    assert untimed == "fp16: its file is 1.9 times smaller; its speed was not measured here."


def test_numbers_of_the_search_in_words() -> None:
    said = [
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
    assert [text.replace("\N{NARROW NO-BREAK SPACE}", " ") for text in said] == [
        *("32 %", "0.018 %", "under 0.001 %", "100 %", "0 %"),
        *("49.4 dB", "equal", "−1.2 dB", "0.02", "−0.17", "−6.3×10⁻⁵", "−1.25 to 4.96", "3 min"),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp32", "went on to the test split"),
        ("int8-u8s8-rr", "went on to the test split"),
        ("int8-u8s8", "not portable"),
        ("int8-u8u8", "slower than int8-u8s8-rr"),
        ("int8-s8s8", "it loses 62.400 points; the margin is 0.15"),
        ("int8-dynamic", "no fully connected layer"),
        ("int8-u8s8-rr-tensor", "4.2 dB noisier than int8-u8s8-rr"),
        ("int8-s8s8-bc", "not portable; slower and 1.4 dB noisier than int8-u8s8-rr"),
    ],
)
def test_says_what_became_of_a_trial(name: str, expected: str) -> None:
    search = digits_search()
    more = (
        trial("int8-u8s8-rr-tensor", 0.02, 0.96, 45.2, portable=True),
        trial("int8-s8s8-bc", 0.0, 0.7, 48.0),
    )
    search = replace(search, trials=(*search.trials, *more))
    assert search_words.fate(search, search.by_id[name]) == expected


def test_says_which_layers_saturate() -> None:
    by_id = digits_search().by_id
    said = search_words.saturation(by_id["int8-u8s8"])
    assert said.replace("\N{NARROW NO-BREAK SPACE}", " ") == (
        "saturates: Conv_0 32 %, Conv_1 0.018 %"
    )
    assert search_words.saturation(by_id["int8-u8s8-rr"]) == ""
    kind = replace(by_id["int8-u8s8"], saturation=(LayerSaturation("Conv_0", 0.0, 0.0),))
    assert search_words.saturation(kind) == "sums could saturate; none did"


def test_incomplete_search_is_said_with_what_was_left_out() -> None:
    assert search_words.left_out(digits()) is None
    report = replace(digits(), search=faces_search())
    over = search_words.left_out(report) or ""
    assert "its limit is 3 minutes" in over and "mixed precision, fine-tuning" in over
    stopped = replace(report, search=replace(faces_search(), seconds=60.0))
    assert "it was stopped" in (search_words.left_out(stopped) or "")
    page = Page(render.render_html(report)).text
    assert page.count("mixed precision, fine-tuning") == 2  # at the top, and where it belongs


def test_a_drop_is_claimed_only_where_there_is_one() -> None:
    report = digits()
    assert search_words.title(report) == "Where INT8 hurts"
    slow = replace(report.variants[2], passed=False)  # timed, so its answers were good enough
    bound = replace(report, variants=(*report.variants[:2], slow))
    assert search_words.title(bound) == "Where INT8 hurts"
    assert "breaks a bound of the recipe" in (search_words.loss(bound) or "")
    assert "breaks a bound of the recipe; 0.96×" in (words.payoff(bound, slow) or "")
    int8 = replace(slow, speed=None, speedup=None)
    refused = replace(report, variants=(*report.variants[:2], int8))
    assert search_words.title(refused) == "Why did accuracy drop?"
    assert "was refused by the gate" in (search_words.loss(refused) or "")
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
    assert "int8-s8s8 (refused on validation data)" in (search_words.layer_finding(early) or "")


def test_names_the_layer_that_costs_most() -> None:
    found = search_words.layer_finding(faces()) or ""
    assert found.startswith("/features/0/block/conv/Conv_quantized_0 costs most in int8-u8s8-rr")
    assert "4.4 dB" in found
    assert "No single layer stands out" in (search_words.layer_finding(digits()) or "")


def test_model_card_says_what_int8_gains() -> None:
    slower, faster = model_card(digits()), model_card(faces())
    assert "## What INT8 gains\n\n- INT8 does not pay on this CPU: 0.96×" in slower
    assert "- int8-u8s8-rr: 1.87× the speed of FP32" in faster
    assert "What INT8 gains" not in model_card(bare())


# --- the terminal ---------------------------------------------------------------------------


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


def shown(report: Report, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    for part in result_table(report):
        console.print(part, soft_wrap=isinstance(part, str))
    return console.export_text()


def test_show_has_majority_and_baseline_beside_accuracy() -> None:
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


def test_a_baseline_that_is_not_there_says_the_command() -> None:
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


def test_reads_a_report_from_before_there_were_scores() -> None:
    old = json.loads(faces().to_json())
    del old["scores"]
    report = Report.from_json(json.dumps(old))
    assert report.scores is None
    page = Page(render.render_html(report)).text
    assert "Majority" in page and "How good it is" not in page
    assert "same images" not in shown(report)
    assert "majority answer" not in model_card(report)


def test_attributes_are_sorted_by_what_they_gain() -> None:
    rows = score_words.labels(faces())
    gains = [row.over_majority.value for row in rows if row.over_majority]
    assert len(gains) == len(ATTRIBUTES) and gains == sorted(gains, reverse=True)


def test_what_is_not_defined_is_said_so() -> None:
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


def test_model_card_tells_accuracy_with_its_interval() -> None:
    report = digits()
    own = report.shown_score
    assert own is not None and own.own.accuracy is not None
    card = model_card(report)
    found = f"{own.own.accuracy.value:.2f} [{own.own.accuracy.low:.2f}, "
    assert f"| fp32 | {found}" in card
    assert "| mnist-textbook | " in card and "| majority answer | " in card
    assert "and 2,841,000 multiply-adds for an image" in card


# --- images ---------------------------------------------------------------------------------


def answers(
    labels: list[object],
    reference: list[list[float]],
    variant: list[list[float]],
    thresholds: dict[str, list[float] | None],
    *,
    redistributable: bool = True,
) -> Answers:
    """A test split of small grey images."""
    count, task = len(labels), "multi-label" if thresholds["reference"] else "multi-class"
    names = tuple("abc"[: len(reference[0])])
    spec = ModelSpec("small", task, 4, 4, 1, names)
    split = Split(
        np.zeros((count, 4, 4, 1), np.uint8),
        np.asarray(labels),
        np.asarray([f"test/{i}" for i in range(count)]),
    )
    info = DatasetInfo("small", task, names, {}, "", False, redistributable, "CC0")
    probabilities = {
        "reference": np.asarray(reference, np.float32),
        "int8": np.asarray(variant, np.float32),
    }
    return Answers(spec, Dataset(info, split, split, split), probabilities, thresholds)


def test_flips_of_classes() -> None:
    seen = answers(
        [0, 0, 1, 2, 1],
        [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.6, 0.4, 0], [0.1, 0.8, 0.1], [0.1, 0.9, 0]],
        [[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.3, 0.7, 0], [0.9, 0.1, 0.0], [0.2, 0.8, 0]],
        {"reference": None, "int8": None},
    )
    found = flips(seen, "int8")
    assert (found.lost, found.won, found.still_wrong, found.answers) == (1, 1, 1, 5)
    assert found.changed == 3
    assert [image.id for image in found.images] == ["test/1", "test/2", "test/3"]  # lost first
    first = found.images[0]
    assert (first.truth, first.reference_answer, first.candidate_answer) == ("a", "a", "b")
    assert first.difference == pytest.approx(0.1) and first.picture


def test_flips_of_attributes_follow_each_forms_own_thresholds() -> None:
    seen = answers(
        [[1, 0], [0, 1]],
        [[0.55, 0.2], [0.3, 0.45]],
        [[0.55, 0.2], [0.3, 0.45]],  # the same probabilities; the thresholds alone differ
        {"reference": [0.5, 0.5], "int8": [0.6, 0.4]},
        redistributable=False,
    )
    found = flips(seen, "int8")
    assert (found.lost, found.won, found.still_wrong, found.answers) == (1, 1, 0, 4)
    lost, won = found.images
    assert (lost.truth, lost.reference_answer, lost.candidate_answer) == ("a", "a", "no a")
    assert (won.truth, won.reference_answer, won.candidate_answer) == ("b", "no b", "b")
    assert lost.picture is None  # the data may not be passed on


def test_of_many_flips_those_that_moved_most_are_shown() -> None:
    count = FLIPPED_IMAGES + 5
    moved = np.linspace(0.01, 0.4, count)
    seen = answers(
        [0] * count,
        [[0.5 + step / 2, 0.5 - step / 2] for step in moved],
        [[0.5 - step / 2, 0.5 + step / 2] for step in moved],
        {"reference": None, "int8": None},
    )
    found = flips(seen, "int8")
    assert found.lost == count and len(found.images) == FLIPPED_IMAGES
    assert min(image.difference for image in found.images) >= moved[5] - 1e-6


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


def test_a_form_that_lost_what_the_network_gained_is_doubtful() -> None:
    """A wide margin lets a form pass that answers at random."""
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


# --- charts ---------------------------------------------------------------------------------


def test_charts_leave_matplotlib_as_it_was() -> None:
    def settings() -> dict[str, object]:  # but the backend: to look at it is to choose one
        return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}

    before = settings()
    drawn = charts.draw_all(digits())
    assert settings() == before
    # all but the chart of attributes
    assert set(drawn) == {draw.__name__ for draw in charts.CHARTS} - {"label_scores"}
    assert all(chart.alt.endswith(".") for chart in drawn.values())


def test_charts_are_drawn_in_css_colours_and_repeat_exactly() -> None:
    first, second = charts.parity(digits()), charts.parity(digits())
    assert first == second and first is not None
    assert "var(--orange)" in first.svg and "#0101" not in first.svg


def test_search_charts_show_what_was_found() -> None:
    drawn = charts.draw_all(digits())
    tried = drawn["tried"]
    assert tried.alt.startswith("7 forms; on the front: fp32 loses 0.00 points at 1.00")
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
    unclipped = charts.draw_all(replace(digits(), search=replace(search, explanation=whole)))
    assert "var(--red)" not in unclipped["activations"].svg


def test_changes_by_label_need_a_change() -> None:
    report = digits()
    rows = tuple(replace(row, lost=0, won=0) for row in report.variants[2].per_label)
    same = replace(
        report, variants=(*report.variants[:2], replace(report.variants[2], per_label=rows))
    )
    assert "label_changes" in charts.draw_all(report)
    assert "label_changes" not in charts.draw_all(same)


@pytest.mark.parametrize("seed", range(5))
def test_names_beside_points_do_not_overlap(seed: int) -> None:
    figure, axes = drawing.new_figure(3.9)
    random_ = np.random.default_rng(seed)
    x, y = random_.uniform(0, 1, 6), random_.choice([0.0, 0.02, 0.5], 6)
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.4, 1))
    named = [
        (float(a), float(b), f"int8-form-{i}") for i, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    drawing.name_points(axes, named)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    boxes = [box for box in boxes if box.width > 0]
    assert len(boxes) == len(named)
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert not any(a.shrunk(0.9, 0.7).overlaps(b.shrunk(0.9, 0.7)) for a, b in pairs)


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


@pytest.mark.parametrize(
    ("visible", "told"),
    [
        (False, "this CPU (x86_64-vnni) adds up exactly"),
        (True, "portable files differ by 0 at most"),
    ],
)
def test_what_this_cpu_could_show_is_told(visible: bool, told: str) -> None:
    target = "x86_64-avx2" if visible else "x86_64-vnni"
    report = digits()
    assert report.search is not None
    row = Confirmation(target, visible, 0.0, 1e-4)
    trials = tuple(replace(trial, confirmation=row) for trial in report.search.trials)
    assert search_words.confirmed(report) == ""
    seen = replace(report, search=replace(report.search, trials=trials))
    assert told in search_words.confirmed(seen)
