"""From a bundle to the table of targets: all that are set up run, two at a time, and each is
compared with this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from exporters.explain.preprocess_difference import preprocess_difference
from exporters.graph import onnx_file
from pipeline.errors import TargetError
from pipeline.hardware import detect
from pipeline.targets import launch
from pipeline.targets.job import (
    ImageLimits,
    TargetOutputs,
    VerificationJob,
    ask,
    read_outputs,
    write_job,
)
from pipeline.targets.table import REFERENCE, Target, missing
from pipeline.verify.images import DATA_FOLDER, find_images, nothing_to_see, spread, with_regression
from pipeline.verify.judge import check_variant, pixels_identical
from pipeline.verify.layers import with_layers
from pipeline.verify.result import Status, TargetCheck, Verification
from runtime import Bundle, DeviceError, Predictor, SelftestError
from runtime.cpu import usable_threads
from runtime.manifest import PREPROCESS_NAME

Progress = Callable[[int, int, str], None]  # targets done, targets in all, the last one's name
ALL = 1 << 31
# FP16 on an emulated ARM with half precision takes ten times as long as FP32 elsewhere.
EMULATED = ImageLimits({"fp32": 20, "fp16": 5, "int8": 20}, ALL)
REAL = ImageLimits({"fp32": ALL, "fp16": ALL, "int8": ALL}, ALL)
FULL_IMAGES = 10_000
FULL_EMULATED = ImageLimits({"fp32": 500, "fp16": 0, "int8": 500}, ALL)
FULL_REAL = ImageLimits({"fp32": 500, "fp16": 0, "int8": ALL}, ALL)
AT_ONCE = 2  # targets; more than cores would only slow each other down


@dataclass(frozen=True)
class VerifyOptions:
    """The bundle to verify, on which targets and how thoroughly."""

    bundle: Path
    out: Path  # verify.json and the job are written here
    targets: tuple[Target, ...]
    data: Path | None = None
    images: int = 200
    full: bool = False
    trusted_keys: tuple[str, ...] | None = None  # one of them must have signed the bundle


def verify(options: VerifyOptions, progress: Progress) -> Verification:
    """Run and compare; raises TargetError when this machine itself cannot answer, PredictorError
    for a damaged bundle, and DataError."""
    bundle = Bundle.open(options.bundle, options.trusted_keys)
    manifest, bundle_id = bundle.manifest, str(bundle.id)
    bundle.close()
    folder = options.bundle.resolve().parent
    source = find_images(options.data, folder, manifest.spec)
    images = with_regression(spread(source, options.images), folder, manifest.spec)
    job = write_job(options.out / "job", options.bundle, images.pixels)
    rows = _run_all(job, options.targets, REAL, EMULATED, progress)
    whole: tuple[TargetCheck, ...] = ()
    described = f"{job.golden} golden samples and {images.source}"
    if empty := nothing_to_see(source):
        described += f"; {empty}"
    if options.full:
        many = spread(source, FULL_IMAGES)
        chosen = [v.id for v in manifest.variants if v.precision in ("fp32", "int8")]
        full_job = write_job(
            options.out / "job-full",
            options.bundle,
            many.pixels,
            variants=chosen,
            all_tensors=False,
        )
        targets = tuple(target for target in options.targets if target.full)
        whole = _run_all(full_job, targets, FULL_REAL, FULL_EMULATED, progress)
        described += f"; whole set: {len(many.pixels)} of {many.source}"
    return Verification(
        bundle=str(options.bundle),
        bundle_id=bundle_id,
        model=f"{manifest.spec.name} {manifest.model_version}",
        synthetic=manifest.synthetic,
        date=datetime.now(UTC).date().isoformat(),
        images=described,
        golden=_selftest(options.bundle, [variant.id for variant in manifest.variants]),
        machine=detect().caption(),
        targets=rows,
        preprocessing=_preprocessing(job.folder / PREPROCESS_NAME, folder / DATA_FOLDER),
        whole_set=whole,
    )


def _preprocessing(own: Path, data: Path) -> str:
    """Compare the bundle's graph with the one that made the training images of its run; "" where
    there is none."""
    other = data / PREPROCESS_NAME
    if not other.is_file():
        return ""
    if own.read_bytes() == other.read_bytes():
        return f"the same file as {other}"
    gap = preprocess_difference(onnx_file.load(other), onnx_file.load(own))
    if gap.equal:
        return f"the same pixels as {other} makes of {gap.tried} pictures"
    return (
        f"failed: {gap.differing} of {gap.tried} pictures differ from {other}, by up to "
        f"{gap.largest} levels. Worst: {gap.worst}"
    )


def _selftest(bundle: Path, variants: Sequence[str]) -> str:
    """Compare the recorded outputs with the answers of every variant here, one by one, in pairs and
    together."""
    passed = []
    for name in variants:
        try:
            with Predictor(bundle, device="cpu", variant=name) as predictor:
                report = predictor.selftest()
            passed.append(f"{name} within {report.max_difference:.1g}")
        except (SelftestError, DeviceError) as exc:
            return f"failed: {exc}"
    return "passed: " + ", ".join(passed)


def _run_all(
    job: VerificationJob,
    targets: Sequence[Target],
    real: ImageLimits,
    emulated: ImageLimits,
    progress: Progress,
) -> tuple[TargetCheck, ...]:
    """Return the rows of the table in the order of ``targets``. This machine runs first and, as a
    target, a second time: it must give the same bits twice."""
    here = read_outputs(_launched(job, REFERENCE, real)[0])
    rows: dict[str, TargetCheck] = {}

    def one(target: Target) -> None:
        limits = emulated if target.emulated else real
        rows[target.name] = check_target(job, target, here, limits)
        progress(len(rows), len(targets), target.name)

    with ThreadPoolExecutor(min(AT_ONCE, usable_threads())) as pool:
        # emulators take longest, so they start first
        order = sorted(targets, key=lambda target: not target.emulated)
        waiting = [pool.submit(one, target) for target in order]
        try:
            for done in waiting:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            launch.stop()
            raise
    return tuple(rows[target.name] for target in targets)


def check_target(
    job: VerificationJob, target: Target, here: TargetOutputs, limits: ImageLimits
) -> TargetCheck:
    """Run one target and compare it; errors of the target are part of the result."""

    def row(status: Status, note: str) -> TargetCheck:
        return TargetCheck(target.name, target.describes, status, note)

    if reason := missing(target):
        return row("not run", reason)
    try:
        folder, done = _launched(job, target, limits)
        answers = read_outputs(folder)
        check_counts(job, target, answers, limits)
        variants = tuple(check_variant(variant, here, answers) for variant in job.variants)
        variants = with_layers(job, target, variants)
    except TargetError as exc:
        return row("failed", str(exc))
    except KeyError as exc:
        return row("failed", f"its outputs lack {exc}")
    finally:
        for file in job.target_folder(target).glob("*.bin"):
            file.unlink()  # job.json stays, so that the command can be run again
    return TargetCheck(
        target=target.name,
        describes=target.describes,
        status="ran",
        note=_shortfall(target, answers),
        command=done.command,
        seconds=done.seconds,
        emulated=target.emulated,
        about=dict(answers.about),
        pixels_identical=pixels_identical(job, here, answers),
        variants=variants,
    )


def check_counts(
    job: VerificationJob, target: Target, answers: TargetOutputs, limits: ImageLimits
) -> None:
    """Raise TargetError unless there is one answer for each image: a missing one cannot differ."""
    for variant in job.variants:
        requested = {f"{variant.row.id}/probabilities": limits.plain[variant.row.precision]}
        if variant.tensors:
            prefix = f"{variant.row.id}/tapped/"
            requested |= {f"{prefix}{tensor.name}": limits.tapped for tensor in variant.tensors}
        for name, limit in requested.items():
            count, images = len(answers.arrays[name]), min(job.images, limit)
            if count != images:
                raise TargetError(
                    f"{target.name} gave {count} rows of {name} for {images} images; expected one "
                    "for each."
                )


def _launched(job: VerificationJob, target: Target, limits: ImageLimits) -> tuple[Path, launch.Run]:
    folder = ask(job, target, limits)
    return folder, launch.run(target, job.folder, folder)


def _shortfall(target: Target, answers: TargetOutputs) -> str:
    """Return the limits of a target that were not applied, as it reports itself."""
    about, lacking = answers.about, []
    if target.constrained:
        if not about.get("quota_cores"):
            lacking.append("without a CPU quota: no cgroup may be written here")
        if about.get("network") != ["lo"]:
            lacking.append("with a network: no namespace is allowed here")
    if target.threads > 1 and about.get("threads") != target.threads:
        lacking.append(f"with {about.get('threads')} thread")
    return "; ".join(lacking)
