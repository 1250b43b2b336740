"""``pipeline compare A B``: any two forms of a model on the same images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeline.cli.terminal import console, plain_errors


@click.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Images: a data stage's folder (1_data), a .npy of uint8 [n, h, w, c], or a .npz with "
    '"images" and maybe "labels". Default: those of the run that A or B belongs to. For two ONNX '
    'files with another input than ours: a .npz with "inputs" as they take them, and maybe '
    '"labels", or a .npy.',
)
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option(
    "--tolerance",
    type=float,
    help="Largest absolute difference. Default: what the coarser of both precisions may have.",
)
@click.option(
    "--generated",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Differential testing: N images that nobody collected as well, the second half of them "
    "climbing from the worst. The worst are kept in regression.npz of the run.",
)
@click.option("--layers", is_flag=True, help="Show every layer, also where nothing parts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    a: str,
    b: str,
    data: Path | None,
    split: str,
    tolerance: float | None,
    generated: int,
    layers: bool,
    as_json: bool,
) -> None:
    """Compare any two of: a checkpoint (.pt), module:callable, an ONNX file, a bundle
    (bundle.zip:variant), recorded outputs (file.npz:name). Where they part, say at which layer
    and why. Fails when they are out of tolerance.

    ONNX files that someone else made may have any one input and one output [n, labels], as long as
    both sides take the same."""
    from pipeline.cli.console import ConsoleObserver
    from pipeline.compare.measure import compare
    from pipeline.compare.page import tables

    screen = console()
    with plain_errors(), ConsoleObserver(screen).watching() as observer:
        found = compare(
            a,
            b,
            data,
            split=split,
            limit=tolerance,
            generated=generated,
            step=observer.step,
        )
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        for part in tables(found, all_layers=layers):
            screen.print(part, soft_wrap=isinstance(part, str))
    if not found.passed:
        raise click.exceptions.Exit(1)
