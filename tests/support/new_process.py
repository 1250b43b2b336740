"""The state that modules of a user's folder leave in a process, and its removal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import user_code


def forget_session() -> None:
    """Forget which user's modules are loaded, as a new process does."""
    user_code._session = None


@contextmanager
def restored(*modules: str) -> Iterator[None]:
    """Restore the search path and the session; unload new modules, or only the named ones."""
    path, before = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if not modules or name in modules:
            del sys.modules[name]
    forget_session()
