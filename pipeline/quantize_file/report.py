"""``quantize.json``: the result of `quantize-onnx` as a value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from exporters.files import write_text
from exporters.foreign.float_parts import LeftInFloat
from exporters.search.explanation import Explanation
from exporters.search.trial import Trial
from pipeline.engine.digests import file_sha256
from pipeline.errors import PipelineError

REPORT_NAME = "quantize.json"
REPORT_VERSION = "3"  # part of the identity, so that an older report does not count as damaged


@dataclass(frozen=True)
class ModelFile:
    """One INT8 model next to ``quantize.json``."""

    name: str
    trial: str
    sha256: str
    size_bytes: int
    bound_points: float | None  # that it loses at most, with 95 % confidence; None: of values
    proven: bool = True  # False: not shown to be equal to FP32


@dataclass(frozen=True)
class QuantizeFileReport:
    """The search, its verdict and the files that it left."""

    identity: str  # of model, data, options and libraries
    model: str
    judged_by: str  # the criterion, for people
    judges: int  # images
    figure: str  # what accuracy_percent of the trials holds: "right %", "as fp32 %", "signal %"
    notes: tuple[str, ...]
    left_in_float: tuple[LeftInFloat, ...]
    trials: tuple[Trial, ...]
    files: tuple[ModelFile, ...]  # the best first
    verdict: tuple[str, ...]  # for people
    seconds: float
    incomplete: bool
    hardware: str  # what the speeds were measured on
    explanation: Explanation | None  # where INT8 hurts

    @property
    def passed(self) -> bool:
        """True when an INT8 file was written that is shown to be equal."""
        return any(file.proven for file in self.files)


def write_report(folder: Path, report: QuantizeFileReport) -> None:
    """Replace ``quantize.json``."""
    write_text(folder / REPORT_NAME, json.dumps(asdict(report), indent=1, allow_nan=False) + "\n")


def finished_report(folder: Path, identity: str) -> QuantizeFileReport | None:
    """The report of a finished run with this identity, if all its files are unchanged. Raises
    PipelineError when it is damaged."""
    try:
        text = (folder / REPORT_NAME).read_text(encoding="utf-8")
        content = json.loads(text)
        if content["identity"] != identity or content["incomplete"]:
            return None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    try:
        report = TypeAdapter(QuantizeFileReport).validate_json(text, strict=True)
    except ValidationError as exc:
        raise PipelineError(
            f"{folder / REPORT_NAME} is damaged ({exc.errors()[0]['msg']}); delete it and run "
            "again."
        ) from exc
    unchanged = all(
        (folder / file.name).is_file() and file_sha256(folder / file.name) == file.sha256
        for file in report.files
    )
    return report if unchanged else None
