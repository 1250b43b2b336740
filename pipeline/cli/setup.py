"""Verbs that set up this machine: fetch."""

from __future__ import annotations

import click


@click.command()
@click.argument("package", type=click.Choice(["onnxruntime-web"]))
def fetch(package: str) -> None:
    """Download what the web page needs.

    npm downloads it once, into your cache folder; nothing is installed."""
    from pipeline.web import onnxruntime_web

    folder = onnxruntime_web.fetch()
    click.echo(f"{package} {onnxruntime_web.VERSION} is in {folder}")
