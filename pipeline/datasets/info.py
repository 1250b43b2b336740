"""What is known of a data set, as a value. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set, for the log, the report and the bundle."""

    name: str
    task: str  # "multi-class" or "multi-label", as in ModelSpec
    labels: tuple[str, ...]
    counts: dict[str, int]  # images in each split
    sha256: str  # over the source files (or over what generates them)
    synthetic: bool
    redistributable: bool
    license: str
    notes: tuple[str, ...] = ()  # what a reader must know, such as rows without an image
    # what must not be parted between splits: where its names come from, and how many each split has
    grouped_by: str | None = None
    groups: dict[str, int] = field(default_factory=dict)
