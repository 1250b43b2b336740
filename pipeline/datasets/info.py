"""Facts about a data set, as a value. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set, for the log, the report and the bundle."""

    name: str
    task: str  # as in ModelSpec
    labels: tuple[str, ...]
    counts: dict[str, int]  # images in each split
    sha256: str  # over the source files (or over what generates them)
    synthetic: bool
    redistributable: bool
    license: str
    notes: tuple[str, ...] = ()  # for the reader of the figures, such as rows without an image
    # groups are not divided between splits: where their names come from, how many each split has
    grouped_by: str | None = None
    groups: dict[str, int] = field(default_factory=dict)
