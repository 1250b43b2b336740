"""Two invented but plausible runs as reports, and one that measured hardly anything."""

from __future__ import annotations

import base64
import io
import random
from dataclasses import replace
from functools import cache

import numpy as np
from PIL import Image

from exporters.evaluate.parity_values import Assessment
from exporters.evaluate.score_values import Baseline, Scores
from exporters.evaluate.scoring import OBJECTIVES, ModelOutputs, Scored, score
from exporters.evaluate.tasks import label_task
from exporters.quantize.saturation_values import LayerSaturation
from exporters.search.explanation import Clipping, Explanation, LayerDamage, LayerNoise
from exporters.search.result import SearchResult
from exporters.search.trial import Speed as TrialSpeed
from exporters.search.trial import Trial
from pipeline.hardware import Hardware
from pipeline.learning.training.results import EpochMetrics
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
        result = accuracy - (100 - accuracy) * 6 * (1 - share) ** 2 - noise.random() * 0.05
        rows.append(
            EpochMetrics(
                i + 1, 0.1 * (1 - share), loss, loss * (0.8 + 0.3 * share), result, 24.1, 13.0
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
        result = (1 / (1 + np.exp(2 - logits))).astype(np.float32)
        halves = {objective: np.full(labels, 0.5) for objective in OBJECTIVES}
        return ModelOutputs(name, result, halves if spec.task == "multi-label" else {})

    own = [answers(name, 1.0) for name in ("PyTorch", *forms)]
    task = label_task(spec.task)
    majority = task.majority_answer(truth, len(spec.labels))
    return score(task, own, truth, spec.labels, majority, answers(baseline, 1.5), samples=40)


@cache
def scores(task: str, labels: tuple[str, ...], baseline: str) -> Scores:
    spec = ModelSpec("scored", task, 28, 28, 1, labels)
    result = scored(spec, ("fp32", "fp16", "int8-u8s8-rr"), baseline)
    return Scores(
        400,
        40,
        result.majority,
        result.forms,
        Baseline(baseline, None, result.baseline, len(labels), 388_673, 61_000_000),
    )


def picture(value: int) -> str:
    """A small gray PNG with something on it."""
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
            reference_percent=min(result := 99.6 - noise.random() * 7, 100),
            variant_percent=result - noise.random() * 0.3,
            balanced_percent=result - 1.2,
            balanced_before_percent=result - 1.4,
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
