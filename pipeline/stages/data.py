"""Images -> ``preprocess.onnx`` and the uint8 arrays that are made with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.engine.stage import Context, Stage
from pipeline.recipe import PreprocessOptions, Recipe


def preprocess_graph(options: PreprocessOptions) -> bytes:
    """The serialized preprocess graph that a recipe asks for."""
    from exporters.export.digit_graph import digit_graph
    from exporters.export.resize_graph import resize_graph

    if options.kind == "digit":
        graph = digit_graph(options.height)
    else:
        graph = resize_graph(
            options.height, options.width, options.color, options.crop, options.reference
        )
    return bytes(graph.SerializeToString(deterministic=True))


def _outside(recipe: Recipe) -> dict[str, str]:
    from pipeline.datasets.source_state import source_state

    state = source_state(recipe.data)
    if recipe.data.kind == "celeba" and recipe.data.root is None:
        state["seed"] = str(recipe.seed)  # of the drawn faces; other images do not depend on it
    return state


def run(context: Context) -> dict[str, Any]:
    """Write ``preprocess.onnx`` and the splits; the report holds the data set's facts."""
    from pipeline.datasets.prepare import prepare

    recipe, observer = context.recipe, context.observer
    graph = preprocess_graph(recipe.preprocess)
    (context.out / "preprocess.onnx").write_bytes(graph)
    info = prepare(
        recipe.data,
        recipe.preprocess,
        graph,
        recipe.seed,
        context.out,
        observer.step,
        observer.note,
    )
    counts = " + ".join(f"{count:,} {split}" for split, count in info.counts.items())
    kind = "SYNTHETIC images" if info.synthetic else "images"
    return {
        "headline": f"{info.name}: {counts} {kind}, {len(info.labels)} labels",
        "info": asdict(info),
    }


STAGE = Stage(
    "data",
    "decode and check the images once, into uint8 arrays",
    run,
    sections=("data", "preprocess"),
    sources=(
        "pipeline/stages/data.py",
        "pipeline/datasets",
        "exporters/export/digit_graph.py",
        "exporters/export/graph_builder.py",
        "exporters/export/resize_graph.py",
        "exporters/errors.py",
        "exporters/files.py",
        "exporters/options.py",
        "runtime",
    ),
    libraries=("numpy", "onnx", "onnxruntime", "pillow"),
    outside=_outside,
)
