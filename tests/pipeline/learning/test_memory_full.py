"""Data larger than memory: the memory of training does not grow with the number of images. RssAnon,
the process's own memory, counts; the system reclaims pages of a memory-mapped file when it needs
them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.arrays import Split, write_info, write_split
from pipeline.datasets.info import DatasetInfo

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status"),
]
ROOT = Path(__file__).resolve().parents[3]
TEST_SET = 10_000  # MNIST's
STEPS = 400
GROWTH_MB = 4.0  # at most; the images themselves are 7.8 MB for each 10,000
NETWORK = {
    "layers": [
        {"op": "conv", "out": 8, "stride": 2},
        {"op": "conv", "out": 8, "stride": 2},
        {"op": "pool", "kind": "average", "size": "global"},
        {"op": "linear"},
    ]
}
PROGRAM = """
    import json, sys
    from pathlib import Path

    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.training.fit import fit
    from pipeline.recipe import AugmentOptions, NetworkOptions, TrainOptions
    from runtime.spec import ModelSpec

    class Enough(Exception):
        pass

    most = {}

    def on_step(progress):
        for line in Path("/proc/self/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("RssAnon", "RssFile"):
                most[key] = max(most.get(key, 0), int(value.split()[0]) / 1024)
        if progress.step == int(sys.argv[3]):
            raise Enough

    options = TrainOptions(
        epochs=1000, batch_size=128, lr=0.01, threads=1, device="cpu", ema=0.9,
        checkpoint_seconds=1.0, augment=AugmentOptions(shift=1),
    )
    spec = ModelSpec("noise", "multi-class", 28, 28, 1, tuple("0123456789"))
    network = NetworkOptions.model_validate(json.loads(sys.argv[4]))
    try:
        fit(open_dataset(Path(sys.argv[1])), spec, network, options, 0, Path(sys.argv[2]), on_step)
    except Enough:
        print(json.dumps(most))
"""


def _write(folder: Path, images: int) -> Path:
    """A data set of noise with so many train images, written piece by piece."""
    folder.mkdir()
    path = folder / "train.images.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(images, 28, 28, 1))
    random = np.random.default_rng(0)
    for start in range(0, images, TEST_SET):
        array[start : start + TEST_SET] = random.integers(0, 256, (TEST_SET, 28, 28, 1), np.uint8)
    array.flush()
    sizes = {"train": images, "val": 100, "test": 100}
    for name, count in sizes.items():
        pixels = array if name == "train" else array[:count].copy()
        ids = np.char.add("image-", np.arange(count).astype(np.str_))
        write_split(folder, name, Split(pixels, np.arange(count) % 10, ids))
    info = DatasetInfo(
        "noise", "multi-class", tuple("0123456789"), sizes, "0" * 64, True, True, "CC0"
    )
    write_info(folder, info)
    return folder


def _most_mb(folder: Path, images: int) -> dict[str, float]:
    data = _write(folder / f"data-{images}", images)
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(data)]
    command += [str(folder / f"out-{images}"), str(STEPS), json.dumps(NETWORK)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {times: _most_mb(tmp_path, times * TEST_SET) for times in (1, 10, 100)}
    with capsys.disabled():
        print(f"\n  Resident memory of training over {STEPS} steps, by number of 28x28 images:")
        for times, most in result.items():
            print(
                f"  {times * TEST_SET:>9,}: {most['RssAnon']:.1f} MB of its own, "
                f"{most['RssFile']:.1f} MB of pages of files"
            )
    for times in (10, 100):
        assert result[times]["RssAnon"] - result[1]["RssAnon"] <= GROWTH_MB
