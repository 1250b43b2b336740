"""Every target for real: each environment is set up from its registry, and a small bundle answers
the same on all of them. Part of ``make test-full``; what this machine lacks says "not run"."""

from __future__ import annotations

from pathlib import Path

import pytest
from int8_variant import int8_from_fp32
from pets import CLASSES, World

from exporters.options import Int8Options
from pipeline.errors import TargetError
from pipeline.targets import launch
from pipeline.targets import table as targets
from pipeline.targets.install import install
from pipeline.targets.job import Job, ask, read_answers, write_job
from pipeline.verify.measure import EMULATED, REAL, check_target

pytestmark = pytest.mark.full
CACHE = "targets-full"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A cache of its own, so that nothing of the user's is touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp(CACHE)))
        yield


@pytest.fixture(scope="module")
def job(world: World, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Portable INT8 beside one of full range, which saturates where there is no VNNI."""
    full_range = Int8Options("int8-u8s8", reduce_range=False)
    risky = int8_from_fp32(world.fp32, CLASSES, full_range, world.images, calibration_images=64)
    path = world.bundle("full.zip", fp32=world.fp32, int8_u8s8_rr=world.int8, int8_u8s8=risky)
    return write_job(tmp_path_factory.mktemp("full") / "job", Path(path), world.images)


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: target.name)
def test_the_answers_are_the_same(target: targets.Target, job: Job) -> None:
    environment = target.environment and targets.environment(target.environment)
    if environment and not environment.ready and not targets.absent_programs(target.needs):
        try:
            install(environment)
        except TargetError as exc:
            pytest.skip(f"not run: {exc}")
    if reason := targets.missing(target):
        pytest.skip(f"not run: {reason}")
    folder = ask(job, targets.REFERENCE, REAL)
    launch.run(targets.REFERENCE, job.folder, folder)
    here = read_answers(folder)
    row = check_target(job, target, here, EMULATED if target.emulated else REAL)
    assert row.status == "ran", row.note
    fp32, portable, risky = row.variants
    assert fp32.passed, fp32.failures
    assert portable.passed and portable.identical and portable.max_difference <= 1e-6
    assert portable.agreement == 1 and portable.images == 123
    assert row.pixels_identical
    if target.name == "x86_64-avx2":  # the shipped predictor takes exact kernels there
        assert risky.identical and risky.taps_change_nothing
    if target.constrained and not row.note:
        assert row.about["quota_cores"] == 0.5 and row.about["network"] == ["lo"]
        assert row.about["address_space_bytes"] == launch.ADDRESS_SPACE_BYTES
    if target.environment == "arm64":
        assert row.about["machine"] == "aarch64"
        assert ("ASIMDDP" in row.about["features"]) == (target.cpu != "cortex-a53")
    if target.cpu in ("Nehalem", "SandyBridge"):
        assert "AVX2" not in row.about["features"]
    if target.name == "onnxruntime-1.15":
        assert row.about["onnxruntime"] == targets.OLDEST
    if target.threads > 1:
        assert row.about["threads"] == 2 and row.about["isolated"]
