"""The search inside the pipeline, from a recipe to bundles: one run for all tests, in processes of
its own as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exporters.package.defaults import TARGETS
from pipeline.report import model as report_data
from runtime import Predictor

SEARCHED = ("quantize.int8=[]", "quantize.search.minutes=100")


@dataclass(frozen=True)
class Folder:
    path: Path

    def run(self, *changes: str) -> subprocess.CompletedProcess[str]:
        sets = [word for change in (*SEARCHED, *changes) for word in ("--set", change)]
        command = [sys.executable, "-m", "pipeline", "run", "all", "--recipe", "tiny.toml", *sets]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)

    @property
    def results(self) -> Path:
        return self.path / "artifacts" / "tiny"

    def stage(self, folder: str) -> dict[str, Any]:
        return dict(json.loads((self.results / folder / "stage.json").read_text())["report"])


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[[Path], Path]
) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("search"))
    write_tiny(folder.path)
    done = folder.run()
    assert done.returncode == 0, done.stderr
    return folder


def test_what_was_chosen_is_what_lies_there(searched: Folder) -> None:
    record = searched.stage("4_quantize")
    chosen = record["search"]["chosen"]
    assert chosen[0] == "fp32" and len(chosen) >= 2
    files = {path.stem for path in (searched.results / "4_quantize").rglob("*.onnx")}
    assert files == set(chosen)  # the models of other trials are gone, their figures are not
    lines = (searched.results / "4_quantize" / "search" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [
        t["id"] for t in record["search"]["trials"]
    ]
    assert len(lines) > len(chosen)
    assert not record["search"]["incomplete"]


def test_every_trial_was_judged_on_validation_images(searched: Folder) -> None:
    trials = searched.stage("4_quantize")["search"]["trials"]
    for trial in trials:
        assert trial["error"] is None and trial["assessment"]["accuracy_percent"] > 50
        assert trial["speed"]["p50_ms"] > 0 and trial["size_bytes"] > 0
    portable = {trial["id"]: trial["portable"] for trial in trials}
    assert portable["int8-u8s8-rr"] and not portable["int8-u8s8"]
    assert searched.stage("4_quantize")["search"]["explanation"]["damage"]


def test_the_report_and_the_bundle_have_the_same_variants(searched: Folder) -> None:
    chosen = searched.stage("4_quantize")["search"]["chosen"]
    report = report_data.read(searched.results / "report.json")
    assert {variant.id for variant in report.variants} == set(chosen)
    with Predictor(searched.results / "bundle.zip", device="cpu", variant=chosen[-1]) as p:
        p.selftest()


def test_a_bundle_for_each_target(searched: Folder) -> None:
    done = searched.run('package.bundles="per-target"')
    assert done.returncode == 0, done.stderr
    assert "bundles" in done.stdout.splitlines()[-2] or "bundles" in done.stdout
    assert not (searched.results / "bundle.zip").exists()  # a stale one would be taken for this
    folder = searched.results / "bundles"
    assert set(TARGETS) <= {path.stem for path in folder.iterdir()}
    defaults = {row["target"]: row for row in searched.stage("6_benchmark")["defaults"]}
    for path in folder.iterdir():
        wanted = defaults[path.stem]["variant"]
        with Predictor(path, device="cpu") as p:
            assert p.info.variant == wanted
            p.selftest()
    again = searched.run()  # and back: one bundle, the folder is gone
    assert again.returncode == 0, again.stderr
    assert (searched.results / "bundle.zip").exists() and not folder.exists()


def test_a_bound_keeps_a_variant_out(searched: Folder) -> None:
    sizes = {t["id"]: t["size_bytes"] for t in searched.stage("4_quantize")["search"]["trials"]}
    smallest = min(sizes[name] for name in searched.stage("4_quantize")["search"]["chosen"])
    done = searched.run(f"gate.max_size_bytes={smallest}")
    assert done.returncode == 0, done.stderr
    assert "is not packaged: size" in done.stdout
    variants = searched.stage("6_benchmark")["variants"]
    ships = [
        row["judged"]["trial"]["id"]
        for row in variants
        if all(check["passed"] for check in row["bounds"])
    ]
    assert ships and all(sizes[name] <= smallest for name in ships)
    defaults = searched.stage("6_benchmark")["defaults"]
    assert {row["variant"] for row in defaults} <= set(ships)


def test_a_bound_that_nothing_keeps_ends_the_run(searched: Folder) -> None:
    before = (searched.results / "bundle.zip").read_bytes()
    done = searched.run("gate.max_latency_ms=1e-9")
    assert done.returncode == 1
    assert "no variant keeps the bounds of the recipe on this machine" in done.stderr
    assert "fp32: latency" in done.stderr and "allows 1e-09" in done.stderr
    assert (searched.results / "bundle.zip").read_bytes() == before  # the last good one
