"""The files of a page that runs one bundle: markup, style, the web runtime, onnxruntime-web and the
bundle. It needs no other host, and any server of files can serve it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from exporters.files import atomic_folder
from exporters.package.resource_files import files_under
from pipeline.errors import WebError
from pipeline.web import onnxruntime_web
from runtime import Bundle, PredictorError
from runtime.bundle import read_file

MARK = "edgeproof-site.txt"  # a folder is replaced only if it has this file
_MARK_TEXT = b"Written by pipeline web, which may replace this folder.\n"
_PAGE = (".html", ".css", ".js", ".mjs", ".svg", ".txt")


def site_files(bundle: Path, trusted_keys: Iterable[str] | None = None) -> dict[str, bytes]:
    """Return every file of the page by its path relative to index.html.

    With ``trusted_keys`` a bundle that none of them signed is refused; the page itself checks no
    signature. Raises WebError for a bundle that does not open, and when onnxruntime-web was not
    fetched.
    """
    data = _verified(bundle, trusted_keys)
    page = files_under(resources.files("pipeline.web").joinpath("page"), _PAGE)
    runtime = files_under(resources.files("runtime").joinpath("web"), (".mjs",))
    return {
        **page,
        **{f"runtime/{name}": data for name, data in runtime.items()},
        **{f"runtime/ort/{name}": data for name, data in onnxruntime_web.read().items()},
        "bundle.zip": data,
    }


def write_site(bundle: Path, folder: Path, trusted_keys: Iterable[str] | None = None) -> int:
    """Write the page into ``folder``, which is new, empty or an older page; returns its bytes.

    The folder appears complete or not at all. ``trusted_keys`` as in
    ``site_files``. Raises WebError.
    """
    files = {**site_files(bundle, trusted_keys), MARK: _MARK_TEXT}
    if folder.exists() and not _may_be_replaced(folder):
        raise WebError(
            f"{folder} exists and was not created by this command; expected a new or empty folder. "
            "Name another one."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as partial:
            for name, data in files.items():
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
    except OSError as exc:
        raise WebError(f"{folder} cannot be written: {exc}. Check free space and rights.") from exc
    return sum(map(len, files.values()))


def _may_be_replaced(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MARK).is_file() or not any(folder.iterdir()))


def _verified(bundle: Path, trusted_keys: Iterable[str] | None) -> bytes:
    """Read the bundle once, so that the verified bytes are those that are served."""
    try:
        data = read_file(bundle)
        Bundle(io.BytesIO(data), str(bundle), trusted_keys).close()
    except PredictorError as exc:
        raise WebError(str(exc)) from exc
    return data
