"""search.py: what is tried in which order, when it ends, and what it chooses. Models are real;
the tests decide how good and how fast they are."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporters.errors import ExportError, QuantizeError
from exporters.evaluate.generated_images import extreme_images
from exporters.evaluate.parity_values import Assessment
from exporters.graph import onnx_file
from exporters.graph.quantized import quantized_weights
from exporters.graph.walk import Graph
from exporters.options import FineTuneOptions, Int8Options, QuantizeOptions, SearchOptions
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.calibration import ImageReader
from exporters.quantize.int8_from_fp32 import shipped
from exporters.search.result import SearchResult
from exporters.search.search import search
from exporters.search.search_log import SearchLog
from exporters.search.subject import Subject
from exporters.search.trial import Speed, Trial
from pipeline.errors import StageError

EVERYTHING = SearchOptions(minutes=10, fine_tune=FineTuneOptions(epochs=1))
STATISTICS: dict[str, ActivationStatistics] = {}  # by the network's name; made once


@dataclass
class World:
    """The judge and the clock of a search; counts what it is asked."""

    case: Any
    folder: Path
    good: Callable[[str, onnx.ModelProto], bool] = lambda name, model: True
    fast: Callable[[str], float] = lambda name: 2.0
    seconds_per_trial: float = 1.0
    now: float = 0.0
    assessed: list[str] = field(default_factory=list)
    timed: list[str] = field(default_factory=list)
    tuned: list[str] = field(default_factory=list)
    stop_after: int = 10**9

    def statistics(self) -> ActivationStatistics:
        """The same for every search of a network: they only read them."""
        return STATISTICS.setdefault(
            self.case.spec.name,
            ActivationStatistics(self.case.model, ImageReader(self.case.images, np.arange(32))),
        )

    def assess(self, model: bytes, name: str, portable: bool) -> Assessment:
        self.assessed.append(name)
        self.now += self.seconds_per_trial
        passed = self.good(name, onnx_file.from_bytes(model))
        result = onnx_file.run(onnx_file.session(model), self.case.images)
        expected = onnx_file.run(onnx_file.session(self.case.model), self.case.images)
        noise = float(np.square(result - expected).mean())
        sqnr = 200.0 if not noise else float(-10 * np.log10(noise))
        return Assessment(passed, () if passed else ("too bad",), 99.0, 0.0, noise, sqnr)

    def time(self, model: bytes, name: str, portable: bool) -> Speed:
        self.timed.append(name)
        speed = 1.0 if name == "fp32" else self.fast(name)
        return Speed(1 / speed, speed, speed)

    def fine_tune(self, options: Int8Options) -> tuple[onnx.ModelProto, ActivationStatistics]:
        self.tuned.append(options.id)
        return self.case.model, self.statistics()

    def search(
        self, options: SearchOptions = EVERYTHING, listed: tuple[Int8Options, ...] = ()
    ) -> SearchResult:
        spec, images = self.case.spec, self.case.images[:8]
        subject = Subject(
            model=self.case.model,
            statistics=self.statistics(),
            samples={"images": images},
            extremes={"images": np.concatenate([images, extreme_images(spec.shape)])},
            finish=lambda model, name: shipped(model, spec, name),
            assess=self.assess,
            assess_quickly=lambda model: (
                (result := self.assess(model, "quick", False)).loss,
                result.sqnr_db,
            ),
            time=self.time,
            fine_tune=self.fine_tune,
        )
        return search(
            subject,
            listed,
            options,
            SearchLog(self.folder),
            stopped=lambda: len(self.assessed) >= self.stop_after,
            clock=lambda: self.now,
        )


@pytest.fixture
def world(digits: Any, tmp_path: Path) -> World:
    return World(digits, tmp_path / "search")


def steps(result: SearchResult) -> list[str]:
    return list(dict.fromkeys(trial.step for trial in result.trials))


def test_from_coarse_to_fine(world: World) -> None:
    result = world.search()
    assert steps(result) == [
        "as exported",
        "schemes",
        "granularity",
        "calibration",
        "bias correction",
    ]
    assert not result.incomplete and not result.untried
    by_id = {trial.id: trial for trial in result.trials}
    assert by_id["int8-u8s8-rr"].portable and by_id["int8-u8u8"].portable
    assert not by_id["int8-u8s8"].portable and by_id["int8-u8s8"].saturation
    assert all(trial.error is None for trial in result.trials)


def test_files_with_the_same_nodes_are_timed_once(world: World) -> None:
    result = world.search()
    borrowed = {trial.id: trial.timed_as for trial in result.trials if trial.timed_as}
    assert borrowed and set(borrowed.values()) == {"int8-u8s8-rr"}
    assert not set(world.timed) & set(borrowed)


def test_the_best_portable_variant_is_chosen(world: World) -> None:
    result = world.search()
    (chosen,) = [name for name in result.chosen if name != "fp32"]
    by_id = {trial.id: trial for trial in result.trials}
    assert by_id[chosen].portable
    peers = [t for t in result.trials if t.portable and t.assessment]
    best = max(t.assessment.sqnr_db for t in peers if t.assessment)
    assert by_id[chosen].assessment is not None and by_id[chosen].assessment.sqnr_db == best
    assert result.explanation is not None and result.explanation.damage


def test_a_faster_variant_is_chosen_as_well_and_gets_the_same_options(world: World) -> None:
    world.fast = lambda name: 3.0 if name.startswith("int8-u8s8") and "-rr" not in name else 2.0
    result = world.search()
    fast = [trial for trial in result.trials if trial.step == "transfer"]
    assert fast and all(t.id.startswith("int8-u8s8-") and not t.portable for t in fast)
    assert len(result.chosen) == 3  # fp32, the portable one, the fast one
    assert result.chosen[2] in [t.id for t in fast] + ["int8-u8s8"]


def test_int8_that_does_not_pay_is_still_offered(world: World) -> None:
    world.fast = lambda name: 0.5
    result = world.search()
    assert len(result.chosen) == 2  # for its size; nothing slower and unsafe
    assert result.trials[0].id in result.front


def test_listed_variants_are_made_and_chosen_whatever_they_are(world: World) -> None:
    listed = Int8Options(id="int8-mine", per_channel=False, reduce_range=False)
    world.fast = lambda name: 0.1 if name == "int8-mine" else 2.0
    result = world.search(listed=(listed,))
    assert "int8-mine" in result.chosen
    only = world.search(SearchOptions(minutes=0), (listed,))
    assert [trial.id for trial in only.trials] == ["fp32", "int8-mine"]
    assert only.chosen == ("fp32", "int8-mine") and not only.incomplete
    assert only.explanation is not None


def test_a_listed_variant_that_cannot_be_made_fails_the_search(world: World) -> None:
    listed = Int8Options(id="int8-mine", exclude_nodes=("Conv_99",))
    with pytest.raises(QuantizeError, match=r"int8-mine.*Conv_99"):
        world.search(SearchOptions(), (listed,))


# --- the time box ---------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [1, 3, 6])
def test_when_time_is_over_there_is_a_best_so_far(world: World, trials: int) -> None:
    options = replace(EVERYTHING, minutes=(trials - 0.5) / 60)
    result = world.search(options)
    assert result.incomplete and result.untried
    assert len(result.trials) == trials
    assert result.chosen[0] == "fp32"
    assert (len(result.chosen) > 1) == (trials > 1)


def test_stopped_by_the_user(world: World) -> None:
    world.stop_after = 3
    result = world.search()
    assert result.incomplete and len(result.trials) == 3
    assert len(result.chosen) == 2


def test_a_killed_search_continues_where_it_was(world: World) -> None:
    whole = world.search()
    other = World(world.case, world.folder.with_name("other"))
    other.stop_after = 5
    other.search()
    tried = [name for name in other.assessed if name != "quick"]
    again = World(world.case, other.folder)
    result = again.search()
    assert not set(tried) & set(again.assessed)
    assert [t.id for t in result.trials] == [t.id for t in whole.trials]
    assert result.chosen == whole.chosen
    assert result.seconds >= 5  # what the killed run has spent counts


# --- when nothing passes --------------------------------------------------------------------


def float_layers(model: onnx.ModelProto) -> set[str]:
    graph = Graph(model)
    quantized = {weight.node for weight in quantized_weights(graph)}
    return {n.name for n in graph.nodes if n.op_type in onnx_file.WEIGHTED} - quantized


@pytest.mark.parametrize(
    "needed", [{"Conv_0"}, {"Conv_1", "Gemm_0"}, {"Conv_0", "Conv_1", "Conv_2"}]
)
def test_mixed_precision_finds_the_fewest_layers(world: World, needed: set[str]) -> None:
    """A judge who wants some layers in float gets the shortest run of the damage order that has
    them all, unless that is every layer."""
    world.good = lambda name, model: name == "fp32" or needed <= float_layers(model)
    result = world.search()
    assert result.explanation is not None
    order = [row.node for row in result.explanation.damage]
    expected = max(order.index(node) for node in needed) + 1
    passed = [t for t in result.trials if t.precision == "int8" and t.passed]
    if expected == len(order):
        assert not passed
        return
    assert min(len(t.options["exclude_nodes"]) for t in passed) == expected
    (chosen,) = [t for t in passed if t.id in result.chosen]
    assert not chosen.portable and chosen.step == "mixed precision"


def test_fine_tuning_is_the_last_resort(world: World) -> None:
    assert world.search() and not world.tuned
    hard = World(world.case, world.folder.with_name("hard"))
    hard.good = lambda name, model: name == "fp32" or name.endswith("-qat")
    result = hard.search()
    (tuned,) = hard.tuned
    assert tuned in result.chosen
    assert steps(result)[-2:] == ["mixed precision", "fine-tuning"]
    assert {"transfer", "bias correction"} <= set(steps(result))


def test_when_nothing_helps_only_fp32_remains(world: World) -> None:
    world.good = lambda name, model: name == "fp32"
    result = world.search()
    assert result.chosen == ("fp32",) and result.front == ("fp32",)
    assert result.explanation is not None  # why


# --- what goes wrong on the way -------------------------------------------------------------


def test_a_variant_that_breaks_is_noted_and_passed_over(world: World) -> None:
    """NaN from an overflow, a fine-tuning that cannot be traced: the best so far is kept."""
    healthy = world.assess

    def assess(model: bytes, name: str, portable: bool) -> Assessment:
        if name == "int8-u8u8":
            raise ExportError("the model gave values from nan to nan")
        return healthy(model, name, portable)

    world.assess = assess  # type: ignore[method-assign]
    result = world.search()
    by_id = {trial.id: trial for trial in result.trials}
    assert by_id["int8-u8u8"].error == "the model gave values from nan to nan"
    assert not result.incomplete and len(result.chosen) == 2


def test_a_search_whose_models_were_discarded_starts_again(world: World) -> None:
    whole = world.search()
    log = SearchLog(world.folder)
    log.discard_models()
    assert not list(world.folder.rglob("*.onnx"))
    again = World(world.case, world.folder)
    result = again.search()
    assert set(again.assessed) >= {trial.id for trial in whole.trials}
    assert [trial.id for trial in result.trials] == [trial.id for trial in whole.trials]
    assert result.chosen == whole.chosen and len(result.chosen) > 1
    assert not result.incomplete


def test_a_listed_variant_with_a_name_of_the_search_hides_nothing(world: World) -> None:
    listed = Int8Options(id="int8-u8s8-rr", per_channel=False)
    result = world.search(listed=(listed,))
    by_id = {trial.id: trial for trial in result.trials}
    assert by_id["int8-u8s8-rr"].options["per_channel"] is False
    assert by_id["int8-u8s8-rr-search"].options["per_channel"] is True


@pytest.mark.parametrize("ids", [("int8-a", "int8-a"), ("fp32",), ("int8 a",)])
def test_listed_variants_have_different_names_of_their_kind(ids: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"quantize\.int8 has the ids"):
        QuantizeOptions(int8=tuple(Int8Options(id=name) for name in ids))


FULL = pytest.mark.skipif(
    os.name != "posix" or not Path("/dev/full").exists(), reason="not run: needs /dev/full"
)


@FULL
@pytest.mark.parametrize("name", ["trials.jsonl.partial", "models/int8-u8s8.onnx.partial"])
def test_a_full_disk_is_named_and_the_same_search_continues(world: World, name: str) -> None:
    (world.folder / "models").mkdir(parents=True)
    world.stop_after = 2  # fp32 and one form
    world.search()
    before = {file: file.read_bytes() for file in world.folder.rglob("*") if file.is_file()}
    world.stop_after = 10**9
    (world.folder / name).symlink_to("/dev/full")
    with pytest.raises(ExportError) as caught:
        world.search()
    message = str(caught.value)
    assert message.startswith(
        f"the trials in {world.folder} cannot be written: No space left on dev"
    )
    assert "Free some space or choose another folder; finished trials are kept" in message
    files = [file for file in world.folder.rglob("*") if file.is_file() or file.is_symlink()]
    assert {file: file.read_bytes() for file in files} == before
    world.assessed.clear()
    result = world.search()
    assert not result.incomplete and result.trials[0].id not in world.assessed


@FULL
def test_a_full_disk_inside_a_stage_has_the_words_of_the_log(tmp_path: Path, digits: Any) -> None:
    """The runner puts the stage's name before it, and nothing else."""
    (tmp_path / "trials.jsonl.partial").symlink_to("/dev/full")
    log = SearchLog(tmp_path)
    with pytest.raises(ExportError) as caught:
        log.add(Trial("int8-a", "int8", "schemes", {}, 0.1), digits.model)
    assert str(StageError("quantize", caught.value)) == str(caught.value)
    assert [file.name for file in tmp_path.rglob("*")] == ["models"]
    assert log.trials == () and log.find("int8-a") is None


def test_temporary_files_that_cannot_be_written_do_not_blame_a_form(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tune(options: Int8Options) -> tuple[onnx.ModelProto, ActivationStatistics]:
        raise OSError(errno.ENOSPC, "No space left on device", "temporary/a.onnx")

    world.good = lambda name, model: name == "fp32"
    monkeypatch.setattr(world, "fine_tune", tune)
    with pytest.raises(ExportError, match=r"temporary/a\.onnx: No space.*set TMPDIR"):
        world.search()
    assert not any(trial.error for trial in SearchLog(world.folder).trials)
