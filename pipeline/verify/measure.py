"""From a bundle to the table: run every target that is set up, two at a time, and compare each
with this machine."""

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
    """What to verify, and how much."""

    bundle: Path
    out: Path  # verify.json and the job are written here
    targets: tuple[Target, ...]
    data: Path | None = None
    images: int = 200
    full: bool = False
    trusted_keys: tuple[str, ...] | None = None  # of which one must have signed the bundle


def verify(options: VerifyOptions, progress: Progress) -> Verification:
    """Run and compare; raises TargetError when this machine itself cannot answer, PredictorError
    for a bundle that is damaged, DataError."""
    bundle = Bundle.open(options.bundle, options.trusted_keys)
    manifest, bundle_id = bundle.manifest, str(bundle.id)
    bundle.close()
    beside = options.bundle.resolve().parent
    source = find_images(options.data, beside, manifest.spec)
    images = with_regression(spread(source, options.images), beside, manifest.spec)
    job = write_job(options.out / "job", options.bundle, images.pixels)
    rows = _run_all(job, options.targets, REAL, EMULATED, progress)
    whole: tuple[TargetCheck, ...] = ()
    words = f"{job.golden} golden samples and {images.source}"
    if empty := nothing_to_see(source):
        words += f"; {empty}"
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
        words += f"; whole set: {len(many.pixels)} of {many.source}"
    return Verification(
        bundle=str(options.bundle),
        bundle_id=bundle_id,
        model=f"{manifest.spec.name} {manifest.model_version}",
        synthetic=manifest.synthetic,
        date=datetime.now(UTC).date().isoformat(),
        images=words,
        golden=_selftest(options.bundle, [variant.id for variant in manifest.variants]),
        machine=detect().caption(),
        targets=rows,
        preprocessing=_preprocessing(job.folder / PREPROCESS_NAME, beside / DATA_FOLDER),
        whole_set=whole,
    )


def _preprocessing(own: Path, data: Path) -> str:
    """The bundle's graph against the one that made the training images of its run; "" where there
    is none."""
    other = data / PREPROCESS_NAME
    if not other.is_file():
        return ""
    if own.read_bytes() == other.read_bytes():
        return f"the same file as {other}"
    found = preprocess_difference(onnx_file.load(other), onnx_file.load(own))
    if found.equal:
        return f"the same pixels as {other} makes of {found.tried} pictures"
    return (
        f"failed: other pixels than {other} makes of {found.differing} of {found.tried} pictures, "
        f"by up to {found.largest} levels. Worst: {found.worst}"
    )


def _selftest(bundle: Path, variants: Sequence[str]) -> str:
    """The recorded outputs against what every variant answers here, one by one, in pairs and
    together."""
    said = []
    for name in variants:
        try:
            with Predictor(bundle, device="cpu", variant=name) as predictor:
                report = predictor.selftest()
            said.append(f"{name} within {report.max_difference:.1g}")
        except (SelftestError, DeviceError) as exc:
            return f"failed: {exc}"
    return "passed: " + ", ".join(said)


def _run_all(
    job: VerificationJob,
    targets: Sequence[Target],
    real: ImageLimits,
    emulated: ImageLimits,
    progress: Progress,
) -> tuple[TargetCheck, ...]:
    """The rows of the table in the order of ``targets``. The reference runs before them and, as
    one of them, a second time: the same machine must give the same bits twice."""
    here = read_outputs(_launched(job, REFERENCE, real)[0])
    rows: dict[str, TargetCheck] = {}

    def one(target: Target) -> None:
        limits = emulated if target.emulated else real
        rows[target.name] = check_target(job, target, here, limits)
        progress(len(rows), len(targets), target.name)

    with ThreadPoolExecutor(min(AT_ONCE, usable_threads())) as pool:
        # emulators take longest, so they begin
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
    """Run one target and compare it; never raises for what a target does wrong."""

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
        return row("failed", f"it did not answer {exc}")
    finally:
        for file in job.target_folder(target).glob("*.bin"):
            file.unlink()  # job.json and answers.json stay, so that the command can be run again
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
    """Raise TargetError for fewer or more answers than images that were asked about; what is
    missing cannot differ."""
    for variant in job.variants:
        asked = {f"{variant.row.id}/probabilities": limits.plain[variant.row.precision]}
        if variant.tensors:
            asked |= {f"{variant.row.id}/tapped/{t.name}": limits.tapped for t in variant.tensors}
        for name, limit in asked.items():
            count, wanted = len(answers.arrays[name]), min(job.images, limit)
            if count != wanted:
                raise TargetError(
                    f"{target.name} gave {count} rows of {name} to {wanted} images; expected one "
                    "for each."
                )


def _launched(job: VerificationJob, target: Target, limits: ImageLimits) -> tuple[Path, launch.Run]:
    folder = ask(job, target, limits)
    return folder, launch.run(target, job.folder, folder)


def _shortfall(target: Target, answers: TargetOutputs) -> str:
    """What of a target's description was not so, by its own account."""
    about, lacking = answers.about, []
    if target.constrained:
        if not about.get("quota_cores"):
            lacking.append("without a CPU quota: no cgroup may be written here")
        if about.get("network") != ["lo"]:
            lacking.append("with a network: no namespace is allowed here")
    if target.threads > 1 and about.get("threads") != target.threads:
        lacking.append(f"with {about.get('threads')} thread")
    return "; ".join(lacking)
