"""A predictor in another process: in a forked child, or where it is unpickled.

A fork copies memory and no threads. A session of onnxruntime with a pool of threads would wait for
them forever, and an open file has one position for parent and child; so in the child a predictor
opens a session, and the path of its bundle, of its own. (A bundle that was given as a file object
keeps the position that it shares with the parent: give a path where processes fork.) A pickle holds
the path and the id of a bundle.

A child ends as it likes, ``os._exit`` (multiprocessing's way) or ``sys.exit``. One thing is out of
reach here: if the app imported onnxruntime 1.29 or later *before* this package, onnxruntime's own
reporting thread was running at the fork, and C's ``exit`` waits for it in the child. Import this
package first, or set ORT_DISABLE_TELEMETRY=1 in the environment.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

from .errors import BundleIntegrityError
from .images import renew_locks

if TYPE_CHECKING:
    from .bundle import ModelParts
    from .onnx_session import Session
    from .predictor import Predictor

_opened: weakref.WeakSet[Predictor] = weakref.WeakSet()
_watching = False


def watch_forks(predictor: Predictor) -> None:
    """Have ``predictor`` told when it wakes up in a forked child."""
    global _watching
    _opened.add(predictor)
    if not _watching and hasattr(os, "register_at_fork"):
        _watching = True
        os.register_at_fork(after_in_child=_tell_of_fork)


def make_immortal(session: Session) -> None:
    """Destroying a session joins its threads; in a forked child, which has none of them, that
    waits forever. So it is never destroyed there."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


def same_bundle(path: str, keys: Any, bundle_id: str | None) -> ModelParts:
    """The bundle at ``path``; raises BundleIntegrityError when it is another one now."""
    from .bundle import Bundle

    bundle = Bundle.open(path, keys)
    try:
        _check_id(path, bundle.id, bundle_id)
    except BaseException:
        bundle.close()
        raise
    return bundle


def reopened(
    cls: type[Predictor],
    path: str,
    bundle_id: str,
    device: str,
    variant: str,
    threads: int | None,
    keys: tuple[str, ...] | None,
) -> Predictor:
    """What unpickling gives; raises BundleIntegrityError when another bundle lies there now."""
    predictor = cls(path, device, variant, threads, trusted_keys=keys)
    try:
        _check_id(path, predictor.info.bundle_id, bundle_id)
    except BaseException:
        predictor.close()
        raise
    return predictor


def _tell_of_fork() -> None:
    renew_locks()
    for predictor in list(_opened):
        predictor._after_fork()


def _check_id(path: str, found: str | None, expected: str | None) -> None:
    if found != expected:
        raise BundleIntegrityError(
            f"{path}: the bundle has the id {found}; expected {expected}, the one that was open. "
            "It was replaced: open it anew."
        )
