"""Tables are made from values of this version and of earlier ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.tables import bundle_tables
from runtime import Bundle

GOLDEN = Path(__file__).parents[2] / "runtime" / "golden_bundles" / "spec_1" / "multi_class.zip"


@pytest.mark.parametrize("key", ["license", "licence"])
def test_a_bundle_shows_its_license_by_the_key_of_either_version(key: str) -> None:
    bundle = Bundle.open(str(GOLDEN))
    bundle.close()
    data = {"name": "noise", key: "CC0-1.0"}
    shown = bundle_tables(replace(bundle.manifest, provenance={"data": data}), "id", "none")
    assert any("noise" in part and "CC0-1.0" in part for part in shown if isinstance(part, str))
