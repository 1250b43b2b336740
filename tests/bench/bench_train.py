"""Train the digit recipe with several seeds, the same on a short schedule, and the textbook's
recipe, through the command line; print and write the results. Takes long, and resumes: the engine
skips finished runs, and a killed training continues from its last checkpoint.

The bound: the CPU time to the accuracy of the textbook chapter (99.14 % of the test images) is at
most a twentieth of the textbook recipe's own, both measured in this run. The test split is read
once a training, at its end. So "the time to 99.14 %" is the whole training time of a run with a
short schedule (``--short-epochs``) whose finished network has that accuracy with every seed. It is
compared with the textbook's whole training.

    make bench-train
    python tests/bench/bench_train.py --artifacts FOLDER [--seeds 0 1 2] [--textbook]
        [--set KEY=VALUE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from exporters.files import write_text
from pipeline.cli.selection import STAGE_NAMES
from pipeline.engine.store import Store
from pipeline.hardware import detect
from pipeline.reports import TrainReport, ValidateReport

RESULTS_NAME = "results.json"
SHORT = "mnist, short"
PRECISIONS = ("fp32", "fp16", "int8")
TARGET_PERCENT = 99.14  # of the test images, by the textbook chapter
MOST = 1 / 20  # of the textbook's CPU time


@dataclass(frozen=True)
class Plan:
    """One kind of training."""

    title: str
    recipe: str
    folder: str  # of its artifacts, one for each seed
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The short runs against the textbook's, for the same seeds."""

    target_percent: float
    lowest_percent: float  # of the short runs, on the test split
    cpu_seconds: float  # the longest of the short runs, of training
    textbook_cpu_seconds: float  # the shortest of the textbook's
    share: float
    passed: bool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts/bench-train"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--textbook", action="store_true", help="Train the textbook's network as well."
    )
    parser.add_argument(
        "--short-epochs",
        type=int,
        default=3,
        metavar="N",
        help="Epochs of the short runs; 0: no short runs. Default: 3.",
    )
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="Change a key of mnist and its short runs, not of the textbook's recipe.",
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for plan in _plans(options):
        for seed in options.seeds:
            if code := _run(plan, seed, options.artifacts):
                return code  # the command has printed why, and how to resume
            rows.append(_row(plan, seed, options.artifacts))
            _write(options.artifacts / RESULTS_NAME, rows, verdict(rows))
    outcome = verdict(rows)
    _print(rows, outcome)
    return 0 if outcome is None or outcome.passed else 1


def _plans(options: argparse.Namespace) -> Iterator[Plan]:
    changes = tuple(options.changes)
    yield Plan("mnist", "mnist", "seed-{seed}", changes)
    if options.short_epochs:
        short = (*changes, f"train.epochs={options.short_epochs}")
        yield Plan(SHORT, "mnist", "short-seed-{seed}", short)
    if options.textbook:
        yield Plan("mnist-textbook", "mnist-textbook", "seed-{seed}")


def _run(plan: Plan, seed: int, artifacts: Path) -> int:
    folder = artifacts / plan.folder.format(seed=seed)
    command = [sys.executable, "-m", "pipeline", "run", "validate", "--recipe", plan.recipe]
    command += ["--seed", str(seed), "--artifacts", str(folder)]
    for change in plan.changes:
        command += ["--set", change]
    return subprocess.run(command, check=False).returncode


def _row(plan: Plan, seed: int, artifacts: Path) -> dict[str, Any]:
    """The figures of one run, from the records of its stages."""
    store = Store(artifacts / plan.folder.format(seed=seed), plan.recipe, STAGE_NAMES)
    train, validate = store.report("train", TrainReport), store.report("validate", ValidateReport)
    assert train is not None and validate is not None  # the command has just succeeded
    result = train.result
    return {
        "recipe": plan.title,
        "seed": seed,
        "changes": list(plan.changes),
        "accuracy_percent": validate.reference.accuracy_percent,
        "variants": {
            row.id: {"accuracy_percent": row.accuracy_percent, "passed": row.verdict.passed}
            for row in validate.variants
        },
        "parameters": result.parameters,
        "epochs": result.epochs,
        "cpu_seconds": result.cpu_seconds,
        "wall_seconds": result.wall_seconds,
    }


