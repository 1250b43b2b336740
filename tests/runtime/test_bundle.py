"""Opening bundles: what is a bundle, and what each kind of broken one says."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import (
    Bundle,
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    Predictor,
    PredictorError,
)


def test_path_bytes_and_file_open_the_same_bundle(gray_bundle: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(gray_bundle)
    with zipfile.ZipFile(path) as archive:
        expected = hashlib.sha256(archive.read("manifest.json")).hexdigest()
    with path.open("rb") as file:
        for source in (path, str(path), gray_bundle, bytearray(gray_bundle), file):
            bundle = Bundle.open(source)
            assert bundle.id == expected
            assert bundle.manifest.model_version == "1.2.3"
            assert bundle.read("measurements.json") == b"{}"
            bundle.close()
        assert not file.closed  # it is the caller's


def test_a_closed_bundle_says_so(gray_bundle: bytes) -> None:
    bundle = Bundle.open(gray_bundle)
    bundle.close()
    with pytest.raises(BundleError, match=r"the bundle was closed\. Open it again"):
        bundle.read("preprocess.onnx")


NO_BUNDLES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "no zip": (b"\x89PNG\r\n\x1a\n" + bytes(99), r"zip file \(it begins with b'\\x89PNG"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "zip of something else": (b"", r"manifest\.json is missing"),
}


@pytest.mark.parametrize("name", NO_BUNDLES)
def test_a_file_that_is_not_a_bundle_is_described(name: str, build: Any) -> None:
    data, message = NO_BUNDLES[name]
    if name == "zip of something else":
        data = build.zipped({"readme.txt": b"hello"})
    with pytest.raises(BundleFormatError, match=message):
        Bundle.open(data)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.zip", "nowhere.zip: cannot be opened: .*No such file"),
        (".", "cannot be opened: .*directory"),
        ("a\0b", "cannot be opened"),
        (7, "cannot be opened from a int; expected a path"),
        (None, "cannot be opened from a NoneType"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(source: Any, message: str) -> None:
    with pytest.raises(BundleFormatError, match=message):
        Bundle.open(source)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_a_truncated_bundle_is_reported_as_truncated(gray_bundle: bytes, keep: float) -> None:
    with pytest.raises(BundleFormatError, match="the zip is truncated or damaged"):
        Bundle.open(gray_bundle[: int(len(gray_bundle) * keep)])


def _rename(old: str, new: str) -> Callable[[dict[str, bytes]], object]:
    def pack(members: dict[str, bytes]) -> None:
        members[new] = members.pop(old)

    return pack


NOISE = np.random.default_rng(0).bytes(2 << 20)  # zeros would be refused as a bomb
BROKEN_MEMBERS: dict[str, tuple[dict[str, Any], type[BundleError], str]] = {
    "altered member": (
        {"pack": lambda m: m.update({"measurements.json": b"[]"})},
        BundleIntegrityError,
        r"measurements\.json has the sha256 .*; expected .*damaged or was altered",
    ),
    "longer member": (
        {"pack": lambda m: m.update({"measurements.json": bytes(999)})},
        BundleIntegrityError,
        r"measurements\.json has 999 bytes; expected the 2 of the manifest",
    ),
    "altered manifest": (
        {"pack": lambda m: m.update({"manifest.json": m["manifest.json"] + b" "})},
        BundleIntegrityError,
        r"manifest\.json has the sha256 .* says otherwise",
    ),
    "no manifest": (
        {"pack": lambda m: m.pop("manifest.json")},
        BundleFormatError,
        r"manifest\.json is missing",
    ),
    "no hash of the manifest": (
        {"pack": lambda m: m.pop("manifest.sha256")},
        BundleFormatError,
        r"manifest\.sha256 is missing",
    ),
    "huge manifest": (
        {"pack": lambda m: m.update({"manifest.json": NOISE})},
        BundleFormatError,
        r"manifest\.json has 2097152 bytes; expected at most 1048576",
    ),
    "huge hash": (
        {"pack": lambda m: m.update({"manifest.sha256": bytes(999)})},
        BundleFormatError,
        r"manifest\.sha256 has 999 bytes; expected at most 256",
    ),
    "missing member": (
        {"pack": lambda m: m.pop("golden.npz")},
        BundleFormatError,
        r"the members \['golden\.npz'\] are missing",
    ),
    "unlisted member": (
        {"pack": lambda m: m.update({"evil.py": b""})},
        BundleFormatError,
        r"the manifest does not list \['evil\.py'\]",
    ),
    "same name in capitals": (
        {"pack": lambda m: m.update({"GOLDEN.npz": b""})},
        BundleFormatError,
        r"several members named \['golden\.npz'\]",
    ),
    "parent path": (
        {"pack": _rename("measurements.json", "../measurements.json")},
        BundleFormatError,
        "'../measurements.json' has an absolute, parent or folder path",
    ),
    "absolute path": (
        {"pack": _rename("measurements.json", "/etc/passwd")},
        BundleFormatError,
        "'/etc/passwd' has an absolute, parent or folder path",
    ),
    "folder": (
        {"pack": lambda m: m.update({"variants/": b""})},
        BundleFormatError,
        "'variants/' has an absolute, parent or folder path",
    ),
    "drive": (
        {"pack": _rename("measurements.json", "C:measurements.json")},
        BundleFormatError,
        "means different files on different systems",
    ),
    "newer schema": (
        {"edit": lambda d: d.update(schema_version=2)},
        BundleFormatError,
        "schema_version 2; this runtime reads up to 1. Install a newer runtime",
    ),
    "no schema": (
        {"edit": lambda d: d.pop("schema_version")},
        BundleFormatError,
        "schema_version None",
    ),
    "newer spec": (
        {"edit": lambda d: d["spec"].update(spec_version=3)},
        BundleFormatError,
        "spec_version 3",
    ),
    "unknown default": (
        {"edit": lambda d: d["defaults"][0].update(variant="int4")},
        BundleFormatError,
        "the default of 'cpu' is the unknown variant 'int4'",
    ),
    "provenance of another type": (
        {"edit": lambda d: d.update(provenance=[])},
        BundleFormatError,
        r"is not of schema 1: TypeError at provenance \[\]",
    ),
    "other spec in the model": (
        {"edit": lambda d: d["spec"].update(labels=["a", "b", "c"])},
        BundleFormatError,
        "the model is stamped with another spec",
    ),
}


@pytest.mark.parametrize("name", BROKEN_MEMBERS)
def test_each_broken_bundle_says_what_is_wrong(name: str, build: Any) -> None:
    options, error, message = BROKEN_MEMBERS[name]
    with pytest.raises(error, match=message) as caught:
        Predictor(build.bundle(**options), device="cpu")
    assert caught.type is error


def test_a_file_of_text_is_not_a_bundle(gray_bundle: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(gray_bundle)
    message = r"its read\(\) gives a str; open it in binary mode"
    with path.open(encoding="latin-1") as file, pytest.raises(BundleFormatError, match=message):
        Bundle.open(file)  # type: ignore[arg-type]
    with pytest.raises(BundleFormatError, match=message):
        Bundle.open(io.StringIO("PK"))  # type: ignore[arg-type]


def test_a_file_whose_seek_says_nothing_is_read(gray_bundle: bytes) -> None:
    class Quiet(io.BytesIO):
        def seek(self, *arguments: Any) -> Any:
            super().seek(*arguments)

    with closing(Bundle.open(Quiet(gray_bundle))) as bundle:
        assert bundle.read("measurements.json") == b"{}"


def test_a_member_that_is_there_twice_is_refused(gray_bundle: bytes) -> None:
    file = io.BytesIO(gray_bundle)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("measurements.json", b"{}")
    with pytest.raises(BundleFormatError, match=r"several members named \['measurements.json'\]"):
        Bundle.open(file)


def test_a_symbolic_link_is_refused(gray_bundle: bytes) -> None:
    file = io.BytesIO(gray_bundle)
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BundleFormatError, match="'link' is a symbolic link"):
        Bundle.open(file)


def test_another_method_than_deflate_is_refused(gray_bundle: bytes) -> None:
    file = io.BytesIO(gray_bundle)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("extra", b"x", compress_type=zipfile.ZIP_LZMA)
    with pytest.raises(BundleFormatError, match="'extra' is packed by method 14"):
        Bundle.open(file)


def test_an_encrypted_member_is_refused(gray_bundle: bytes) -> None:
    data = bytearray(gray_bundle)
    entry = data.rindex(b"PK\x01\x02")  # the last entry of the central directory
    struct.pack_into("<H", data, entry + 8, 0x1)
    with pytest.raises(BundleFormatError, match="is encrypted"):
        Bundle.open(bytes(data))


def test_sha256sum_may_have_written_the_hash(build: Any) -> None:
    def pack(members: dict[str, bytes]) -> None:
        members["manifest.sha256"] = members["manifest.sha256"].strip() + b"  manifest.json\n"

    Bundle.open(build.bundle(pack=pack)).close()


def test_a_signature_may_be_there(build: Any) -> None:
    Bundle.open(build.bundle(pack=lambda m: m.update({"manifest.sig": bytes(64)}))).close()


def test_a_bundle_that_changes_while_it_is_open_is_noticed(build: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    path = tmp_path / "bundle.zip"
    path.write_bytes(build.bundle(members={"noise.bin": noise}))
    with Predictor(path, device="cpu") as p:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(bytes(100))
        with pytest.raises(BundleIntegrityError, match=r"noise\.bin"):
            p.selftest()


def test_no_bundle_is_left_open_when_opening_fails(build: Any, tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    path.write_bytes(build.bundle())
    file = path.open("rb")
    with pytest.raises(PredictorError):
        Predictor(file, device="tpu")
    with pytest.raises(PredictorError):
        Predictor(path, threads=0)
    assert not file.closed
    file.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_harmless(gray_bundle: bytes, data: st.DataObject) -> None:
    """Harmless: in a field of the zip that nobody reads, such as a date."""
    position = data.draw(st.integers(0, len(gray_bundle) - 1))
    broken = bytearray(gray_bundle)
    broken[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        bundle = Bundle.open(bytes(broken))
    except BundleError:
        return
    sound = Bundle.open(gray_bundle)
    assert bundle.id == sound.id
    assert all(bundle.read(name) == sound.read(name) for name in sound.manifest.files)


@settings(max_examples=40, deadline=None)
@given(junk=st.binary(max_size=200))
def test_junk_is_a_format_error(junk: bytes) -> None:
    with pytest.raises(BundleFormatError):
        Bundle.open(junk)


@settings(max_examples=60, deadline=None)
@given(
    text=st.one_of(
        st.binary(max_size=50),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["schema_version", "spec", "files", "variants"]), inner
                )
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
        st.just(b"[" * 100_000),
    )
)
def test_any_manifest_is_read_or_refused(text: bytes) -> None:
    from runtime import Manifest

    with pytest.raises(BundleFormatError):
        Manifest.from_json(text)
