"""Where PyInstaller finds this package's hook."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """This folder."""
    return [str(Path(__file__).parent)]
