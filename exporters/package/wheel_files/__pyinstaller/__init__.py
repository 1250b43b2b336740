"""The folder of this package's hook for PyInstaller."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Return this folder."""
    return [str(Path(__file__).parent)]
