"""Downloads, by torchvision, which checks every file against its published md5. The only module of
this folder that loads torchvision, and only when a download was asked for."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from pipeline.datasets.sources.locate import CELEBA_URL
from pipeline.errors import DataError


def download_mnist(folder: Path) -> None:
    """Fetch MNIST into ``folder``/MNIST/raw; raises DataError when that fails."""

    def fetch() -> None:
        from torchvision.datasets import MNIST

        MNIST(str(folder), download=True)

    _fetch(
        "MNIST",
        folder,
        fetch,
        "Look at the network, or fetch the four IDX files by other means and give their folder "
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
        f"folder has a daily quota. Try again tomorrow, or fetch the files from {CELEBA_URL} by "
        "hand and give their folder with --set data.root=FOLDER.",
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
