"""``python -m pipeline.targets.browser JOB TARGET ENVIRONMENT [--threads=2]``: a job in headless
Chromium. A server on this machine hands the files out and takes the answers back; there is nothing
to install but onnxruntime-web itself, and nothing is fetched from elsewhere.

WebAssembly gets threads only on a page that is isolated from other origins; the two headers that
make it so are sent when more than one is asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_KINDS = {
    ".html": "text/html",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".json": "application/json",
}
_FLAGS = (
    *("--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_LAST = ("answers.json", "error.txt")  # either ends the job
TIMEOUT_SECONDS = 540.0  # less than a target's, so that this says what went wrong


class _Server(ThreadingHTTPServer):
    """Serves three folders and keeps what is posted into the target's."""

    daemon_threads = True

    def __init__(self, folders: dict[str, Path], isolated: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = folders
        self.isolated = isolated
        self.finished = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send one file."""
        place = self._place()
        if place is None or not place.is_file():
            self._send(HTTPStatus.NOT_FOUND, b"", "text/plain")
            return
        kind = _KINDS.get(place.suffix, "application/octet-stream")
        self._send(HTTPStatus.OK, place.read_bytes(), kind)

    def do_POST(self) -> None:
        """Keep one file of the answers."""
        place = self._place()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if place is None or place.parent != self.server.folders["target"]:
            self._send(HTTPStatus.FORBIDDEN, b"", "text/plain")
            return
        place.write_bytes(body)
        self._send(HTTPStatus.OK, b"", "text/plain")
        if place.name in _LAST:
            self.server.finished.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _place(self) -> Path | None:
        """The file behind a request, or None where it leads out of the three folders, or comes
        from a page under another name, to which this address was given."""
        if self.headers.get("Host") != "{}:{}".format(*self.server.server_address[:2]):
            return None
        if self.path == "/":
            return self.server.folders["job"] / "browser_job.html"
        top, _, rest = self.path.lstrip("/").partition("/")
        folder = self.server.folders.get(top)
        if folder is None:
            return None
        place = (folder / rest.partition("?")[0]).resolve()
        return place if place.is_relative_to(folder) else None

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.server.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)


def main(job: Path, target: Path, environment: Path, threads: int) -> int:
    """Run the job; returns 0 when the page finished."""
    folders = {
        "job": job.resolve(),
        "target": target.resolve(),
        "ort": (environment / "node_modules/onnxruntime-web/dist").resolve(),
    }
    chromium = shutil.which("chromium")
    if chromium is None:
        print("chromium was not found", file=sys.stderr)
        return 1
    # a page may not be root without this, as in a container
    rights = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (
        _Server(folders, isolated=threads > 1) as server,
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
            finished = _wait(server, browser)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    error = target / "error.txt"
    if error.exists():
        print(error.read_text(encoding="utf-8"), file=sys.stderr)
    elif not finished:
        print(f"the page did not finish, or not in {TIMEOUT_SECONDS:.0f} s", file=sys.stderr)
    return 0 if finished and not error.exists() else 1


def _wait(server: _Server, browser: subprocess.Popen[bytes]) -> bool:
    """Until the page has finished; False when the browser ends before it, or time is up."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while not server.finished.wait(0.2):
        if browser.poll() is not None or time.monotonic() > until:
            return server.finished.is_set()
    return True


if __name__ == "__main__":
    _job, _target, _environment, _threads = sys.argv[1:]
    _count = int(_threads.partition("=")[2])
    sys.exit(main(Path(_job), Path(_target), Path(_environment), _count))
