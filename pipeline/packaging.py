"""Everything that leaves this machine: bundles, the model's own wheel, and the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporters.package.bundle_writer import (
    Golden,
    PackedVariant,
    device_tolerance,
    golden_tolerance,
    write_bundle,
)
from exporters.package.wheel import write_wheel
from pipeline.datasets.arrays import Dataset
from pipeline.datasets.drawn import golden
from pipeline.recipe import Recipe
from pipeline.report.assemble import with_bundle
from pipeline.report.model import Report, write
from pipeline.report.model_card import model_card
from pipeline.report.render import render_html
from pipeline.report.text.summary import doubts
from pipeline.reports import PackageReport, TimedVariant
from runtime.manifest import Default
from runtime.spec import ModelSpec

BUNDLE_NAME = "bundle.zip"
BUNDLES_NAME = "bundles"  # folder of <target>.zip, when the recipe wants one for each
DIST_NAME = "dist"
REPORT_JSON_NAME = "report.json"
REPORT_HTML_NAME = "report.html"

OnStep = Callable[[str, int, int, str], None]  # (task, done, total, detail)


@dataclass(frozen=True)
class Parts:
    """Everything that goes into the bundles of a run."""

    recipe: Recipe
    spec: ModelSpec
    dataset: Dataset
    preprocess: bytes
    variants: tuple[TimedVariant, ...]  # those that ship
    model: Callable[[str], bytes]  # the file of a variant, by id
    checkpoint_sha256: str
    report: Report


def package(out: Path, parts: Parts, on_step: OnStep) -> PackageReport:
    """Write bundles, wheel and report into ``out``; each bundle is opened and run before it
    counts."""
    report, recipe = parts.report, parts.recipe
    ids = {}
    bundles = _bundles(recipe, report.defaults)
    for number, (name, defaults) in enumerate(bundles.items(), start=1):
        (out / name).parent.mkdir(exist_ok=True)
        ids[name] = pack(out / name, parts, defaults)
        on_step("package: bundles", number, len(bundles), name)
    one = recipe.package.bundles == "one"
    own = BUNDLE_NAME if one else f"{BUNDLES_NAME}/{report.target}.zip"  # of this kind of machine
    wheel = _wheel(out, own, parts)
    size_bytes = (out / own).stat().st_size
    report = with_bundle(report, ids[own], size_bytes, own)
    write(report, out / REPORT_JSON_NAME)
    (out / REPORT_HTML_NAME).write_text(render_html(report), encoding="utf-8")
    return PackageReport(
        headline=f"bundle {ids[own][:12]}, {size_bytes / 1024:,.0f} KiB; "
        f"{wheel.name}, {wheel.stat().st_size / 1024:,.0f} KiB"
        + "".join(f"; {warning.partition(':')[0]}" for warning in warnings(report)),
        bundle_id=ids[own],
        bundles=ids,
    )


def _bundles(recipe: Recipe, defaults: Sequence[Default]) -> dict[str, list[Default]]:
    """The bundles that a recipe wants, each with its defaults."""
    if recipe.package.bundles == "one":
        return {BUNDLE_NAME: list(defaults)}
    return {f"{BUNDLES_NAME}/{row.target}.zip": _alone(row) for row in defaults}


def _wheel(out: Path, bundle: str, parts: Parts) -> Path:
    (out / DIST_NAME).mkdir(exist_ok=True)
    return write_wheel(
        out / DIST_NAME,
        name=parts.recipe.name,
        version=parts.recipe.package.model_version,
        bundle=out / bundle,
        summary=parts.recipe.summary,
        license=str(parts.report.model.licence),
    )


def _alone(row: Default) -> list[Default]:
    """The defaults of a bundle that holds the variant of one kind of device only; every bundle
    has a default for any other CPU."""
    rows = [row, Default("cpu", row.variant, f"it is the only one; made for {row.target}")]
    return rows if row.target != "cpu" else [row]


def pack(bundle: Path, parts: Parts, defaults: Sequence[Default]) -> str:
    """Write a bundle of the variants that ship: all of them, or those that ``defaults`` name when
    the recipe wants one bundle for each kind of device. Returns its id."""
    options = parts.recipe.package
    named = {row.variant for row in defaults}
    return write_bundle(
        bundle,
        spec=parts.spec,
        preprocess=parts.preprocess,
        variants=[
            _packed(variant, parts.model(variant.judged.id))
            for variant in parts.variants
            if options.bundles == "one" or variant.judged.id in named
        ],
        defaults=defaults,
        golden=Golden(
            golden.raw_images(parts.recipe.preprocess, parts.dataset, options.golden_raw),
            golden.model_pixels(parts.dataset, options.golden_images),
        ),
        measurements=measurements(parts.report),
        model_card=model_card(parts.report),
        model_version=options.model_version,
        devices=options.devices,
        provenance=_provenance(parts),
    )


def _packed(variant: TimedVariant, model: bytes) -> PackedVariant:
    trial = variant.judged.trial
    return PackedVariant(
        model=model,
        id=trial.id,
        precision=trial.precision,
        portable=trial.portable,
        golden_tolerance=golden_tolerance(trial.precision, trial.portable),
        thresholds=variant.judged.thresholds,
        device_tolerance=device_tolerance(trial.precision, trial.portable),
    )


def measurements(report: Report) -> dict[str, Any]:
    """``measurements.json``: accuracy, parity and latency of every variant, and the machine."""
    return {
        "hardware": report.hardware.to_dict(),
        "reference": asdict(report.reference),
        "variants": [asdict(variant) for variant in report.variants],
        "scores": None if report.scores is None else asdict(report.scores),
        "multiply_adds": report.model.multiply_adds,
        "created": report.created,
        "training": {
            "complete": not report.training.incomplete,
            "epochs": len(report.training.epochs),
            "notes": list(report.training.notes),
        },
        "warnings": warnings(report),
    }


def warnings(report: Report) -> list[str]:
    """The doubts about the model, for readers of its figures."""
    return [f"{doubt.name}: {doubt.text}" for doubt in doubts(report)]


def _provenance(parts: Parts) -> dict[str, Any]:
    """The origin of the model: recipe, data, seed, code and library versions, license."""
    report = parts.report
    return {
        "recipe": report.recipe,
        "data": asdict(report.data),
        "seed": parts.recipe.seed,
        "checkpoint_sha256": parts.checkpoint_sha256,
        "versions": report.hardware.versions,
        "licence": report.model.licence,
        "warnings": warnings(report),
    }
