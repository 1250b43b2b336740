"""Digits on paper by other writers, through ``p.predict``: the pages are what paper_digits.py says,
and the bundle of the last run reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paper_digits
import pytest
from paper_digits import GLYPHS, Page, accuracy, contact_sheet, pages, read, table

from runtime import Predictor

BOUND = 95.0  # percent


@pytest.fixture(scope="module")
def some() -> list[Page]:
    return list(pages(writers=6))


def test_the_same_seed_writes_the_same_pages(some: list[Page]) -> None:
    for first, second in zip(some[:20], pages(writers=2), strict=True):
        np.testing.assert_array_equal(first.image, second.image)
    other = next(pages(writers=1, seed=1))
    assert not np.array_equal(other.image, some[0].image)


def test_every_writer_writes_every_digit_in_one_hand(some: list[Page]) -> None:
    assert [page.digit for page in some] == list(range(10)) * 6
    for writer in range(6):
        mine = [page for page in some if page.writer == writer]
        assert len({page.pen for page in mine}) == len({page.slant_degrees for page in mine}) == 1
    assert len({page.pen for page in some}) == 6


def test_glyphs_are_several_and_lie_in_their_square() -> None:
    for digit in range(10):
        assert len(GLYPHS[digit]) >= 3
        for glyph in GLYPHS[digit].values():
            points = [point.split(",") for stroke in glyph.split("/") for point in stroke.split()]
            assert all(0 <= int(n) <= 100 for point in points for n in point)


def test_the_ink_is_on_the_page(some: list[Page]) -> None:
    """The place that differs most from the paper around it is darker, or lighter on dark paper, by
    more than lines and grain are."""
    for page in some:
        gray = page.image.mean(axis=2)
        paper = np.median(gray)
        ink = np.sort((gray - paper).ravel() * (1 if page.paper.startswith("dark") else -1))
        assert ink[-20:].mean() > 45, page
        assert page.height_pixels < max(page.image.shape[:2])


def test_the_table_counts(some: list[Page]) -> None:
    readings = [
        paper_digits.Reading(page, page.digit if page.digit != 3 else 5, 0.9) for page in some
    ]
    assert accuracy(readings) == pytest.approx(90)
    text = "\n".join(table(readings))
    assert "90.0 % of 60" in text and "3: 0.0 (6)" in text and "2: 100.0 (6)" in text
    assert contact_sheet([r for r in readings if not r.right]).size[0] > 150


@pytest.mark.full
def test_digits_on_paper_are_read(artifacts: Path) -> None:
    file = artifacts / "mnist" / "bundle.zip"
    if not file.exists():
        pytest.skip(f"not run: there is no trained bundle {file}. Run: pipeline run all")
    with Predictor(file) as predictor:
        readings = read(predictor, list(pages()))
        print(f"\n{file}, variant {predictor.info.variant}")
    print("\n".join(table(readings)))
    folder = artifacts / "paper-digits"
    folder.mkdir(exist_ok=True)
    contact_sheet([r for r in readings if not r.right]).save(folder / "failures.png")
    assert accuracy(readings) >= BOUND
