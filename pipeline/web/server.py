"""Serves the files of a page on this machine, from memory, as a good web server would: compressed,
with revalidation, and isolated, so that WebAssembly may have threads. Knows nothing of bundles."""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from pipeline.errors import WebError

HOST = "127.0.0.1"  # nobody else's: the page is for the one who started it
# Under another name a page of somebody else's, whose address was changed to this machine's after it
# was loaded ("DNS rebinding"), would read the answers.
_NAMES = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_PATIENCE_SECONDS = 30.0  # for a request, or for taking its answer; then the connection is closed
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".gz": "application/gzip",
    ".zip": "application/zip",
}
_HEADERS = {
    # Both are needed before a browser shares memory between threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept, and asked about each time: another bundle may be served
}


@dataclass(frozen=True)
class _Answer:
    """One file as it is sent."""

    body: bytes
    kind: str
    etag: str
    is_packed: bool


def create_server(
    files: Mapping[str, bytes], port: int, patience_seconds: float = _PATIENCE_SECONDS
) -> ThreadingHTTPServer:
    """A server of ``files`` by path, index.html at the root; port 0 takes any free one. It answers
    under the names of this machine alone, and waits for nobody longer than ``patience_seconds``.

    Run its ``serve_forever``. Raises WebError when the port is taken.
    """
    answers = {f"/{name}": _answer(name, data) for name, data in files.items()}
    answers["/"] = answers["/index.html"]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = patience_seconds

        def do_GET(self) -> None:
            self._send(with_body=True)

        def do_HEAD(self) -> None:
            self._send(with_body=False)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the page says what goes wrong."""

        def _send(self, with_body: bool) -> None:
            if not _is_for_here(self.headers.get_all("Host") or []):
                self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
                return
            answer = answers.get(unquote(urlsplit(self.path).path))
            if answer is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            is_known = self.headers.get("If-None-Match") == answer.etag
            self.send_response(HTTPStatus.NOT_MODIFIED if is_known else HTTPStatus.OK)
            for name, value in {**_HEADERS, "ETag": answer.etag}.items():
                self.send_header(name, value)
            if is_known:
                self.end_headers()
                return
            self.send_header("Content-Type", answer.kind)
            body = answer.body
            if answer.is_packed:
                self.send_header("Vary", "Accept-Encoding")
                if "gzip" in self.headers.get("Accept-Encoding", ""):
                    self.send_header("Content-Encoding", "gzip")
                else:
                    body = gzip.decompress(body)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # an open connection does not hold up the end

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of a browser that went away or took too long."""
            if not isinstance(sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came

    try:
        return Server((HOST, port), Handler)
    except OSError as exc:
        raise WebError(
            f"port {port} cannot be had: {exc}. Name another one with --port, or 0 for any."
        ) from exc


def _is_for_here(hosts: list[str]) -> bool:
    """Whether a request names this machine, once, at any port: it may have been forwarded."""
    return len(hosts) == 1 and _NAMES.fullmatch(hosts[0].strip()) is not None


def packed_size(files: Mapping[str, bytes]) -> int:
    """Bytes that a first visit moves."""
    return sum(len(_answer(name, data).body) for name, data in files.items())


def _answer(name: str, data: bytes) -> _Answer:
    ending = f".{name.rpartition('.')[2]}"
    is_packed = ending != ".gz"
    return _Answer(
        body=gzip.compress(data, 9, mtime=0) if is_packed else data,
        kind=_TYPES.get(ending, "application/octet-stream"),
        etag=f'"{hashlib.sha256(data).hexdigest()[:32]}"',
        is_packed=is_packed,
    )
