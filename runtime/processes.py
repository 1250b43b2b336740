"""The means of an object to live on in a forked child.

A fork copies memory and no threads. A session of onnxruntime with a pool of threads would wait for
them forever, and an open file has one position for parent and child; so in the child a predictor
opens a session, and the path of its bundle, of its own. (A bundle that was given as a file object
keeps the position that it shares with the parent: give a path where processes fork.)

A child may end by ``os._exit`` (multiprocessing's way) or ``sys.exit``. One case is out of reach
here: if the app imported onnxruntime 1.29 or later *before* this package, onnxruntime's own
reporting thread was running at the fork, and C's ``exit`` waits for it in the child. Import this
package first, or set ORT_DISABLE_TELEMETRY=1 in the environment.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

_callbacks: set[weakref.WeakMethod[Callable[[], object]]] = set()
_is_watching = False


def on_fork(callback: Callable[[], object]) -> None:
    """Call a bound method in every forked child, for as long as its object lives."""
    global _is_watching
    _callbacks.add(weakref.WeakMethod(callback, _callbacks.discard))
    if not _is_watching and hasattr(os, "register_at_fork"):
        _is_watching = True
        os.register_at_fork(after_in_child=_call_back)


def make_immortal(session: Any) -> None:
    """Keep a session of onnxruntime from ever being destroyed: that joins its threads, and in a
    forked child, which has none of them, it waits forever."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


def _call_back() -> None:
    for reference in list(_callbacks):
        callback = reference()
        if callback is not None:
            callback()
