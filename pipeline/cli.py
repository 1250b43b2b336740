"""Words -> recipe -> runner -> printed result and exit code. The only module that knows click;
it loads torch, onnx and numpy only when a command needs them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .console import ConsoleObserver, outcome_line
from .errors import Interrupted, PipelineError, RecipeError, StageError, StoreError
from .recipe import load, shipped_names
from .runner import Runner
from .stages import STAGES
from .store import Store
from .tables import bundle_tables, result_table

if TYPE_CHECKING:
    from .recipe import Recipe

DEFAULT_RECIPES = ("mnist", "celeba")
STAGE_NAMES = tuple(stage.name for stage in STAGES)

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Selection:
    """Which recipes, changed in which way, in which folder: options that several verbs share."""

    names: tuple[str, ...]
    changes: tuple[str, ...]
    artifacts: Path

    def recipes(self) -> list[tuple[str, Recipe]]:
        """(name as given, recipe) of every one; all are read before anything runs."""
        pairs = [(name, load(name, self.changes)) for name in self.names]
        folders = [recipe.name for _, recipe in pairs]
        if len(set(folders)) != len(folders):
            raise RecipeError(f"two recipes are called the same: {folders}. Rename one.")
        return pairs

    def runner(self, recipe: Recipe) -> Runner:
        """The runner of one of the recipes."""
        return Runner(STAGES, recipe, Store(self.artifacts, recipe.name, STAGE_NAMES))

    def command(self, goal: str, name: str) -> str:
        """The words that run one recipe again."""
        words = ["pipeline", "run", goal, "--recipe", name]
        for change in self.changes:
            words += ["--set", change]
        if self.artifacts != Path("artifacts"):
            words += ["--artifacts", str(self.artifacts)]
        return shlex.join(words)


def _selecting(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a Selection to a command."""
    options = [
        click.option(
            "--recipe",
            "names",
            multiple=True,
            metavar="NAME|FILE.toml",
            help=f"What to build; may be repeated. Default: {' and '.join(DEFAULT_RECIPES)}.",
        ),
        click.option(
            "--set",
            "changes",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change a key of the recipe, such as train.epochs=3; may be repeated.",
        ),
        click.option(
            "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to train."
        ),
        click.option("--seed", type=int, help="Seed of every random choice."),
        click.option(
            "--artifacts",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("artifacts"),
            show_default=True,
            help="Where results go.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _selection(
    names: tuple[str, ...],
    changes: tuple[str, ...],
    device: str | None,
    seed: int | None,
    artifacts: Path,
) -> Selection:
    if device is not None:
        changes += (f"train.device={device}",)
    if seed is not None:
        changes += (f"seed={seed}",)
    return Selection(names or DEFAULT_RECIPES, changes, artifacts)


class _Group(click.Group):
    """Turns the product's own errors into one message on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PipelineError as exc:
            _err.print(f"[red]error:[/red] {escape(str(exc))}", soft_wrap=True)
            ctx.exit(exc.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeproof")
def cli() -> None:
    """From images to a bundle that a device can trust: train, export to ONNX, quantize, validate,
    benchmark, package. The model that was measured is the model that ships."""


@cli.command(
    help="Bring one stage, or all of them, up to date. Finished work is not repeated.\n\n\b\n"
    + "\n".join(f"{stage.name:<10} {stage.summary}" for stage in STAGES)
)
@click.argument("stage", type=click.Choice(["all", *STAGE_NAMES]))
@_selecting
@click.option("--from", "start", type=click.Choice(STAGE_NAMES), help="Run from this stage on.")
@click.option("--force", is_flag=True, help="Run the named stage (or all) even when it is fresh.")
@click.option("--explain", is_flag=True, help="Say of each stage why it runs or does not.")
def run(stage: str, start: str | None, force: bool, explain: bool, **options: Any) -> None:
    """Run stages."""
    selection = _selection(**options)
    for name, recipe in selection.recipes():
        _out.print(f"[bold]{escape(recipe.name)}[/bold]  {escape(recipe.description)}")
        runner = selection.runner(recipe)
        try:
            with ConsoleObserver(_out).watching() as observer:
                runner.run(
                    stage,
                    observer,
                    start=start,
                    force=force,
                    explain=explain,
                    on_outcome=lambda outcome: _out.print(outcome_line(outcome), soft_wrap=True),
                )
        except (StageError, Interrupted) as exc:
            _explain_failure(exc, recipe.name, selection.command(stage, name))
        if stage in ("all", STAGE_NAMES[-1]):
            _out.print(f"  → {escape(str(runner.store.root))}/bundle.zip, dist/, report.html\n")


def _explain_failure(exc: StageError | Interrupted, recipe: str, command: str) -> None:
    """Say what failed and how to go on, then leave with the error's exit code."""
    _err.print(f"[red]✗ {escape(recipe)}: stage '{exc.stage}' failed[/red]")
    _err.print(f"  {escape(str(exc))}", soft_wrap=True)
    _err.print("  Finished stages are kept. To go on from here:")
    _err.print(f"    {escape(command)}", soft_wrap=True)
    raise click.exceptions.Exit(exc.exit_code)


@cli.command()
@click.argument("stage", type=click.Choice(["all", *STAGE_NAMES]), default="all")
@_selecting
@click.option("--from", "start", type=click.Choice(STAGE_NAMES), help="As in run.")
@click.option("--force", is_flag=True, help="As in run.")
def plan(stage: str, start: str | None, force: bool, **options: Any) -> None:
    """Show what `run` would do, and why; runs nothing."""
    selection = _selection(**options)
    for _, recipe in selection.recipes():
        table = Table("stage", "would", "why", title=recipe.name, title_justify="left")
        for step in selection.runner(recipe).plan(stage, start, force):
            verb = "[dim]skip[/dim]" if step.fresh else "[yellow]run[/yellow]"
            table.add_row(step.stage.name, verb, escape("\n".join(step.reasons) or "fresh"))
        _out.print(table)


@cli.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    table = Table("recipe", "builds")
    for name in shipped_names():
        table.add_row(name, escape(load(name).description))
    _out.print(table)


@cli.command()
@click.argument("recipe", required=False)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("artifacts"),
    show_default=True,
    help="Where the results are.",
)
def show(recipe: str | None, artifacts: Path) -> None:
    """Show the last results as a table: of RECIPE, or of all that there are."""
    from .report.data import read

    if recipe is not None:
        files = [artifacts / recipe / "report.json"]
    else:
        files = sorted(artifacts.glob("*/report.json"))
        if not files:
            raise StoreError(
                f"there are no results in {artifacts}. Run: pipeline run all, or give the folder "
                "with --artifacts DIR."
            )
    for file in files:
        for part in result_table(read(file)):
            _out.print(part, soft_wrap=isinstance(part, str))


