"""What a model takes and what it returns: one small value, stamped into every model file and
written into every manifest. Knows nothing of files, sessions or devices."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from .errors import BundleFormatError
from .origin import let_through
from .plain_text import hidden_character

SPEC_VERSION = 1
METADATA_KEY = "edgeproof.spec"  # where the spec stands in an ONNX file's metadata
INPUT_NAME = "images"  # uint8 [N, height, width, channels]
OUTPUT_NAME = "probabilities"  # float32 [N, len(labels)]
PREPROCESS_INPUT = "image"  # uint8 [H, W, C], C in {1, 3}, rows first
PREPROCESS_OUTPUT = "pixels"  # uint8 [height, width, channels]

Task = Literal["multi-class", "multi-label"]
_CHANNELS = {1: "gray", 3: "rgb"}
_MAX_WHITE = 65535  # of 16-bit pixels
_MAX_SIDE = 16384  # pixels: nothing of a bundle may ask for memory without bound


@dataclass(frozen=True)
class ModelSpec:
    """The contract of one model: pixels in, probabilities out.

    Input ``images`` is uint8 ``[N, height, width, channels]``; output ``probabilities`` is
    float32 ``[N, len(labels)]``: a softmax over the labels when ``task`` is "multi-class", one
    sigmoid for each label when it is "multi-label".
    """

    name: str
    task: Task
    height: int  # pixels
    width: int  # pixels
    channels: int  # 1: grey, 3: red, green, blue in this order
    labels: tuple[str, ...]
    spec_version: int = SPEC_VERSION
    # The value of 16-bit pixels that is white; None: not stated, 65535 for files. It is here, where
    # a reader refuses unknown keys, because one that ignores it would see other pixels.
    white_level: int | None = None

    def __post_init__(self) -> None:
        if self.spec_version != SPEC_VERSION:
            raise BundleFormatError(
                f"model spec has version {self.spec_version}; this runtime reads version "
                f"{SPEC_VERSION}. Install a newer runtime or rebuild the bundle."
            )
        if self.task not in ("multi-class", "multi-label"):
            raise BundleFormatError(
                f"model spec has task {self.task!r}; expected 'multi-class' or 'multi-label'."
            )
        sides = (self.height, self.width)
        if self.channels not in _CHANNELS or min(sides) < 1 or max(sides) > _MAX_SIDE:
            raise BundleFormatError(
                f"model spec has size {self.height}x{self.width}x{self.channels}; expected a "
                f"positive height and width of at most {_MAX_SIDE} and 1 (grey) or 3 (rgb) "
                "channels."
            )
        if self.white_level is not None and not 1 <= self.white_level <= _MAX_WHITE:
            raise BundleFormatError(
                f"model spec has white_level {self.white_level}; expected 1 to {_MAX_WHITE}, or "
                "none."
            )
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise BundleFormatError(
                f"model spec has labels {list(self.labels)}; expected distinct names, at least one."
            )
        for text in (self.name, *self.labels):
            if found := hidden_character(text):
                raise BundleFormatError(
                    f"model spec has the name or label {text!r} with {found}, a control or "
                    "invisible character; expected text that shows what it is. Rename it where "
                    "the model is trained."
                )

    @property
    def color(self) -> str:
        """ "gray" or "rgb"."""
        return _CHANNELS[self.channels]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return (self.height, self.width, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, ``labels`` as a list; ``white_level`` only where it is stated."""
        data = {**asdict(self), "labels": list(self.labels)}
        if self.white_level is None:
            del data["white_level"]
        return data

    def to_json(self) -> str:
        """One line of JSON with sorted keys, the form that is stamped into model files."""
        import json  # here: a sixth of what importing Predictor costs

        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, data: object) -> ModelSpec:
        """Read what :meth:`to_dict` wrote; raises BundleFormatError for anything else."""
        if not isinstance(data, dict):
            raise BundleFormatError(
                f"model spec is a {type(data).__name__}; expected a JSON object."
            )
        expected: dict[str, type] = {
            "name": str,
            "task": str,
            "height": int,
            "width": int,
            "channels": int,
            "labels": list,
            "spec_version": int,
        }
        for key, kind in expected.items():
            if type(data.get(key)) is not kind:
                raise BundleFormatError(
                    f"model spec has {key}={data.get(key)!r}; expected a {kind.__name__}."
                )
        if "white_level" in data and type(data["white_level"]) is not int:
            raise BundleFormatError(
                f"model spec has white_level={data['white_level']!r}; expected an int."
            )
        if not all(isinstance(label, str) for label in data["labels"]):
            raise BundleFormatError("model spec has labels that are not strings.")
        if unknown := sorted(set(data) - {*expected, "white_level"}):
            raise BundleFormatError(
                f"model spec has unknown keys {unknown}; this runtime reads spec version "
                f"{SPEC_VERSION}. Install a newer runtime or rebuild the bundle."
            )
        return cls(**{**cast("dict[str, Any]", data), "labels": tuple(data["labels"])})

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read what :meth:`to_json` wrote; raises BundleFormatError for anything else."""
        from . import strict_json  # here, as above

        try:
            data = strict_json.loads(text)
        except ValueError as exc:
            let_through(exc)
            raise BundleFormatError(f"model spec is not JSON: {exc}.") from exc
        return cls.from_dict(data)
