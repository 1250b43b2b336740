"""The files of training: the finished network, and the state of a run that is not finished.

``checkpoint.pt``  weights, spec and network options, from which the network is rebuilt
``resume.pt``      every number and random state of a run, in mid-epoch or at its end
``metrics.jsonl``  one line of JSON for each epoch
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from exporters.files import write_bytes
from pipeline import user_code
from pipeline.datasets.arrays import Dataset
from pipeline.errors import PipelineError, TrainError
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training.distillation import TeacherScores
from pipeline.recipe import HOW_FAST, NetworkOptions, TrainOptions
from runtime.spec import ModelSpec

CHECKPOINT_NAME = "checkpoint.pt"
RESUME_NAME = "resume.pt"
METRICS_NAME = "metrics.jsonl"
FORMAT = 3  # of both .pt files; raise it when their keys change


def save_checkpoint(path: Path, network: PixelNetwork) -> None:
    """Write weights, spec and network options to ``path``, and for a network of the user's own
    code the hashes of its files."""
    _write(path, packed_network(network))


def load_checkpoint(path: Path) -> PixelNetwork:
    """Rebuild the network that :func:`save_checkpoint` wrote, on the CPU, in evaluation mode.

    Raises TrainError when the file is missing, damaged, of another format, or of a network whose
    code has changed since.
    """
    try:
        data = path.read_bytes()
        network = unpacked_network(data)
    except PipelineError as exc:
        # a missing or changed callable has a message of its own
        raise type(exc)(f"checkpoint {path}: {exc}") from exc
    except Exception as exc:  # torch.load raises many kinds on damaged files
        raise TrainError(
            f"checkpoint {path} cannot be read: {_first_line(exc)}. "
            "Run the train stage again with --force."
        ) from exc
    return network


def packed_network(network: PixelNetwork) -> bytes:
    """The content of ``checkpoint.pt``."""
    weights = {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
    options = network.options
    content = {
        "format": FORMAT,
        "spec": network.spec.to_json(),
        # without the file that weights came from: it may be gone, and training changed them
        "network": options.model_copy(update={"weights": None}).model_dump_json(),
        "weights": weights,
    }
    if options.callable is not None:
        files = user_code.digests(user_code.loaded_files(options.callable, options.folder))
        folder = None if options.folder is None else str(options.folder)
        content["code"] = {"folder": folder, "files": files}
    return _packed(content)


def unpacked_network(data: bytes) -> PixelNetwork:
    """The network of :func:`packed_network`. Raises TrainError for changed code; any exception for
    damaged data."""
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if content["format"] != FORMAT:
        raise ValueError(f"it has format {content['format']}, this version reads {FORMAT}")
    spec = ModelSpec.from_json(content["spec"])
    options = NetworkOptions.model_validate_json(content["network"])
    code = content.get("code", {"folder": None, "files": {}})
    folder = None if code["folder"] is None else Path(code["folder"])
    if folder is not None and not folder.is_dir():
        folder = Path.cwd()  # both were moved; hashes show whether it is the same code
    options = options.with_folder(folder)
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, then overwritten
        network = build_network(options, spec)
    _check_code(options, code["files"])
    network.load_state_dict(content["weights"])
    return network.eval()


def _check_code(options: NetworkOptions, trained: Mapping[str, str]) -> None:
    """Raise TrainError unless the weights were trained with the code that runs now."""
    if options.callable is None:
        return
    now = user_code.digests(user_code.loaded_files(options.callable, options.folder))
    changed = sorted(name for name in trained if now.get(name, trained[name]) != trained[name])
    if changed:
        raise TrainError(
            f"{', '.join(changed)} of network.callable = {options.callable!r} changed since its "
            "weights were trained. Undo the change, or run the train stage again."
        )


def identity_of(
    dataset: Dataset,
    network: PixelNetwork,
    train: TrainOptions,
    seed: int,
    teacher: TeacherScores | None,
) -> dict[str, str]:
    """Every input that decides the result of a run, by the names that messages use."""
    values: dict[str, Any] = {
        "data": {"sha256": dataset.info.sha256, "counts": dataset.info.counts},
        "spec": network.spec.to_dict(),
        "network": network.options.model_dump(mode="json"),
        "seed": seed,
        "distill": None if teacher is None else teacher.options.model_dump(mode="json"),
    }
    if network.options.callable is not None:
        files = user_code.source_files(network.options.callable, network.options.folder)
        values["source files"] = user_code.digests(files)
    for key, value in train.model_dump(mode="json", exclude=set(HOW_FAST)).items():
        values[f"train.{key}"] = value
    return {key: json.dumps(value, sort_keys=True) for key, value in values.items()}


def save_resume(folder: Path, identity: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write the state of a run; a run of the same ``identity`` can continue from it."""
    content = {"format": FORMAT, "identity": dict(identity), "state": dict(state)}
    _write(folder / RESUME_NAME, _packed(content))


def load_resume(folder: Path, identity: Mapping[str, str]) -> tuple[dict[str, Any] | None, str]:
    """The state of a run of the same ``identity``, if there is one, and a remark or "".

    A file that is damaged or of another run is renamed, never deleted, and the remark says so.
    """
    path = folder / RESUME_NAME
    if not path.exists():
        return None, ""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        saved, state = dict(content["identity"]), dict(content["state"])
    except Exception as exc:  # torch.load raises many kinds on damaged files
        return None, _set_aside(path, "damaged", f"cannot be read ({_first_line(exc)})")
    if other := sorted(k for k in {*saved, *identity} if saved.get(k) != identity.get(k)):
        return None, _set_aside(path, "other", f"is of a run with other {', '.join(other)}")
    return state, ""


def write_metrics(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write one line for each epoch in place of the old file, so that none appears twice."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    _write(folder / METRICS_NAME, text.encode())


def _set_aside(path: Path, kind: str, reason: str) -> str:
    target = path.with_suffix(f".{kind}.pt")
    path.replace(target)
    return f"{path.name} {reason}: it was renamed to {target.name}, and training started again"


def _packed(content: Mapping[str, Any]) -> bytes:
    # By way of memory: writing to a full disk, torch.save reports an internal assertion instead
    # of the OSError.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        write_bytes(path, data)
    except OSError as exc:
        raise TrainError(
            f"{path} ({len(data):,} bytes) cannot be written: {exc}. Make room or choose another "
            "folder, then run the same command again: it continues from the last checkpoint."
        ) from exc


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")
