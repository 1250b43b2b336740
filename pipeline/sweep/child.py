"""What runs in the process of a trial: ``pipeline`` with the words that follow, as long as the
sweep lives. One that is killed cannot tell its trials to stop; but their standard input ends."""

from __future__ import annotations

import os
import runpy
import signal
import threading


def _stop_with_parent() -> None:
    """Stop as Ctrl-C does once standard input has ended; the last checkpoint stays."""
    while os.read(0, 1):  # not through sys.stdin, whose lock would be held at exit
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    # a shell's "sweep ... &" ignores Ctrl-C, and so would its trials; the sweep's word counts here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
