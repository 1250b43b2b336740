"""Sources that several stages name; see ``Stage.sources``."""

from __future__ import annotations

DATA = ("pipeline/datasets/arrays.py", "pipeline/datasets/info.py")  # the arrays on disk
LEARNING = ("pipeline/learning", "pipeline/user_code.py", "pipeline/processes.py")
EXPORTED = ("exporters/errors.py", "exporters/files.py", "exporters/options.py", "exporters/graph")
SEARCHED = (  # a search's result, as values
    *("exporters/search/result.py", "exporters/search/explanation.py"),
    *("exporters/search/trial.py", "exporters/quantize/saturation_values.py"),
)
