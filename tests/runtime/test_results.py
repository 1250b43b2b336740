"""Answers as values."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import AttributePrediction, Candidate, InputError, Prediction

LABELS = ("zero", "one", "two")
ANSWER = Prediction.from_probabilities((0.2, 0.5, 0.3), LABELS)
FACE = AttributePrediction.from_probabilities((0.5, 0.49, 0.9), LABELS, (0.5, 0.5, 0.95))


def test_the_most_probable_label_is_the_answer() -> None:
    assert (ANSWER.label, ANSWER.index, ANSWER.probability) == ("one", 1, 0.5)
    assert ANSWER.top(2) == (Candidate("one", 1, 0.5), Candidate("two", 2, 0.3))
    assert len(ANSWER.top(99)) == 3


def test_of_equals_the_first_comes_first() -> None:
    answer = Prediction.from_probabilities((0.4, 0.2, 0.4), LABELS)
    assert [candidate.index for candidate in answer.top(3)] == [0, 2, 1]
    assert answer.index == 0


def test_top_needs_at_least_one_candidate() -> None:
    for k in (0, -1, 1.5, "x"):
        with pytest.raises(InputError, match=r"top\(.*\) asks for no label"):
            ANSWER.top(k)  # type: ignore[arg-type]


def test_an_attribute_is_present_from_its_threshold_upwards() -> None:
    assert FACE.present == ("zero",)
    assert FACE["two"].probability == 0.9 and not FACE["two"].present


def test_an_unknown_attribute_names_those_that_exist() -> None:
    with pytest.raises(InputError, match="no attribute 'Smile'; it has: zero, one, two"):
        FACE["Smile"]


def test_answers_are_frozen_and_plain_json() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ANSWER.label = "two"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        FACE["two"].present = True  # type: ignore[misc]
    assert json.loads(json.dumps(ANSWER.to_dict(top=1)))["top"] == [
        {"label": "one", "index": 1, "probability": 0.5}
    ]
    assert json.loads(json.dumps(FACE.to_dict()))["present"] == ["zero"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_candidates_are_a_sorted_permutation(probabilities: list[float]) -> None:
    labels = tuple(map(str, range(len(probabilities))))
    answer = Prediction.from_probabilities(tuple(probabilities), labels)
    top = answer.top(len(labels))
    assert sorted(candidate.index for candidate in top) == list(range(len(labels)))
    assert [candidate.probability for candidate in top] == sorted(probabilities, reverse=True)
    assert top[0].index == answer.index
