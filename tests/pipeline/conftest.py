"""The small model that several files take apart, and the networks of strangers, which are those of
the exporters' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# for pets.py and foreign_networks.py, which are no tests
sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "exporters"))

from pets import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))
