"""The network in PyTorch as a callable, as it is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline.learning.training.checkpoint import load_checkpoint


@contextmanager
def eager(checkpoint: Path, threads: int) -> Iterator[Callable[[Any], Any]]:
    """The network at so many threads; torch's own setting comes back afterwards."""
    before = torch.get_num_threads()
    try:
        yield open_eager(str(checkpoint), threads)
    finally:
        torch.set_num_threads(before)


def open_eager(checkpoint: str, threads: int) -> Callable[[Any], Any]:
    """The network as a callable from images to probabilities. Also called by name in a fresh
    process, to measure cold start and memory: nothing else may be imported here."""
    torch.set_num_threads(threads)
    network = load_checkpoint(Path(checkpoint)).to(memory_format=torch.channels_last)

    def answer(images: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return answer
