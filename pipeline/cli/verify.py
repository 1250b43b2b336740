"""``pipeline verify BUNDLE``: the same answers on every target that is set up."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from pipeline.cli.terminal import TRUSTED_KEY, console, plain_errors, trusted_keys


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--targets",
    "names",
    metavar="NAME,...",
    multiple=True,
    help="Only these, such as arm64,web; `pipeline targets list` shows all.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Images: a data stage's folder, a .npy or .npz. Default: the test split of the run whose "
    "bundle it is.",
)
@click.option("--images", default=200, show_default=True, help="How many besides the golden ones.")
@click.option("--full", is_flag=True, help="10,000 images more on one target of each kind.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where verify.json and verify.html go. Default: the folder verify beside the bundle.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
    """Run BUNDLE on every target that is set up and compare each with this machine: quantized
    tensors bit by bit, probabilities, answers. Fails when one answers otherwise than promised."""
    from pipeline.cli.console import ConsoleObserver
    from pipeline.targets.table import select
    from pipeline.verify.measure import VerifyOptions, verify
    from pipeline.verify.page import tables, write

    out = bundle.resolve().parent / "verify" if out is None else out
    wanted = tuple(name for text in names for name in text.split(",") if name)
    trusted = trusted_keys(keys)
    options = VerifyOptions(
        bundle, out, select(wanted), data, images, full, None if trusted is None else tuple(trusted)
    )
    screen = console()
    with plain_errors(), ConsoleObserver(screen).watching() as observer:
        found = verify(
            options, lambda done, total, name: observer.step("verify", done, total, name)
        )
    text = write(found, out)
    if as_json:
        click.echo(text, nl=False)
    else:
        for part in tables(found):
            screen.print(part, soft_wrap=isinstance(part, str))
        screen.print(f"  → {escape(str(out))}/verify.json, verify.html", soft_wrap=True)
    if not found.passed:
        raise click.exceptions.Exit(1)
