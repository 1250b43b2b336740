"""The table of contents of a bundle, as values. Parsing refuses what this runtime does not
understand; ``bundle.py`` hashes and reads members."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, is_dataclass
from itertools import islice
from typing import Any, cast

from . import strict_json
from .errors import BundleFormatError, VariantError
from .origin import let_through
from .plain_text import hidden_character
from .spec import ModelSpec
from .tasks import task_named

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MANIFEST_HASH_NAME = "manifest.sha256"  # hex digest of manifest.json; the bundle's id
MANIFEST_SIGNATURE_NAME = "manifest.sig"  # of manifest.json, by Ed25519; may be absent
PREPROCESS_NAME = "preprocess.onnx"
MEASUREMENTS_NAME = "measurements.json"
GOLDEN_NAME = "golden.npz"
MODEL_CARD_NAME = "MODEL_CARD.md"
PRECISIONS = ("fp32", "fp16", "int8")
# Speed against FP32 below which a variant is not a default: the gain is within the noise.
WORTH = 1.02
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SHOWN_PROBLEMS = 5  # of one kind, in one message
_ID = re.compile(r"[A-Za-z0-9_.+-]+", re.ASCII)  # of a variant; a member is named after it


@dataclass(frozen=True)
class FileEntry:
    """The size and hash that one member of the zip must have."""

    sha256: str  # lower-case hex
    size_bytes: int


@dataclass(frozen=True)
class Variant:
    """One form of the model; every variant takes the same pixels and has the same labels."""

    id: str  # begins with its precision: "fp32", "fp16", "int8-u8s8-rr"
    file: str  # member name, "variants/<id>.onnx"
    precision: str  # one of PRECISIONS
    portable: bool  # bit-identical quantized tensors on every target; never true of fp16
    golden_tolerance: float  # largest difference that selftest accepts; its unit is the task's
    thresholds: tuple[float, ...] | None = None  # one for each label, or none
    # The same on another device than the CPU, whose 8-bit layers may be summed in float; None: it
    # is golden_tolerance there, too.
    device_tolerance: float | None = None

    def tolerance_on(self, device: str) -> float:
        """The largest difference that selftest accepts on that device."""
        if device == "cpu" or self.device_tolerance is None:
            return self.golden_tolerance
        return self.device_tolerance


@dataclass(frozen=True)
class Default:
    """The variant for one kind of device, with the number that decided it."""

    target: str  # as BUNDLE.md lists them: "x86_64-vnni", "arm64", ..., or "cpu" for any other
    variant: str  # a variant's id
    reason: str  # what was measured, or the words "not measured here"


@dataclass(frozen=True)
class Manifest:
    """All that a bundle says about itself.

    ``provenance`` is for people and tools, the runtime reads only ``data.synthetic`` of it:
    recipe, data (name, sha256, synthetic, redistributable, license), seed, code and library
    versions.
    """

    model_version: str
    spec: ModelSpec
    files: dict[str, FileEntry]  # every member but the manifest, its hash and its signature
    variants: tuple[Variant, ...]
    defaults: tuple[Default, ...]
    devices: tuple[str, ...] = ("cuda", "cpu")  # the order in which device="auto" tries
    provenance: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def synthetic(self) -> bool:
        """True when the model was trained on generated images."""
        data = self.provenance.get("data")
        return bool(data.get("synthetic")) if isinstance(data, dict) else False

    def variant(self, variant_id: str) -> Variant:
        """Return the variant of that id; raises VariantError naming those that exist."""
        for variant in self.variants:
            if variant.id == variant_id:
                return variant
        ids = ", ".join(v.id for v in self.variants)
        raise VariantError(f"the bundle has no variant {variant_id!r}; it has: {ids}.")

    def default_for(self, *targets: str) -> Default:
        """The default of the first of these targets that has a row, or else that of "cpu"."""
        rows = {row.target: row for row in self.defaults}
        return next(rows[target] for target in (*targets, "cpu") if target in rows)

    def to_json(self) -> str:
        """The exact text of ``manifest.json``: sorted keys, two blanks of indentation."""
        data = {**asdict(self), "spec": self.spec.to_dict()}
        return json.dumps(data, sort_keys=True, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: bytes | str) -> Manifest:
        """Read what :meth:`to_json` wrote; raises BundleFormatError for anything else."""
        try:
            data = strict_json.loads(text)
        except ValueError as exc:
            let_through(exc)
            raise BundleFormatError(f"{MANIFEST_NAME} is not JSON: {exc}.") from exc
        if not isinstance(data, dict):
            raise BundleFormatError(f"{MANIFEST_NAME} is not a JSON object.")
        version = data.get("schema_version")
        if type(version) is not int or version > SCHEMA_VERSION or version < 1:
            raise BundleFormatError(
                f"{MANIFEST_NAME} has schema_version {version!r}; this runtime reads up to "
                f"{SCHEMA_VERSION}. Install a newer runtime or rebuild the bundle."
            )
        if problems := _hidden(data):
            raise BundleFormatError(f"{MANIFEST_NAME}: {'; '.join(problems)}. Rebuild the bundle.")
        try:
            manifest = cls(
                model_version=_text(data["model_version"], "model_version"),
                spec=ModelSpec.from_dict(data["spec"]),
                files={
                    _text(name, "file name"): FileEntry(
                        _match(_SHA256, entry["sha256"], "sha256"), _count(entry["size_bytes"])
                    )
                    for name, entry in data["files"].items()
                },
                variants=tuple(_variant(row) for row in _list(data["variants"])),
                defaults=tuple(
                    Default(
                        _text(row["target"], "target"),
                        _text(row["variant"], "variant"),
                        _text(row["reason"], "reason"),
                    )
                    for row in _list(data["defaults"])
                ),
                devices=tuple(_text(device, "device") for device in _list(data["devices"])),
                provenance=_provenance(data["provenance"]),
                schema_version=version,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            let_through(exc)
            raise BundleFormatError(
                f"{MANIFEST_NAME} is not of schema {version}: "
                f"{type(exc).__name__} at {exc}. Rebuild the bundle."
            ) from exc
        manifest.check()
        return manifest

    def check(self) -> None:
        """Raise BundleFormatError unless the parts of the manifest agree with each other."""
        problems = []
        ids = [variant.id for variant in self.variants]
        has_thresholds = task_named(self.spec.task).has_thresholds
        thresholds = len(self.spec.labels) if has_thresholds else None
        if not ids or len(set(ids)) != len(ids):
            problems.append(f"variants {ids} are none or not distinct")
        for variant in self.variants:
            if variant.precision not in PRECISIONS or not variant.id.startswith(variant.precision):
                problems.append(f"variant {variant.id!r} has precision {variant.precision!r}")
            if variant.file not in self.files:
                problems.append(f"variant {variant.id!r} has no file {variant.file!r}")
            count = None if variant.thresholds is None else len(variant.thresholds)
            if count != thresholds:
                problems.append(
                    f"variant {variant.id!r} has {count} thresholds, needs {thresholds}"
                )
        problems += [
            f"the default of {row.target!r} is the unknown variant {row.variant!r}"
            for row in self.defaults
            if row.variant not in ids
        ]
        if "cpu" not in {row.target for row in self.defaults}:
            problems.append("there is no default for 'cpu'")
        if "cpu" not in self.devices:
            problems.append(f"devices {list(self.devices)} lack 'cpu'")
        problems += [f"no {name}" for name in (PREPROCESS_NAME,) if name not in self.files]
        problems += _hidden(self)
        if problems:
            raise BundleFormatError(f"{MANIFEST_NAME}: " + "; ".join(problems) + ".")


def _hidden(value: object) -> list[str]:
    """The first few places where a string holds characters that do not show, as text."""
    problems = (
        f"{path} has {character}, a control or invisible character"
        for path, text in _texts(value)
        if (character := hidden_character(text))
    )
    return list(islice(problems, _SHOWN_PROBLEMS))


def _texts(value: object) -> Iterator[tuple[str, str]]:
    """(path, text) of every string in dataclasses and JSON values, keys included; any depth."""
    waiting = [("", value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value
            continue
        if is_dataclass(value):
            value = vars(value)
        if isinstance(value, dict):
            for key, inner in value.items():
                here = f"{path}.{key}" if path else str(key)
                waiting += [(f"the key {here!r}", key), (here, inner)]
        elif isinstance(value, (list, tuple)):
            waiting += [(f"{path}[{i}]", inner) for i, inner in enumerate(value)]


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} {value!r}")
    return value


def _match(pattern: re.Pattern[str], value: object, what: str) -> str:
    if not pattern.fullmatch(_text(value, what)):
        raise ValueError(f"{what} {value!r}, expected {pattern.pattern}")
    return cast("str", value)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r}, expected a list")
    return value


def _provenance(value: object) -> dict[str, Any]:
    """Check the few values that the runtime reads; the rest is free."""
    if not isinstance(value, dict):
        raise TypeError(f"provenance {value!r}")
    data = value.get("data", {})
    if not isinstance(data, dict) or type(data.get("synthetic", False)) is not bool:
        raise TypeError(f"provenance.data {data!r}")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"size_bytes {value!r}")
    return value


def _number(value: object, what: str) -> float:
    if type(value) not in (int, float) or not 0 <= cast("float", value) <= 1:
        raise TypeError(f"{what} {value!r}")
    return float(cast("float", value))


def _variant(row: dict[str, Any]) -> Variant:
    thresholds, elsewhere = row["thresholds"], row.get("device_tolerance")
    if type(row["portable"]) is not bool:
        raise TypeError(f"portable {row['portable']!r}")
    return Variant(
        id=_match(_ID, row["id"], "id"),
        file=_text(row["file"], "file"),
        precision=_text(row["precision"], "precision"),
        portable=row["portable"],
        golden_tolerance=_number(row["golden_tolerance"], "golden_tolerance"),
        thresholds=None
        if thresholds is None
        else tuple(_number(value, "threshold") for value in _list(thresholds)),
        device_tolerance=None if elsewhere is None else _number(elsewhere, "device_tolerance"),
    )
