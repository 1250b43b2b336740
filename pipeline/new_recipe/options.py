"""The options of ``pipeline init``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.recipe import DataOptions


@dataclass(frozen=True)
class NewRecipeOptions:
    """What the recipe is called and where its images and labels are."""

    name: str
    data: Path  # a folder
    label_file: Path | None = None
    columns: tuple[str, ...] = ()  # of label_file: one of classes, or several of 0 and 1
    folder: Path = Path()  # where NAME.toml goes
    tags_separator: str | None = None  # between several tags in one cell

    @property
    def file(self) -> Path:
        """The recipe."""
        return self.folder / f"{self.name}.toml"

    @property
    def data_options(self) -> DataOptions:
        """The ``[data]`` section, as far as it was told; paths from here become absolute, so that
        the recipe runs from anywhere."""
        label_file = self.label_file
        if label_file is not None and label_file.expanduser().is_file():  # else it is below data
            label_file = _absolute(label_file.expanduser())
        return DataOptions(
            kind="images",
            root=str(_absolute(self.data.expanduser())),
            label_file=None if label_file is None else str(label_file),
            label_column=self.columns[0] if len(self.columns) == 1 else None,
            attributes=self.columns if len(self.columns) > 1 else None,
            tags_separator=self.tags_separator,
        )


def _absolute(path: Path) -> Path:
    """The path from the root, without ".." unless a link makes that another place."""
    plain = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
    return plain if plain.exists() and plain.samefile(path) else path.absolute()
