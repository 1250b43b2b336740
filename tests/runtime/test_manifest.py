"""The values of the manifest survive their JSON, and nothing half-right gets through."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime
from runtime import (
    Bundle,
    BundleFormatError,
    Manifest,
    ModelSpec,
    RuntimeMissing,
    VariantError,
)
from runtime.plain_text import escaped, hidden_character

SCHEMA = json.loads((Path(runtime.__file__).parent / "bundle.schema.json").read_text("utf-8"))


def test_the_manifest_survives_its_json(gray_bundle: bytes, color_bundle: bytes) -> None:
    for data in (gray_bundle, color_bundle):
        manifest = Bundle.open(data).manifest
        assert Manifest.from_json(manifest.to_json()) == manifest
        assert manifest.synthetic


SHOWN = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")))


@given(
    name=SHOWN,
    height=st.integers(1, 4096),
    width=st.integers(1, 4096),
    channels=st.sampled_from([1, 3]),
    labels=st.lists(SHOWN, min_size=1, max_size=5, unique=True),
)
def test_a_spec_survives_its_json(
    name: str, height: int, width: int, channels: int, labels: list[str]
) -> None:
    spec = ModelSpec(name, "multi-label", height, width, channels, tuple(labels))
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("category", ["Cc", "Cf", "Cs", "Zl", "Zp"])
def test_no_text_of_a_spec_hides(category: str, build: Any) -> None:
    """Every character of these categories that this Python knows."""
    every = map(chr, range(0x30000))
    hidden = [one for one in every if unicodedata.category(one) == category] + ["\U000e0041"]
    for character in hidden:
        assert hidden_character(f"a{character}b") == f"U+{ord(character):04X}"
    for change in ({"name": f"a{hidden[0]}"}, {"labels": ("a", f"{hidden[0]}a")}):
        with pytest.raises(BundleFormatError, match=r"has the name or label .*U\+"):
            dataclasses.replace(build.GRAY, **change)


@given(SHOWN)
def test_what_shows_is_left_as_it_is(text: str) -> None:
    assert hidden_character(text) is None and escaped(text) == text


def test_what_hides_is_escaped() -> None:
    assert escaped("a\x1b[2J\u202e\U000e0041\n") == r"a\x1b[2J\u202e\U000e0041\n"
    assert escaped("a\n\x9b", keep_lines=True) == "a\n\\x9b"
    assert str(BundleFormatError("a\r\n  b\t\x1b c")) == r"a b \x1b c"
    assert str(RuntimeMissing("x\u202e")) == r"x\u202e"


def test_brackets_in_strings_are_text(gray_bundle: bytes) -> None:
    data = json.loads(Bundle.open(gray_bundle).manifest.to_json())
    data["provenance"]["note"] = '[{"\\' * 3000
    assert Manifest.from_json(json.dumps(data)).provenance == data["provenance"]
    data["provenance"]["deep"] = [[]] * 2000
    with pytest.raises(BundleFormatError, match="lists and objects; expected at most 2000"):
        Manifest.from_json(json.dumps(data))


def test_a_white_level_is_in_the_spec_only_where_it_is_stated(build: Any) -> None:
    """A reader refuses unknown keys of a spec, so one that would scale from 65535 refuses."""
    assert "white_level" not in build.GRAY.to_dict()
    deep = replace(build.GRAY, white_level=4095)
    assert deep.to_dict() == {**build.GRAY.to_dict(), "white_level": 4095}
    assert ModelSpec.from_json(deep.to_json()) == deep
    with closing(Bundle.open(build.bundle(deep))) as bundle:
        assert bundle.manifest.spec == deep
        jsonschema.validate(json.loads(bundle.manifest.to_json()), SCHEMA)


def test_a_default_falls_back_to_cpu(gray_bundle: bytes) -> None:
    manifest = Bundle.open(gray_bundle).manifest
    assert manifest.default_for("arm64").target == "cpu"


def test_an_unknown_variant_names_those_that_exist(gray_bundle: bytes) -> None:
    with pytest.raises(VariantError, match="no variant 'fp64'; it has: fp32, int8-u8s8-rr"):
        Bundle.open(gray_bundle).manifest.variant("fp64")


REFUSED = {
    "hash that is a number": (lambda d: d["files"]["golden.npz"].update(sha256=7), "sha256 7"),
    "negative size": (lambda d: d["files"]["golden.npz"].update(size_bytes=-1), "size_bytes -1"),
    "size that is true": (lambda d: d["files"]["golden.npz"].update(size_bytes=True), "True"),
    "tolerance above 1": (lambda d: d["variants"][0].update(golden_tolerance=2), "tolerance 2"),
    "tolerance nan": (
        lambda d: d["variants"][0].update(golden_tolerance=float("nan")),
        "NaN is no",
    ),
    "portable of 1": (lambda d: d["variants"][0].update(portable=1), "portable 1"),
    "unknown precision": (lambda d: d["variants"][0].update(precision="int4"), "'int4'"),
    "twice the same id": (lambda d: d["variants"].append(d["variants"][0]), "not distinct"),
    "no variants": (lambda d: d.update(variants=[], defaults=[]), "none or not distinct"),
    "thresholds of another count": (
        lambda d: d["variants"][0].update(thresholds=[0.5]),
        "has 1 thresholds, needs None",
    ),
    "no file of a variant": (lambda d: d["files"].pop("variants/fp32.onnx"), "has no file"),
    "no preprocess": (lambda d: d["files"].pop("preprocess.onnx"), r"no preprocess\.onnx"),
    "no default for cpu": (lambda d: d["defaults"][0].update(target="arm64"), "for 'cpu'"),
    "devices without cpu": (lambda d: d.update(devices=["cuda"]), "lack 'cpu'"),
    "unknown key of the spec": (lambda d: d["spec"].update(mean=1), r"unknown keys \['mean'\]"),
    "no files": (lambda d: d.pop("files"), "KeyError at 'files'"),
    "files as a list": (lambda d: d.update(files=[]), "AttributeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_manifest_that_contradicts_itself_is_refused(name: str, gray_bundle: bytes) -> None:
    edit, message = REFUSED[name]
    data: dict[str, Any] = json.loads(Bundle.open(gray_bundle).manifest.to_json())
    edit(data)
    with pytest.raises(BundleFormatError, match=message):
        Manifest.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"task": "regression"},
            "task 'regression'; expected one of 'multi-class', 'multi-label', 'values'",
        ),
        ({"channels": 4}, "size 8x8x4; expected a positive height"),
        ({"height": 0}, "size 0x8x1"),
        ({"labels": []}, r"labels \[\]; expected distinct names"),
        ({"labels": ["a", "a"]}, "expected distinct names"),
        ({"labels": [1]}, "labels that are not strings"),
        ({"width": "8"}, "width='8'; expected a int"),
        ({"height": True}, "height=True"),
        ({"white_level": 0}, "white_level 0; expected 1 to 65535"),
        ({"white_level": 65536}, "white_level 65536"),
        ({"white_level": 4095.0}, "white_level=4095.0"),
        ({"white_level": None}, "white_level=None"),
    ],
)
def test_a_spec_that_is_wrong_says_where(build: Any, change: Any, message: str) -> None:
    with pytest.raises(BundleFormatError, match=message):
        ModelSpec.from_dict({**build.GRAY.to_dict(), **change})


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "[" * 100_000])
def test_a_spec_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(BundleFormatError, match="model spec is"):
        ModelSpec.from_json(text)


def test_another_device_may_have_a_tolerance_of_its_own(build: Any) -> None:
    def tolerance_on(device: str, **change: Any) -> float:
        data = build.bundle(edit=lambda d: d["variants"][0].update(change))
        with closing(Bundle.open(data)) as bundle:
            assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
            return bundle.manifest.variants[0].tolerance_on(device)

    assert tolerance_on("cpu", device_tolerance=0.05) == build.TOLERANCE
    assert tolerance_on("cuda", device_tolerance=0.05) == 0.05
    assert tolerance_on("cuda", device_tolerance=None) == build.TOLERANCE
    with pytest.raises(BundleFormatError, match=r"device_tolerance 1\.5"):
        tolerance_on("cpu", device_tolerance=1.5)

    def as_older_writers_do(manifest: dict[str, Any]) -> None:
        for row in manifest["variants"]:
            del row["device_tolerance"]

    with closing(Bundle.open(build.bundle(edit=as_older_writers_do))) as bundle:
        assert bundle.manifest.variants[0].tolerance_on("cuda") == build.TOLERANCE
