"""engine/lock.py: one run in a folder at a time, whatever becomes of it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engine.lock import LOCK_NAME, locked
from pipeline.errors import StoreError


def test_the_message_names_the_owner_and_the_option(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "held"),
        pytest.raises(StoreError, match=rf"process {os.getpid()}\).*--out DIR"),
        locked(tmp_path / "held", "--out DIR"),
    ):
        pass
    with locked(tmp_path / "held"):
        pass


HELD = """
import sys, time
from pathlib import Path
from pipeline.engine.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match=f"process {process.pid}"), locked(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with locked(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == str(os.getpid())


def test_a_file_system_without_locks_is_a_plain_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=r"cannot be locked.*--artifacts DIR"), locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refusal = pytest.raises(StoreError, match=r"cannot be written.*--artifacts DIR")
    with refusal, locked(tmp_path / "file" / "folder"):
        pass


def test_an_owner_that_cannot_be_written_down_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with locked(tmp_path), pytest.raises(StoreError, match="process unknown"), locked(tmp_path):
        pass


def test_the_command_line_imports_no_fcntl() -> None:
    """It is missing on Windows."""
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from click.testing import CliRunner; from pipeline.cli.main import cli\n"
        "done = CliRunner().invoke(cli, ['--help'])\n"
        "assert done.exit_code == 0, done.output\n"
        "print('filelock' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
