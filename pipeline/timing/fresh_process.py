"""The cost of the first answer in a fresh process: starts ``child.py`` and reads its figures."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.timing.values import Process
from runtime.spec import ModelSpec

_CHILD = Path(__file__).with_name("child.py")


def measure_process(
    spec: ModelSpec,
    model: Path,
    *,
    preprocess: Path | None = None,
    thresholds: Sequence[float] | None = None,
    variant: str = "fp32",
    portable: bool = True,
    device: str = "cpu",
    threads: int | None = None,
    repeats: int = 3,
    answers: int = 20,
) -> Process:
    """Cold start and memory of the shipped predictor (numpy and onnxruntime only).

    ``model`` and ``preprocess`` are ONNX files. Raises PipelineError when the process fails.
    """
    options = {
        "thresholds": None if thresholds is None else list(thresholds),
        "variant": variant,
        "portable": portable,
        "device": device,
        "threads": threads,
    }
    request = {
        "spec": spec.to_dict(),
        "model": str(model),
        "preprocess": None if preprocess is None else str(preprocess),
        "shape": [1, *spec.shape],
        "options": options,
        "answers": answers,
    }
    return _measure(request, repeats)


def measure_function_process(
    function: str,
    options: Mapping[str, Any],
    shape: Sequence[int],
    *,
    repeats: int = 3,
    answers: int = 20,
) -> Process:
    """Cold start and memory of anything else, such as the network in PyTorch.

    ``function`` is "module:name"; it is called in a fresh process with ``options`` (JSON values)
    and returns a callable, which then takes uint8 images of ``shape`` [1, h, w, c].
    """
    module, _, name = function.partition(":")
    request = {
        "module": module,
        "function": name,
        "options": dict(options),
        "shape": [int(size) for size in shape],
        "answers": answers,
    }
    return _measure(request, repeats)


def _measure(request: dict[str, Any], repeats: int) -> Process:
    text = json.dumps({**request, "paths": _import_paths()})
    rows = [_run_child(text) for _ in range(max(repeats, 1))]
    return Process(
        cold_start_ms=statistics.median(row["cold_ns"] for row in rows) / 1e6,
        rss_mb=_median_mb([row["rss"] for row in rows]),
        peak_rss_mb=_median_mb([row["peak"] for row in rows]),
        n=len(rows),
    )


def _median_mb(sizes: Sequence[int | None]) -> float | None:
    measured = [size for size in sizes if size is not None]
    return statistics.median(measured) / 1e6 if measured else None


def _import_paths() -> list[str]:
    """The import path of this process, so that the fresh one finds the same modules."""
    return [path or str(Path.cwd()) for path in sys.path]


def _run_child(request: str) -> dict[str, Any]:
    command = [sys.executable, "-I", str(_CHILD)]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PipelineError(f"the fresh process that is timed did not finish: {exc}.") from exc
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-5:]) or "no message"
        raise PipelineError(
            f"the fresh process that is timed ended with exit code {done.returncode}:\n{last}"
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
