"""``pipeline fetch onnxruntime-web``: what the page for browsers needs, into the user's cache."""

from __future__ import annotations

import click


@click.command()
@click.argument("what", type=click.Choice(["onnxruntime-web"]))
def fetch(what: str) -> None:
    """Download, once, what the page for browsers needs, into your cache folder (with npm)."""
    from pipeline.web import onnxruntime_web

    place = onnxruntime_web.fetch()
    click.echo(f"{what} {onnxruntime_web.VERSION} is in {place}")
