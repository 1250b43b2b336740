"""A model with images, and the result of one run over them."""

from __future__ import annotations

from pathlib import Path

import foreign_networks as networks
import onnx
import pytest
from click.testing import Result
from quantizing import WORDS, draw, invoke


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pictures, and the result of one run over them in "out"."""
    project = tmp_path_factory.mktemp("quantize")
    onnx.save(networks.network(9, ir=4, prelu=True, named=False), project / "net.onnx")
    draw(project / "images", 96)
    return project


@pytest.fixture(scope="session")
def first(project: Path) -> Result:
    return invoke(
        project / "net.onnx", "--data", project / "images", "--out", project / "out", *WORDS
    )
