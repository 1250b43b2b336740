"""An epoch visits each train image once, in another order each time, and with little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.learning.training.order import CHUNK_BYTES, WINDOW_BYTES, EpochOrder, sizes_of


@given(
    count=st.integers(1, 300),
    window=st.integers(1, 80),
    chunk=st.integers(1, 20),
    step=st.integers(1, 50),
)
def test_every_image_is_visited_once(count: int, window: int, chunk: int, step: int) -> None:
    order = EpochOrder(count, 1, 2, max(window, chunk), chunk)
    parts = [order.part(start, min(start + step, count)) for start in range(0, count, step)]
    assert sorted(np.concatenate(parts)) == list(range(count))
    again = EpochOrder(count, 1, 2, max(window, chunk), chunk)
    assert (again.part(0, count) == np.concatenate(parts)).all()


def test_seed_and_epoch_decide() -> None:
    orders = [
        EpochOrder(1000, seed, epoch, window, 8).part(0, 1000).tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
        for window in (80, 2000)
    ]
    assert len({tuple(order) for order in orders}) == 6


def test_a_window_is_read_from_few_stretches_and_well_mixed() -> None:
    order = EpochOrder(100_000, 0, 0, window=10_000, chunk=500)
    for start in range(0, 100_000, 10_000):
        images = order.part(start, start + 10_000)
        assert len(set(images // 500)) == 20  # chunks of neighbors
        neighbors = np.abs(np.diff(images)) == 1
        assert neighbors.mean() < 0.01
    first = order.part(0, 10_000)
    assert first.max() - first.min() > 60_000  # from all over the set


def test_more_images_than_there_are_is_an_error() -> None:
    with pytest.raises(IndexError, match="11 of 10"):
        EpochOrder(10, 0, 0, 100, 1).part(5, 11)


def test_a_hundred_million_images_need_little_memory() -> None:
    window, chunk = sizes_of(64 * 64 * 3)
    assert (window, chunk) == (WINDOW_BYTES // 12_288, CHUNK_BYTES // 12_288)  # 2 GB, 8 MB
    tracemalloc.start()
    order = EpochOrder(100_000_000, 0, 0, window, chunk)
    assert len(order.part(50_000_000, 50_000_256)) == 256
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6
