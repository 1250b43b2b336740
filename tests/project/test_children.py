"""What the tests promise of the processes that they start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import children
import pytest

DISPOSITION = "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
PARENT = "import subprocess; subprocess.run(['sleep', '999'])"


def test_a_child_can_be_interrupted_where_the_shell_ignores_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = children.start(sys.executable, "-c", DISPOSITION, stdout=subprocess.PIPE, text=True)
        assert child.communicate()[0] == "False\n"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform != "linux", reason="not run: looks into /proc")
def test_the_end_of_a_test_ends_grandchildren_and_what_is_left_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "_GRACE", 0)
    environment = {**os.environ, children.MARK: "this test"}
    child = children.start(sys.executable, "-c", PARENT, env=environment)
    children.wait_until(lambda: len(children.left_behind("this test")) == 2, child)
    left = children.left_behind("this test")
    assert child.pid in left and all("grandchildren" in what for what in left.values())
    assert any("sleep 999" in what for what in left.values())
    children.end_all()
    children.wait_until(lambda: not children.left_behind("this test"))
    assert child.returncode == -signal.SIGKILL
