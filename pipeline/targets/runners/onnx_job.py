"""Run a job with any Python that has numpy and onnxruntime: ``python onnx_job.py JOB TARGET``.

JOB is the folder that ``pipeline/targets/job.py`` wrote, with the shipped ``runtime`` package next
to this file. TARGET has ``job.json`` and receives the outputs: one raw little-endian file for each
array, and ``answers.json``, written last. The probabilities are the shipped Predictor's, from the
bundle; the quantized tensors are those of a copy of the model that returns them.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runtime import Predictor
from runtime.cpu import cpu_target, quota_cores
from runtime.onnx_session import create_on_cpu


class Outputs:
    """Arrays that grow by batches, on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, dict[str, Any]] = {}

    def add(self, name: str, values: Any) -> None:
        """Append along the first axis."""
        values = np.ascontiguousarray(values)
        row = self._rows.get(name)
        if row is None:
            row = {"file": f"{len(self._rows)}.bin", "dtype": values.dtype.name}
            self._rows[name] = {**row, "shape": [0, *values.shape[1:]]}
            (self._folder / row["file"]).write_bytes(b"")
        self._rows[name]["shape"][0] += len(values)
        with (self._folder / self._rows[name]["file"]).open("ab") as file:
            file.write(values.tobytes())

    def finish(self, about: dict[str, Any]) -> None:
        """Write the list of arrays, which marks all of them as complete."""
        text = json.dumps({"about": about, "arrays": self._rows})
        (self._folder / "answers.json").write_text(text, encoding="utf-8")


def run(job_folder: Path, target_folder: Path) -> None:
    """Write all outputs that ``job.json`` requests."""
    job = json.loads((target_folder / "job.json").read_text(encoding="utf-8"))
    answers = Outputs(target_folder)
    images = np.memmap(job_folder / "images.bin", np.uint8, "r").reshape(job["images_shape"])
    for index, variant in enumerate(job["variants"]):
        step = job["batch"]
        with Predictor(
            str(job_folder / "bundle.zip"),
            device="cpu",
            variant=variant["id"],
            threads=job["threads"],
        ) as predictor:
            for batch in _batches(images, variant["plain"], step):
                answers.add(f"{variant['id']}/probabilities", predictor(batch))
            if index == 0:
                for number, shape in enumerate(job["raw_shapes"]):
                    raw = np.fromfile(job_folder / f"raw-{number}.bin", np.uint8).reshape(shape)
                    answers.add(f"pixels/{number}", predictor.preprocess(raw)[None])
        if variant["tensors"]:
            batches = _batches(images, variant["images"], step)
            # as the Predictor opens a file that would saturate here
            exact = not variant["portable"] and cpu_target() == "x86_64-avx2"
            model = (job_folder / "tapped" / f"{variant['id']}.onnx").read_bytes()
            session = create_on_cpu(model, job["threads"], exact_int8=exact)
            _add_tensors(answers, session, variant, batches)
    answers.finish(_about())


def _batches(images: Any, count: int, step: int) -> Iterator[Any]:
    for at in range(0, count, step):
        yield np.array(images[at : min(at + step, count)])


def _add_tensors(
    answers: Outputs, session: Any, variant: dict[str, Any], batches: Iterator[Any]
) -> None:
    names = ["probabilities", *variant["tensors"]]
    for batch in batches:
        for name, values in zip(names, session.run(names, {"images": batch}), strict=True):
            answers.add(f"{variant['id']}/tapped/{name}", values)


def _about() -> dict[str, Any]:
    """Describe this environment, as evidence of where the job ran."""
    core = getattr(np, "_core", None) or np.core
    features = getattr(core._multiarray_umath, "__cpu_features__", {})
    about = {
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "features": sorted(name for name, present in features.items() if present),
    }
    if hasattr(os, "sched_getaffinity"):
        about["cores"] = len(os.sched_getaffinity(0))
    quota = quota_cores()
    about["quota_cores"] = quota if math.isfinite(quota) else None
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        about["address_space_bytes"] = None if limit == resource.RLIM_INFINITY else limit
        lines = Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines()[2:]
        about["network"] = sorted(line.partition(":")[0].strip() for line in lines)
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        about["memory"] = {
            key: value.strip()
            for key, _, value in (line.partition(":") for line in status)
            if key in ("VmPeak", "VmHWM")
        }
    except (ImportError, OSError):
        pass  # not Linux
    return about


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
