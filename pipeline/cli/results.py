"""Verbs that show results: show, inspect, predict and selftest."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import (
    ARTIFACTS,
    BUNDLE,
    DEVICE,
    JSON,
    THREADS,
    TRUSTED_KEY,
    VARIANT,
)
from pipeline.cli.tables import bundle_tables, result_table
from pipeline.cli.terminal import as_pipeline_errors, console, program, trusted_keys
from pipeline.errors import StoreError


@click.command()
@click.argument("recipe", required=False)
@ARTIFACTS
def show(recipe: str | None, artifacts: Path) -> None:
    """Show the last results as a table.

    Those of RECIPE, or of every recipe that has results."""
    from pipeline.report.model import read

    if recipe is not None:
        files = [artifacts / recipe / "report.json"]
    else:
        files = sorted(artifacts.glob("*/report.json"))
        if not files:
            raise StoreError(
                f"there are no results in {artifacts}. Run: {program()} run all, or give the "
                "folder with --artifacts DIR."
            )
    for file in files:
        for part in result_table(read(file)):
            console().print(part, soft_wrap=isinstance(part, str))


@click.command()
@BUNDLE
@JSON
@TRUSTED_KEY
def inspect(bundle: Path, as_json: bool, keys: tuple[str, ...]) -> None:
    """Show a bundle's model, variants, origin and signature.

    Reads the manifest; runs nothing."""
    from runtime import Bundle

    trusted = trusted_keys(keys)
    with as_pipeline_errors():
        opened = Bundle.open(bundle, trusted)
    if as_json:
        click.echo(opened.manifest.to_json(), nl=False)
        return
    signature = "none"
    if opened.is_signed:
        signature = opened.signed_by or "not checked; pass the key with --trusted-key"
    for part in bundle_tables(opened.manifest, str(opened.id), signature):
        console().print(part, soft_wrap=isinstance(part, str))
    opened.close()


@click.command()
@BUNDLE
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option(
    "--top",
    default=3,
    show_default=True,
    metavar="N",
    help="Number of candidates to print for each image.",
)
@click.option(
    "--min-probability",
    default=0.0,
    show_default=True,
    metavar="P",
    help="Mark answers whose probability is below P, from 0 to 1, as unsure.",
)
@JSON
@DEVICE
@VARIANT
@THREADS
@TRUSTED_KEY
def predict(
    bundle: Path,
    images: tuple[str, ...],
    top: int,
    min_probability: float,
    as_json: bool,
    device: str,
    variant: str,
    threads: int | None,
    keys: tuple[str, ...],
) -> None:
    """Answer images with a bundle, by the shipped predictor.

    The same as `python -m runtime predict`."""
    options = ["--top", str(top), f"--min-probability={min_probability}"]
    options += _model_options(device, variant, threads, as_json, keys)
    _exit_with_runtime("predict", *options, "--", str(bundle), *images)


@click.command()
@BUNDLE
@JSON
@DEVICE
@VARIANT
@THREADS
@TRUSTED_KEY
def selftest(
    bundle: Path,
    as_json: bool,
    device: str,
    variant: str,
    threads: int | None,
    keys: tuple[str, ...],
) -> None:
    """Run a bundle's golden samples on this device.

    First checks the hash of every member. The same as `python -m runtime selftest`."""
    options = _model_options(device, variant, threads, as_json, keys)
    _exit_with_runtime("selftest", *options, "--", str(bundle))


def _model_options(
    device: str, variant: str, threads: int | None, as_json: bool, keys: tuple[str, ...]
) -> list[str]:
    """Options of every verb of ``python -m runtime``."""
    words = ["--device", device, f"--variant={variant}"]
    words += [f"--trusted-key={key}" for key in keys]
    words += [] if threads is None else [f"--threads={threads}"]
    return words + (["--json"] if as_json else [])


def _exit_with_runtime(*words: str) -> None:
    """Run a verb of ``python -m runtime`` and leave with its exit code."""
    from runtime.__main__ import main

    raise click.exceptions.Exit(main(list(words)))
