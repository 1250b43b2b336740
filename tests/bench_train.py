"""Train the digit recipe with several seeds, and the textbook's beside it, through the command
line; print and write what came out. Long, and resumable: what is finished is skipped by the
engine, and a killed training goes on where it was.

    make bench-train
    python tests/bench_train.py --artifacts FOLDER [--seeds 0 1 2] [--textbook] [--set KEY=VALUE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.cli import STAGE_NAMES
from pipeline.hardware import detect
from pipeline.store import Store

RESULTS_NAME = "results.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts/bench-train"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--textbook", action="store_true", help="the textbook's network as well")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    recipes = ["mnist", *(["mnist-textbook"] if options.textbook else [])]
    rows: list[dict[str, Any]] = []
    for recipe in recipes:
        for seed in options.seeds:
            folder = options.artifacts / f"seed-{seed}"
            command = [sys.executable, "-m", "pipeline", "run", "validate", "--recipe", recipe]
            command += ["--seed", str(seed), "--artifacts", str(folder)]
            for change in options.changes:
                command += ["--set", change]
            done = subprocess.run(command, check=False)
            if done.returncode:
                return done.returncode  # the command has said why, and how to go on
            rows.append({**_row(folder, recipe, seed), "changes": options.changes})
            _write(options.artifacts / RESULTS_NAME, rows)
    _print(rows)
    return 0


def _row(folder: Path, recipe: str, seed: int) -> dict[str, Any]:
    """What the stages' own records say of one run."""
    store = Store(folder, recipe, STAGE_NAMES)
    train, validate = store.record("train"), store.record("validate")
    assert train is not None and validate is not None  # the command has just succeeded
    result, report = train.report["result"], validate.report
    return {
        "recipe": recipe,
        "seed": seed,
        "accuracy_percent": report["reference"]["accuracy_percent"],
        "variants": {
            row["id"]: {"accuracy_percent": row["accuracy_percent"], "passed": row["passed"]}
            for row in report["variants"]
        },
        "parameters": result["parameters"],
        "epochs": result["epochs"],
        "cpu_seconds": result["cpu_seconds"],
        "wall_seconds": result["wall_seconds"],
    }


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    text = json.dumps({"caption": detect().caption(), "runs": rows}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def _print(rows: list[dict[str, Any]]) -> None:
    variants = list(dict.fromkeys(name for row in rows for name in row["variants"]))
    header = ("recipe", "seed", "PyTorch %", *(f"{name} %" for name in variants))
    table = Table(*header, "CPU-seconds", "parameters", box=None)
    for cells in _cells(rows, variants):
        table.add_row(*cells)
    console = Console(width=120, highlight=False)
    console.print("\nAccuracy on the test split, CPU-seconds of training")
    console.print(table)
    console.print(detect().caption(), soft_wrap=True)


def _cells(rows: list[dict[str, Any]], variants: list[str]) -> Iterator[list[str]]:
    """One line for each run, then the means of its recipe."""
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        mine = [row for row in rows if row["recipe"] == recipe]
        numbers = [_numbers(row, variants) for row in mine]
        for row, values in zip(mine, numbers, strict=True):
            yield [recipe, str(row["seed"]), *_texts(values), f"{row['parameters']:,}"]
        means = [statistics.fmean(column) for column in zip(*numbers, strict=True)]
        yield [recipe, "mean", *_texts(means, digits=3), ""]


def _numbers(row: dict[str, Any], variants: list[str]) -> list[float]:
    found = [
        row["variants"].get(name, {}).get("accuracy_percent", float("nan")) for name in variants
    ]
    return [row["accuracy_percent"], *found, row["cpu_seconds"]]


def _texts(values: list[float], digits: int = 2) -> list[str]:
    *percents, cpu_seconds = values
    return [*(f"{value:.{digits}f}" for value in percents), f"{cpu_seconds:.0f}"]


if __name__ == "__main__":
    sys.exit(main())
