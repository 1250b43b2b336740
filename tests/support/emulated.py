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


def pytest_configure() -> None:
    wrapper = Path(tempfile.mkdtemp(prefix="emulated-")) / "python"
    command = shlex.join([*shlex.split(os.environ["EMULATOR"]), sys.executable])
    wrapper.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    sys.executable = str(wrapper)
    multiprocessing.set_executable(sys.executable)
