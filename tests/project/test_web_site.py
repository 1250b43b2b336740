"""The page as files: what is in it, how it is written and served, and what is said when something
is missing. No browser; `test_web_page.py` has one."""

from __future__ import annotations

import gzip
import http.client
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.errors import WebError
from pipeline.targets.browser import JobFiles
from pipeline.web import onnxruntime_web
from pipeline.web.server import create_server, serve
from pipeline.web.site import MARK, site_files, write_site


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the user."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def fetched(cache: Path) -> Path:
    """The cache with files in onnxruntime-web's place; their content does not matter here."""
    place = cache / "edgeproof" / f"onnxruntime-web-{onnxruntime_web.VERSION}"
    place.mkdir(parents=True)
    for name in onnxruntime_web.FILES:
        (place / name).write_bytes(gzip.compress(name.encode(), mtime=0))
    return place


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    return result.exit_code, result.output


# --- the files --------------------------------------------------------------------------------


def test_the_page_holds_all_that_it_mentions(fetched: Path, bundle: Path) -> None:
    files = site_files(bundle)
    assert files["bundle.zip"] == bundle.read_bytes()
    page = files["index.html"].decode()
    for name in ("style.css", "theme.js", "main.mjs", "icon.svg", "licenses.txt"):
        assert name in page and name in files
    own = [name for name in files if name.endswith(".mjs") and "/ort/" not in name]
    for name in own:
        folder = name.rpartition("/")[0]
        for line in files[name].decode().splitlines():
            if ' from "./' in line and not line.lstrip().startswith(("*", "//")):
                target = line.split('"./')[1].split('"')[0]
                assert f"{folder}/{target}".lstrip("/") in files, f"{name}: {line}"


def test_the_page_mentions_no_other_host(fetched: Path, bundle: Path) -> None:
    allowed = (
        b"http://www.w3.org/2000/svg",  # a name, not an address
        b"http://localhost:8000",  # where one's own server is
        b"https://www.apache.org/",  # in the text of the licenses
        b"version https://git-lfs",  # how a pointer of Git LFS begins
    )
    for name, data in site_files(bundle).items():
        if "/ort/" in name or name == "bundle.zip":
            continue
        for address in allowed:
            data = data.replace(address, b"")
        assert b"http://" not in data and b"https://" not in data, name


