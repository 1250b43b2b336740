"""The result of a run as one value, which ``report.json`` holds. Standard library, pydantic and
plain values only, so that ``pipeline show`` reads it quickly. None always means "not measured".

Within schema version 1 new fields may be added with a default, so that older files stay readable.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from exporters.evaluate.score_values import FormScore, Scores
from exporters.options import Strict
from exporters.search.result import SearchResult
from pipeline.errors import StoreError
from pipeline.hardware import Hardware
from pipeline.learning.training.results import EpochMetrics
from pipeline.reports import Difference
from pipeline.timing.values import Speed, Speedup
from runtime.manifest import Default

SCHEMA_VERSION = 1
_REMOVED_KEYS = ("notes", "private")  # of older files, where they were always empty


@dataclass(frozen=True)
class ModelReport(Strict):
    """The network that was trained."""

    name: str
    version: str
    task: str  # as in ModelSpec
    labels: tuple[str, ...]
    input_shape: tuple[int, int, int]  # (height, width, channels) of one image, uint8
    parameters: int
    multiply_adds: int | None = None  # of one image
    licence: str | None = None  # of the weights


@dataclass(frozen=True)
class DataSummary(Strict):
    """The images; the fields of ``DatasetInfo`` that a reader needs."""

    name: str
    counts: dict[str, int]  # images in each split
    sha256: str
    synthetic: bool
    redistributable: bool
    licence: str
    notes: tuple[str, ...] = ()
    majority_percent: float | None = None  # accuracy of always giving the commonest answer
    grouped_by: str | None = None  # names the groups that share a split; None: no groups
    groups: dict[str, int] = field(default_factory=dict)  # in each split


@dataclass(frozen=True)
class TrainingReport(Strict):
    """The training of the checkpoint."""

    epochs: tuple[EpochMetrics, ...] = ()
    best_epoch: int | None = None  # chosen by validation
    cpu_seconds: float | None = None
    device: str | None = None
    incomplete: bool = False  # stopped by a time limit
    notes: tuple[str, ...] = ()  # for the reader: an incomplete or a resumed training
    result: dict[str, Any] = field(default_factory=dict)  # other facts of the training; JSON


@dataclass(frozen=True)
class ReferenceReport(Strict):
    """The trained network in eager PyTorch, which every variant is compared with."""

    accuracy_percent: float  # on the test split; of attributes the mean
    balanced_accuracy_percent: float | None = None
    speed: Speed | None = None


@dataclass(frozen=True)
class LabelRow(Strict):
    """One class (accuracy over its own images) or one attribute (over all images)."""

    label: str
    reference_percent: float
    variant_percent: float
    balanced_percent: float | None = None  # of the variant
    # of the variant with the reference's thresholds instead of its own
    balanced_before_percent: float | None = None
    threshold: float | None = None  # of the variant, for an attribute
    reference_threshold: float | None = None
    majority_percent: float | None = None  # always giving the commoner answer
    images: int | None = None  # test images with this label
    lost: int | None = None  # answers that were right with the reference and are wrong now
    won: int | None = None  # the other way round


@dataclass(frozen=True)
class VariantReport(Strict):
    """One variant of the model on the whole test split."""

    id: str
    precision: str  # "fp32", "fp16", "int8"
    size_bytes: int
    portable: bool  # bit-identical quantized tensors on every target
    portable_reason: str
    passed: bool  # the gate
    verdict_reasons: tuple[str, ...]  # each check of the gate, as text
    accuracy_percent: float
    top1_agreement_percent: float  # with the reference; of attributes, of all yes/no answers
    difference: Difference
    balanced_accuracy_percent: float | None = None
    per_label: tuple[LabelRow, ...] = ()
    speed: Speed | None = None  # None: not benchmarked, as when the gate failed
    speedup: Speedup | None = None


@dataclass(frozen=True)
class WorstImage(Strict):
    """A test image on which a variant and the reference differ most."""

    id: str
    truth: str
    variant: str
    reference_answer: str
    reference_probability: float
    candidate_answer: str
    candidate_probability: float
    difference: float  # the largest |probability difference| of this image
    picture: str | None = None  # base64 of a PNG; None where images may not be passed on


@dataclass(frozen=True)
class Flips(Strict):
    """Answers on the test split that one variant changes."""

    variant: str
    lost: int  # right before, wrong now
    won: int  # wrong before, right now
    still_wrong: int  # another wrong answer
    answers: int  # in all: one for each image, of attributes for each label too
    images: tuple[WorstImage, ...] = ()  # lost ones first; those that moved most, if many

    @property
    def changed(self) -> int:
        """The number of changed answers."""
        return self.lost + self.won + self.still_wrong


@dataclass(frozen=True)
class StageRow(Strict):
    """One stage of the run."""

    name: str
    seconds: float
    finished: str  # ISO 8601


@dataclass(frozen=True)
class BundleReport(Strict):
    """The file that goes to the device."""

    id: str  # sha256 of its manifest
    size_bytes: int
    file: str = "bundle.zip"


@dataclass(frozen=True)
class Report(Strict):
    """All results of a run; raises ValueError for pictures that may not be passed on."""

    recipe: dict[str, Any]  # the resolved recipe, JSON values
    model: ModelReport
    data: DataSummary
    hardware: Hardware
    training: TrainingReport
    reference: ReferenceReport
    variants: tuple[VariantReport, ...]
    defaults: tuple[Default, ...] = ()
    target: str = "cpu"  # the kind of device that was timed, one of those in ``defaults``
    confusion: tuple[tuple[int, ...], ...] | None = None  # of classes: rows truth, default variant
    worst: tuple[WorstImage, ...] = ()
    scores: Scores | None = None  # against the majority answer and a baseline, with intervals
    search: SearchResult | None = None
    flips: Flips | None = None  # of ``int8``
    stages: tuple[StageRow, ...] = ()
    bundle: BundleReport | None = None  # None: nothing was packaged
    created: str = ""  # ISO 8601
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        shown = (*self.worst, *(self.flips.images if self.flips else ()))
        pictures = any(image.picture is not None for image in shown)
        if pictures and not self.data.redistributable:
            raise ValueError(
                f"the report holds pictures of {self.data.name!r}, which is not redistributable; "
                "expected picture=None."
            )

    @property
    def default(self) -> VariantReport | None:
        """The variant of the target that was measured; None when none may ship."""
        by_id = {variant.id: variant for variant in self.variants}
        rows = sorted(self.defaults, key=lambda row: row.target != self.target)
        return by_id.get(rows[0].variant) if rows else None

    @property
    def shown_score(self) -> FormScore | None:
        """The score of the default variant, or of the PyTorch network where none may ship."""
        if self.scores is None:
            return None
        default = self.default.id if self.default else None
        forms = self.scores.forms
        return next((form for form in forms if form.id == default), forms[0])

    @property
    def fp32(self) -> VariantReport | None:
        """The first FP32 variant, which sizes and speeds are compared with."""
        return next((variant for variant in self.variants if variant.precision == "fp32"), None)

    @property
    def int8(self) -> VariantReport | None:
        """The INT8 variant to explain: that of the search's explanation, else the default, else
        the first; None when none reached the test split."""
        explained = self.search.explanation if self.search else None
        order = (explained.variant if explained else "", self.default.id if self.default else "")
        rows = [variant for variant in self.variants if variant.precision == "int8"]
        ranks = {name: rank for rank, name in reversed(list(enumerate(order)))}
        return min(rows, key=lambda row: ranks.get(row.id, len(order)), default=None)

    def to_json(self) -> str:
        """The text of ``report.json``."""
        data = _adapter().dump_python(self, mode="json")
        data["hardware"]["caption"] = self.hardware.caption()
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Read what :meth:`to_json` wrote; raises StoreError for anything else."""
        try:
            data = json.loads(text)
            version = data["schema_version"]
            data["hardware"].pop("caption", None)
            for key in _REMOVED_KEYS:
                data.pop(key, None)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StoreError(
                f"the file is not a report.json ({type(exc).__name__}: {exc}). "
                "Run the package stage again."
            ) from exc
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"report.json has schema_version {version!r}; expected {SCHEMA_VERSION}. "
                "Read it with the edgeproof that wrote it, or run the package stage again."
            )
        try:
            return _adapter().validate_python(data)
        except ValidationError as exc:
            first = exc.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                f"report.json does not follow schema {version}: {key}: {first['msg']} "
                f"({exc.error_count()} in all). Run the package stage again."
            ) from exc


@cache  # building it costs some 30 ms
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def write(report: Report, path: Path) -> None:
    """Write ``report.json``."""
    path.write_text(report.to_json(), encoding="utf-8")


def read(path: Path) -> Report:
    """Read ``report.json``; raises StoreError when it is missing or invalid."""
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {exc}. Run the package stage first.") from exc
    return Report.from_json(text)
