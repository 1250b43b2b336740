"""trial.py and search_log.py: the front, and trials that survive a kill."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from exporters.evaluate.parity_values import Assessment
from exporters.quantize.saturation_values import LayerSaturation
from exporters.search.search_log import TRIALS_NAME, SearchLog
from exporters.search.trial import Speed, Trial, pareto_front


def trial(
    name: str,
    lost: float = 0.0,
    speedup: float = 1.0,
    size: int = 1000,
    passed: bool = True,
    **more: Any,
) -> Trial:
    return Trial(
        name,
        name.partition("-")[0],
        "schemes",
        {"per_channel": True},
        0.5,
        size_bytes=size,
        assessment=Assessment(passed, () if passed else ("too bad",), 99 - lost, lost, 0.1, 40.0),
        speed=Speed(1 / speedup, speedup, speedup),
        **more,
    )


@pytest.mark.parametrize(
    ("trials", "front"),
    [
        ([trial("fp32")], ("fp32",)),
        # faster and smaller, a little less accurate: both stay
        ([trial("fp32", size=4000), trial("int8", 0.1, 2.0)], ("int8", "fp32")),
        # as accurate, faster and smaller: FP32 is beaten
        ([trial("fp32", size=4000), trial("int8", 0.0, 2.0)], ("int8",)),
        # a few answers more or less are luck, not accuracy
        ([trial("fp32"), trial("int8", -0.04, 1.0)], ("fp32", "int8")),
        # within 2 % of the speed: the more accurate one beats the other
        ([trial("int8-a", 0.2, 2.0), trial("int8-b", 0.01, 1.97)], ("int8-b",)),
        ([trial("int8-a", 0.2, 2.0), trial("int8-b", 0.01, 1.9)], ("int8-a", "int8-b")),
        # what failed the gate is on no front
        ([trial("fp32"), trial("int8", 0.0, 3.0, 10, passed=False)], ("fp32",)),
        ([], ()),
    ],
)
def test_front(trials: list[Trial], front: tuple[str, ...]) -> None:
    assert pareto_front(trials) == front


def test_a_trial_that_could_not_be_made_is_on_no_front() -> None:
    failed = Trial("int8", "int8", "schemes", {}, 0.1, error="no kernel")
    assert not failed.passed and failed.speedup == 0
    assert pareto_front([failed, trial("fp32")]) == ("fp32",)


def test_trials_come_back_as_they_were(tmp_path: Path, digits: Any) -> None:
    log = SearchLog(tmp_path)
    first = trial("int8-a", saturation=(LayerSaturation("Conv_0", 0.25, 3.5),), timed_as="int8")
    second = Trial("int8-b", "int8", "schemes", {}, 0.1, error="no kernel")
    log.add(first, digits.model)
    log.add(second, None)
    again = SearchLog(tmp_path)
    assert again.trials == (first, second)
    assert again.find("int8-a") == first and again.find("int8-b") == second
    assert again.model("int8-a") == digits.model
    assert again.find("int8-c") is None


def test_a_trial_without_its_model_is_tried_again(tmp_path: Path, digits: Any) -> None:
    log = SearchLog(tmp_path)
    log.add(trial("int8-a"), digits.model)
    log.path("int8-a").unlink()
    assert SearchLog(tmp_path).find("int8-a") is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"id": "x"}', ""])
def test_what_a_kill_cut_short_is_tried_again(tmp_path: Path, digits: Any, damage: str) -> None:
    log = SearchLog(tmp_path)
    log.add(trial("int8-a"), digits.model)
    log.add(trial("int8-b"), digits.model)
    file = tmp_path / TRIALS_NAME
    lines = file.read_text().splitlines()
    file.write_text(f"{lines[0]}\n{damage}\n")
    assert [row.id for row in SearchLog(tmp_path).trials] == ["int8-a"]


def test_lines_are_json(tmp_path: Path, digits: Any) -> None:
    log = SearchLog(tmp_path)
    log.add(trial("int8-a"), digits.model)
    (line,) = (tmp_path / TRIALS_NAME).read_text().splitlines()
    assert Trial.from_dict(json.loads(line)) == trial("int8-a")
    assert json.loads(line) == json.loads(json.dumps(dataclasses.asdict(trial("int8-a"))))
