"""Verbs that prove that answers are equal: compare, verify and targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from pipeline.cli.console import ConsoleObserver
from pipeline.cli.options import BUNDLE, JSON, TRUSTED_KEY
from pipeline.cli.terminal import as_pipeline_errors, console, trusted_keys

if TYPE_CHECKING:
    from pipeline.targets.table import Environment


@click.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Images to compare on: a data stage's folder (1_data), a .npy of uint8 [n, h, w, c], or a "
    '.npz with "images" and optionally "labels". For two ONNX files with another kind of input: a '
    '.npz with "inputs" as they take them and optionally "labels", or a .npy.  [default: the '
    "images of the run that A or B belongs to]",
)
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train"]),
    default="test",
    show_default=True,
    help="Split of a data stage's folder to compare on.",
)
@click.option(
    "--tolerance",
    type=float,
    help="Largest absolute difference of the outputs that passes.  [default: what the coarser of "
    "the two precisions may differ by]",
)
@click.option(
    "--generated",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Search N generated images, too, for the largest difference, the second half by climbing "
    "from the worst. The worst ones are kept in regression.npz of the run.",
)
@click.option("--layers", is_flag=True, help="Show every layer, not only where outputs differ.")
@JSON
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
    """Compare two models and name the layer where they differ.

    A and B are a checkpoint (.pt), module:callable, an ONNX file, a bundle (bundle.zip:variant) or
    recorded outputs (file.npz:name). Where they differ, the first differing layer and its cause
    are printed. The exit code is 1 when they are out of tolerance.

    ONNX files that someone else made may have any one input and one output [n, labels], as long as
    both take the same input."""
    from pipeline.compare.measure import compare
    from pipeline.compare.page import tables

    out = console()
    with as_pipeline_errors(), ConsoleObserver(out).watching() as observer:
        comparison = compare(
            a,
            b,
            data,
            split=split,
            limit=tolerance,
            generated=generated,
            step=observer.step,
        )
    if as_json:
        click.echo(json.dumps(comparison.to_dict(), indent=1))
    else:
        for part in tables(comparison, all_layers=layers):
            out.print(part, soft_wrap=isinstance(part, str))
    if not comparison.passed:
        raise click.exceptions.Exit(1)


@click.command()
@BUNDLE
@click.option(
    "--targets",
    "names",
    metavar="NAME,...",
    multiple=True,
    help="Run on these targets only, such as arm64,web; `targets list` shows all.  [default: every "
    "target that is installed]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Images to answer: a data stage's folder, a .npy or .npz.  [default: the test split of "
    "the run that the bundle belongs to]",
)
@click.option(
    "--images",
    default=200,
    show_default=True,
    metavar="N",
    help="Number of images in addition to the golden samples.",
)
@click.option("--full", is_flag=True, help="Answer 10,000 more images on one target of each kind.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for verify.json and verify.html.  [default: verify, next to the bundle]",
)
@JSON
@TRUSTED_KEY
def verify(
    bundle: Path,
    names: tuple[str, ...],
    data: Path | None,
    images: int,
    full: bool,
    out: Path | None,
    as_json: bool,
    keys: tuple[str, ...],
) -> None:
    """Compare a bundle's answers on every target with this CPU.

    Compares quantized tensors bit by bit, probabilities, and answers. The exit code is 1 when a
    target answers differently than promised."""
    from pipeline.targets.table import select
    from pipeline.verify.measure import VerifyOptions, verify
    from pipeline.verify.page import tables, write

    out = bundle.resolve().parent / "verify" if out is None else out
    requested = tuple(name for text in names for name in text.split(",") if name)
    trusted = trusted_keys(keys)
    options = VerifyOptions(
        bundle,
        out,
        select(requested),
        data,
        images,
        full,
        None if trusted is None else tuple(trusted),
    )
    screen = console()
    with as_pipeline_errors(), ConsoleObserver(screen).watching() as observer:
        verification = verify(
            options, lambda done, total, name: observer.step("verify", done, total, name)
        )
    text = write(verification, out)
    if as_json:
        click.echo(text, nl=False)
    else:
        for part in tables(verification):
            screen.print(part, soft_wrap=isinstance(part, str))
        screen.print(f"  → {escape(str(out))}/verify.json, verify.html", soft_wrap=True)
    if not verification.passed:
        raise click.exceptions.Exit(1)


@click.group()
def targets() -> None:
    """List, install or remove the targets of `verify`.

    Nothing is installed without this command."""


@targets.command("list")
def list_targets() -> None:
    """List every target, and how to install the missing ones."""
    from pipeline.targets.install import size_bytes
    from pipeline.targets.table import ENVIRONMENTS, TARGETS, cache_folder, missing

    out = console()
    table = Table("target", "kernels", "state")
    for target in TARGETS:
        reason = missing(target)
        state = "[green]ready[/green]" if reason is None else f"[yellow]{escape(reason)}[/yellow]"
        table.add_row(target.name, target.describes, state)
    out.print(table)
    cached = Table("installed", "what", "versions", "MB", title=str(cache_folder()))
    for environment in ENVIRONMENTS:
        if environment.ready:
            size = f"{size_bytes(environment) / 1e6:,.0f}"
            cached.add_row(environment.name, environment.describes, _versions(environment), size)
    if cached.row_count:
        out.print(cached)


@targets.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def install(names: tuple[str, ...]) -> None:
    """Install what targets need into your cache folder.

    NAME is a target or `all`. What is installed is replaced."""
    from pipeline.targets.install import install as set_up
    from pipeline.targets.install import size_bytes

    out = console()
    for environment in _environments(names):
        out.print(f"{environment.name}: {environment.describes} ...")
        folder = set_up(environment)
        out.print(
            f"  [green]ready[/green] in {escape(str(folder))}, "
            f"{size_bytes(environment) / 1e6:,.0f} MB: {escape(_versions(environment))}",
            soft_wrap=True,
        )


@targets.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def remove(names: tuple[str, ...]) -> None:
    """Delete what was installed for targets.

    NAME is a target or `all`."""
    from pipeline.targets.install import remove as delete

    for environment in _environments(names):
        outcome = "removed" if delete(environment) else "was not installed"
        console().print(f"{environment.name}: {outcome}")


def _environments(names: tuple[str, ...]) -> list[Environment]:
    """Return the environments of the named targets, each once."""
    from pipeline.targets.table import ENVIRONMENTS, environment

    return list(dict.fromkeys(ENVIRONMENTS if "all" in names else map(environment, names)))


def _versions(environment: Environment) -> str:
    from pipeline.targets.install import versions

    return ", ".join(f"{name} {version}" for name, version in versions(environment).items())
