"""The reports of the stages: everything that one stage hands to the next, apart from files. Values
only; loads neither numpy nor torch nor onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporters.evaluate.parity_values import Check, Parity, Verdict
from exporters.evaluate.score_values import Scores
from exporters.export.guard_values import ExportGuard
from exporters.graph.file_summary import Summary
from exporters.options import Strict
from exporters.search.result import SearchResult
from exporters.search.trial import Trial
from pipeline.datasets.info import DatasetInfo
from pipeline.engine.stage import StageReport, UserModule
from pipeline.hardware import Hardware
from pipeline.learning.training.results import EpochMetrics, TrainResult
from pipeline.timing.values import Speed, Speedup
from runtime.manifest import Default
from runtime.spec import ModelSpec


@dataclass(frozen=True)
class DataReport(StageReport):
    """The data set."""

    info: DatasetInfo


@dataclass(frozen=True)
class TrainReport(StageReport):
    """The course of the training."""

    result: TrainResult
    epochs: tuple[EpochMetrics, ...]
    modules: dict[str, UserModule] = field(default_factory=dict)

    def user_modules(self) -> Mapping[str, UserModule]:
        """The user's files that only training has shown."""
        return self.modules


@dataclass(frozen=True)
class ExportReport(StageReport):
    """``fp32.onnx``."""

    summary: Summary
    multiply_adds: int | None  # of one image; None: the graph has sizes that are not known
    guards: tuple[ExportGuard, ...]


@dataclass(frozen=True)
class QuantizeReport(StageReport):
    """The search, and so the candidates that continue to the test split."""

    spec: ModelSpec
    search: SearchResult


@dataclass(frozen=True)
class Difference(Strict):
    """|candidate - reference| over all probabilities of the test split."""

    max: float
    mean: float
    p99: float
    p50: float | None = None
    p90: float | None = None


@dataclass(frozen=True)
class JudgedVariant:
    """A candidate of the search on the test split, and the verdict of the gate."""

    trial: Trial
    parity: Parity
    verdict: Verdict
    difference: Difference
    thresholds: tuple[float, ...] | None = None  # one for each label; None: the task has none
    # balanced accuracy of each label in percent, with these thresholds and with the reference's
    balanced_percent: tuple[float, ...] | None = None
    balanced_before_percent: tuple[float, ...] | None = None

    @property
    def id(self) -> str:
        """The variant's id, which begins with its precision."""
        return self.trial.id

    @property
    def accuracy_percent(self) -> float:
        """Accuracy on the test split."""
        return 100 * self.parity.pairs.candidate_accuracy


@dataclass(frozen=True)
class Reference:
    """The PyTorch network on the test split."""

    accuracy_percent: float
    balanced_percent: tuple[float, ...] | None = None  # of each label
    thresholds: tuple[float, ...] | None = None  # one for each label; None: the task has none
    # the same by what they are best at
    thresholds_for: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkFacts:
    """Facts of a network for the recipes that use it as their baseline."""

    data: str  # name of the data set
    labels: tuple[str, ...]
    parameters: int
    multiply_adds: int | None  # of one image


@dataclass(frozen=True)
class ValidateReport(StageReport):
    """Every candidate compared with the network, and judged."""

    spec: ModelSpec
    reference: Reference
    variants: tuple[JudgedVariant, ...]
    network: NetworkFacts
    scores: Scores

    @property
    def passed(self) -> tuple[JudgedVariant, ...]:
        """The variants that passed the gate."""
        return tuple(variant for variant in self.variants if variant.verdict.passed)


@dataclass(frozen=True)
class TimedVariant:
    """A variant that passed the gate, timed and checked against the bounds of the recipe."""

    judged: JudgedVariant
    speed: Speed
    speedup: Speedup  # against fp32
    bounds: tuple[Check, ...]  # size, latency, memory

    @property
    def ships(self) -> bool:
        """True when the variant keeps every bound."""
        return all(check.passed for check in self.bounds)


@dataclass(frozen=True)
class BenchmarkReport(StageReport):
    """Speeds on this machine, and the default of each kind of device."""

    hardware: Hardware
    target: str  # the kind of device that was timed
    reference: Speed  # of PyTorch, eager
    variants: tuple[TimedVariant, ...]  # all that passed the gate
    cuda: dict[str, Speed] | str  # by variant; or why there are none
    defaults: tuple[Default, ...]

    @property
    def ships(self) -> tuple[TimedVariant, ...]:
        """The variants that go into the bundle."""
        return tuple(variant for variant in self.variants if variant.ships)


@dataclass(frozen=True)
class PackageReport(StageReport):
    """The files that leave this machine."""

    bundle_id: str  # sha256 of its manifest
    bundles: dict[str, str]  # file name -> id
