"""Measures the cold start and the memory of one callable; run as a program, in a fresh process.

The process is isolated (``python -I``), so that neither the environment nor the current folder
changes what it imports: ``paths`` are the caller's. The clock starts before numpy is imported, so
nothing else may be imported at the top. The request is read as JSON from standard input, the
figures are printed as JSON."""

from __future__ import annotations

import json
import sys
import time

TYPE_CHECKING = False  # as in typing, which takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def main() -> None:
    """Read the request, measure, print."""
    request = json.load(sys.stdin)
    sys.path[:] = request["paths"]
    start = time.perf_counter_ns()
    run = _function(request) if "function" in request else _predictor(request)
    import numpy as np

    shape = request["shape"]
    images = np.arange(np.prod(shape)).astype("uint8").reshape(shape)
    run(images)
    cold_ns = time.perf_counter_ns() - start
    for _ in range(request["answers"]):
        run(images)
    rss, peak = _resident_bytes()
    print(json.dumps({"cold_ns": cold_ns, "rss": rss, "peak": peak}))


def _predictor(request: dict[str, Any]) -> Callable[[Any], Any]:
    """The predictor that ships, from its parts."""
    from runtime import Predictor
    from runtime.spec import ModelSpec

    preprocess, options = request["preprocess"], request["options"]
    if options["thresholds"] is not None:
        options["thresholds"] = tuple(options["thresholds"])
    return Predictor.from_parts(
        ModelSpec.from_dict(request["spec"]),
        None if preprocess is None else _content(preprocess),
        _content(request["model"]),
        **options,
    )


def _content(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123  pathlib may not be imported yet
        return file.read()


def _function(request: dict[str, Any]) -> Callable[[Any], Any]:
    """The callable that a function of any module returns."""
    import importlib

    module = importlib.import_module(request["module"])
    run: Callable[[Any], Any] = getattr(module, request["function"])(**request["options"])
    return run


def _resident_bytes() -> tuple[int | None, int | None]:
    """Resident memory now, and the most that was ever resident; None where that is unknown."""
    try:
        with open("/proc/self/status") as file:  # noqa: PTH123  likewise
            rows = dict(line.split(":", 1) for line in file)
        return int(rows["VmRSS"].split()[0]) * 1024, int(rows["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    unit = 1 if sys.platform == "darwin" else 1024
    return None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
