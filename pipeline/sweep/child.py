"""The process of a trial: runs ``pipeline`` with the arguments that follow, as long as the sweep
lives. A killed sweep cannot stop its trials, but their standard input ends."""

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
    # a shell's "sweep ... &" ignores Ctrl-C, and so would its trials; the sweep interrupts them
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
