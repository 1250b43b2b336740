"""From what is written on the command line to a form of a model: a checkpoint, a callable, an ONNX
file, a variant of a bundle, or recorded outputs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import GraphError
from exporters.evaluate.parity import Model
from exporters.foreign.model_inputs import InputSpec
from exporters.graph import onnx_file
from exporters.graph.quantized import precision_of
from pipeline import user_code
from pipeline.compare.foreign import adapted, is_foreign
from pipeline.compare.precision import precision_of_network
from pipeline.datasets.arrays import UNREADABLE
from pipeline.errors import DataError, PipelineError
from runtime import Bundle, ModelSpec, Predictor
from runtime.manifest import PREPROCESS_NAME

if TYPE_CHECKING:
    import onnx
    from torch import nn

EXPECTED = (
    "a checkpoint (.pt), module:callable, an ONNX file (.onnx), a bundle (.zip or .zip:variant) or "
    "recorded outputs (.npz, .npz:name or .npy)"
)


@dataclass(frozen=True)
class Form:
    """One side of a comparison. Whatever it has not got is None."""

    name: str  # as it was written
    precision: str = "fp32"  # what the model itself shows; of what shows nothing, the strictest
    model: Model | None = None  # None: recorded outputs
    takes: InputSpec | None = None  # of a foreign file; None: uint8 pixels [n, h, w, c]
    spec: ModelSpec | None = None
    graph: onnx.ModelProto | None = None
    network: nn.Module | None = None
    preprocess: onnx.ModelProto | None = None
    thresholds: tuple[float, ...] | None = None
    outputs: NDArray[np.float32] | None = None  # recorded, [n, labels]
    golden: tuple[NDArray[np.uint8], ...] = ()  # images before preprocessing

    def __enter__(self) -> Form:
        return self

    def __exit__(self, *_: object) -> None:
        """Free the predictor's sessions, where it is one."""
        if isinstance(self.model, Predictor):
            self.model.close()


def open_form(name: str) -> Form:
    """The form that ``name`` means; raises PipelineError, ExportError or PredictorError."""
    path, _, part = name.partition(":")
    kind = Path(path).suffix.lower()
    if kind in (".pt", ".onnx", ".zip", ".npz", ".npy") and not Path(path).is_file():
        raise DataError(f"{path} does not exist; expected {EXPECTED}.")
    if kind == ".pt":
        return _checkpoint(name)
    if kind == ".onnx":
        return _onnx(name)
    if kind == ".zip":
        return _bundle(name, Path(path), part)
    if kind in (".npz", ".npy"):
        return _recorded(name, Path(path), part)
    if part:
        return _callable(name, path, part)
    raise DataError(f"{name!r} is no form of a model; expected {EXPECTED}.")


def _checkpoint(name: str) -> Form:
    from pipeline.learning.training.checkpoint import load_checkpoint

    network = load_checkpoint(Path(name))
    return _network(name, network, network.spec)


def _network(name: str, network: nn.Module, spec: ModelSpec | None) -> Form:
    return Form(
        name,
        precision=precision_of_network(network),
        model=_of_network(network),
        spec=spec,
        network=network,
    )


def _of_network(network: nn.Module) -> Model:
    from pipeline.learning.training.evaluate import probabilities

    return lambda images: probabilities(network, images)


def _onnx(name: str) -> Form:
    model = onnx_file.load(Path(name))
    _embed(name, model)
    takes = None
    try:
        spec = onnx_file.spec_of(model)
    except GraphError:  # somebody else's file: the images decide
        spec = None
        if is_foreign(model):
            model, takes = adapted(name, model)
    session = onnx_file.session(model)
    return Form(
        name,
        precision=precision_of(model),
        model=lambda images: onnx_file.run(session, images),
        takes=takes,
        spec=spec,
        graph=model,
    )


def _embed(name: str, model: onnx.ModelProto) -> None:
    """Move weights that lie beside the file into it, as PyTorch's exporter likes to leave them."""
    from onnx.external_data_helper import load_external_data_for_model

    try:
        load_external_data_for_model(model, str(Path(name).resolve().parent))
    except Exception as exc:  # OSError, ValueError, or the checker's own
        raise DataError(
            f"{name}: its weights lie in another file, which cannot be read: {exc}. Put that file "
            "beside the model; both belong together."
        ) from exc


def _bundle(name: str, path: Path, variant: str) -> Form:
    bundle = Bundle.open(path)
    try:
        manifest = bundle.manifest
        row = manifest.variant(variant or manifest.default_for("cpu").variant)
        graph = onnx_file.from_bytes(bundle.read(row.file), row.file)
        preprocess = onnx_file.from_bytes(bundle.read(PREPROCESS_NAME), PREPROCESS_NAME)
        golden = _golden(bundle)
    finally:
        bundle.close()
    return Form(
        name,
        precision=precision_of(graph),
        model=Predictor(path, device="cpu", variant=row.id),
        spec=manifest.spec,
        graph=graph,
        preprocess=preprocess,
        thresholds=row.thresholds,
        golden=golden,
    )


def _golden(bundle: Bundle) -> tuple[NDArray[np.uint8], ...]:
    from runtime import SelftestError
    from runtime.opening import read_golden

    try:
        return read_golden(bundle).raw
    except SelftestError:
        return ()


def _recorded(name: str, path: Path, part: str) -> Form:
    try:
        found = np.load(path)
        if isinstance(found, np.ndarray):
            return Form(name, outputs=found.astype(np.float32))
        with found as archive:
            arrays = {key: archive[key] for key in archive.files}
    except UNREADABLE as exc:
        raise DataError(f"{path} holds no recorded outputs: {exc}.") from exc
    key = part or ("probabilities" if "probabilities" in arrays else "")
    if not key and len(arrays) == 1:
        (key,) = arrays
    if key not in arrays:
        raise DataError(
            f"{path} has the arrays {', '.join(sorted(arrays))}; expected "
            f"{key or 'probabilities'}. Say which one: {path}:NAME."
        )
    return Form(name, outputs=arrays[key].astype(np.float32))


def _callable(name: str, module_name: str, attribute: str) -> Form:
    """A network, something that takes images, or something that returns either without being
    given anything."""
    from torch import nn

    try:
        found: Any = user_code.imported(f"{module_name}:{attribute}", Path.cwd())
        if not isinstance(found, nn.Module) and _takes_nothing(found):
            found = found()
    except (Exception, SystemExit) as exc:  # it is the user's code
        own = isinstance(exc, user_code.ImportFailed)
        line = user_code.line_of(exc)
        raise PipelineError(
            f"{name} cannot be opened: {exc if own else f'{type(exc).__name__}: {exc}'}"
            f"{'' if line is None else f' (at {line})'}. Expected module:callable with a module "
            "that can be imported from here."
        ) from exc
    if isinstance(found, nn.Module):
        return _network(name, found.eval(), None)
    if not callable(found):
        raise PipelineError(
            f"{name} is a {type(found).__name__}; expected a torch.nn.Module or a function from "
            "uint8 images [n, h, w, c] to probabilities [n, labels]."
        )
    return Form(name, model=found)


def _takes_nothing(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )
