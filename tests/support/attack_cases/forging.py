"""A sound bundle, and what a forger makes of it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import bundle_builders as build

from attack_cases import zips
from attack_cases.zips import DEFLATED, Entry
from runtime import ModelSpec


@cache
def _sound(spec: ModelSpec) -> bytes:
    return build.bundle(spec)


def sound_members(spec: ModelSpec = build.GRAY) -> dict[str, bytes]:
    """The members of a sound bundle, by name."""
    with zipfile.ZipFile(io.BytesIO(_sound(spec))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def plain() -> bytes:
    return zips.write(zips.entries(sound_members()))


def altered(**changes: Any) -> bytes:
    """The bundle with arguments for ``zips.write``."""
    return zips.write(zips.entries(sound_members()), **changes)


def changed(name: str, **changes: Any) -> bytes:
    """The bundle with fields of one member changed."""
    rows = zips.entries(sound_members())
    return zips.write([replace(r, **changes) if r.name == name.encode() else r for r in rows])


def added(*rows: Entry) -> bytes:
    return zips.write([*zips.entries(sound_members()), *rows])


def listed(name: str, data: bytes = b"x", **fields: Any) -> bytes:
    """A bundle with one more member that its manifest lists: all but the name is in order."""
    members = forged(lambda m: list_member(m, name, data), {}, packed=False)
    return zips.write(
        [*zips.entries(members), Entry(name.encode("utf-8", "surrogateescape"), data, **fields)]
    )


def list_member(manifest: dict[str, Any], name: str, data: bytes) -> None:
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    manifest["files"][name] = entry


def forged(
    edit: Callable[[dict[str, Any]], object],
    members: dict[str, bytes],
    packed: bool = True,
    spec: ModelSpec = build.GRAY,
) -> Any:
    """What a forger makes: members replaced, the manifest edited, and all hashes made to fit."""
    files = {**sound_members(spec), **members}
    manifest = json.loads(files["manifest.json"])
    for name, data in members.items():
        list_member(manifest, name, data)
    edit(manifest)
    return with_manifest(json.dumps(manifest).encode(), files, packed)


def with_manifest(text: bytes, files: dict[str, bytes] | None = None, packed: bool = True) -> Any:
    files = {**(files or sound_members()), "manifest.json": text}
    files["manifest.sha256"] = hashlib.sha256(text).hexdigest().encode() + b"\n"
    return zips.write(zips.entries(files)) if packed else files


def manifest_with(edit: Callable[[dict[str, Any]], object]) -> Callable[[], bytes]:
    return lambda: forged(edit, {})  # type: ignore[no-any-return]


def text_with(old: str, new: str) -> Callable[[], bytes]:
    """A manifest whose text is changed, for what no JSON writer writes."""

    def make() -> bytes:
        text = sound_members()["manifest.json"].decode()
        assert text.count(old) == 1, old
        return with_manifest(text.replace(old, new).encode("utf-8", "surrogatepass"))  # type: ignore[no-any-return]

    return make


def member_with(name: str, data: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: forged(lambda m: None, {name: data()})  # type: ignore[no-any-return]


def deflated(data: bytes) -> bytes:
    return Entry(b"", data, DEFLATED).packed_data()
