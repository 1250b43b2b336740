"""Both forms at once: what follows from the two of them together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.tasks import LABEL_TASKS, label_task
from exporters.explain.first_divergence import LIMITS
from exporters.foreign.model_inputs import InputSpec
from pipeline.compare.foreign import read_inputs, same_inputs
from pipeline.compare.forms import Form
from pipeline.errors import DataError
from pipeline.verify.images import DATA_FOLDER, Images, find_images, read
from runtime import ModelSpec

_PRECISIONS = tuple(LIMITS)  # from fine to coarse


@dataclass(frozen=True)
class Sides:
    """A and B."""

    a: Form
    b: Form

    @property
    def spec(self) -> ModelSpec | None:
        """The one that either has; None where neither does."""
        return self.a.spec or self.b.spec

    @property
    def takes(self) -> InputSpec | None:
        """What foreign files take; None where all takes pixels."""
        return self.a.takes or self.b.takes

    @property
    def precision(self) -> str:
        """The coarser of both."""
        return max(self.a.precision, self.b.precision, key=_PRECISIONS.index)

    @property
    def thresholds(self) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """Of A and B: a model's own, else the other side's, else 0.5; None for a task without
        thresholds."""
        spec = self.spec
        usual = None if spec is None else label_task(spec.task).default_thresholds(len(spec.labels))
        if usual is None:
            return None, None
        a, b = self.a.thresholds, self.b.thresholds
        return np.asarray(a or b or usual), np.asarray(b or a or usual)

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run that A, or else B, belongs to. None for foreign files, which do
        not take its images wherever they are."""
        return None if self.takes is not None else run_of(self.a) or run_of(self.b)

    def labels(self, count: int) -> tuple[str, ...]:
        """Names of ``count`` columns."""
        spec = self.spec
        known = spec is not None and len(spec.labels) == count
        return spec.labels if spec is not None and known else tuple(map(str, range(count)))

    def images(self, data: Path | None, split: str) -> Images | None:
        """The images to compare on, or the inputs of foreign files; None where both sides are
        recorded. Raises DataError, also where A and B do not take the same."""
        forms = [form for form in (self.a, self.b) if form.model is not None]
        if not forms:
            return None
        _check_same(forms)
        files = [form.takes for form in forms if form.takes is not None]
        if files:
            if data is None:
                raise DataError(
                    "there are no inputs to compare on. Give them with --data as the files take "
                    f'them, {files[0].text()}: a .npz with "inputs", or a .npy.'
                )
            return read_inputs(data, files)
        folder = self.run_folder
        place = data if folder is None else data or folder / DATA_FOLDER
        if place is None:
            raise DataError(
                "there are no images to compare on. Give them with --data: the folder 1_data of a "
                'run, a .npy of uint8 [n, h, w, c], or a .npz with "images".'
            )
        return find_images(place, place, self.spec or _guessed(place, split), split)


def run_of(form: Form) -> Path | None:
    """The folder of the run that a file belongs to: it has a data stage in it."""
    path = Path(form.name.partition(":")[0])
    for folder in path.resolve().parents[:2] if path.is_file() else ():
        if (folder / DATA_FOLDER).is_dir():
            return folder
    return None


def _check_same(forms: list[Form]) -> None:
    """Two models can only be asked the same where they take the same."""
    if len(forms) < 2:
        return
    a, b = forms
    if a.takes is not None and b.takes is not None:
        same = same_inputs(a.takes, b.takes)
    elif a.takes is None and b.takes is None:
        same = a.spec is None or b.spec is None or a.spec.shape == b.spec.shape
    else:
        same = False
    if not same:
        raise DataError(
            f"{a.name} takes {_taken(a)}, and {b.name} takes {_taken(b)}; expected the same on "
            "both sides. Compare files that take the same, or give as module:callable a function "
            "that turns uint8 images [n, h, w, c] into the other's inputs and returns its "
            "probabilities."
        )


def _taken(form: Form) -> str:
    if form.takes is not None:
        return form.takes.text()
    shape = "h, w, c" if form.spec is None else ", ".join(map(str, form.spec.shape))
    return f"uint8 pixels [n, {shape}]"


def _guessed(place: Path, split: str) -> ModelSpec:
    """A spec for images whose models have none: only their shape counts."""
    shape = read(place, split).pixels.shape[1:]
    if len(shape) != 3:
        raise DataError(f"{place}: images have the shape {shape}; expected (h, w, c).")
    return ModelSpec("unknown", LABEL_TASKS[0].name, *shape, ("0", "1"))
