"""``fp32.onnx`` and images of the train split -> the other variants."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import Any

from pipeline.stage import Context, Stage


def run(context: Context) -> dict[str, Any]:
    """Write one ``<id>.onnx`` for each variant, fp32 among them, and what each one is."""
    from exporters import onnx_file
    from exporters.fp16_from_fp32 import fp16_from_fp32
    from exporters.int8_from_fp32 import int8_from_fp32
    from exporters.portability import portability
    from pipeline.datasets.arrays import open_dataset

    recipe, observer = context.recipe, context.observer
    train = open_dataset(context.inputs["data"]).train
    source = context.inputs["export"] / "fp32.onnx"
    fp32 = onnx_file.load(source)
    spec = onnx_file.spec_of(fp32)
    total = recipe.quantize.fp16 + len(recipe.quantize.int8)
    shutil.copyfile(source, context.out / "fp32.onnx")
    variants = [_entry("fp32", "fp32", False, "float arithmetic differs in the last bits")]

    if recipe.quantize.fp16:
        onnx_file.save(fp16_from_fp32(fp32, spec), context.out / "fp16.onnx")
        reason = "half precision is computed differently from target to target"
        variants.append(_entry("fp16", "fp16", False, reason))
        observer.step("quantize: variants", 1, total, "fp16")
    for options in recipe.quantize.int8:
        model = int8_from_fp32(fp32, spec, options, train.images, seed=recipe.seed)
        onnx_file.save(model, context.out / f"{options.id}.onnx")
        verdict = portability(model)
        variants.append(_entry(options.id, "int8", verdict.portable, verdict.reason))
        observer.step("quantize: variants", len(variants) - 1, total, options.id)
    sizes = {v["id"]: (context.out / f"{v['id']}.onnx").stat().st_size for v in variants}
    return {
        "headline": ", ".join(f"{name} {size / 1024:,.0f} KiB" for name, size in sizes.items()),
        "variants": variants,
        "spec": asdict(spec),
    }


def _entry(variant: str, precision: str, portable: bool, reason: str) -> dict[str, Any]:
    return {"id": variant, "precision": precision, "portable": portable, "reason": reason}


STAGE = Stage(
    "quantize",
    "make the FP16 and INT8 variants and check that they are what was asked for",
    run,
    inputs=("data", "export"),
    sections=("quantize", "seed"),
    sources=("pipeline/stages/quantize.py", "pipeline/datasets/arrays.py", "exporters", "runtime"),
    libraries=("numpy", "onnx", "onnxruntime"),
)
