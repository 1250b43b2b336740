"""`pipeline verify` and `pipeline targets`: what needs no other environment than this one. The
targets themselves run in ``test_targets_full.py``."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from pets import World

from exporters.evaluate.generated_images import mixed_images
from exporters.export.resize_graph import resize_graph
from exporters.graph import onnx_file
from exporters.graph.intermediate_outputs import quantized_tensors, with_typed_outputs
from exporters.package.archive import zip_bytes
from pipeline.cli.main import cli
from pipeline.errors import DataError, TargetError
from pipeline.targets import install, launch
from pipeline.targets import table as targets
from pipeline.targets.job import ImageLimits, ask, read_outputs, write_job
from pipeline.verify.images import find_images, spread
from pipeline.verify.judge import check_variant, promise
from pipeline.verify.measure import REAL, check_counts, check_target
from runtime import FileEntry, Manifest

HERE = targets.REFERENCE


@pytest.fixture(scope="module")
def bundle(world: World) -> Path:
    return Path(world.bundle("verify.zip", fp32=world.fp32, int8_u8s8_rr=world.int8))


def altered(model: onnx.ModelProto, kind: int = onnx.TensorProto.INT8) -> onnx.ModelProto:
    """Another weight in the second convolution."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    weights = [t for t in result.graph.initializer if t.data_type == kind and np.prod(t.dims) > 100]
    tensor = weights[1]
    values = numpy_helper.to_array(tensor).copy()
    values[0] = -values[0]  # no larger pairs: it stays portable
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return result


# --- the bundle here ----------------------------------------------------------------------------


