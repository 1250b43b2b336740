"""``pipeline package BUNDLE``: other forms in which a finished bundle leaves this machine."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.markup import escape

from pipeline.cli.terminal import TRUSTED_KEY, console, plain_errors, trusted_keys
from runtime.plain_text import escaped


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--web",
    "web_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write a page for browsers into FOLDER: static files that any web server serves, without "
    "a network of their own.",
)
@click.option(
    "--kit",
    type=click.Choice(["arm64", "x86_64"]),
    help="An offline kit for devices of this kind: the model's wheel, the wheels it needs, "
    "checksums, and a script that installs them without a network.",
)
@click.option("--python", default="3.11", show_default=True, help="The device's Python.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the kit goes. Default: the folder kit beside the bundle.",
)
@TRUSTED_KEY
def package(
    bundle: Path,
    web_folder: Path | None,
    kit: str | None,
    python: str,
    out: Path | None,
    keys: tuple[str, ...],
) -> None:
    """Pack BUNDLE for browsers or for devices without internet. (The package *stage* is
    `run package`.)"""
    if web_folder is None and kit is None:
        raise click.UsageError("nothing to write: give --kit arm64, --kit x86_64 or --web FOLDER.")
    trusted = trusted_keys(keys)
    with plain_errors():
        if web_folder is not None:
            _write_page(bundle, web_folder, trusted)
        if kit is not None:
            _write_kit(bundle, kit, python, out or bundle.resolve().parent / "kit", trusted)


def _write_page(bundle: Path, folder: Path, trusted: list[str] | None) -> None:
    from pipeline.web.site import write_site

    size = write_site(bundle, folder, trusted)
    click.echo(f"{escaped(str(folder))}: {size / 1e6:.1f} MB. To look at it, serve the folder:")
    click.echo(f"  python3 -m http.server --directory {shlex.quote(escaped(str(folder)))}")


def _write_kit(
    bundle: Path, platform: str, python: str, out: Path, trusted: list[str] | None
) -> None:
    from exporters.package.offline_kit import write_kit

    written = write_kit(bundle, out, platform, python, trusted)
    screen = console()
    screen.print(
        f"{escape(str(written.folder))}: {len(written.wheels)} wheels, "
        f"{written.size_bytes / 1e6:,.1f} MB",
        soft_wrap=True,
    )
    for wheel in written.wheels:
        screen.print(f"  [dim]{wheel}[/dim]", soft_wrap=True)
    screen.print("  on the device: sh install.sh   (its words are pip's, such as --target DIR)")
