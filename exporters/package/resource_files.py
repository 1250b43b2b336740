"""Files that an installed package carries. Standard library only."""

from __future__ import annotations

from importlib.resources.abc import Traversable


def files_under(folder: Traversable, endings: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files below ``folder`` whose names end as given, sorted by relative path."""
    files: dict[str, bytes] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            below = files_under(entry, endings)
            files |= {f"{entry.name}/{name}": data for name, data in below.items()}
        elif entry.name.endswith(endings):
            files[entry.name] = entry.read_bytes()
    return dict(sorted(files.items()))
