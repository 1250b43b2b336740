"""search.py on networks that are made to go wrong: what is planted is detected, explained by name
and corrected. No clock: every form counts as equally fast."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import foreign_networks as networks
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from exporters.evaluate.tasks import Bounds
from exporters.foreign.agreement import Reference
from exporters.foreign.foreign_model import ForeignModel, prepare
from exporters.foreign.model_inputs import ModelInputs
from exporters.options import GateOptions, SearchOptions
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.search.result import SearchResult
from exporters.search.search import search
from exporters.search.search_log import SearchLog
from exporters.search.subject import Subject
from exporters.search.trial import Speed, Trial


def three_layers(w1: Any, b1: Any, w2: Any, head: Any) -> onnx.ModelProto:
    """Conv "one" -> Relu "r1" -> Conv "two" -> Relu -> pool -> Gemm "head"."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="one", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="one/relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="two", pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"], name="two/relu"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], name="head"),
    ]
    constants = {"w1": w1, "b1": b1, "w2": w2, "w3": head}
    tensors = [networks.tensor(name, values) for name, values in constants.items()]
    return networks.model(nodes, tensors, shape=["N", 3, 16, 16])


def searched(
    model: onnx.ModelProto, images: NDArray[np.float32], folder: Path, **options: Any
) -> tuple[SearchResult, dict[str, Trial]]:
    """Half of the images calibrate, the others judge."""
    onnx.save(model, folder / "net.onnx")
    foreign = prepare(folder / "net.onnx")
    half = len(images) // 2
    inputs = ModelInputs(foreign.input, images[half:])
    reference = Reference.of_fp32(
        foreign.original,
        ["y"],
        inputs,
        Bounds(GateOptions(margin_points=5.0), 20.0),
        task="multi-class",
    )
    result = search(
        subject(foreign, ModelInputs(foreign.input, images[:half]), reference),
        (),
        SearchOptions(minutes=5, **options),
        SearchLog(folder / "trials"),
    )
    return result, {trial.id: trial for trial in result.trials}


def subject(foreign: ForeignModel, calibration: ModelInputs, reference: Reference) -> Subject:
    samples = {"x": reference.inputs[:16]}
    return Subject(
        model=foreign.model,
        statistics=ActivationStatistics(foreign.model, calibration.reader()),
        samples=samples,
        extremes=samples,
        finish=foreign.finish,
        assess=reference.assess,
        assess_quickly=reference.assess_quickly,
        time=lambda model, variant, portable: Speed(1.0, 1.0, 1.0),
    )


def best(result: SearchResult, trials: dict[str, Trial]) -> Trial:
    chosen = [trials[name] for name in result.chosen if trials[name].precision == "int8"]
    assert chosen, [(t.id, t.assessment) for t in trials.values()]
    return chosen[0]


def head(rng: np.random.Generator) -> NDArray[np.float64]:
    """[16, 5], without a preferred class."""
    weights = rng.normal(size=(16, 5))
    return weights - weights.mean(axis=1, keepdims=True)


def test_a_network_made_to_saturate_is_named_and_corrected(tmp_path: Path) -> None:
    """All weights of a channel have one size, so all become +-127; all images are bright, so
    activations are near 255: two neighbors of one sign exceed 16 bits."""
    rng = np.random.default_rng(3)
    signs = [np.sign(rng.normal(size=shape)) * 0.1 for shape in ((8, 3, 3, 3), (16, 8, 3, 3))]
    model = three_layers(signs[0], np.full(8, 0.3), signs[1], head(rng))
    images = rng.uniform(0.7, 1.0, (128, 3, 16, 16)).astype(np.float32)
    images *= rng.uniform(0.8, 1.0, (128, 3, 1, 1)).astype(
        np.float32
    )  # each with a color of its own
    result, trials = searched(model, images, tmp_path, calibrations=(), bias_correction=False)

    for name in ("int8-u8s8", "int8-s8s8"):
        damaged = trials[name]
        assert not damaged.portable and damaged.can_saturate
        assert re.search(r"one: [^;]*255 \* 254 > 32767", damaged.portability)
        assert "use reduce_range or uint8 weights" in damaged.portability
        by_layer = {row.node: row for row in damaged.saturation}
        assert by_layer["one"].saturated > 0.5 and by_layer["one"].worst_steps > 20
    for name in ("int8-u8s8-rr", "int8-u8u8"):
        assert trials[name].portable and not trials[name].saturation
    corrected = best(result, trials)
    assert corrected.portable and corrected.passed
    assert (
        corrected.assessment is not None and corrected.assessment.sqnr_db > 8
    )  # of what images differ by


def spiking_network(rng: np.random.Generator) -> onnx.ModelProto:
    """Channel 0 of "r1" answers to nothing but a white patch, with 400; nobody reads it."""
    w1 = rng.normal(size=(8, 3, 3, 3)) / 5
    w1[0] = 400 / 27 * 4
    b1 = np.zeros(8)
    b1[0] = -400 * 3  # a patch of nothing but 1 gives 1600 - 1200 = 400
    w2 = rng.normal(size=(16, 8, 3, 3)) / 8
    w2[:, 0] = 0
    return three_layers(w1, b1, w2, head(rng))


def test_an_outlier_channel_that_ruins_min_max_is_clipped(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = rng.uniform(0, 0.7, (256, 3, 16, 16)).astype(np.float32)
    images *= rng.uniform(0.2, 1.0, (256, 3, 1, 1)).astype(np.float32)
    images[7, :, 4:7, 4:7] = 1.0  # the one white patch, in a calibration image
    result, trials = searched(spiking_network(rng), images, tmp_path)

    ruined = trials["int8-u8s8-rr"]
    assert ruined.assessment is not None and not ruined.passed
    corrected = best(result, trials)
    assert corrected.passed and corrected.assessment is not None
    assert corrected.assessment.sqnr_db > ruined.assessment.sqnr_db + 10
    assert corrected.options["calibration"] != "minmax"
    assert corrected.options["exclude_nodes"] == ()  # nothing had to go back to float
    # explained: values up to 400 occurred, 8 bits reach a few, and hardly any value is beyond
    assert result.explanation is not None and result.explanation.variant == corrected.id
    rows = {row.tensor: row for row in result.explanation.clippings}
    assert rows["r1"].highest > 390 and rows["r1"].high < 40 and 0 < rows["r1"].clipped < 1e-3
