"""From a name on the command line to one side of a comparison."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import GraphError
from exporters.graph import onnx_file
from exporters.graph.external_data import embed_external_data
from exporters.graph.quantized import precision_of
from pipeline import user_code
from pipeline.compare.foreign import adapted, is_foreign
from pipeline.compare.model_forms import ModelForm
from pipeline.datasets.arrays import UNREADABLE
from pipeline.errors import DataError, PipelineError
from runtime import Bundle, ModelSpec, Predictor, SelftestError
from runtime.manifest import PREPROCESS_NAME
from runtime.opening import read_golden

if TYPE_CHECKING:
    from torch import nn

EXPECTED = (
    "a checkpoint (.pt), module:callable, an ONNX file (.onnx), a bundle (.zip or .zip:variant) or "
    "recorded outputs (.npz, .npz:name or .npy)"
)


def open_form(name: str) -> ModelForm:
    """Open the side that ``name`` means; raises PipelineError, ExportError or PredictorError."""
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
        return ModelForm(name, outputs=_recorded_outputs(Path(path), part))
    if not part:
        raise DataError(f"{name!r} is not a model to compare; expected {EXPECTED}.")
    from torch import nn

    model = _user_function(name)
    if isinstance(model, nn.Module):
        return _network(name, model.eval(), None)
    return ModelForm(name, model=model)


def _checkpoint(name: str) -> ModelForm:
    from pipeline.learning.training.checkpoint import load_checkpoint

    network = load_checkpoint(Path(name))
    return _network(name, network, network.spec)


def _network(name: str, network: nn.Module, spec: ModelSpec | None) -> ModelForm:
    from pipeline.learning.training.evaluate import probabilities

    return ModelForm(
        name,
        precision=_precision_of_network(network),
        model=lambda images: probabilities(network, images),
        spec=spec,
        network=network,
    )


def _precision_of_network(network: nn.Module) -> str:
    """Return "fp16" for a PyTorch network with a parameter of half precision, else "fp32"."""
    import torch

    half = (torch.float16, torch.bfloat16)
    return "fp16" if any(p.dtype in half for p in network.parameters()) else "fp32"


def _onnx(name: str) -> ModelForm:
    model = onnx_file.load(Path(name))
    embed_external_data(model, Path(name))
    takes = None
    try:
        spec = onnx_file.spec_of(model)
    except GraphError:  # a file made elsewhere: the inputs decide
        spec = None
        if is_foreign(model):
            model, takes = adapted(name, model)
    session = onnx_file.session(model)
    return ModelForm(
        name,
        precision=precision_of(model),
        model=lambda images: onnx_file.run(session, images),
        takes=takes,
        spec=spec,
        graph=model,
    )


def _bundle(name: str, path: Path, variant: str) -> ModelForm:
    bundle = Bundle.open(path)
    try:
        manifest = bundle.manifest
        row = manifest.variant(variant or manifest.default_for("cpu").variant)
        graph = onnx_file.from_bytes(bundle.read(row.file), row.file)
        preprocess = onnx_file.from_bytes(bundle.read(PREPROCESS_NAME), PREPROCESS_NAME)
        golden = _golden(bundle)
    finally:
        bundle.close()
    return ModelForm(
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
    try:
        return read_golden(bundle).raw
    except SelftestError:
        return ()


def _recorded_outputs(path: Path, array: str) -> NDArray[np.float32]:
    """Read [n, labels] from a .npy or .npz; ``array`` names one of several arrays.

    Without a name the array "probabilities" is read, or the only one. Raises DataError.
    """
    try:
        loaded = np.load(path)
        if isinstance(loaded, np.ndarray):
            return loaded.astype(np.float32)
        with loaded as archive:
            arrays = {key: archive[key] for key in archive.files}
    except UNREADABLE as exc:
        raise DataError(f"{path} has no recorded outputs: {exc}.") from exc
    key = array or ("probabilities" if "probabilities" in arrays else "")
    if not key and len(arrays) == 1:
        (key,) = arrays
    if key not in arrays:
        raise DataError(
            f"{path} has the arrays {', '.join(sorted(arrays))}; expected "
            f"{key or 'probabilities'}. Name the array: {path}:NAME."
        )
    outputs: NDArray[np.float32] = arrays[key].astype(np.float32)
    return outputs


def _user_function(name: str) -> Any:
    """Import ``module:callable``: a network, a function of images, or a factory of either.

    Returns a torch.nn.Module, or a function from uint8 images [n, h, w, c] to probabilities
    [n, labels]. A factory is called without arguments. Raises PipelineError.
    """
    from torch import nn

    try:
        function: Any = user_code.imported(name, Path.cwd())
        if not isinstance(function, nn.Module) and _takes_nothing(function):
            function = function()
    except (Exception, SystemExit) as exc:  # it is the user's code
        own = isinstance(exc, user_code.ImportFailed)
        raise PipelineError(
            f"{name} cannot be opened: {exc if own else f'{type(exc).__name__}: {exc}'}"
            f"{user_code.at_line(exc)}. Expected module:callable with a module "
            "that can be imported from here."
        ) from exc
    if not callable(function):
        raise PipelineError(
            f"{name} is a {type(function).__name__}; expected a torch.nn.Module or a function from "
            "uint8 images [n, h, w, c] to probabilities [n, labels]."
        )
    return function


def _takes_nothing(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )
