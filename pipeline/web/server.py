"""A server of files for browsers on this machine, as a good web server would send them: compressed,
with revalidation, and isolated, so that WebAssembly may use threads."""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from pipeline.errors import WebError

HOST = "127.0.0.1"  # the page is only for the user who started it
# A page of someone else, whose address was changed to this machine's after it was loaded ("DNS
# rebinding"), could read the answers under another name.
_NAMES = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_PATIENCE_SECONDS = 30.0  # for a request, or for reading its answer; then the connection is closed
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".gz": "application/gzip",
    ".zip": "application/zip",
}
_HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept and revalidated: another bundle may be served next time
}
_ISOLATED = {  # a browser shares memory between threads only with both
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


@dataclass(frozen=True)
class Response:
    """One file as it is sent."""

    body: bytes
    kind: str
    etag: str = ""  # "" is never revalidated
    gzipped: bool = False  # the body is, and is unpacked for clients that do not accept that


Find = Callable[[str], Response | None]  # by path, which begins with a slash
Receive = Callable[[str, bytes], bool]  # path and body of a POST; False refuses it


def create_server(
    files: Mapping[str, bytes], port: int, patience_seconds: float = _PATIENCE_SECONDS
) -> ThreadingHTTPServer:
    """Return a server of ``files`` by path, with index.html at the root; port 0 takes any free one.

    It answers under the names of this machine only and closes a connection after
    ``patience_seconds`` without progress. Run its ``serve_forever``. Raises WebError when the port
    is taken.
    """
    responses = {f"/{name}": compressed(name, data) for name, data in files.items()}
    responses["/"] = responses["/index.html"]
    return serve(responses.get, port=port, patience_seconds=patience_seconds)


def serve(
    find: Find,
    receive: Receive | None = None,
    *,
    port: int = 0,
    isolated: bool = True,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> ThreadingHTTPServer:
    """Return a server of what ``find`` returns, which passes posted bodies to ``receive``."""
    try:
        server = _Server((HOST, port), _Handler)
    except OSError as exc:
        raise WebError(
            f"cannot listen on port {port}: {exc}. Name another one with --port, or 0 for any."
        ) from exc
    server.find, server.receive = find, receive
    server.headers = {**(_ISOLATED if isolated else {}), **_HEADERS}
    server.patience_seconds = patience_seconds
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # an open connection does not delay the end
    find: Find
    receive: Receive | None
    headers: Mapping[str, str]
    patience_seconds: float

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing about a browser that disconnected or took too long."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.patience_seconds)

    def do_GET(self) -> None:
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        self._send(with_body=False)

    def do_POST(self) -> None:
        if self.server.receive is None:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED)
            return
        path = self._path()
        if path is None:
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        accepted = self.server.receive(path, body)
        self.send_response(HTTPStatus.OK if accepted else HTTPStatus.FORBIDDEN)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the page reports errors."""

    def _path(self) -> str | None:
        """The requested path; a request under another name is refused and gives None."""
        if not _is_for_here(self.headers.get_all("Host") or []):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return None
        return unquote(urlsplit(self.path).path)

    def _send(self, with_body: bool) -> None:
        path = self._path()
        if path is None:
            return
        response = self.server.find(path)
        if response is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        etag = response.etag
        unchanged = bool(etag) and self.headers.get("If-None-Match") == etag
        self.send_response(HTTPStatus.NOT_MODIFIED if unchanged else HTTPStatus.OK)
        for name, value in {**self.server.headers, **({"ETag": etag} if etag else {})}.items():
            self.send_header(name, value)
        if unchanged:
            self.end_headers()
            return
        self.send_header("Content-Type", response.kind)
        body = response.body
        if response.gzipped:
            self.send_header("Vary", "Accept-Encoding")
            if "gzip" in self.headers.get("Accept-Encoding", ""):
                self.send_header("Content-Encoding", "gzip")
            else:
                body = gzip.decompress(body)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _is_for_here(hosts: list[str]) -> bool:
    """Return True where a request names this machine, once, at any port: it may be forwarded."""
    return len(hosts) == 1 and _NAMES.fullmatch(hosts[0].strip()) is not None


def compressed(name: str, data: bytes) -> Response:
    """Return a file that is sent compressed and revalidated."""
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    if name.endswith(".gz"):
        return Response(data, content_type(name), etag)
    return Response(gzip.compress(data, 9, mtime=0), content_type(name), etag, gzipped=True)


def content_type(name: str) -> str:
    """Return the media type of a file name."""
    return _TYPES.get(f".{name.rpartition('.')[2]}", "application/octet-stream")
