"""``pipeline demo BUNDLE``: the bundle's page, served on this machine."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from pipeline.cli.terminal import TRUSTED_KEY, trusted_keys
from runtime.plain_text import escaped

_PORT = 8642


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--port", default=_PORT, show_default=True, help="0 takes any free port.")
@click.option("--open", "is_opened", is_flag=True, help="Open the page in the browser.")
@TRUSTED_KEY
def demo(bundle: Path, port: int, is_opened: bool, keys: tuple[str, ...]) -> None:
    """Serve a page on which a bundle can be tried: draw digits, open pictures, compare variants."""
    from pipeline.web.server import create_server
    from pipeline.web.site import site_files

    with create_server(site_files(bundle, trusted_keys(keys)), port) as server:
        host, taken = server.server_address[:2]
        address = f"http://{host!s}:{taken}/"
        click.echo(f"{escaped(str(bundle))} at {address}  (Ctrl-C ends)")
        if is_opened:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo()
