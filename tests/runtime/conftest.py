"""The small bundles that every test of the runtime opens."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import bundle_builders
import pytest

from runtime import Predictor


@pytest.fixture(scope="session")
def build() -> ModuleType:
    """The builders of bundles and their parts."""
    return bundle_builders


@pytest.fixture(scope="session")
def gray_bundle() -> bytes:
    return bundle_builders.bundle(bundle_builders.GRAY)


@pytest.fixture(scope="session")
def color_bundle() -> bytes:
    return bundle_builders.bundle(bundle_builders.COLOR)


@pytest.fixture(scope="session")
def heads_bundle() -> bytes:
    return bundle_builders.bundle(bundle_builders.HEADS)


@pytest.fixture
def gray(gray_bundle: bytes) -> Any:
    with Predictor(gray_bundle, device="cpu") as predictor:
        yield predictor


@pytest.fixture
def color(color_bundle: bytes) -> Any:
    with Predictor(color_bundle, device="cpu") as predictor:
        yield predictor
