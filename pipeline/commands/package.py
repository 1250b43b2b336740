"""``pipeline package BUNDLE ...``: a finished bundle in the form that one kind of place needs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--web",
    "web_folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write a page for browsers into FOLDER: static files that any web server serves, without "
    "a network of their own.",
)
def package(bundle: Path, web_folder: Path) -> None:
    """Pack a finished bundle for a kind of place. (The stage of that name is `run package`.)"""
    from pipeline.web.site import write_site

    size = write_site(bundle, web_folder)
    click.echo(f"{web_folder}: {size / 1e6:.1f} MB. To look at it, serve the folder:")
    click.echo(f"  python3 -m http.server --directory {web_folder}")
