"""``pipeline init NAME --data FOLDER``: a recipe for anybody's images."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from pipeline.cli.console import ConsoleObserver
from pipeline.cli.terminal import console


@click.command()
@click.argument("name")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of images: a sub-folder for each class (also below train/, val/, test/), or any "
    "folder with --labels.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="CSV with a header: the image's path in FOLDER, then its class or columns of 0 and 1; a "
    "column 'split' is obeyed.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    help="Column of --labels to use: one of classes, or, repeated, those of 0 and 1.  "
    "[default: all]",
)
@click.option(
    "--tags",
    "tags_separator",
    metavar="SEPARATOR",
    help="What stands between several tags in one cell of --column; each tag becomes an "
    "attribute.  [default: a cell is one class]",
)
def init(
    name: str,
    data: Path,
    labels: Path | None,
    columns: tuple[str, ...],
    tags_separator: str | None,
) -> None:
    """Look at the images in FOLDER and write NAME.toml, a commented recipe for them."""
    from pipeline.new_recipe.options import NewRecipeOptions
    from pipeline.new_recipe.write import splits_found, write_recipe

    out = console()
    with ConsoleObserver(out).watching() as observer:
        written = write_recipe(
            NewRecipeOptions(name, data, labels, columns, tags_separator=tags_separator or None),
            lambda done, total: observer.step("look at images", done, total),
        )
    survey, proposal = written.survey, written.proposal
    table = Table("label", "images", title=f"{len(survey.good):,} images", title_justify="left")
    for label, count in zip(survey.listed.names, survey.counts, strict=True):
        table.add_row(escape(label), f"{count:,}")
    out.print(table)
    out.print(escape(splits_found(written)))
    for remark in proposal.remarks:
        out.print(f"- {escape(remark)}", soft_wrap=True)
    out.print(
        f"{proposal.height}x{proposal.width} {proposal.color}, {proposal.epochs} epochs of about "
        f"{proposal.train_images:,} images. The file tells why; change what you know better."
    )
    out.print(
        f"  → {escape(str(written.file))}\n  pipeline run all --recipe "
        f"{escape(shlex.quote(str(written.file)))}"
    )
