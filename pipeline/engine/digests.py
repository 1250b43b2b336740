"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_files(names: tuple[str, ...]) -> dict[str, str]:
    """Hash of every Python file and template below the named folders (or of single files), which
    are looked up next to this package: {"exporters/evaluate/parity.py": "ab12..."}."""
    root = Path(__file__).resolve().parents[2]
    result = {}
    for name in names:
        source = root / name
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        for file in files:
            if file.suffix in (".py", ".j2") and file.is_file():
                result[file.relative_to(root).as_posix()] = file_sha256(file)
    return result
