"""``failure.json``: why the last run of a recipe failed, for programs that started it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

FAILURE_NAME = "failure.json"


@dataclass(frozen=True)
class Failure:
    """The end of a run that failed."""

    stage: str
    message: str
    exit_code: int


def write_failure(folder: Path, failure: Failure | None) -> None:
    """Leave ``failure`` in the folder of a recipe, or remove an older one. A disk that cannot be
    written, which may be the failure itself, raises nothing."""
    file = folder / FAILURE_NAME
    with suppress(OSError):
        if failure is None and file.exists():
            file.unlink()
        elif failure is not None:
            file.write_text(json.dumps(asdict(failure), indent=1) + "\n", encoding="utf-8")


def read_failure(folder: Path) -> Failure | None:
    """The failure that the last run left in the folder of a recipe; None without one."""
    try:
        return Failure(**json.loads((folder / FAILURE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
