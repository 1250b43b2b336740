"""The attacks are built from the small real bundles of ``tests/runtime/conftest.py``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for cases.py and zips.py, which are no tests
