"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.devices import DEVICES

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


DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", *DEVICES]),
    default="auto",
    show_default=True,
    help="Device that runs the model; auto takes the first of the bundle's devices that works.",
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
