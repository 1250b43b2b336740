"""``bundle.schema.json`` says of manifests what the parser does."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runtime
from runtime import Bundle, BundleFormatError, Manifest

SCHEMA = json.loads((Path(runtime.__file__).parent / "bundle.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "cpu", "fp32", "multi-label", "a" * 64, "\x1b[2J", "cat\u202e"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cpu", "data", "synthetic", "target", "x"]), inner)
    ),
    max_leaves=4,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], (dict, list)):
            found += places(value[key])
    return found


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_real_manifests_are_valid(
    gray_bundle: bytes, color_bundle: bytes, heads_bundle: bytes
) -> None:
    for data in (gray_bundle, color_bundle, heads_bundle):
        VALIDATOR.validate(json.loads(Bundle.open(data).manifest.to_json()))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_the_schema_refuses_the_parser_refuses(
    gray_bundle: bytes, color_bundle: bytes, heads_bundle: bytes, data: st.DataObject
) -> None:
    source = data.draw(st.sampled_from([gray_bundle, color_bundle, heads_bundle]))
    manifest = json.loads(Bundle.open(source).manifest.to_json())
    for _ in range(data.draw(st.integers(1, 2))):
        found = places(manifest)
        container, key = found[data.draw(st.integers(0, len(found) - 1))]
        if data.draw(st.booleans()):
            container[key] = data.draw(VALUES)
        else:
            del container[key]
    if not VALIDATOR.is_valid(manifest):
        with pytest.raises(BundleFormatError):
            Manifest.from_json(json.dumps(manifest))


@pytest.mark.parametrize("name", ["gray_bundle", "heads_bundle"])
def test_each_rule_of_the_schema_can_fail(name: str, request: pytest.FixtureRequest) -> None:
    """Every value replaced by one of another type, and every required key left out."""
    sound = json.loads(Bundle.open(request.getfixturevalue(name)).manifest.to_json())
    for index in range(len(places(sound))):
        changed = copy.deepcopy(sound)
        container, key = places(changed)[index]
        origin = changed["provenance"]
        if (container is origin and key != "data") or (
            container is origin["data"] and key != "synthetic"
        ):
            continue  # free
        container[key] = [] if isinstance(container[key], dict) else {"surprise": []}
        assert not VALIDATOR.is_valid(changed), key
        with pytest.raises(BundleFormatError):
            Manifest.from_json(json.dumps(changed))
