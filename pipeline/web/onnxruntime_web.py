"""The three files of onnxruntime-web that a page needs: fetched once from npm on request, checked,
and kept in the user's cache folder."""

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
# of the package's archive, as in npm's lock files
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8p"
    "ZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
COMMAND = f"pipeline fetch {NAME}"
_MODULES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs")
_WASM = "ort-wasm-simd-threaded.wasm"  # 14 MB; kept and sent compressed, 3.7 MB
FILES = (*_MODULES, f"{_WASM}.gz")
_TIMEOUT_S = 600


def folder() -> Path:
    """Return the folder of the files, which may not exist; raises WebError without a home."""
    cache = user_cache_folder()
    if cache is None:
        raise WebError("this user has no cache folder. Set XDG_CACHE_HOME to an absolute path.")
    return cache / f"{NAME}-{VERSION}"


def read() -> dict[str, bytes]:
    """Read the files by name; raises WebError with the command that fetches them."""
    kept = folder()
    try:
        return {name: (kept / name).read_bytes() for name in FILES}
    except OSError as exc:
        raise WebError(
            f"{NAME} {VERSION} is not in {kept}. Fetch it once with: {COMMAND} (npm downloads "
            "some 26 MB; nothing is installed)."
        ) from exc


def fetch() -> Path:
    """Download the package, check it and keep the files; returns their folder.

    npm only downloads the archive (`npm pack`): nothing is installed and no script of the package
    runs. Raises WebError.
    """
    kept = folder()
    npm = shutil.which("npm")
    if npm is None:
        raise WebError(
            f"npm is not installed; it downloads {NAME}. Install Node.js (Debian: apt-get install "
            f"nodejs npm) and repeat: {COMMAND}."
        )
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{NAME}-") as work:
            files = _unpacked(_checked(_packed(npm, Path(work))))
            ready = Path(work) / "files"
            ready.mkdir()
            for name, data in files.items():
                (ready / name).write_bytes(data)
            shutil.rmtree(kept, ignore_errors=True)
            ready.replace(kept)
    except OSError as exc:
        raise WebError(f"{kept} cannot be written: {exc}. Check free space and rights.") from exc
    return kept


def _packed(npm: str, work: Path) -> bytes:
    """Download the archive by npm, which has the user's registry and proxy."""
    try:
        done = subprocess.run(
            [npm, "pack", f"{NAME}@{VERSION}", "--silent", "--pack-destination", str(work)],
            cwd=work,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise WebError(f"npm took more than {_TIMEOUT_S} s. Repeat: {COMMAND}.") from exc
    archives = list(work.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = (done.stderr or done.stdout).strip()[-500:] or f"exit code {done.returncode}"
        raise WebError(f"npm could not download {NAME}@{VERSION}: {reason}. Repeat: {COMMAND}.")
    return archives[0].read_bytes()


def _checked(archive: bytes) -> bytes:
    digest = f"sha512-{base64.b64encode(hashlib.sha512(archive).digest()).decode()}"
    if digest != INTEGRITY:
        raise WebError(
            f"npm downloaded {NAME} {VERSION} with {len(archive)} bytes, {digest}; expected "
            f"{INTEGRITY}, the tested one. Nothing was kept: check the registry that npm uses."
        )
    return archive


def _unpacked(archive: bytes) -> dict[str, bytes]:
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as package:
            files = {}
            for name in (*_MODULES, _WASM):
                member = package.extractfile(f"package/dist/{name}")
                assert member is not None  # the archive is the one that was tested
                files[name] = member.read()
    files[f"{_WASM}.gz"] = gzip.compress(files.pop(_WASM), 9, mtime=0)
    return files
