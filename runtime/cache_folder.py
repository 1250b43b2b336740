"""The place where the system wants this user's caches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .origin import let_through


def user_cache_folder() -> Path | None:
    """Return this product's folder in the user's cache, which may not exist yet; None for a user
    without a home."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if not chosen and sys.platform == "win32":
        chosen = os.environ.get("LOCALAPPDATA", "")
    if not chosen:
        parts = ("Library", "Caches") if sys.platform == "darwin" else (".cache",)
        try:
            chosen = str(Path.home().joinpath(*parts))
        except RuntimeError as exc:  # no home
            let_through(exc)
            return None
    # a relative folder would be inside the app's own
    return Path(chosen) / "edgeproof" if Path(chosen).is_absolute() else None
