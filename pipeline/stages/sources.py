"""Sources that several stages name; see ``Stage.sources``."""

from __future__ import annotations

VALUES = ("exporters/errors.py", "exporters/files.py", "exporters/options.py")
TASKS = ("pipeline/tasks", "exporters/evaluate", *VALUES)
DATA = ("pipeline/datasets/arrays.py", "pipeline/datasets/info.py")  # the arrays on disk
LEARNING = ("pipeline/learning", "pipeline/user_code.py", "pipeline/processes.py", *TASKS)
EXPORTED = ("exporters/graph", *VALUES)
SEARCHED = (  # a search's result, as values
    *("exporters/search/result.py", "exporters/search/explanation.py"),
    *("exporters/search/trial.py", "exporters/quantize/saturation_values.py"),
)
SPEC = (  # the part of the runtime that a training depends on: no predictor, no bundle
    *("runtime/cpu.py", "runtime/errors.py", "runtime/origin.py", "runtime/output_spec.py"),
    *("runtime/plain_text.py", "runtime/regular_file.py", "runtime/spec.py"),
    *("runtime/strict_json.py", "runtime/tasks"),
)
