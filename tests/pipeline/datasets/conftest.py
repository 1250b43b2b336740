"""Folders of pets by class, and of birds with a CSV file."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_folders import EACH, picture


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three classes of ten images."""
    root = tmp_path / "pets"
    for number, label in enumerate(("cat", "dog", "owl")):
        (root / label / "more").mkdir(parents=True)
        for i in range(EACH):
            path = root / label / ("more" if i == 0 else ".") / f"{i}.png"
            picture(100 * number + i).save(path)
    return root


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Twelve images with a CSV file of attributes."""
    root = tmp_path / "birds"
    root.mkdir()
    rows = ["image_id,wings,beak"]
    for i in range(12):
        picture(i).save(root / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{1 if i % 2 else -1},{1 if i % 3 else -1}")
    (root / "birds.csv").write_text("\n".join(rows) + "\n")
    return root