def verdict(rows: Sequence[dict[str, Any]]) -> Verdict | None:
    """The worst short run against the best of the textbook's, so that the choice of seeds does not
    matter; None without either."""
    short = [row for row in rows if row["recipe"] == SHORT]
    textbook = [row for row in rows if row["recipe"] == "mnist-textbook"]
    if not short or not textbook:
        return None
    lowest = min(row["accuracy_percent"] for row in short)
    longest = max(row["cpu_seconds"] for row in short)
    shortest = min(row["cpu_seconds"] for row in textbook)
    reached = round(lowest, 6) >= TARGET_PERCENT  # 9,914 of 10,000 is enough
    passed = reached and longest <= MOST * shortest
    return Verdict(TARGET_PERCENT, lowest, longest, shortest, longest / shortest, passed)


def _write(file: Path, rows: list[dict[str, Any]], outcome: Verdict | None) -> None:
    results = {
        "caption": detect().caption(),
        "runs": rows,
        "verdict": None if outcome is None else asdict(outcome),
    }
    write_text(file, json.dumps(results, indent=1) + "\n")


def _print(rows: list[dict[str, Any]], outcome: Verdict | None) -> None:
    header = ("recipe", "seed", "PyTorch %", *(f"{name} %" for name in PRECISIONS))
    table = Table(*header, "CPU-seconds", "epochs", "parameters", box=None)
    for cells in _cells(rows):
        table.add_row(*cells)
    console = Console(width=130, highlight=False)
    console.print("\nAccuracy on the test split, CPU-seconds of training")
    console.print(table)
    console.print(detect().caption(), soft_wrap=True)
    if outcome is not None:
        console.print(f"\n{sentence(outcome)}", soft_wrap=True)


def sentence(verdict: Verdict) -> str:
    """The verdict as a sentence."""
    return (
        f"CPU time to {verdict.target_percent} %: whole trainings on a short schedule end at "
        f"{verdict.lowest_percent:.2f} % or more of the test images after at most "
        f"{verdict.cpu_seconds:.0f} CPU-seconds, 1/{1 / verdict.share:.1f} of the textbook's whole "
        f"training ({verdict.textbook_cpu_seconds:.0f}); bound 1/{1 / MOST:.0f}: "
        f"{'kept' if verdict.passed else 'NOT kept'}. (The test split is read once, at the end of "
        "each training, so the schedule is planned and not cut where the accuracy is reached.)"
    )


def _cells(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    """One line for each run, then the means of its recipe."""
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        mine = [row for row in rows if row["recipe"] == recipe]
        numbers = [_numbers(row) for row in mine]
        for row, values in zip(mine, numbers, strict=True):
            last = [str(row["epochs"]), f"{row['parameters']:,}"]
            yield [recipe, str(row["seed"]), *_texts(values), *last]
        means = [statistics.fmean(column) for column in zip(*numbers, strict=True)]
        yield [recipe, "mean", *_texts(means, digits=3), "", ""]


def _numbers(row: dict[str, Any]) -> list[float]:
    """Accuracies by precision, and CPU-seconds. Each seed's search may prefer another INT8 variant;
    the first one counts."""
    by_precision = {}
    for name, variant in reversed(row["variants"].items()):
        by_precision[name.partition("-")[0]] = variant["accuracy_percent"]
    percents = [by_precision.get(precision, float("nan")) for precision in PRECISIONS]
    return [row["accuracy_percent"], *percents, row["cpu_seconds"]]


def _texts(values: list[float], digits: int = 2) -> list[str]:
    *percents, cpu_seconds = values
    return [*(f"{value:.{digits}f}" for value in percents), f"{cpu_seconds:.0f}"]


if __name__ == "__main__":
    sys.exit(main())
