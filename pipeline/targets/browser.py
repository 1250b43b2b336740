"""``python -m pipeline.targets.browser JOB TARGET ENVIRONMENT [--threads=2]``: a job in headless
Chromium. A server on this machine sends the files and receives the outputs; nothing is fetched from
elsewhere.

WebAssembly gets threads only on a page that is isolated from other origins, so the headers for that
are sent when more than one is requested.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from pipeline.web.server import Response, content_type, serve

_FLAGS = (
    *("--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_LAST = ("answers.json", "error.txt")  # either ends the job
TIMEOUT_SECONDS = 540.0  # less than a target's, so that the message is this one
ORT_FOLDER = "node_modules/onnxruntime-web/dist"  # inside the environment


class JobFiles:
    """The files of a job by their path on the server, and the outputs that a page posts."""

    def __init__(self, job: Path, target: Path, ort: Path) -> None:
        self.finished = threading.Event()
        self._folders = {"job": job.resolve(), "target": target.resolve(), "ort": ort.resolve()}

    def find(self, path: str) -> Response | None:
        """Return the file at ``path``, or None outside the three folders."""
        file = self._file("/job/browser_job.html" if path == "/" else path)
        if file is None or not file.is_file():
            return None
        return Response(file.read_bytes(), content_type(file.name))

    def receive(self, path: str, body: bytes) -> bool:
        """Keep one file of the outputs; False for any other path."""
        file = self._file(path)
        if file is None or file.parent != self._folders["target"]:
            return False
        file.write_bytes(body)
        if file.name in _LAST:
            self.finished.set()
        return True

    def _file(self, path: str) -> Path | None:
        top, _, rest = path.lstrip("/").partition("/")
        folder = self._folders.get(top)
        if folder is None:
            return None
        file = (folder / rest).resolve()
        return file if file.is_relative_to(folder) else None


def main(job: Path, target: Path, environment: Path, threads: int) -> int:
    """Run the job; returns 0 when the page finished."""
    files = JobFiles(job, target, environment / ORT_FOLDER)
    chromium = shutil.which("chromium")
    if chromium is None:
        print("chromium was not found", file=sys.stderr)
        return 1
    # Chromium refuses to run as root without this, as in a container
    rights = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (
        serve(files.find, files.receive, isolated=threads > 1) as server,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser = subprocess.Popen(
            [chromium, *_FLAGS, *rights, f"--user-data-dir={profile}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            finished = _wait(files.finished, browser)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    error = target / "error.txt"
    if error.exists():
        print(error.read_text(encoding="utf-8"), file=sys.stderr)
    elif not finished:
        print(f"the page did not finish within {TIMEOUT_SECONDS:.0f} s", file=sys.stderr)
    return 0 if finished and not error.exists() else 1


def _wait(finished: threading.Event, browser: subprocess.Popen[bytes]) -> bool:
    """Wait until the page has finished; False when the browser ends before it, or time is up."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while not finished.wait(0.2):
        if browser.poll() is not None or time.monotonic() > until:
            return finished.is_set()
    return True


if __name__ == "__main__":
    _job, _target, _environment, _threads = sys.argv[1:]
    _count = int(_threads.partition("=")[2])
    sys.exit(main(Path(_job), Path(_target), Path(_environment), _count))
