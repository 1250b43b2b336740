"""onnxruntime-web, of which a page needs three files: fetched once from npm when asked to, checked,
and kept in the user's cache folder. Knows nothing of bundles or pages."""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from pipeline.errors import WebError
from runtime.cache_folder import user_cache_folder

NAME = "onnxruntime-web"
VERSION = "1.30.0"
# Of the package's archive, as npm's lock files have it.
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8p"
    "ZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
COMMAND = f"pipeline fetch {NAME}"
_MODULES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs")
_WASM = "ort-wasm-simd-threaded.wasm"  # 14 MB; 3.7 MB packed, and so it is kept and sent
FILES = (*_MODULES, f"{_WASM}.gz")
_TIMEOUT_S = 600


def folder() -> Path:
    """Where the files are kept, whether they are there or not; raises WebError without a home."""
    cache = user_cache_folder()
    if cache is None:
        raise WebError("this user has no cache folder. Set XDG_CACHE_HOME to an absolute path.")
    return cache / f"{NAME}-{VERSION}"


def read() -> dict[str, bytes]:
    """The files by name; raises WebError, which names the command that fetches them."""
    place = folder()
    try:
        return {name: (place / name).read_bytes() for name in FILES}
    except OSError as exc:
        raise WebError(
            f"{NAME} {VERSION} is not in {place}. Fetch it once with: {COMMAND} (npm downloads "
            "some 26 MB; nothing is installed)."
        ) from exc


def fetch() -> Path:
    """Download the package, check it and keep the files; returns their folder.

    npm only downloads the archive (`npm pack`): nothing is installed and no script of the package
    runs. Raises WebError.
    """
    place = folder()
    npm = shutil.which("npm")
    if npm is None:
        raise WebError(
            f"npm is not installed; it downloads {NAME}. Install Node.js (Debian: apt-get install "
            f"nodejs npm) and repeat: {COMMAND}."
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{NAME}-") as aside:
            files = _unpacked(_checked(_packed(npm, Path(aside))))
            ready = Path(aside) / "files"
            ready.mkdir()
            for name, data in files.items():
                (ready / name).write_bytes(data)
            shutil.rmtree(place, ignore_errors=True)
            ready.replace(place)
    except OSError as exc:
        raise WebError(f"{place} cannot be written: {exc}. Check free space and rights.") from exc
    return place


def _packed(npm: str, aside: Path) -> bytes:
    """The package's archive, by npm, which knows the user's registry and proxy."""
    try:
        done = subprocess.run(
            [npm, "pack", f"{NAME}@{VERSION}", "--silent", "--pack-destination", str(aside)],
            cwd=aside,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise WebError(f"npm took more than {_TIMEOUT_S} s. Repeat: {COMMAND}.") from exc
    archives = list(aside.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = (done.stderr or done.stdout).strip()[-500:] or f"exit code {done.returncode}"
        raise WebError(f"npm could not download {NAME}@{VERSION}: {reason}. Repeat: {COMMAND}.")
    return archives[0].read_bytes()


def _checked(archive: bytes) -> bytes:
    found = f"sha512-{base64.b64encode(hashlib.sha512(archive).digest()).decode()}"
    if found != INTEGRITY:
        raise WebError(
            f"npm gave another {NAME} {VERSION} ({len(archive)} bytes, {found}) than the one that "
            f"was tested ({INTEGRITY}). Nothing was kept: look at the registry that npm uses."
        )
    return archive


def _unpacked(archive: bytes) -> dict[str, bytes]:
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as package:
            found = {}
            for name in (*_MODULES, _WASM):
                member = package.extractfile(f"package/dist/{name}")
                assert member is not None  # the archive is the one that was tested
                found[name] = member.read()
    found[f"{_WASM}.gz"] = gzip.compress(found.pop(_WASM), 9, mtime=0)
    return found
