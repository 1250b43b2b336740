"""A training that its time limit ended, from the command line to all that leaves this machine."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli


@pytest.fixture(scope="module")
def run(
    write_tiny: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder of a run whose time was over at its first step, and what was printed."""
    folder = tmp_path_factory.mktemp("incomplete")
    recipe, artifacts = write_tiny(folder), folder / "artifacts"
    words = ["run", "all", "--recipe", str(recipe), "--artifacts", str(artifacts)]
    done = CliRunner().invoke(cli, [*words, "--max-minutes", "1e-9"])
    assert done.exit_code == 0, done.output
    return artifacts / "tiny", done.output


def test_every_reader_is_warned(run: tuple[Path, str]) -> None:
    folder, printed = run
    note = "train.max_minutes = 1e-09 left time for 0.1 of 4 epochs"
    (package,) = [line for line in printed.splitlines() if line.startswith("✓ package")]
    assert "INCOMPLETE TRAINING" in package
    report = json.loads((folder / "report.json").read_text())
    assert report["training"]["incomplete"] is True
    html = (folder / "report.html").read_text()
    assert "ready to ship" not in html and note in html and "hero doubt" in html
    with zipfile.ZipFile(folder / "bundle.zip") as bundle:
        measurements = json.loads(bundle.read("measurements.json"))
        provenance = json.loads(bundle.read("manifest.json"))["provenance"]
        card = bundle.read("MODEL_CARD.md").decode()
    assert measurements["training"]["complete"] is False
    for warnings in (measurements["warnings"], provenance["warnings"]):
        assert any(text.startswith("INCOMPLETE TRAINING: ") and note in text for text in warnings)
    assert f"**INCOMPLETE TRAINING: {note}" in card
    for words in (
        ["show", "tiny", "--artifacts", str(folder.parent)],
        ["inspect", str(folder / "bundle.zip")],
    ):
        shown = CliRunner().invoke(cli, words)
        assert shown.exit_code == 0 and "INCOMPLETE TRAINING" in shown.output


def test_a_whole_training_lifts_it(run: tuple[Path, str]) -> None:
    """Of the same recipe without a limit, nothing of the incomplete one is taken as fresh."""
    folder, _ = run
    recipe = folder.parents[1] / "tiny.toml"
    words = ["plan", "train", "--recipe", str(recipe), "--artifacts", str(folder.parent)]
    planned = CliRunner().invoke(cli, words)
    assert "train.max_minutes changed" in planned.output