_BUNDLE = click.argument("bundle", type=click.Path())
_DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
_VARIANT = click.option("--variant", default="auto", help="A variant's id.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@cli.command()
@_BUNDLE
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option("--top", default=3, show_default=True, help="How many answers for each image.")
@_JSON
@_DEVICE
@_VARIANT
def predict(
    bundle: str, images: tuple[str, ...], top: int, as_json: bool, device: str, variant: str
) -> None:
    """Read images with a bundle, by the predictor that ships."""
    words = [bundle, *images, "--top", str(top), "--device", device, "--variant", variant]
    _runtime("predict", *words, *(["--json"] if as_json else []))


@cli.command()
@_BUNDLE
@_JSON
@_DEVICE
@_VARIANT
def selftest(bundle: str, as_json: bool, device: str, variant: str) -> None:
    """Hash every member of a bundle and run its golden samples on this device."""
    words = [bundle, "--device", device, "--variant", variant]
    _runtime("selftest", *words, *(["--json"] if as_json else []))


def _runtime(*words: str) -> None:
    """Run a verb of ``python -m runtime`` and leave with its exit code."""
    from runtime.__main__ import main

    raise click.exceptions.Exit(main(list(words)))


@cli.command()
@_BUNDLE
@_JSON
def inspect(bundle: str, as_json: bool) -> None:
    """Show what a bundle says of itself: model, variants, defaults, origin. Runs nothing."""
    from runtime import Bundle, PredictorError

    try:
        opened = Bundle.open(bundle)
    except PredictorError as exc:
        raise PipelineError(str(exc)) from exc
    if as_json:
        click.echo(opened.manifest.to_json(), nl=False)
        return
    for part in bundle_tables(opened.manifest, str(opened.id)):
        _out.print(part, soft_wrap=isinstance(part, str))
    opened.close()
