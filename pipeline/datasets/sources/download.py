"""Downloads by torchvision, which checks every file against its published md5. It is imported only
when a download is needed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.datasets.sources.locate import CELEBA_URL
from pipeline.errors import DataError
from runtime.cache_folder import user_cache_folder

_Files = TypeVar("_Files")


def find_or_download(
    find: Callable[[Path], _Files], download: Callable[[Path], None], root: str | None
) -> _Files:
    """Return the files that ``find`` returns for ``root``, or else for the user's cache folder.
    Where it raises DataError, ``download`` fills that folder first. Raises DataError."""
    folder = user_cache_folder() if root is None else Path(root).expanduser()
    if folder is None:
        raise DataError(
            "there is no folder to keep downloads in: the user has no home, or $XDG_CACHE_HOME is "
            "not an absolute path. Name a folder with --set data.root=FOLDER."
        )
    try:
        return find(folder)
    except DataError:
        download(folder)
        return find(folder)


def download_mnist(folder: Path) -> None:
    """Fetch MNIST into ``folder``/MNIST/raw; raises DataError when that fails."""

    def fetch() -> None:
        from torchvision.datasets import MNIST

        MNIST(str(folder), download=True)

    _fetch(
        "MNIST",
        folder,
        fetch,
        "Check the network, or fetch the four IDX files by other means and name their folder "
        "with --set data.root=FOLDER.",
    )


def download_celeba(folder: Path) -> None:
    """Fetch CelebA (1.4 GB) into ``folder``/celeba and unpack it; raises DataError when that
    fails, which is common: the authors' cloud folder has a daily quota."""

    def fetch() -> None:
        from torchvision.datasets import CelebA

        CelebA(str(folder), download=True)

    _fetch(
        "CelebA",
        folder,
        fetch,
        "torchvision needs the package gdown for it (pip install gdown), and the authors' cloud "
        f"folder has a daily quota. Try again tomorrow, or download the files from {CELEBA_URL} "
        "by hand and name their folder with --set data.root=FOLDER.",
    )


def _fetch(name: str, folder: Path, fetch: Callable[[], None], advice: str) -> None:
    silent = io.StringIO()  # torchvision shows a progress bar of its own
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            fetch()
    except Exception as exc:  # urllib, gdown, zipfile, torchvision: each raises its own types
        reason = str(exc).strip().split("\n")[0] or type(exc).__name__
        raise DataError(f"{name} could not be downloaded to {folder}: {reason}. {advice}") from exc
