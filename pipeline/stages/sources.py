"""Sources that several stages name; see ``Stage.sources``."""

from __future__ import annotations

VALUES = ("exporters/errors.py", "exporters/files.py", "exporters/options.py")
DATA = (  # the arrays on disk, and what their labels mean
    *("pipeline/datasets/arrays.py", "pipeline/datasets/info.py"),
    "pipeline/tasks",
)
METRICS = ("exporters/evaluate/metrics.py", "exporters/evaluate/probabilities.py")
LEARNING = (
    *("pipeline/learning", "pipeline/user_code.py", "pipeline/processes.py"),
    *METRICS,
)
EXPORTED = ("exporters/graph", *VALUES)
SEARCHED = (  # a search's result, as values
    *("exporters/search/result.py", "exporters/search/explanation.py"),
    *("exporters/search/trial.py", "exporters/quantize/saturation_values.py"),
)
SPEC = (  # the part of the runtime that a training depends on: no predictor, no bundle
    *("runtime/cpu.py", "runtime/errors.py", "runtime/graph_names.py", "runtime/origin.py"),
    *("runtime/output_spec.py", "runtime/plain_text.py", "runtime/regular_file.py"),
    *("runtime/spec.py", "runtime/strict_json.py", "runtime/tasks"),
)
