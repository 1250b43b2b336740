"""From the path of a JPEG to attributes: what decoding, preprocessing and answering add to the bare
session, and what the same takes when it is written by hand with Pillow and numpy."""

from __future__ import annotations

import statistics
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.timing import TimingOptions, measure_all
from runtime import Bundle, Predictor
from runtime.onnx_session import CPU_PROVIDER, create

pytestmark = pytest.mark.bench

MAX_MORE_MS = 1.2  # over the bare session; decoding alone takes about half of it
THREADS = 1


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """178x218 and 7 KB, as CelebA's are on average: smooth colours with some grain."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (14, 11, 3), np.uint8))
    page = np.asarray(small.resize((178, 218), Image.Resampling.BICUBIC)).astype(int)
    page = np.clip(page + random.normal(0, 3, page.shape), 0, 255).astype(np.uint8)
    path = tmp_path / "photo.jpg"
    Image.fromarray(page).save(path, quality=80)
    return path


def test_from_a_path_to_attributes(celeba_bundle: Path, photo: Path, show: Any) -> None:
    with closing(Bundle.open(celeba_bundle)) as bundle:
        variant, spec = bundle.manifest.variants[0], bundle.manifest.spec
        session = create(bundle.read(variant.file), CPU_PROVIDER, THREADS)
    pixels = np.zeros((1, *spec.shape), np.uint8)

    def bare(_: Any) -> Any:
        return session.run(["probabilities"], {"images": pixels})[0]

    def by_hand(_: Any) -> Any:
        with Image.open(photo) as image:
            box = (0, 20, 178, 198)
            small = image.convert("RGB").resize(spec.shape[1::-1], Image.Resampling.BILINEAR, box)
        return session.run(["probabilities"], {"images": np.asarray(small)[np.newaxis]})[0]

    with Predictor(celeba_bundle, "cpu", variant.id, THREADS) as predictor:
        runs: Any = {
            "session.run": bare,
            "p.predict(path)": lambda _: predictor.predict(photo),
            "Pillow, numpy and session.run": by_hand,
        }
        timings = measure_all(runs, pixels, TimingOptions(seconds=4.0))
    base = timings["session.run"].rounds
    more = {
        name: statistics.median(a.p50_ms - b.p50_ms for a, b in zip(row.rounds, base, strict=True))
        for name, row in timings.items()
    }
    show(
        f"From the path of a 178x218 JPEG ({photo.stat().st_size / 1e3:.0f} KB) to "
        f"{len(spec.labels)} attributes: {variant.id}, {THREADS} thread, {len(base)} rounds",
        ("", "p50 ms", "more ms", "bound"),
        [
            (
                name,
                f"{row.latency.p50_ms:.3f}",
                f"{more[name]:+.3f}",
                f"{MAX_MORE_MS:+.1f}" if name == "p.predict(path)" else "",
            )
            for name, row in timings.items()
        ],
    )
    assert more["p.predict(path)"] <= MAX_MORE_MS