def test_the_folder_is_written_whole_and_replaced_whole(
    fetched: Path, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "site"
    code, output = invoke("package", bundle, "--web", folder)
    assert code == 0 and f"python3 -m http.server --directory {folder}" in output
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert files.pop(MARK)
    assert files == site_files(bundle)
    (folder / "old.txt").write_text("of an older page")
    write_site(bundle, folder)
    assert not (folder / "old.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["site"]  # nothing is left aside


def test_a_folder_of_others_is_left_alone(fetched: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    code, output = invoke("package", bundle, "--web", tmp_path / "home")
    assert code == 1 and "expected a new or empty folder" in output
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


def test_a_bundle_that_does_not_open_makes_no_page(fetched: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bundle.zip"
    broken.write_bytes(b"PK\x03\x04")
    for words in (("package", broken, "--web", tmp_path / "site"), ("demo", broken, "--port", 0)):
        code, output = invoke(*words)
        assert code == 1 and "truncated or damaged" in output
    assert not (tmp_path / "site").exists()


# --- onnxruntime-web --------------------------------------------------------------------------


def test_without_it_the_error_names_the_command(cache: Path, bundle: Path, tmp_path: Path) -> None:
    code, output = invoke("package", bundle, "--web", tmp_path / "site")
    assert code == 1 and "Fetch it once with: pipeline fetch onnxruntime-web" in output
    assert not cache.exists()  # nothing is fetched unasked


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called npm in front of all others."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_another_package_than_the_tested_one_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as package:
        package.addfile(tarfile.TarInfo("package/dist/ort.wasm.min.mjs"))
    (tmp_path / "evil.tgz").write_bytes(archive.getvalue())
    fake_npm(tmp_path / "bin", f"cp {tmp_path}/evil.tgz .", monkeypatch)
    code, output = invoke("fetch", "onnxruntime-web")
    assert code == 1 and "expected sha512-" in output
    assert not list(cache.rglob("*.mjs"))
    assert list((cache / "edgeproof").iterdir()) == []


def test_a_failing_npm_is_quoted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_npm(tmp_path / "bin", "echo 'ENOTFOUND: no network' >&2; exit 1", monkeypatch)
    code, output = invoke("fetch", "onnxruntime-web")
    assert code == 1 and "ENOTFOUND: no network" in output and "pipeline fetch" in output


def test_without_npm_the_error_says_what_to_install(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WebError, match=r"npm is not installed.*Install Node"):
        onnxruntime_web.fetch()


# --- the server -------------------------------------------------------------------------------

Reply = tuple[int, dict[str, str], bytes]
FILES = {"index.html": b"<p>" * 500, "a/b.mjs": b"export {};", "x.wasm.gz": gzip.compress(b"w")}


@pytest.fixture
def port() -> Iterator[int]:
    with create_server(FILES, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), answer.read()
    connection.close()
    return found


def test_files_are_sent_packed_to_those_who_take_them(port: int) -> None:
    status, headers, body = ask(port, "/", accept_encoding="gzip, br")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(body) == FILES["index.html"] and len(body) < 100
    status, headers, body = ask(port, "/index.html?threads=2")
    assert (status, body) == (200, FILES["index.html"]) and "Content-Encoding" not in headers


def test_what_is_packed_already_is_sent_as_it_is(port: int) -> None:
    _, headers, body = ask(port, "/x.wasm.gz", accept_encoding="gzip")
    assert body == FILES["x.wasm.gz"] and "Content-Encoding" not in headers


def test_the_page_is_isolated_and_its_modules_are_javascript(port: int) -> None:
    _, headers, body = ask(port, "/a/b.mjs")
    assert headers["Content-Type"].startswith("text/javascript") and body == FILES["a/b.mjs"]
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_a_second_visit_moves_nothing(port: int) -> None:
    _, headers, _ = ask(port, "/")
    status, _, body = ask(port, "/", if_none_match=headers["ETag"])
    assert (status, body) == (304, b"")


def test_other_paths_are_not_found(port: int) -> None:
    for path in ("/nothing", "/../etc/passwd", "/a", "/a/", "/%2e%2e/index.html"):
        assert ask(port, path)[0] == 404, path
    assert ask(port, "/", "HEAD")[0] == 200
    assert ask(port, "/", "POST")[0] == 501


def raw(port: int, request: str, wait: float = 10) -> bytes:
    """What the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(request.encode())
        answer = b""
        while more := connection.recv(1 << 16):
            answer += more
        return answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:9000", "[::1]:{port}"])
def test_it_answers_under_this_machine_s_names(host: str, port: int) -> None:
    assert ask(port, "/", host=host.format(port=port))[0] == 200


@pytest.mark.parametrize(
    "lines",
    [
        "Host: evil.example\r\n",
        "Host: evil.example:{port}\r\n",
        "Host: 127.0.0.1.evil.example:{port}\r\n",
        "Host: localhost@evil.example\r\n",
        "Host: \r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
        "",
    ],
)
def test_a_page_under_another_name_reads_nothing(lines: str, port: int) -> None:
    """DNS rebinding: the name is the attacker's, the address this machine's."""
    request = f"GET /index.html HTTP/1.1\r\n{lines.format(port=port)}Connection: close\r\n\r\n"
    answer = raw(port, request)
    assert answer.startswith(b"HTTP/1.1 421 ") and FILES["index.html"] not in answer
    target = f"GET http://evil.example/index.html HTTP/1.1\r\n{lines.format(port=port)}"
    assert b" 421 " in raw(port, f"{target}Connection: close\r\n\r\n").split(b"\r\n")[0]


def test_a_silent_client_does_not_hold_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    with create_server(FILES, 0, patience_seconds=0.2) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.server_address[1]
        for beginning in ("", "GET / HT", "GET / HTTP/1.1\r\nHost: localhost\r\nX: "):
            assert raw(port, beginning) == b""  # closed by the server
        server.shutdown()
        thread.join()
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_is_named(port: int) -> None:
    with pytest.raises(WebError, match=rf"port {port}\b.*--port"):
        create_server(FILES, port)


def test_files_are_posted_where_they_are_received(tmp_path: Path) -> None:
    """As a page in a browser returns the outputs of a job."""
    job, target = tmp_path / "job", tmp_path / "job" / "targets" / "web"
    target.mkdir(parents=True)
    (job / "browser_job.html").write_text("<p>", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    files = JobFiles(job, target, tmp_path / "ort")
    with serve(files.find, files.receive, isolated=False) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.server_address[1]
        status, headers, body = ask(port, "/")
        assert (status, body) == (200, b"<p>") and "Cross-Origin-Opener-Policy" not in headers
        for path in ("/secret.txt", "/job/../secret.txt", "/job/%2e%2e/secret.txt", "/ort/x"):
            assert ask(port, path)[0] == 404
            assert post(port, path, b"x") == 403
        assert post(port, "/job/browser_job.html", b"x") == 403
        assert post(port, "/target/0.bin", b"\x00\x01") == 200 and not files.finished.is_set()
        assert post(port, "/target/answers.json", b"{}", Host="evil.example") == 421
        assert post(port, "/target/answers.json", b"{}") == 200 and files.finished.is_set()
        server.shutdown()
        thread.join()
    assert (target / "0.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "secret.txt").read_text(encoding="utf-8") == "secret"


def post(port: int, path: str, body: bytes, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, body, headers)
    status = connection.getresponse().status
    connection.close()
    return status
