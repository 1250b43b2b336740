"""The pages of the sample reports, rendered once."""

from __future__ import annotations

import pytest
from sample_reports import RUNS

from pipeline.report import render


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render.render_html(make()) for name, make in RUNS.items()}
