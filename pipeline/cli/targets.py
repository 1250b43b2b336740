"""``pipeline targets list | install | remove``: what verify can run on."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.table import Table

from pipeline.cli.terminal import console


@click.group()
def targets() -> None:
    """Show, set up or remove the targets that `verify` runs on. Nothing is installed unasked."""


@targets.command("list")
def list_targets() -> None:
    """Show every target, and how to set up those that are not."""
    from pipeline.targets.install import size_bytes, versions
    from pipeline.targets.table import ENVIRONMENTS, TARGETS, cache_folder, missing

    out = console()
    table = Table("target", "kernels", "state")
    for target in TARGETS:
        reason = missing(target)
        state = "[green]ready[/green]" if reason is None else f"[yellow]{escape(reason)}[/yellow]"
        table.add_row(target.name, target.describes, state)
    out.print(table)
    cached = Table("installed", "what", "versions", "MB", title=str(cache_folder()))
    for environment in ENVIRONMENTS:
        if environment.ready:
            found = ", ".join(f"{k} {v}" for k, v in versions(environment).items())
            size = f"{size_bytes(environment) / 1e6:,.0f}"
            cached.add_row(environment.name, environment.describes, found, size)
    if cached.row_count:
        out.print(cached)


@targets.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def install(names: tuple[str, ...]) -> None:
    """Set up what NAME needs in the user's cache folder, or set it up anew; `all` means all."""
    from pipeline.targets.install import install as set_up
    from pipeline.targets.install import size_bytes, versions
    from pipeline.targets.table import ENVIRONMENTS, environment

    chosen = ENVIRONMENTS if "all" in names else tuple(map(environment, names))
    out = console()
    for row in dict.fromkeys(chosen):
        out.print(f"{row.name}: {row.describes} ...")
        folder = set_up(row)
        found = ", ".join(f"{name} {version}" for name, version in versions(row).items())
        out.print(
            f"  [green]ready[/green] in {escape(str(folder))}, {size_bytes(row) / 1e6:,.0f} MB: "
            f"{escape(found)}",
            soft_wrap=True,
        )


@targets.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def remove(names: tuple[str, ...]) -> None:
    """Delete what was set up for NAME; `all` means all."""
    from pipeline.targets.install import remove as delete
    from pipeline.targets.table import ENVIRONMENTS, environment

    chosen = ENVIRONMENTS if "all" in names else tuple(map(environment, names))
    for row in dict.fromkeys(chosen):
        said = "removed" if delete(row) else "was not set up"
        console().print(f"{row.name}: {said}")