def test_the_same_machine_gives_the_same_bits(bundle: Path, world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["verify", str(bundle), "--targets", "here", "--data", world.path("images.npz")]
    done = CliRunner().invoke(cli, [*words, "--images", "30", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "identical" in done.output and "100 % of 33" in done.output
    result = json.loads((out / "verify.json").read_text())
    (row,) = result["targets"]
    assert result["passed"] and row["status"] == "ran" and row["pixels_identical"]
    assert row["about"]["onnxruntime"] == __import__("onnxruntime").__version__
    int8 = row["variants"][1]
    assert int8["identical"] and int8["tensors"] > 5 and int8["taps_change_nothing"]
    page = (out / "verify.html").read_text()
    assert "the same answers on every target that ran" in page and row["command"] in page


def test_the_command_in_the_report_runs_again(bundle: Path, world: World, tmp_path: Path) -> None:
    import shlex
    import subprocess

    job = write_job(tmp_path / "job", bundle, world.images[:5])
    row = check_target(job, HERE, read_outputs(launched(job)), REAL)
    folder = job.target_folder(HERE)
    (folder / "answers.json").unlink()
    subprocess.run(shlex.split(row.command), check=True)
    assert read_outputs(folder).about["machine"]


def launched(job: Any, limits: ImageLimits = REAL) -> Path:
    folder = ask(job, HERE, limits)
    launch.run(HERE, job.folder, folder)
    return folder


def test_a_device_that_computes_otherwise_is_caught_at_its_layer(
    bundle: Path, world: World, tmp_path: Path
) -> None:
    """Where a bundle with one altered layer plays the device: every hash fits, as on a device
    whose kernels are at fault."""
    good = write_job(tmp_path / "good", bundle, world.images[:20])
    here = read_outputs(launched(good))
    broken = world.bundle("broken.zip", fp32=world.fp32, int8_u8s8_rr=altered(world.int8))
    job = write_job(tmp_path / "job", Path(broken), world.images[:20])
    row = check_target(job, HERE, here, REAL)
    fp32, int8 = row.variants
    assert fp32.passed and not int8.passed and not row.passed
    assert int8.parts_at == "Conv_1" and int8.largest_step > 1
    assert any("quantized tensors" in text and "Conv_1" in text for text in int8.failures)
    assert any("1e-06" in text for text in int8.failures)


def test_a_float_file_that_differs_too_much_is_caught(
    bundle: Path, world: World, tmp_path: Path
) -> None:
    good = write_job(tmp_path / "good", bundle, world.images[:20])
    here = read_outputs(launched(good))
    other = altered(world.fp32, onnx.TensorProto.FLOAT)
    broken = world.bundle("broken.zip", fp32=other, int8_u8s8_rr=world.int8)
    row = check_target(
        write_job(tmp_path / "job", Path(broken), world.images[:20]), HERE, here, REAL
    )
    assert [v.passed for v in row.variants] == [False, True]
    assert "0.0001 (float32" in row.variants[0].failures[0]


def test_layers_of_a_failed_float_file_are_compared(
    bundle: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device whose second convolution is at fault: in its folder the copies that return their
    layers are of another model."""
    job = write_job(tmp_path / "job", bundle, world.images[:20])
    other = altered(world.fp32, onnx.TensorProto.FLOAT)
    broken = world.bundle("broken.zip", fp32=other, int8_u8s8_rr=world.int8)
    good = read_outputs(launched(job))
    device = replace(targets.TARGETS[1], name="device", cpu=None, needs=(), variables=())
    genuine = launch.run

    def run(target: targets.Target, job_folder: Path, target_folder: Path) -> launch.Run:
        if target is device:
            twin = write_job(tmp_path / "twin", Path(broken), world.images[:20], float_layers=True)
            shutil.copy(job_folder / "images.bin", twin.folder / "images.bin")
            return genuine(HERE, twin.folder, target_folder)
        return genuine(target, job_folder, target_folder)

    monkeypatch.setattr(launch, "run", run)
    row = check_target(job, device, good, REAL)
    fp32, int8 = row.variants
    assert int8.passed and fp32.parts_at == "Conv_1"
    assert "Conv_1" in fp32.failures[-1]


def test_a_target_that_dies_is_a_failed_row_and_not_an_exception(
    bundle: Path, world: World, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job", bundle, world.images[:5])
    here = read_outputs(launched(job))
    (job.folder / "tapped/int8-u8s8-rr.onnx").write_bytes(b"no model")
    row = check_target(job, HERE, here, REAL)
    assert row.status == "failed" and not row.passed
    assert "code 1" in row.note and "Error" in row.note


def test_stale_golden_outputs_are_reported(world: World, bundle: Path, tmp_path: Path) -> None:
    """Golden outputs of another training, with every hash made to fit."""
    other = Path(world.bundle("other.zip", fp32=altered(world.fp32, onnx.TensorProto.FLOAT)))
    with zipfile.ZipFile(bundle) as a, zipfile.ZipFile(other) as b:
        members = {name: a.read(name) for name in a.namelist()}
        arrays = dict(np.load(io.BytesIO(members["golden.npz"])).items())
        stale = np.load(io.BytesIO(b.read("golden.npz")))
    arrays["probabilities/fp32"] = stale["probabilities/fp32"]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    members["golden.npz"] = buffer.getvalue()
    planted = tmp_path / "bundle.zip"
    planted.write_bytes(with_hashes(members))
    words = ["verify", str(planted), "--targets", "here", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1, done.output
    assert "golden samples here: failed: variant 'fp32' differs from its golden" in done.output


def test_a_model_that_mixes_its_batch_is_reported(bundle: Path, tmp_path: Path) -> None:
    """Each image alone is answered as recorded, and every target answers alike."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    model = onnx.load_from_string(members["variants/fp32.onnx"])
    model.graph.node[-1].output[0] = "own"
    model.graph.node.extend(
        [
            onnx.helper.make_node("ReduceMean", ["own", "axis"], ["mean"], keepdims=1),
            onnx.helper.make_node("Add", ["own", "mean"], ["both"]),
            onnx.helper.make_node("Mul", ["both", "half"], ["probabilities"]),
        ]
    )
    for name, value in (("axis", np.array([0])), ("half", np.float32(0.5))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    members["variants/fp32.onnx"] = model.SerializeToString()
    planted = tmp_path / "bundle.zip"
    planted.write_bytes(with_hashes(members))
    words = ["verify", str(planted), "--targets", "here", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, [*words, "--images", "5"])
    assert done.exit_code == 1, done.output
    golden = json.loads((tmp_path / "out" / "verify.json").read_text())["golden"]
    assert golden.startswith("failed: variant 'fp32'") and "mixes the images" in golden


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_a_target_answers_for_as_many_images_as_it_was_asked(
    rows: int, bundle: Path, world: World, tmp_path: Path
) -> None:
    """One row for all would be compared with the first image alone."""
    job = write_job(tmp_path / "job", bundle, world.images[:2])
    folder = launched(job)
    answers = json.loads((folder / "answers.json").read_text())
    row = answers["arrays"]["fp32/probabilities"]
    assert row["shape"] == [5, 4]
    values = np.fromfile(folder / row["file"], np.float32).reshape(5, 4)
    np.resize(values, (rows, 4)).tofile(folder / row["file"])
    row["shape"][0] = rows
    (folder / "answers.json").write_text(json.dumps(answers))
    with pytest.raises(TargetError, match=f"{rows} rows of fp32/probabilities for 5 images"):
        read_outputs(folder)


def with_hashes(members: dict[str, bytes]) -> bytes:
    import hashlib

    manifest = Manifest.from_json(members["manifest.json"])
    files = {
        name: FileEntry(hashlib.sha256(members[name]).hexdigest(), len(members[name]))
        for name in manifest.files
    }
    text = replace(manifest, files=files).to_json().encode()
    head = f"{hashlib.sha256(text).hexdigest()}\n".encode()
    return zip_bytes({**members, "manifest.json": text, "manifest.sha256": head})


def test_limits_bound_what_an_emulator_is_asked(bundle: Path, world: World, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", bundle, world.images[:40])
    few = ImageLimits({"fp32": 3, "fp16": 0, "int8": 4}, 30)
    answers = read_outputs(launched(job, few))
    assert len(answers.probabilities("fp32")) == 3
    assert len(answers.probabilities("int8-u8s8-rr")) == 4
    here = read_outputs(launched(job))
    checks = [check_variant(variant, here, answers) for variant in job.variants]
    assert [check.images for check in checks] == [3, 30]
    assert all(check.passed for check in checks)


# --- quantized tensors ---------------------------------------------------------------------------


def test_returning_quantized_tensors_disturbs_no_kernel(world: World, tmp_path: Path) -> None:
    """The optimized graph keeps its integer operators, and the probabilities their bits."""
    import onnxruntime as ort

    tensors = quantized_tensors(world.int8)
    assert [t.layer for t in tensors][1] == "Conv_0" and [t.last for t in tensors].count(True) == 1

    def integer_operators(model: onnx.ModelProto) -> list[str]:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        ort.InferenceSession(onnx_file.to_bytes(model), options)
        optimized = onnx.load(tmp_path / "optimized.onnx")
        kinds = [node.op_type for node in optimized.graph.node]
        return sorted(kind for kind in kinds if kind.startswith(("QLinear", "QGemm")))

    tapped = with_typed_outputs(world.int8, [tensor.name for tensor in tensors])
    assert integer_operators(tapped) == integer_operators(world.int8)
    assert "QLinearConv" in integer_operators(world.int8)
    plain = onnx_file.run(onnx_file.session(world.int8), world.images)
    assert np.array_equal(plain, onnx_file.run(onnx_file.session(tapped), world.images))


def test_a_tensor_that_no_node_makes_is_refused(world: World) -> None:
    from exporters.errors import GraphError

    with pytest.raises(GraphError, match="no node makes a tensor 'nothing'"):
        with_typed_outputs(world.fp32, ["nothing"])


# --- the table of targets ------------------------------------------------------------------------


def test_the_table_is_whole() -> None:
    names = [target.name for target in targets.TARGETS]
    assert len(set(names)) == len(names) == 13
    environments = {row.name for row in targets.ENVIRONMENTS}
    assert set(install.STEPS) == environments
    assert {target.environment for target in targets.TARGETS} == environments | {None}
    for target in targets.TARGETS:
        assert set(target.needs) <= set(targets.DEBIAN)
    kinds = {t.name.partition("-")[0] for t in targets.TARGETS if t.full}
    assert kinds == {"here", "x86_64", "arm64", "web"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("arm64",), ["here", "arm64-a53", "arm64-a76", "arm64-max"]),
        (("web", "node"), ["here", "web", "web-threads", "node"]),
        (("x86_64-avx",), ["here", "x86_64-avx"]),
        (("x86_64",), ["here", "x86_64-sse", "x86_64-avx", "x86_64-avx2"]),
    ],
)
def test_targets_are_chosen_by_name_kind_or_environment(
    names: tuple[str, ...], expected: list[str]
) -> None:
    assert [target.name for target in targets.select(names)] == expected


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(TargetError, match=r"'riscv'.*here, x86"):
        targets.select(("riscv",))
    with pytest.raises(TargetError, match=r"'riscv'.*arm64, web"):
        targets.environment("riscv")
    with pytest.raises(TargetError, match="target here"):
        targets.environment("here")


def test_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    arm, web = (targets.select((name,))[1] for name in ("arm64-a53", "web"))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert targets.missing(arm) == "not set up: pipeline targets install arm64"
    assert targets.missing(HERE) is None
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert targets.missing(web) == "chromium not found: sudo apt-get install chromium"
    with pytest.raises(TargetError, match=r"without npm\. Run: sudo apt-get install npm"):
        install.install(targets.environment("node"))


def test_a_target_that_is_not_set_up_is_a_row_with_the_command(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    out = tmp_path / "out"
    words = ["verify", str(bundle), "--targets", "onnxruntime-newest", "--out", str(out)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "pipeline targets install onnxruntime-newest" in done.output
    monkeypatch.setenv("COLUMNS", "200")
    for which, expected in (
        (lambda name: f"/usr/bin/{name}", "pipeline targets install arm64"),
        (lambda name: None, "sudo apt-get install qemu-user-static"),
    ):
        monkeypatch.setattr("shutil.which", which)
        assert expected in CliRunner().invoke(cli, ["targets", "list"]).output
    removed = CliRunner().invoke(cli, ["targets", "remove", "web"])
    assert removed.output.startswith("web: was not")


def test_an_environment_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    row = targets.Environment("node", "for the test")

    def half(folder: Path) -> dict[str, str]:
        (folder / "half").write_text("a part")
        raise TargetError("the index is gone")

    monkeypatch.setitem(install.STEPS, "node", half)  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="the index is gone"):
        install.install(row)
    assert not row.ready and list(targets.cache_folder().iterdir()) == []
    monkeypatch.setitem(install.STEPS, "node", lambda folder: {"node": "1"})  # type: ignore[arg-type]
    install.install(row)
    assert row.ready and install.versions(row) == {"node": "1"} and install.size_bytes(row) > 0
    assert install.remove(row) and not row.folder.exists() and not install.remove(row)


def test_commands_are_what_a_person_would_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "edgeproof/targets/arm64/prefix/usr").mkdir(parents=True)
    job = tmp_path / "job"
    for target in targets.TARGETS:
        words = launch.command(target, job, job / "targets" / target.name)
        assert str(job) in words
        if target.cpu is not None:
            assert words[words.index("-cpu") + 1] == target.cpu
            prefix = Path(words[words.index("-L") + 1])
            cpuinfo = (prefix / "proc/cpuinfo").read_text()
            assert ("asimddp" in cpuinfo) == (target.cpu in ("cortex-a76", "max"))
            assert ("avx2" in cpuinfo) == (target.cpu == "Haswell")


# --- images --------------------------------------------------------------------------------------


def test_images_come_from_the_run_of_the_bundle_or_are_generated(
    world: World, tmp_path: Path
) -> None:
    spec = world.network.spec
    result = find_images(None, tmp_path, spec)
    assert result.source.startswith("generated") and result.pixels.shape == (200, 16, 16, 3)
    assert np.array_equal(result.pixels, mixed_images(spec.shape))
    few = spread(find_images(Path(world.path("images.npz")), tmp_path, spec), 7)
    assert len(few.pixels) == 7 and few.source.startswith("7 of the ")
    assert np.array_equal(few.pixels[-1], world.images[-1])
    with pytest.raises(DataError, match="no images"):
        find_images(tmp_path / "nothing.npy", tmp_path, spec)


def test_what_is_promised_follows_from_the_manifest(bundle: Path) -> None:
    from runtime import Bundle

    opened = Bundle.open(bundle)
    fp32, int8 = map(promise, opened.manifest.variants)
    assert not fp32.bit_identical and fp32.max_difference == 1e-4
    assert int8.bit_identical and int8.max_difference == 1e-6
    risky = promise(replace(opened.manifest.variants[1], portable=False))
    assert not risky.bit_identical and "may saturate" in risky.reason
    opened.close()


# --- what was not looked at ---------------------------------------------------------------------


def test_preprocessing_is_tried_on_more_than_golden_pictures(
    bundle: Path, world: World, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job", bundle, world.images[:2])
    drawn = job.raw_shapes[1:]  # behind one golden picture
    assert {shape[2] for shape in drawn} == {1, 3} and len(set(drawn)) >= 8
    answers = read_outputs(launched(job))
    assert all(f"pixels/{n}" in answers.arrays for n in range(len(job.raw_shapes)))


def test_a_bundle_with_other_preprocessing_than_its_run_fails(world: World, tmp_path: Path) -> None:
    own = Path(shutil.copy(world.bundle("own.zip", fp32=world.fp32), tmp_path / "bundle.zip"))
    (tmp_path / "1_data").mkdir()
    for graph, exit_code, expected in (
        (resize_graph(16, 16, "rgb"), 0, "the same file as"),
        (resize_graph(16, 16, "rgb", (15, 16), (16, 16)), 1, "failed: "),
    ):
        onnx_file.save(graph, tmp_path / "1_data/preprocess.onnx")
        words = ["verify", str(own), "--targets", "here", "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(
            cli, [*words, "--data", world.path("images.npz"), "--images", "4"]
        )
        assert done.exit_code == exit_code and expected in done.output, done.output


def test_a_target_that_leaves_answers_out_fails(bundle: Path, world: World, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", bundle, world.images[:5])
    answers = read_outputs(launched(job))
    check_counts(job, HERE, answers, REAL)
    short = {name: values[:-1] for name, values in answers.arrays.items()}
    with pytest.raises(TargetError, match="here gave 7 rows of fp32/probabilities for 8 images"):
        check_counts(job, HERE, replace(answers, arrays=short), REAL)
