"""Verbs that ship a finished bundle: kit, web, sign, keygen and demo."""

from __future__ import annotations

import shlex
import webbrowser
from pathlib import Path

import click
from rich.markup import escape

from pipeline.cli.options import BUNDLE, TRUSTED_KEY
from pipeline.cli.terminal import as_pipeline_errors, console, trusted_keys
from runtime.plain_text import escaped

PLATFORMS = ("arm64", "x86_64")
_PORT = 8642


@click.command()
@BUNDLE
@click.option(
    "--platform",
    required=True,
    type=click.Choice(PLATFORMS),
    help="Kind of CPU that the device has.",
)
@click.option(
    "--python",
    default="3.11",
    show_default=True,
    metavar="VERSION",
    help="Version of the device's Python.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that the kit's own folder goes into.  [default: kit, next to the bundle]",
)
@TRUSTED_KEY
def kit(bundle: Path, platform: str, python: str, out: Path | None, keys: tuple[str, ...]) -> None:
    """Write an offline installation kit for a device.

    The kit holds the model's wheel, the wheels that it needs, checksums, and a script that installs
    them without a network."""
    from exporters.package.offline_kit import write_kit

    trusted = trusted_keys(keys)
    with as_pipeline_errors():
        written = write_kit(bundle, out or next_to(bundle, "kit"), platform, python, trusted)
    screen = console()
    screen.print(
        f"{escape(str(written.folder))}: {len(written.wheels)} wheels, "
        f"{written.size_bytes / 1e6:,.1f} MB",
        soft_wrap=True,
    )
    for wheel in written.wheels:
        screen.print(f"  [dim]{wheel}[/dim]", soft_wrap=True)
    screen.print("  on the device: sh install.sh   (takes pip's options, such as --target DIR)")


@click.command()
@BUNDLE
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Folder of the page: new, empty, or an older page.  [default: web, next to the bundle]",
)
@TRUSTED_KEY
def web(bundle: Path, out: Path | None, keys: tuple[str, ...]) -> None:
    """Write a web page that runs a bundle in the browser.

    The page is static files that any web server serves; it loads nothing from elsewhere."""
    from pipeline.web.site import write_site

    folder = out or next_to(bundle, "web")
    trusted = trusted_keys(keys)
    with as_pipeline_errors():
        size = write_site(bundle, folder, trusted)
    click.echo(f"{escaped(str(folder))}: {size / 1e6:.1f} MB. To look at it, serve the folder:")
    click.echo(f"  python3 -m http.server --directory {shlex.quote(escaped(str(folder)))}")


def next_to(bundle: Path, name: str) -> Path:
    """The path of a file or folder in the folder of the bundle."""
    return bundle.resolve().parent / name


@click.command()
@BUNDLE
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the private key, as keygen writes it.",
)
def sign(bundle: Path, key: Path) -> None:
    """Sign a bundle; its id stays the same."""
    from exporters.package.signing import sign_bundle

    with as_pipeline_errors():
        public = sign_bundle(bundle, key)
    click.echo(f"{escaped(str(bundle))}: signed by {public}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def keygen(file: Path) -> None:
    """Generate a key pair for signing bundles.

    FILE is the private key and stays secret; FILE.pub is the public key and goes into apps."""
    from exporters.package.signing import generate_key

    with as_pipeline_errors():
        click.echo(generate_key(file))


@click.command()
@BUNDLE
@click.option(
    "--port", default=_PORT, show_default=True, help="TCP port to serve on; 0 takes any free port."
)
@click.option("--open", "is_opened", is_flag=True, help="Open the page in the browser.")
@TRUSTED_KEY
def demo(bundle: Path, port: int, is_opened: bool, keys: tuple[str, ...]) -> None:
    """Serve a bundle's web page on this machine.

    On the page, draw digits or open images, and compare the variants."""
    from pipeline.web.server import create_server
    from pipeline.web.site import site_files

    with create_server(site_files(bundle, trusted_keys(keys)), port) as server:
        host, bound_port = server.server_address[:2]
        address = f"http://{host!s}:{bound_port}/"
        click.echo(f"{escaped(str(bundle))} at {address}  (press Ctrl-C to stop)")
        if is_opened:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo()
