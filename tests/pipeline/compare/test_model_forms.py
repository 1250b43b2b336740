"""The other kinds of sides, and the figures and files of a comparison."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from faults import FAULTS, in_file
from onnx import numpy_helper
from pets import CLASSES, World, settled

from exporters.graph import onnx_file
from pipeline.cli.main import cli
from pipeline.compare.measure import compare
from pipeline.errors import DataError, PipelineError
from pipeline.learning.networks.build import build_network
from pipeline.learning.training.checkpoint import save_checkpoint
from pipeline.recipe import Conv, Linear, NetworkOptions


def test_recorded_outputs_stand_for_a_model(world: World) -> None:
    session = onnx_file.session(world.fp32)
    outputs = onnx_file.run(session, world.images)
    np.savez(world.folder / "outputs.npz", reference=outputs, other=outputs * 0.9)
    recorded = world.path("outputs.npz")
    found = world.compare(f"{recorded}:reference", world.path("fp32.onnx"))
    assert found.difference.max_abs < 1e-6 and found.passed
    found = compare(f"{recorded}:reference", f"{recorded}:other", None)
    d = found.difference
    gap = np.abs(outputs - outputs * np.float32(0.9))
    assert d.max_abs == pytest.approx(gap.max()) and d.mean_abs == pytest.approx(gap.mean())
    assert d.p99_abs == pytest.approx(np.quantile(gap, 0.99))
    assert d.max_rel == pytest.approx(0.1, rel=1e-3) and d.snr_db == pytest.approx(20, abs=0.01)
    assert d.agreement == 1 and d.worst[0][0] == gap.max(axis=1).argmax()
    assert np.allclose(outputs * np.float32(0.9), outputs, rtol=d.rtol * 1.001, atol=1e-6)
    assert not np.allclose(outputs * np.float32(0.9), outputs, rtol=d.rtol * 0.99, atol=1e-6)


def test_a_callable_may_be_a_network_a_factory_or_a_function(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.folder / "pets_models.py").write_text(
        "from pathlib import Path\n"
        "from pipeline.learning.training.checkpoint import load_checkpoint\n"
        "HERE = Path(__file__).parent\n"
        "network = load_checkpoint(HERE / 'checkpoint.pt')\n"
        "def factory(): return network\n"
        "def function(images):\n"
        "    from pipeline.learning.training.evaluate import probabilities\n"
        "    return probabilities(network, images)\n"
    )
    monkeypatch.chdir(world.folder)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    for name, layers in (("network", 5), ("factory", 5), ("function", 0)):
        found = world.compare(f"pets_models:{name}", world.path("fp32.onnx"))
        assert found.passed and len(found.layers) == layers


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.onnx", "does not exist; expected a checkpoint"),
        ("something", "is no form of a model"),
        ("no_such_module:network", "cannot be opened: ModuleNotFoundError"),
    ],
)
def test_what_is_no_form_is_refused(world: World, name: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        world.compare(name, world.path("fp32.onnx"))


def test_images_are_needed_and_must_fit(world: World, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no images to compare on"):
        compare(world.path("fp32.onnx"), world.path("fp32.onnx"), None)
    np.save(tmp_path / "small.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"expected uint8 \(n, 16, 16, 3\)"):
        compare(world.path("fp32.onnx"), world.path("fp32.onnx"), tmp_path / "small.npy")
    np.save(tmp_path / "outputs.npy", np.zeros((7, 4), np.float32))
    with pytest.raises(DataError, match="has outputs of 7 images"):
        world.compare(str(tmp_path / "outputs.npy"), world.path("fp32.onnx"))


def test_networks_of_other_layers_are_compared_without_them(world: World) -> None:
    other = NetworkOptions(layers=(Conv(op="conv", out=4, stride=4), Linear(op="linear")))
    network = settled(build_network(other, CLASSES))
    save_checkpoint(world.folder / "other.pt", network)
    found = world.compare(world.path("other.pt"), world.path("fp32.onnx"))
    assert not found.passed and found.layers == ()
    assert "expected the same kinds" in found.note


def test_the_command_prints_and_fails(world: World) -> None:
    data = ["--data", world.path("images.npz")]
    healthy = [world.path("checkpoint.pt"), world.path("fp32.onnx")]
    done = CliRunner().invoke(cli, ["compare", *healthy, *data])
    assert done.exit_code == 0, done.output
    for words in ("120 images", "SNR", "same answers 100 %", "accuracy of A", "within tolerance"):
        assert words in done.output
    plant = FAULTS[0][1](world)
    done = CliRunner().invoke(cli, ["compare", healthy[0], plant, *data])
    assert done.exit_code == 1
    for words in ("parts here", "first layer whose input differs: conv2d / Conv_0", "normalised"):
        assert words in done.output
    done = CliRunner().invoke(cli, ["compare", *healthy, *data, "--tolerance", "1e-12", "--json"])
    assert done.exit_code == 1 and '"asked for"' in done.output


def test_generated_images_find_what_the_test_set_hides_and_are_kept(
    world: World, tmp_path: Path
) -> None:
    """An activation that is cut off just above what the test images reach."""
    from exporters.explain.trace import trace_onnx

    run = world.run(tmp_path / "run")
    highest = float(trace_onnx(world.fp32, world.images)[2].values.max()) * 1.01

    def cut(graph: onnx.GraphProto) -> None:
        relu = next(node for node in graph.node if node.name == "Relu_1")
        relu.op_type = "Clip"
        relu.input.extend(["lowest", "highest"])
        for name, value in (("lowest", 0), ("highest", highest)):
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))

    plant = in_file(cut)(world)
    a = str(run / "2_train/checkpoint.pt")
    kind = compare(a, plant, None)
    assert kind.passed and kind.regression is None and kind.first_layer is None
    hard = compare(a, plant, None, generated=1_500)
    assert not hard.passed and hard.generated is not None
    assert hard.generated.largest > 1e-3 and "a generated image" in hard.failures[0]
    with np.load(run / "regression.npz") as kept:
        assert len(kept["images"]) == hard.generated.kept and kept["images"].dtype == np.uint8
    # from now on it is found without a search
    later = compare(a, plant, None)
    assert not later.passed and later.regression is not None
    assert later.regression.max_abs == pytest.approx(hard.generated.largest, rel=1e-3)


def test_recorded_outputs_cannot_answer_generated_images(world: World) -> None:
    outputs = onnx_file.run(onnx_file.session(world.fp32), world.images)
    np.save(world.folder / "recorded.npy", outputs)
    with pytest.raises(DataError, match="recorded outputs cannot answer generated images"):
        world.compare(world.path("recorded.npy"), world.path("fp32.onnx"), generated=100)
