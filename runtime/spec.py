"""The contract of a model, what it takes and returns: one small value, stamped into every model
file and written into every manifest. Independent of files, sessions and devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import BundleFormatError
from .graph_names import (
    INPUT_NAME,
    METADATA_KEY,
    OUTPUT_NAME,
    PREPROCESS_INPUT,
    PREPROCESS_OUTPUT,
)
from .origin import let_through
from .output_spec import OutputSpec, check_outputs
from .plain_text import hidden_character
from .tasks import task_named

SPEC_VERSION = 2  # the newest; each spec is written in the oldest version that can express it

_CHANNELS = {1: "gray", 3: "rgb"}
_MAX_WHITE = 65535  # of 16-bit pixels
_MAX_SIDE = 16384  # pixels: nothing of a bundle may ask for memory without bound
_KINDS: dict[str, type] = {
    "name": str,
    "task": str,
    "height": int,
    "width": int,
    "channels": int,
    "labels": list,
    "spec_version": int,
}


@dataclass(frozen=True)
class ModelSpec:
    """The contract of one model: pixels in, float32 outputs out.

    Input ``images`` is uint8 ``[N, height, width, channels]``. The task says what is returned: for
    one with labels ``probabilities``, float32 ``[N, len(labels)]``, which ``outputs`` then lists;
    for one without labels the ``outputs`` that are given.
    """

    name: str
    task: str  # a name of runtime.tasks.TASKS
    height: int  # pixels
    width: int  # pixels
    channels: int  # 1: gray, 3: red, green, blue in this order
    labels: tuple[str, ...] = ()
    # The value of 16-bit pixels that is white; None: not stated, 65535 for files. It is here, where
    # a reader refuses unknown keys, because one that ignores it would see other pixels.
    white_level: int | None = None
    outputs: tuple[OutputSpec, ...] = ()

    def __post_init__(self) -> None:
        task = task_named(self.task)
        sides = (self.height, self.width)
        if self.channels not in _CHANNELS or min(sides) < 1 or max(sides) > _MAX_SIDE:
            raise BundleFormatError(
                f"model spec has size {self.height}x{self.width}x{self.channels}; expected a "
                f"positive height and width of at most {_MAX_SIDE} and 1 (gray) or 3 (rgb) "
                "channels."
            )
        if self.white_level is not None and not 1 <= self.white_level <= _MAX_WHITE:
            raise BundleFormatError(
                f"model spec has white_level {self.white_level}; expected 1 to {_MAX_WHITE}, or "
                "none."
            )
        if bool(self.labels) != task.has_labels or len(set(self.labels)) != len(self.labels):
            expected = "distinct names, at least one" if task.has_labels else "none for its task"
            raise BundleFormatError(
                f"model spec has labels {list(self.labels)}; expected {expected}."
            )
        outputs = task.outputs(self)
        given, names = [o.name for o in self.outputs], [o.name for o in outputs]
        if given not in ([], names):  # shapes follow from the labels, also of a replaced spec
            raise BundleFormatError(
                f"model spec has outputs {given}; expected those of its task, {names}."
            )
        check_outputs(outputs)
        object.__setattr__(self, "outputs", outputs)
        for text in (self.name, *self.labels):
            if character := hidden_character(text):
                raise BundleFormatError(
                    f"model spec has the name or label {text!r} with {character}, a control or "
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

    @property
    def spec_version(self) -> int:
        """The oldest version that can express this spec, so that older runtimes read it."""
        return task_named(self.task).spec_version

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``white_level`` only where it is stated, ``outputs`` only from version
        2 on."""
        data: dict[str, Any] = {
            "name": self.name,
            "task": self.task,
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "labels": list(self.labels),
            "spec_version": self.spec_version,
        }
        if self.white_level is not None:
            data["white_level"] = self.white_level
        if self.spec_version > 1:
            data["outputs"] = [output.to_dict() for output in self.outputs]
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
        version = data.get("spec_version")
        if type(version) is not int or not 1 <= version <= SPEC_VERSION:
            raise BundleFormatError(
                f"model spec has spec_version {version!r}; this runtime reads up to "
                f"{SPEC_VERSION}. Install a newer runtime or rebuild the bundle."
            )
        kinds = {**_KINDS, **({"outputs": list} if version > 1 else {})}
        for key, kind in kinds.items():
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
        if unknown := sorted(set(data) - {*kinds, "white_level"}):
            raise BundleFormatError(
                f"model spec has unknown keys {unknown}; this runtime reads spec version "
                f"{version} without them. Install a newer runtime or rebuild the bundle."
            )
        spec = cls(
            name=data["name"],
            task=data["task"],
            height=data["height"],
            width=data["width"],
            channels=data["channels"],
            labels=tuple(data["labels"]),
            white_level=data.get("white_level"),
            outputs=tuple(OutputSpec.from_dict(row) for row in data.get("outputs", ())),
        )
        if spec.spec_version != version:
            raise BundleFormatError(
                f"model spec has spec_version {version}; expected {spec.spec_version}, the oldest "
                f"that can express the task {spec.task!r}. Rebuild the bundle."
            )
        return spec

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


__all__ = [
    "INPUT_NAME",
    "METADATA_KEY",
    "OUTPUT_NAME",
    "PREPROCESS_INPUT",
    "PREPROCESS_OUTPUT",
    "SPEC_VERSION",
    "ModelSpec",
    "OutputSpec",
]
