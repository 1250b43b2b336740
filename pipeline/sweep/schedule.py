"""The order of a sweep. Trials that share their first stages run those once.

Trials whose recipes agree in all that decides the stages up to some point have the same results
up to there: ``quantize.*`` varied, and one training serves all. Such a common beginning is a step
of its own, run once, in the folder of its first trial; the others take it over. Steps form a tree.
Independent of folders and processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.engine.stage import Stage
from pipeline.sweep.grid import Trial
from pipeline.teacher import teachers_of


@dataclass(frozen=True)
class Step:
    """Bring one trial up to a stage; then its followers may start."""

    trial: Trial
    goal: str  # a stage
    final: bool  # the trial has nothing more to do
    followers: tuple[Step, ...] = field(default=())
    for_teacher: bool = False  # what the followers wait for is the trial's teacher

    @property
    def name(self) -> str:
        """Distinct within a sweep."""
        return f"{self.trial.name} {self.goal}"

    def finals(self) -> tuple[Trial, ...]:
        """The trials that this step and all behind it bring to their end."""
        own = (self.trial,) if self.final else ()
        return own + tuple(trial for step in self.followers for trial in step.finals())


def steps(trials: Sequence[Trial], stages: Sequence[Stage[Any]]) -> tuple[Step, ...]:
    """The steps that can start at once, with all others behind them, to bring every trial
    through ``stages``. A teacher is trained with the first of its trials; the others wait."""
    result: list[Step] = []
    for group in _by_teachers(trials):
        branches = _branches(group, list(stages), 0)
        if len(group) > 1 and teachers_of(group[0].recipe):
            branches = (Step(group[0], "train", False, branches, for_teacher=True),)
        result += branches
    return tuple(result)


def _by_teachers(trials: Sequence[Trial]) -> list[list[Trial]]:
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        teachers = [teacher.model_dump_json() for teacher in teachers_of(trial.recipe)]
        groups.setdefault(json.dumps(teachers), []).append(trial)
    return list(groups.values())


def _branches(trials: list[Trial], stages: list[Stage[Any]], depth: int) -> tuple[Step, ...]:
    """Steps for trials that agree in all stages before ``depth``."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_key(trial, stages[depth]), []).append(trial)
    return tuple(step for group in groups.values() for step in _group(group, stages, depth))


def _group(group: list[Trial], stages: list[Stage[Any]], depth: int) -> tuple[Step, ...]:
    """Steps for trials that agree in the stage at ``depth`` as well."""
    goal = stages[-1].name
    if len(group) == 1:
        return (Step(group[0], goal, final=True),)
    if depth == len(stages) - 1:  # they are the same to the end, as when only [package] differs
        others = tuple(Step(trial, goal, final=True) for trial in group[1:])
        return (Step(group[0], goal, final=True, followers=others),)
    behind = _branches(group, stages, depth + 1)
    if len({_key(trial, stages[depth + 1]) for trial in group}) == 1:
        return behind  # they part later
    return (Step(group[0], stages[depth].name, final=False, followers=behind),)


def _key(trial: Trial, stage: Stage[Any]) -> str:
    """The recipe's part of a stage. All else that decides it (sources, libraries, the
    machine) is the same for all trials; that it really was, fingerprints check at the end."""
    return json.dumps(trial.recipe.slice(stage.sections), sort_keys=True)
