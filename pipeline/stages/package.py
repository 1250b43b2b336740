"""Variants, figures and verdicts -> ``bundle.zip``, the model's own wheel, the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.engine.stage import Context, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.report.model import Report
    from runtime.manifest import Default

BUNDLE_NAME = "bundle.zip"
BUNDLES_NAME = "bundles"  # folder of <target>.zip, when the recipe wants one for each
DIST_NAME = "dist"
REPORT_JSON_NAME = "report.json"
REPORT_HTML_NAME = "report.html"


def run(context: Context) -> dict[str, Any]:
    """Write everything that leaves this machine; the bundle is opened and run before it counts."""
    from exporters.package.wheel import write_wheel
    from pipeline.report import model as report_data
    from pipeline.report.assemble import assemble, with_bundle
    from pipeline.report.render import render_html
    from runtime.manifest import Default

    recipe = context.recipe
    report = assemble(recipe, context.reports, context.inputs)
    defaults = [Default(**row) for row in context.reports["benchmark"]["defaults"]]
    if recipe.package.bundles == "one":
        names = {BUNDLE_NAME: defaults}
        own = BUNDLE_NAME
    else:
        (context.out / BUNDLES_NAME).mkdir(exist_ok=True)
        names = {f"{BUNDLES_NAME}/{row.target}.zip": _alone(row) for row in defaults}
        own = f"{BUNDLES_NAME}/{report.target}.zip"  # of this kind of machine
    ids = {}
    for number, (name, rows) in enumerate(names.items(), start=1):
        ids[name] = _write_bundle(context, report, context.out / name, rows)
        context.observer.step("package: bundles", number, len(names), name)
    bundle = context.out / own
    (context.out / DIST_NAME).mkdir(exist_ok=True)
    wheel = write_wheel(
        context.out / DIST_NAME,
        name=recipe.name,
        version=recipe.package.model_version,
        bundle=bundle,
        summary=recipe.summary,
        license=str(report.model.licence),
    )
    report = with_bundle(report, ids[own], bundle.stat().st_size, own)
    report_data.write(report, context.out / REPORT_JSON_NAME)
    (context.out / REPORT_HTML_NAME).write_text(render_html(report), encoding="utf-8")
    warnings = _warnings(report)
    for warning in warnings:
        context.observer.note(warning)
    return {
        "headline": f"bundle {ids[own][:12]}, {bundle.stat().st_size / 1024:,.0f} KiB; "
        f"{wheel.name}, {wheel.stat().st_size / 1024:,.0f} KiB"
        + "".join(f"; {warning.partition(':')[0]}" for warning in warnings),
        "bundle_id": ids[own],
        "bundles": ids,
    }


def _alone(row: Default) -> list[Default]:
    """The defaults of a bundle that holds the variant of one kind of device only; every bundle
    has a default for any other CPU."""
    from runtime.manifest import Default

    rows = [row, Default("cpu", row.variant, f"it is the only one; made for {row.target}")]
    return rows if row.target != "cpu" else [row]


def _write_bundle(context: Context, report: Report, bundle: Path, defaults: list[Default]) -> str:
    """A bundle of the variants that may ship: all of them, or those that ``defaults`` name when
    the recipe wants one bundle for each kind of device."""
    from exporters.package.bundle_writer import (
        Golden,
        PackedVariant,
        device_tolerance,
        golden_tolerance,
        write_bundle,
    )
    from pipeline.datasets.arrays import open_dataset
    from pipeline.datasets.drawn import golden
    from pipeline.report.model_card import model_card
    from runtime.spec import ModelSpec

    recipe, validated = context.recipe, context.reports["validate"]
    dataset = open_dataset(context.inputs["data"])
    ships = set(context.reports["benchmark"]["ships"])
    if recipe.package.bundles == "per-target":
        ships &= {row.variant for row in defaults}
    variants = [
        PackedVariant(
            model=(context.inputs["quantize"] / f"{row['id']}.onnx").read_bytes(),
            id=row["id"],
            precision=row["precision"],
            portable=row["portable"],
            golden_tolerance=golden_tolerance(row["precision"], row["portable"]),
            thresholds=None if row["thresholds"] is None else tuple(row["thresholds"]),
            device_tolerance=device_tolerance(row["precision"], row["portable"]),
        )
        for row in validated["variants"]
        if row["id"] in ships
    ]
    return write_bundle(
        bundle,
        spec=ModelSpec.from_dict(validated["spec"]),
        preprocess=(context.inputs["data"] / "preprocess.onnx").read_bytes(),
        variants=variants,
        defaults=defaults,
        golden=Golden(
            golden.raw_images(recipe.preprocess, dataset, recipe.package.golden_raw),
            golden.model_pixels(dataset, recipe.package.golden_images),
        ),
        measurements=_measurements(report),
        model_card=model_card(report),
        model_version=recipe.package.model_version,
        devices=recipe.package.devices,
        provenance=_provenance(context, report),
    )


def _measurements(report: Report) -> dict[str, Any]:
    """Accuracy, parity and latency of every variant, and on which machine."""
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
        "warnings": _warnings(report),
    }


def _warnings(report: Report) -> list[str]:
    """What a reader of the figures has to know first."""
    from pipeline.report.text.summary import doubts

    return [f"{doubt.name}: {doubt.text}" for doubt in doubts(report)]


def _provenance(context: Context, report: Report) -> dict[str, Any]:
    """Where the model comes from: recipe, data, seed, code and library versions, licence."""
    from pipeline.engine.store import file_sha256

    return {
        "recipe": report.recipe,
        "data": asdict(report.data),
        "seed": context.recipe.seed,
        "checkpoint_sha256": file_sha256(context.inputs["train"] / "checkpoint.pt"),
        "versions": report.hardware.versions,
        "licence": report.model.licence,
        "warnings": _warnings(report),
    }


STAGE = Stage(
    "package",
    "write the bundle, the model's wheel and the report",
    run,
    inputs=("data", "train", "export", "quantize", "validate", "benchmark"),
    sections=("name", "description", "seed", "preprocess", "package"),
    sources=(
        "pipeline/stages/package.py",
        "pipeline/report",
        "pipeline/datasets",
        "pipeline/hardware.py",
        "pipeline/engine/store.py",
        "exporters",
        "runtime",
    ),
    libraries=("numpy", "onnxruntime", "matplotlib", "jinja2"),
    publish=(BUNDLE_NAME, BUNDLES_NAME, DIST_NAME, REPORT_JSON_NAME, REPORT_HTML_NAME),
)
