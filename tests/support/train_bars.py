"""Train on the bars in a process of its own that prints each step, for a test that kills it.

train_bars.py DATA OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from bars import BARS, NETWORK, TRAIN

from pipeline.datasets.arrays import open_dataset
from pipeline.learning.training.fit import fit
from pipeline.learning.training.results import StepProgress


def on_step(progress: StepProgress) -> None:
    print(progress.step, flush=True)


if __name__ == "__main__":
    data, out = map(Path, sys.argv[1:])
    fit(open_dataset(data), BARS, NETWORK, TRAIN, 7, out, on_step)
