"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


class DeviceChoice(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic from 8.3
    """A device of the runtime's own table, which is imported at the first use."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the device; fail for one that the table lacks."""
        from runtime.devices import DEVICES

        return click.Choice(["auto", *DEVICES]).convert(value, param, ctx)


DEVICE = click.option(
    "--device",
    type=DeviceChoice(),
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
