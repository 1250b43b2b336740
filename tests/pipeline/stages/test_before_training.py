"""What later stages would refuse, asked once the data is there and nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.engine.runner import Runner
from pipeline.engine.store import Store
from pipeline.errors import StageError
from pipeline.recipe import load
from pipeline.stages import STAGES


class Notes(list[str]):
    def note(self, text: str) -> None:
        self.append(text)

    def step(self, task: str, done: int, total: int, detail: str = "") -> None:
        pass


@pytest.fixture(scope="module")
def place(
    write_tiny: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A recipe's file, and a folder with its data stage."""
    folder = tmp_path_factory.mktemp("before")
    recipe = write_tiny(folder)
    names = tuple(stage.name for stage in STAGES)
    Runner(STAGES, load(str(recipe)), Store(folder, "tiny", names)).run("data", Notes())
    return recipe, folder


@pytest.mark.parametrize(
    ("goal", "changes", "message"),
    [
        (
            "quantize",
            ["quantize.calibration_images=301"],
            "301 calibration .* 300 ",
        ),
        (
            "validate",
            ["gate.margin_points=0.5"],
            "90 test images .* the margin is 0.5, .* Nothing was trained",
        ),
    ],
)
def test_refusals(place: tuple[Path, Path], goal: str, changes: list[str], message: str) -> None:
    file, folder = place
    store = Store(folder, "tiny", tuple(stage.name for stage in STAGES))
    with pytest.raises(StageError, match=message) as caught:
        Runner(STAGES, load(str(file), changes), store).run(goal, Notes())
    assert caught.value.stage == "train"
    assert store.record("data") is not None and store.begun("train") is None


def test_only_stages_that_this_run_reaches_count(place: tuple[Path, Path]) -> None:
    file, folder = place
    store = Store(folder, "tiny", tuple(stage.name for stage in STAGES))
    changes = ["quantize.calibration_images=301", "gate.margin_points=0.5", "train.epochs=1"]
    Runner(STAGES, load(str(file), changes), store).run("train", Notes())
    assert store.record("train") is not None


def test_images_for_a_self_test(write_tiny: Callable[[Path], Path], tmp_path: Path) -> None:
    recipe = load(str(write_tiny(tmp_path)), ["data.redistributable=false", "package.golden_raw=0"])
    store = Store(tmp_path, "tiny", tuple(stage.name for stage in STAGES))
    with pytest.raises(StageError, match=r"no image for a device to test itself.*golden_raw=1"):
        Runner(STAGES, recipe, store).run("all", Notes())
