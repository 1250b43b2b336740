"""The small model that several files take apart, and the networks of strangers, which are those of
the exporters' tests."""

from __future__ import annotations

import pytest
from pets import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))
