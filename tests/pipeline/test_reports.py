"""reports.py: what travels between stages comes back from the disk as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sample_reports import HARDWARE, digits_search, epochs, scores, speed

from exporters.evaluate.parity_values import Check, LabelParity, Pairs, Parity, Verdict
from exporters.export.guard_values import ExportGuard
from exporters.graph.file_summary import Summary
from pipeline import reports
from pipeline.datasets.info import DatasetInfo
from pipeline.engine.stage import StageReport, UserModule
from pipeline.engine.store import Store
from pipeline.learning.training.results import TrainResult
from pipeline.timing.values import Speedup
from runtime.manifest import Default
from runtime.spec import ModelSpec

SPEC = ModelSpec("m", "multi-class", 28, 28, 1, ("a", "b", "c"))


def judged() -> reports.JudgedVariant:
    pairs = Pairs(2, 1, 0, 3)
    labels = (LabelParity("a", pairs), LabelParity("b", Pairs(0, 0, 0, 0)))
    losses, worst = ((0, 5), (1, 1)), ((4, 0.1),)
    parity = Parity("multi-class", 6, 0.1, 0.01, 0.09, 0.8, pairs, labels, losses, worst)
    undefined = Check("labels", False, float("nan"), 0.05, "no label can be judged")
    return reports.JudgedVariant(
        digits_search().trials[3],
        parity,
        Verdict(False, (undefined,)),
        reports.Difference(0.1, 0.01, 0.09, 0.0, 0.05),
        thresholds=(0.5, 0.25, 1.0),
    )


def samples() -> list[StageReport]:
    info = DatasetInfo("d", SPEC.task, SPEC.labels, {"train": 1}, "ab", True, True, "CC0", ("n",))
    result = TrainResult(2, 1, 99.0, 7, 1.5, 2.0, "cpu", 1, False, notes=("resumed",))
    bound = Check("memory", False, float("inf"), 9.0, "memory inf")  # not measured: not within
    timed = reports.TimedVariant(judged(), speed(0.1), Speedup(1.0, 0.9, 1.1), (bound,))
    facts = reports.NetworkFacts("d", SPEC.labels, 7, None)
    return [
        reports.DataReport("data", info),
        reports.TrainReport(
            "train", result, epochs(2, 0.6, 0.1, 99.0), {"n": UserModule("n", "a")}
        ),
        reports.ExportReport("export", Summary(18, 8, (("Conv", 2),), 7, 99), None, GUARDS),
        reports.QuantizeReport("quantize", SPEC, digits_search()),
        reports.ValidateReport(
            "validate",
            SPEC,
            reports.Reference(99.0, thresholds_for={"accuracy": (0.5,)}),
            (judged(),),
            facts,
            scores(SPEC.task, SPEC.labels, "other"),
        ),
        reports.BenchmarkReport(
            "benchmark",
            HARDWARE,
            "cpu",
            speed(0.4),
            (timed,),
            "no GPU",
            (Default("cpu", "fp32", "it is the only one"),),
        ),
        reports.PackageReport("package", "id", {"bundle.zip": "id"}),
    ]


GUARDS = (ExportGuard(1, 1e-7, 0.0, 1e-7),)


@pytest.mark.parametrize("report", samples(), ids=lambda report: report.headline)
def test_a_report_comes_back_as_it_was(report: StageReport, tmp_path: Path) -> None:
    store = Store(tmp_path, "recipe", ("stage",))
    store.begin("stage", {}, resume=False)
    written = store.commit("stage", {}, report, 1.0, "2026-01-01")
    # as text, since nan is not equal to itself
    assert repr(store.report("stage", type(report))) == repr(report)
    record = store.record("stage")
    assert record is not None and record.digest() == written.digest()


def test_only_variants_within_their_bounds_ship() -> None:
    benchmark = next(row for row in samples() if isinstance(row, reports.BenchmarkReport))
    assert not benchmark.ships and not benchmark.variants[0].ships
    validate = next(row for row in samples() if isinstance(row, reports.ValidateReport))
    assert validate.passed == tuple(row for row in validate.variants if row.verdict.passed)


def test_reports_load_no_heavy_library() -> None:
    code = (
        "import sys, pipeline.reports; heavy = {'numpy', 'torch', 'onnx', 'onnxruntime', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
