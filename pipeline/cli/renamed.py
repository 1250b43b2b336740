"""Verbs by their old names, which still work and print the new name on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli import quantize_onnx
from pipeline.cli.options import BUNDLE, TRUSTED_KEY
from pipeline.cli.ship import PLATFORMS, kit, web
from pipeline.cli.terminal import program


def _print_note(old: str, *new: str) -> None:
    names = " and ".join(f"`{program()} {verb}`" for verb in new)
    click.echo(f"note: `{program()} {old}` is now {names}", err=True)


def _quantize(**options: Any) -> None:
    _print_note("quantize", "quantize-onnx")
    click.get_current_context().invoke(quantize_onnx.quantize_onnx, **options)


quantize = click.Command(
    "quantize",
    callback=_quantize,
    params=quantize_onnx.quantize_onnx.params,
    help=quantize_onnx.quantize_onnx.help,
    hidden=True,
)


@click.command(hidden=True)
@BUNDLE
@click.option(
    "--web",
    "web_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write a web page into FOLDER, as `web` does.  [default: none]",
)
@click.option(
    "--kit",
    "platform",
    type=click.Choice(PLATFORMS),
    help="Write an offline kit for this kind of CPU, as `kit` does.  [default: none]",
)
@click.option("--python", default="3.11", show_default=True, help="Version of the device's Python.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the kit goes into.  [default: kit, next to the bundle]",
)
@TRUSTED_KEY
@click.pass_context
def package(
    ctx: click.Context,
    bundle: Path,
    web_folder: Path | None,
    platform: str | None,
    python: str,
    out: Path | None,
    keys: tuple[str, ...],
) -> None:
    """Pack a bundle as a web page or an offline kit: the old name of `web` and `kit`."""
    _print_note("package", "kit", "web")
    if web_folder is None and platform is None:
        raise click.UsageError("nothing to write: give --kit arm64, --kit x86_64 or --web FOLDER.")
    if web_folder is not None:
        ctx.invoke(web, bundle=bundle, out=web_folder, keys=keys)
    if platform is not None:
        ctx.invoke(kit, bundle=bundle, platform=platform, python=python, out=out, keys=keys)
