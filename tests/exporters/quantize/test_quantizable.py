"""quantizable.py, temporary_names.py and int8_from_fp32.py: one odd thing in a network costs at
most its own layer, in every scheme, and nothing of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foreign_networks as networks
import numpy as np
import odd_networks
import onnx
import pytest

from exporters.errors import GraphError, QuantizeError
from exporters.evaluate.tasks import Bounds
from exporters.foreign import equality, float_parts, foreign_model
from exporters.foreign.agreement import Reference
from exporters.foreign.foreign_model import ForeignModel
from exporters.foreign.model_inputs import ModelInputs, input_of
from exporters.graph import onnx_file
from exporters.graph.quantized import quantized_weights
from exporters.graph.walk import Graph
from exporters.options import GateOptions, Int8Options, SearchOptions
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.int8_from_fp32 import quantize
from exporters.quantize.saturation import confirm, simulate
from exporters.quantize.unquantizable import failing_nodes
from exporters.quantize.verify_int8 import verify_int8
from exporters.search.search import search
from exporters.search.search_log import SearchLog
from exporters.search.subject import Subject
from exporters.search.trial import Speed

SCHEMES: tuple[dict[str, Any], ...] = (
    {"activations": "uint8", "weights": "int8", "reduce_range": True},
    {"activations": "uint8", "weights": "uint8", "reduce_range": False, "per_channel": False},
    {"activations": "int8", "weights": "int8", "reduce_range": False, "bias_correction": True},
)


def prepared(model: onnx.ModelProto, folder: Path) -> tuple[ForeignModel, ActivationStatistics]:
    onnx.save(model, folder / "net.onnx")
    foreign = foreign_model.prepare(folder / "net.onnx")
    images = networks.images(foreign.input, 16)
    foreign = equality.one_at_a_time(foreign, images[:2])
    return foreign, ActivationStatistics(foreign.model, ModelInputs(foreign.input, images).reader())


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("case", list(odd_networks.ODD))
def test_one_odd_thing_costs_at_most_its_own_layer(case: str, tmp_path: Path) -> None:
    make, layers = odd_networks.ODD[case]
    foreign, statistics = prepared(make(), tmp_path)
    images = networks.images(foreign.input, 16, seed=3)
    assert equality.difference(foreign, images) <= 1e-5
    kept = float_parts.kept_in_float(foreign, statistics)
    feed = {"x": images}
    before = onnx_file.run_by_image(onnx_file.session(foreign.original), foreign.outputs, feed)
    for number, scheme in enumerate(SCHEMES):
        asked = Int8Options(f"int8-{number}", exclude_nodes=tuple(kept), **scheme)
        result = foreign.finish(quantize(foreign.model, asked, statistics), asked.id)
        verify_int8(foreign.model, result, asked)
        assert layers <= {weight.node for weight in quantized_weights(Graph(result))}, kept
        after = onnx_file.run_by_image(onnx_file.session(result), foreign.outputs, feed)
        for was, now in zip(before, after, strict=True):
            numbers = np.isfinite(was)
            assert (np.isfinite(now) == numbers).all()
            error = np.abs(was[numbers] - now[numbers]).max(initial=0)
            assert error <= 0.1 * np.abs(was[numbers]).max(initial=0), (asked.id, error)
        confirm(result, feed, portable=False)
        simulate(result, feed)
    given = onnx.load_from_string(foreign.as_given(onnx_file.to_bytes(result)))
    original = onnx.load(tmp_path / "net.onnx")
    assert list(given.graph.input) == list(original.graph.input)
    assert list(given.graph.output) == list(original.graph.output)


def rows_of_bias() -> onnx.ModelProto:
    """A batch of 4 whose last bias differs from row to row; not prepared, as our own exporter would
    leave it."""
    result = odd_networks.with_bias(np.arange(20).reshape(4, 5) / 10)
    for value in (*result.graph.input, *result.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    return result


def finished(model: onnx.ModelProto, variant: str) -> onnx.ModelProto:
    try:
        onnx_file.session(model)
    except GraphError as exc:
        raise QuantizeError(f"{variant}: {exc}") from exc
    return model


def test_a_layer_that_the_tools_cannot_quantize_stays_float(tmp_path: Path) -> None:
    model = rows_of_bias()
    spec = input_of(model.graph)
    inputs = ModelInputs(spec, networks.images(spec, 32))
    statistics = ActivationStatistics(model, inputs.reader())
    reasons = failing_nodes(model, Int8Options(), statistics, finished)
    assert set(reasons) == {"fc"}

    reference = Reference.of_fp32(
        onnx_file.to_bytes(model), ["y"], inputs, Bounds(GateOptions(), 1.0), task="values"
    )
    subject = Subject(
        model,
        statistics,
        {"x": inputs[:4]},
        {"x": inputs[:4]},
        finished,
        reference.assess,
        reference.assess_quickly,
        lambda data, name, portable: Speed(1.0, 1.0, 1.0),
    )
    options = SearchOptions(minutes=5, schemes=("u8s8-rr",), calibrations=(), per_tensor=False)
    for _ in range(2):  # the second time all is in the log
        log = SearchLog(tmp_path)
        result = search(subject, (), options, log)
        trials = {trial.id: trial for trial in result.trials}
        assert trials["int8-u8s8-rr"].error is not None
        made = trials["int8-u8s8-rr-float"]
        assert made.assessment is not None and made.impossible[0].startswith("fc: ")
        assert "int8-u8s8-rr-float-bc" in trials  # the search continues from it
    assert "fc" not in {
        weight.node for weight in quantized_weights(Graph(log.model("int8-u8s8-rr-float")))
    }
