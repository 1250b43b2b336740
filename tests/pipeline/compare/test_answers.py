"""Images and answers that prove nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from new_process import restored
from pets import World

from pipeline.compare.measure import compare


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((5, 16, 16, 3)), "all 5 images are black"),
        (np.zeros((1, 16, 16, 3)), "all 1 images are black"),
        (np.arange(5).reshape(5, 1, 1, 1) * np.full((5, 16, 16, 3), 40), "of one flat color each"),
        (
            np.tile(np.arange(768).reshape(1, 16, 16, 3) % 256, (4, 1, 1, 1)),
            "all 4 images are the same",
        ),
    ],
)
def test_images_that_prove_nothing_fail(world: World, pixels: Any, reason: str) -> None:
    np.save(world.folder / "nothing.npy", pixels.astype(np.uint8))
    data = Path(world.path("nothing.npy"))
    result = compare(world.path("checkpoint.pt"), world.path("fp32.onnx"), data)
    (failure,) = result.failures
    assert not result.passed and reason in failure and "prove nothing" in failure
    assert result.difference.max_abs < 1e-4


def test_single_images_without_a_number_are_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN where the picture's first pixel is 255, and of one side alone."""
    images = world.images.copy()
    images[:, 0, 0, 0] = 0
    images[[17, 40], 0, 0, 0] = 255
    np.savez(world.folder / "some.npz", images=images, labels=np.arange(120) % 4)
    (world.folder / "partly.py").write_text(
        "import numpy as np\n"
        "from pipeline.learning.training.checkpoint import load_checkpoint\n"
        "from pipeline.learning.training.evaluate import probabilities\n"
        f"network = load_checkpoint(__import__('pathlib').Path({world.path('checkpoint.pt')!r}))\n"
        "def function(images):\n"
        "    values = probabilities(network, images)\n"
        "    values[images[:, 0, 0, 0] == 255] = np.nan\n"
        "    return values\n"
    )
    with restored("partly"), monkeypatch.context() as patch:
        patch.syspath_prepend(world.folder)
        data = Path(world.path("some.npz"))
        result = compare("partly:function", world.path("fp32.onnx"), data)
    (failure,) = result.failures
    assert "A (partly:function) answers NaN or infinity to 2 of 120 images: 17, 40" in failure
    assert result.difference.images == 118 and result.difference.max_abs < 1e-4
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["passed"] is False
