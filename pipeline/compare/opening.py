"""From a name on the command line to one side of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporters.errors import GraphError
from exporters.graph import onnx_file
from exporters.graph.external_data import embed_external_data
from exporters.graph.quantized import precision_of
from pipeline.compare.foreign import adapted, is_foreign
from pipeline.compare.model_forms import ModelForm
from pipeline.compare.precision import precision_of_network
from pipeline.compare.recorded import recorded_outputs
from pipeline.compare.user_function import user_function
from pipeline.errors import DataError
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
        return ModelForm(name, outputs=recorded_outputs(Path(path), part))
    if not part:
        raise DataError(f"{name!r} is not a model to compare; expected {EXPECTED}.")
    from torch import nn

    model = user_function(name)
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
        precision=precision_of_network(network),
        model=lambda images: probabilities(network, images),
        spec=spec,
        network=network,
    )


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
