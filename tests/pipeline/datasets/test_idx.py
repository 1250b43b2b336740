"""IDX files: read as they are, refused with a reason otherwise; MNIST is checked by its hashes."""

import gzip
import hashlib
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from exporters.export.resize_graph import resize_graph
from pipeline.datasets.arrays import INFO_NAME, open_dataset
from pipeline.datasets.prepare import prepare
from pipeline.datasets.source_state import source_state
from pipeline.datasets.sources import locate, mnist
from pipeline.datasets.sources.idx import read_idx, read_set
from pipeline.errors import DataError, RecipeError, StoreError
from pipeline.recipe import DataOptions, PreprocessOptions

DIGIT = PreprocessOptions(kind="digit")
REPOSITORY_COPY = locate.SHIPPED_MNIST


def idx_bytes(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_set(folder: Path, train: int = 20, test: int = 6, size: int = 28, ext: str = "") -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in zip(locate.IDX_NAMES, (train, train, test, test), strict=True):
        images = "images" in name
        values = rng.integers(0, 256, (count, size, size)) if images else np.arange(count) % 3
        data = idx_bytes(values)
        (folder / (name + ext)).write_bytes(gzip.compress(data) if ext == ".gz" else data)
    return folder


def run(folder: Path, preprocess: PreprocessOptions = DIGIT, graph: bytes = b"", **options: Any):
    folder.mkdir(parents=True, exist_ok=True)
    return prepare(
        DataOptions(kind="idx", **options), preprocess, graph, 0, folder, lambda *_: None,
        lambda _: None,
    )  # fmt: skip


# --- single files ---------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=1)
    | st.lists(st.integers(1, 7), min_size=3, max_size=3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_what_was_written_is_read(tmp_path_factory, shape: list[int], packed: bool, seed: int):
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(idx_bytes(values)) if packed else idx_bytes(values))
    file = read_idx(path, len(shape))
    assert np.array_equal(file.values, values)
    assert file.sha256 == hashlib.sha256(idx_bytes(values)).hexdigest()


IMAGES = idx_bytes(np.zeros((4, 5, 6)))
BAD_FILES = {
    "nothing": (b"", "begins with nothing; expected 00 00 08 03"),
    "labels": (idx_bytes(np.zeros(9)), "begins with 00 00 08 01; expected 00 00 08 03"),
    "floats": (b"\0\0\x0d\3" + IMAGES[4:], "begins with 00 00 0d 03"),
    "no-idx": (b"<html><body>404", "begins with 3c 68 74 6d"),
    "header": (IMAGES[:10], "ends within its header"),
    "short": (IMAGES[:-1], "119 bytes"),
    "long": (IMAGES + b"x", "121 bytes"),
    "huge": (b"\0\0\x08\3" + b"\xff" * 12, "4294967295x4294967295x4294967295"),
    "empty": (idx_bytes(np.zeros((0, 5, 6))), "is empty: its header says 0x5x6"),
    "cut.gz": (gzip.compress(IMAGES)[:-9], "truncated or damaged"),
    "text.gz": (b"not gzip", "truncated or damaged"),
    "flipped.gz": (gzip.compress(IMAGES)[:-6] + b"abcdef", "truncated or damaged"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, name: str):
    data, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=name) as caught:
        read_idx(tmp_path / name, 3)
    assert message in str(caught.value)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_idx(tmp_path / "none", 3)


# --- four files -----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("ext", ["", ".gz"])
def test_layouts(tmp_path: Path, place: str, ext: str):
    write_set(tmp_path / place, ext=ext)
    assert read_set(locate.find_idx(tmp_path)).test_images.shape == (6, 28, 28)


def test_dotted_names(tmp_path: Path):
    write_set(tmp_path)
    for path in tmp_path.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(locate.find_idx(tmp_path)) == 4


def _drop(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()


def _fewer_labels(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(19)))


def _other_size(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((6, 28, 27))))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, "has no t10k-labels-idx1-ubyte; expected the four files"),
        (_fewer_labels, "has 19 labels, train-images-idx3-ubyte 20 images"),
        (_other_size, r"images of \(28, 28\), t10k-images-idx3-ubyte of \(28, 27\)"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, damage: Callable[[Path], None], message: str):
    damage(write_set(tmp_path))
    with pytest.raises(DataError, match=message):
        read_set(locate.find_idx(tmp_path))


# --- prepare --------------------------------------------------------------------------------


def test_images_in_model_form_are_taken_as_they_are(tmp_path: Path):
    root = write_set(tmp_path / "clothes")
    info = run(tmp_path / "out", root=str(root), validation_images=5, labels=("a", "b", "c"))
    data, files = open_dataset(tmp_path / "out"), read_set(locate.find_idx(root))
    assert data.info == info and info.name == "clothes" and info.labels == ("a", "b", "c")
    assert info.counts == {"train": 15, "val": 5, "test": 6}
    assert isinstance(data.train.images, np.memmap)
    assert np.array_equal(data.train.images[..., 0], files.train_images[:15])
    assert np.array_equal(data.val.images[..., 0], files.train_images[15:])
    assert np.array_equal(data.test.images[..., 0], files.test_images)
    assert np.array_equal(data.val.labels, files.train_labels[15:])
    assert data.train.labels.dtype == np.int64
    assert list(data.val.ids) == [f"train/{i:05d}" for i in range(15, 20)]
    assert any("not applied" in text for text in info.notes)
    assert not info.redistributable  # nothing is known of the source


def test_train_images_leave_the_validation_images_alone(tmp_path: Path):
    root = str(write_set(tmp_path / "set"))
    run(tmp_path / "all", root=root, validation_images=5)
    run(tmp_path / "few", root=root, validation_images=5, train_images=4)
    every, few = open_dataset(tmp_path / "all"), open_dataset(tmp_path / "few")
    assert np.array_equal(few.train.images, every.train.images[:4])
    assert np.array_equal(few.val.images, every.val.images)


def test_other_sizes_go_through_the_graph(tmp_path: Path):
    root = write_set(tmp_path / "set", size=20)
    graph = resize_graph(16, 16, "rgb").SerializeToString()
    options = PreprocessOptions(kind="resize", height=16, width=16, color="rgb")
    info = run(tmp_path / "out", options, graph, root=str(root), validation_images=5)
    assert open_dataset(tmp_path / "out").train.images.shape == (15, 16, 16, 3)
    assert info.labels == ("0", "1", "2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_images": 20}, "leaves no image to train with"),
        ({"train_images": 16}, r"train_images = 16, but the train split has 15"),
        ({"labels": ("a", "b")}, r"gives image 2 the class 2 \(6 such labels\); expected 0 to 1"),
        ({"labels": ("a", "b", "a")}, "expected a distinct name for each class"),
        ({"download": True}, "has no download"),
        ({"root": None}, "needs data.root"),
        ({"root": "/no/such/place"}, "does not exist; expected a folder"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str):
    root = str(write_set(tmp_path / "set"))
    with pytest.raises(DataError, match=message):
        run(tmp_path / "out", **{"root": root, "validation_images": 5, **options})
    assert not (tmp_path / "out" / INFO_NAME).exists()


@pytest.mark.parametrize("key", ["validation_images", "train_images", "synthetic_images"])
def test_counts_below_one_are_refused(key: str):
    with pytest.raises((ValidationError, RecipeError), match=key):
        DataOptions.model_validate({"kind": "mnist", key: 0})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk(tmp_path: Path):
    root = write_set(tmp_path / "set")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.images.npy").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="no room for the decoded images"):
        run(tmp_path / "out", root=str(root), validation_images=5)
    assert not (tmp_path / "out" / INFO_NAME).exists()


# --- MNIST ----------------------------------------------------------------------------------


def test_the_readme_lists_the_hashes_that_are_checked():
    text = (REPOSITORY_COPY / "README.md").read_text(encoding="utf-8")
    for name, digest in zip(locate.IDX_NAMES, mnist.SHA256, strict=True):
        assert f"{digest}  {name}" in text


def test_the_repository_holds_mnist(tmp_path: Path):
    steps: list[tuple[str, int, int]] = []
    info = prepare(
        DataOptions(kind="mnist"), DIGIT, b"", 0, tmp_path, lambda *s: steps.append(s),
        lambda _: None,
    )  # fmt: skip
    data = open_dataset(tmp_path)
    assert info.counts == {"train": 55_000, "val": 5_000, "test": 10_000}
    assert info.labels == tuple("0123456789") and info.redistributable and not info.synthetic
    assert "CC BY-SA 3.0" in info.license
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.val.ids[-1] == "train/59999"
    assert int(data.train.images[0].sum()) == 27525  # a five; summed from the official file


def test_arrays_with_the_former_spelling_of_license_are_opened(tmp_path: Path):
    run(tmp_path / "out", root=str(write_set(tmp_path / "set")), validation_images=5, license="MIT")
    info = tmp_path / "out" / INFO_NAME
    info.write_text(info.read_text().replace('"license"', '"licence"'))
    assert open_dataset(tmp_path / "out").info.license == "MIT"


def test_other_digits_are_not_mnist(tmp_path: Path):
    paths = locate.find_idx(write_set(tmp_path))
    with pytest.raises(DataError, match=r"is not MNIST's train-images.*data\.kind=\"idx\""):
        mnist.read_mnist(paths)


def test_an_installed_package_names_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mnist, "SHIPPED_MNIST", tmp_path / "none")
    with pytest.raises(DataError, match=r"data\.download=true.*data\.root=FOLDER"):
        mnist.find_mnist(DataOptions(kind="mnist"))


def torchvision_with(monkeypatch: pytest.MonkeyPatch, **datasets: object) -> None:
    """A replacement for torchvision, which takes seconds to import and would use the network."""
    module = types.ModuleType("torchvision.datasets")
    vars(module).update(datasets)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


def test_a_download_goes_to_the_cache_and_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    calls = []

    def fake(root: str, download: bool) -> None:
        calls.append(root)
        print("100 %")
        write_set(Path(root) / "MNIST" / "raw", ext=".gz")

    monkeypatch.setattr(mnist, "SHIPPED_MNIST", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torchvision_with(monkeypatch, MNIST=fake)
    options = DataOptions(kind="mnist", download=True)
    assert len(mnist.find_mnist(options)) == len(mnist.find_mnist(options)) == 4
    assert calls == [str(tmp_path / "edgeproof")]
    assert capsys.readouterr().out == ""


def test_a_failed_download_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images")

    monkeypatch.setattr(mnist, "SHIPPED_MNIST", tmp_path / "none")
    torchvision_with(monkeypatch, MNIST=fail)
    with pytest.raises(DataError, match=r"Error downloading train-images.*data\.root=FOLDER"):
        mnist.find_mnist(DataOptions(kind="mnist", root=str(tmp_path), download=True))


def test_source_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert source_state(DataOptions(kind="mnist")) == {"source": "shipped"}
    assert source_state(DataOptions(kind="mnist", download=True)) == {"source": "download"}
    options = DataOptions(kind="idx", root=str(tmp_path))
    assert source_state(options) == {"source": "missing"}
    write_set(tmp_path)
    before = source_state(options)
    assert sorted(before) == sorted(locate.IDX_NAMES) and before == source_state(options)
    (tmp_path / locate.IDX_NAMES[1]).write_bytes(idx_bytes(np.zeros(21)))
    assert source_state(options) != before
