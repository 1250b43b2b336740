"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

BUNDLE = click.argument("bundle", type=click.Path(path_type=Path))

ARTIFACTS = click.option(
    "--artifacts",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("artifacts"),
    show_default=True,
    help="Folder that holds the results of all recipes.",
)
CHANGES = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe, such as train.epochs=3; may be repeated.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
TRUSTED_KEY = click.option(
    "--trusted-key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Refuse a bundle that this key did not sign. KEY is a public key, or a file that holds "
    "one; may be repeated.  [default: signatures are not checked]",
)


def _device(ctx: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse a device that the runtime's table lacks. The table is imported, and onnxruntime with
    it, when the option is used and not by ``--help``."""
    from runtime.providers import DEVICES

    return str(click.Choice(["auto", *DEVICES]).convert(value, option, ctx))


DEVICE = click.option(
    "--device",
    callback=_device,
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="Device that runs the model: cpu, cuda or openvino, or auto for the first of the bundle's "
    "devices that works.",
)
VARIANT = click.option(
    "--variant",
    default="auto",
    show_default=True,
    metavar="ID",
    help="Variant of the bundle to run, by its id; auto takes the default of the device.",
)
THREADS = click.option(
    "--threads",
    type=int,
    metavar="N",
    help="Threads of the model.  [default: one for each core that this process may use]",
)
