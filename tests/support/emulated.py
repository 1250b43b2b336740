"""A plugin for pytest in an emulated Python: what the tests start as Python is emulated, too.

    EMULATOR="qemu-x86_64-static ..." qemu-x86_64-static ... python -m pytest -p emulated TEST...

Without it a child would be a plain process of the host, with the host's instructions.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
import tempfile
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a worker is started by the wrapper, and inherits its name
        wrapper = os.environ["EMULATED_PYTHON"]
    else:
        file = Path(tempfile.mkdtemp(prefix="emulated-")) / "python"
        command = shlex.join([*shlex.split(os.environ["EMULATOR"]), sys.executable])
        file.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        file.chmod(0o755)
        wrapper = os.environ["EMULATED_PYTHON"] = str(file)
    sys.executable = wrapper
    multiprocessing.set_executable(wrapper)
