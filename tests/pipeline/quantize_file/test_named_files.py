"""Whatever path a recipe or an option names is read only where it is a file: a pipe would wait for
its writer for ever, /dev/zero fill the memory. Each call here would not come back otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.errors import GraphError, PackageError
from exporters.graph import foreign_file, onnx_file
from exporters.package.signing import sign_bundle
from pipeline.datasets.sources.idx import read_idx
from pipeline.datasets.sources.label_file import read_label_file
from pipeline.errors import DataError, RecipeError
from pipeline.learning.networks.build import build_network
from pipeline.recipe import DataOptions, NetworkOptions
from runtime import Bundle, BundleFormatError, InputError, ModelSpec
from runtime.__main__ import trusted_keys
from runtime.regular_file import read_regular

pytestmark = pytest.mark.skipif(
    not hasattr(os, "mkfifo"), reason="not run: there are no pipes and devices"
)
SPEC = ModelSpec("x", "multi-class", 32, 32, 3, ("a", "b"))


def _weights(path: Path) -> object:
    return build_network(NetworkOptions(torchvision="squeezenet1_1", weights=str(path)), SPEC)


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "a bundle": (Bundle.open, BundleFormatError),
    "a trusted key": (lambda path: trusted_keys([str(path)]), InputError),
    "a private key": (lambda path: sign_bundle(path, path), PackageError),
    "a model": (onnx_file.load, GraphError),
    "a model of others": (foreign_file.read, GraphError),
    "a table of labels": (
        lambda path: read_label_file(path.parent, path, DataOptions(kind="images")),
        DataError,
    ),
    "an IDX file": (lambda path: read_idx(path, 3), DataError),
    "weights": (_weights, RecipeError),
}


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
@pytest.mark.parametrize("name", READERS)
def test_only_files_are_read(name: str, kind: str, tmp_path: Path) -> None:
    read, error = READERS[name]
    path = tmp_path / "named"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(error, match=f"it is a {kind}; expected a file"):
        read(path)


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(path, 4)
    if Path("/proc/self/status").exists():  # says that it has no bytes
        assert b"Name:" in read_regular("/proc/self/status", 1 << 20)
