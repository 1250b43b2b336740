"""Words -> recipe -> runner -> printed result and exit code. Only this module and ``commands``
know click; torch, onnx and numpy are loaded only when a command needs them."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.markup import escape
from rich.table import Table

from pipeline.cli.commands import COMMANDS
from pipeline.cli.console import ConsoleObserver, Screen, outcome_line
from pipeline.cli.tables import bundle_tables, quantize_table, result_table
from pipeline.cli.terminal import TRUSTED_KEY, trusted_keys
from pipeline.engine.runner import Runner, Step
from pipeline.engine.store import Store
from pipeline.errors import (
    GateError,
    Interrupted,
    LostError,
    PipelineError,
    RecipeError,
    StageError,
    StoreError,
    UnprovenError,
)
from pipeline.processes import check_batch, check_processes, launched_process
from pipeline.recipe import load, shipped_names
from pipeline.stages import STAGES
from pipeline.teacher import teachers_of
from runtime.plain_text import escaped

if TYPE_CHECKING:
    from pipeline.recipe import Recipe

DEFAULT_RECIPES = ("mnist", "celeba")
STAGE_NAMES = tuple(stage.name for stage in STAGES)

# In a file or a pipe a table is as wide as it needs; without a terminal rich would take 80 columns.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
_out = Screen(highlight=False, emoji=False, width=_WIDTH)
_err = Screen(stderr=True, highlight=False, emoji=False)


@dataclass(frozen=True)
class Selection:
    """Which recipes, changed in which way, in which folder: options that several verbs share."""

    names: tuple[str, ...]
    changes: tuple[str, ...]
    artifacts: Path
    nproc: int | None = None

    def recipes(self) -> list[tuple[str, Recipe]]:
        """(name as given, recipe) of every one; all are read before anything runs."""
        pairs = [(name, load(name, self.changes)) for name in self.names]
        origins: dict[str, str] = {}
        for name, recipe in pairs:
            if recipe.name in origins:
                raise RecipeError(
                    f"{origins[recipe.name]} and {name} are both called {recipe.name!r} and would "
                    "share a folder. Rename one."
                )
            origins[recipe.name] = name
        return pairs

    def runner(self, recipe: Recipe) -> Runner:
        """The runner of one of the recipes."""
        return Runner(STAGES, recipe, Store(self.artifacts, recipe.name, STAGE_NAMES))

    def resuming(
        self, goal: str, name: str, failed: str, start: str | None, force: bool
    ) -> list[str]:
        """The commands that go on after stage ``failed`` of the recipe given as ``name``, with
        that stage and with the recipes that have not had their turn. What was forced stays so,
        except for stages that are done."""
        rest = self.names[self.names.index(name) :]
        if start is None and not force:
            return [self._command(goal, rest)]
        again = ["--from", start] if start else []
        again += ["--force"] if force else []
        if force and goal == "all":
            onward = ["--from", failed]
        elif start and not force:
            onward = ["--from", max(start, failed, key=STAGE_NAMES.index)]
        else:
            onward = again
        commands = [self._command(goal, rest[:1], onward)]
        return commands + ([self._command(goal, rest[1:], again)] if rest[1:] else [])

    def _command(self, goal: str, names: Sequence[str], options: Sequence[str] = ()) -> str:
        launched = launched_process().size > 1 and not self.nproc
        launcher = ["torchrun", "...", "-m"] if launched else []
        return shlex.join([*launcher, "pipeline", *self.words(goal, names, options)])

    def words(self, goal: str, names: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """The command line that runs these recipes, without the name of the program."""
        words = ["run", goal]
        for name in names:
            words += ["--recipe", name]
        for change in self.changes:
            words += ["--set", change]
        if self.artifacts != Path("artifacts"):
            words += ["--artifacts", str(self.artifacts)]
        if self.nproc:
            words += ["--nproc", str(self.nproc)]
        return [*words, *options]


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
            "--max-minutes",
            type=float,
            help="Let training take so long at most, teachers aside; what it leaves out is told.",
        ),
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
    max_minutes: float | None,
    artifacts: Path,
) -> Selection:
    if device is not None:
        changes += (f"train.device={device}",)
    if seed is not None:
        changes += (f"seed={seed}",)
    if max_minutes is not None:
        changes += (f"train.max_minutes={max_minutes}",)
    return Selection(names or DEFAULT_RECIPES, changes, artifacts)


class _Group(click.Group):
    """Turns the product's own errors into one message on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PipelineError as exc:
            _err.print(f"[red]error:[/red] {escape(str(exc))}", soft_wrap=True)
            ctx.exit(exc.exit_code)
        except KeyboardInterrupt:
            _err.print("[red]interrupted[/red]")
            ctx.exit(Interrupted.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeproof")
def cli() -> None:
    """From images to a bundle that a device can trust: train, export to ONNX, quantize, validate,
    benchmark, package. The model that was measured is the model that ships."""


@cli.command(
    help="Bring STAGE, with what it needs, or all stages up to date. Finished work is not "
    "repeated.\n\n\b\n"
    + "\n".join(f"{stage.name:<10} {stage.summary}" for stage in STAGES)
    + "\nall        every one of them, in this order"
)
@click.argument("stage", type=click.Choice(["all", *STAGE_NAMES]), metavar="STAGE")
@_selecting
@click.option("--from", "start", type=click.Choice(STAGE_NAMES), help="Run from this stage on.")
@click.option("--force", is_flag=True, help="Run the named stage (or all) even when it is fresh.")
@click.option("--explain", is_flag=True, help="Say of each stage why it runs or does not.")
@click.option(
    "--nproc",
    type=click.IntRange(1),
    help="Processes that train together on this machine, each with its share of every batch, of "
    "the threads and of the GPUs; other stages run in one. Under torchrun it is torchrun that "
    "says how many.  [default: 1]",
)
def run(
    stage: str, start: str | None, force: bool, explain: bool, nproc: int | None, **options: Any
) -> None:
    """Run stages."""
    selection = replace(_selection(**options), nproc=nproc)
    _check_start(stage, start)
    _check_processes(selection)
    if nproc is not None and nproc > launched_process().size:
        from pipeline.learning.distributed.launch import launch

        more = ["--from", start] if start else []
        more += ["--force"] * force + ["--explain"] * explain
        raise click.exceptions.Exit(launch(selection.words(stage, selection.names, more), nproc))
    with _first_of_processes() as first:
        if first:
            _run_stages(selection, stage, start, force, explain)


def _check_processes(selection: Selection) -> None:
    """Refuse a number of processes that cannot train together."""
    launched = launched_process().size
    if selection.nproc is not None and launched not in (1, selection.nproc):
        raise click.UsageError(
            f"--nproc {selection.nproc}: torchrun has started {launched} processes already. "
            "Leave it out."
        )
    if launched == 1:
        check_processes(selection.nproc or 1)
    for _, recipe in selection.recipes():
        for trained in (recipe, *teachers_of(recipe)):
            check_batch(trained.train.batch_size, selection.nproc or launched)


@contextmanager
def _first_of_processes() -> Iterator[bool]:
    """Under torchrun the first process runs the stages; in another one this only joins each
    training, and is False."""
    process = launched_process()
    if process.size == 1:
        yield True
        return
    from pipeline.learning.distributed.launch import follow, leading

    if process.first:
        with leading(process):
            yield True
        return
    try:
        follow(process)
    except LostError as exc:  # printed by the first process, or by torchrun
        raise click.exceptions.Exit(exc.exit_code) from exc
    yield False


def _run_stages(
    selection: Selection, stage: str, start: str | None, force: bool, explain: bool
) -> None:
    for name, recipe in selection.recipes():
        if stage != STAGE_NAMES[0] and (teachers := teachers_of(recipe)):
            # whatever of the teacher fails, nothing of the recipe but its data has run
            again = partial(_always, selection.resuming(stage, name, STAGE_NAMES[0], start, force))
            if not all(_is_trained(selection.runner(teacher)) for teacher in teachers):
                chain = [*teachers, recipe]
                runners = [_bring(selection, one, "data", explain, again) for one in chain]
                _check_same_images([runner.store.folder("data") for runner in runners])
            for teacher in teachers:
                _bring(selection, teacher, "train", explain, again)
        runner = _bring(
            selection,
            recipe,
            stage,
            explain,
            partial(selection.resuming, stage, name, start=start, force=force),
            start,
            force,
        )
        if stage in ("all", STAGE_NAMES[-1]):
            made = [name for name in STAGES[-1].publish if (runner.store.root / name).exists()]
            _out.print(f"  → {escape(str(runner.store.root))}/{', '.join(made)}\n")


def _is_trained(runner: Runner) -> bool:
    return all(step.fresh for step in runner.plan("train"))


def _check_same_images(folders: Sequence[Path]) -> None:
    """Before a teacher is trained for hours: each has the images of who learns from it."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.training.distillation import check_same_images

    for teacher, learner in pairwise(open_dataset(folder) for folder in folders):
        check_same_images(teacher, learner)


def _always(commands: Sequence[str], _: str) -> Sequence[str]:
    return commands


def _bring(
    selection: Selection,
    recipe: Recipe,
    goal: str,
    explain: bool,
    resuming: Callable[[str], Sequence[str]],
    start: str | None = None,
    force: bool = False,
) -> Runner:
    """Run one recipe up to ``goal``; when stage X fails, tell the commands ``resuming(X)``."""
    _out.print(f"[bold]{escape(recipe.name)}[/bold]  {escape(recipe.description)}")
    runner = selection.runner(recipe)
    try:
        with _imports_undisturbed(), ConsoleObserver(_out).watching() as observer:
            runner.run(
                goal,
                observer,
                start=start,
                force=force,
                explain=explain,
                on_outcome=lambda outcome: _out.print(outcome_line(outcome), soft_wrap=True),
            )
    except (StageError, Interrupted) as exc:
        _explain_failure(exc, recipe.name, resuming(exc.stage))
    return runner


@contextmanager
def _imports_undisturbed() -> Iterator[None]:
    """Let Ctrl-C wait for the end of an import: onnx, for one, aborts the process when it strikes
    while its native module sets itself up."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as under nohup
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _importing(frame):
            raise KeyboardInterrupt
        again = threading.Timer(0.05, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _check_start(goal: str, start: str | None) -> None:
    """Refuse a first stage behind the last one, from which nothing would run."""
    if start and goal != "all" and STAGE_NAMES.index(start) > STAGE_NAMES.index(goal):
        raise click.UsageError(
            f"--from {start}: {start} comes after {goal}, where this ends, so nothing would run "
            f"anew. Run {start} or all instead of {goal}."
        )


def _explain_failure(
    exc: StageError | Interrupted, recipe: str, commands: Sequence[str]
) -> NoReturn:
    """Say what failed and how to go on, then leave with the error's exit code."""
    what = "interrupted" if isinstance(exc, Interrupted) else "failed"
    _err.print(f"[red]✗ {escape(recipe)}: stage '{exc.stage}' {what}[/red]", soft_wrap=True)
    if isinstance(exc, StageError):
        _err.print(f"  {escape(str(exc))}", soft_wrap=True)
    _err.print("  Finished stages are kept. To go on from here:")
    for command in commands:
        _err.print(f"    {escape(command)}", soft_wrap=True)
    raise click.exceptions.Exit(exc.exit_code)


@cli.command()
@click.argument("stage", type=click.Choice(["all", *STAGE_NAMES]), default="all", metavar="[STAGE]")
@_selecting
@click.option("--from", "start", type=click.Choice(STAGE_NAMES), help="As in run.")
@click.option("--force", is_flag=True, help="As in run.")
def plan(stage: str, start: str | None, force: bool, **options: Any) -> None:
    """Show what `run` would do, and why; runs nothing."""
    selection = _selection(**options)
    _check_start(stage, start)
    steps: list[tuple[Recipe, tuple[Step, ...]]] = []
    for _, recipe in selection.recipes():
        if stage != STAGE_NAMES[0]:
            steps += [(one, selection.runner(one).plan("train")) for one in teachers_of(recipe)]
        steps.append((recipe, selection.runner(recipe).plan(stage, start, force)))
    for recipe, planned in steps:
        table = Table("stage", "would", "why", title=recipe.name, title_justify="left")
        for step in planned:
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
    from pipeline.report.model import read

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
@TRUSTED_KEY
def predict(
    bundle: str,
    images: tuple[str, ...],
    top: int,
    as_json: bool,
    device: str,
    variant: str,
    keys: tuple[str, ...],
) -> None:
    """Read images with a bundle, by the predictor that ships."""
    options = ["--top", str(top), "--device", device, "--variant", variant]
    _runtime("predict", *options, *_common(as_json, keys), "--", bundle, *images)


@cli.command()
@_BUNDLE
@_JSON
@_DEVICE
@_VARIANT
@TRUSTED_KEY
def selftest(bundle: str, as_json: bool, device: str, variant: str, keys: tuple[str, ...]) -> None:
    """Hash every member of a bundle and run its golden samples on this device."""
    options = ["--device", device, "--variant", variant]
    _runtime("selftest", *options, *_common(as_json, keys), "--", bundle)


def _common(as_json: bool, keys: tuple[str, ...]) -> list[str]:
    """Options of every verb of ``python -m runtime``."""
    words = [word for key in keys for word in ("--trusted-key", key)]
    return words + (["--json"] if as_json else [])


def _runtime(*words: str) -> None:
    """Run a verb of ``python -m runtime`` and leave with its exit code."""
    from runtime.__main__ import main

    raise click.exceptions.Exit(main(list(words)))


@cli.command()
@_BUNDLE
@_JSON
@TRUSTED_KEY
def inspect(bundle: str, as_json: bool, keys: tuple[str, ...]) -> None:
    """Show what a bundle says of itself: model, variants, defaults, origin, signature. Runs
    nothing."""
    from runtime import Bundle, PredictorError

    trusted = trusted_keys(keys)
    try:
        opened = Bundle.open(bundle, trusted)
    except PredictorError as exc:
        raise PipelineError(str(exc)) from exc
    if as_json:
        click.echo(opened.manifest.to_json(), nl=False)
        return
    signature = "there is none"
    if opened.is_signed:
        signature = opened.signed_by or "there is one; --trusted-key tells whether it is that key's"
    for part in bundle_tables(opened.manifest, str(opened.id), signature):
        _out.print(part, soft_wrap=isinstance(part, str))
    opened.close()


def _numbers(_: click.Context, option: click.Parameter, text: str | None) -> Any:
    """ "0.485,0.456,0.406" as numbers, "224x224" as a size."""
    if text is None:
        return None
    try:
        if option.name == "size":
            height, width = (int(part) for part in text.lower().split("x"))
            if min(height, width) < 1:
                raise ValueError
            return height, width
        numbers = tuple(float(part) for part in text.split(","))
        if not all(map(math.isfinite, numbers)):
            raise ValueError
        return numbers
    except ValueError:
        wanted = "HEIGHTxWIDTH" if option.name == "size" else "numbers with commas between them"
        raise click.BadParameter(f"{text!r}; expected {wanted}.") from None


def _no_nan(_: click.Context, __: click.Parameter, number: float | None) -> float | None:
    """A range refuses nothing that compares with nothing."""
    if number is not None and math.isnan(number):
        raise click.BadParameter("nan; expected a number.")
    return number


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of images (sub-folders are classes), or .npz/.npy of the inputs themselves.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results go.  [default: NAME-int8 in this folder]",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    callback=_no_nan,
    default=10.0,
    show_default=True,
    help="Time box of the search.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads of the timings.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True),  # a bound of 0 is not below a margin of 0
    callback=_no_nan,
    help="Points of accuracy, or without labels of answers equal to FP32's, that may be lost.  "
    "[default: 0.5 with labels, 1 without]",
)
@click.option(
    "--min-sqnr",
    type=click.FloatRange(0, 200),  # equal outputs have 200
    callback=_no_nan,
    default=20.0,
    show_default=True,
    help="Decibels that values must reach: what they differ by from input to input, against the "
    "error.",
)
@click.option(
    "--task",
    type=click.Choice(["multi-class", "multi-label", "values"]),
    help="What the outputs are.  [default: guessed from them]",
)
@click.option("--size", metavar="HxW", callback=_numbers, help="Where the model leaves it free.")
@click.option("--layout", type=click.Choice(["nchw", "nhwc"]), help="Where the shape is unclear.")
@click.option("--mean", metavar="M[,M,M]", callback=_numbers, help="Of pixels in [0, 1]; 0.")
@click.option("--std", metavar="S[,S,S]", callback=_numbers, help="Likewise; 1.")
@click.option("--color", type=click.Choice(["rgb", "bgr"]), default="rgb", show_default=True)
@click.option(
    "--calibration-images",
    type=click.IntRange(16),
    help="To find ranges with.  [default: 256, or fewer where fewer are there]",
)
@click.option(
    "--validation-images",
    type=click.IntRange(16),
    help="Others, to judge by.  [default: 500, or fewer where fewer are there]",
)
def quantize(model: Path, data: Path, out: Path | None, **options: Any) -> None:
    """Search the INT8 form of someone else's MODEL.onnx that pays, and prove it against FP32.

    Ctrl-C ends the search with the best form so far; the same command goes on.

    The exit code is 0 when a file was written that passes on the images given; the verdict says
    so where they are too few to bound its loss below the margin. It is 3 when no form passes and
    the nearest was written as NAME.FORM.unproven.onnx, 1 when no file could be written, and 2
    when an option is wrong.
    """
    from exporters.errors import ExportError
    from pipeline.quantize_file.run import Request, quantize_file

    request = Request.of(model, data, out or Path(f"{model.stem}-int8"), **options)
    try:
        with (
            _imports_undisturbed(),
            ConsoleObserver(_out).watching() as observer,
            _stop_requested() as stopped,
        ):
            report = quantize_file(request, observer, stopped)
    except ExportError as exc:
        raise PipelineError(str(exc)) from exc
    for part in quantize_table(report):
        _out.print(part, soft_wrap=isinstance(part, str))
    _out.print(f"  → {escape(str(request.out))}/")
    if not report.files:
        raise GateError("no INT8 file was written; the verdict above says why.")
    if not report.passed:
        raise UnprovenError(
            f"{report.files[0].name} is not shown to be equal to FP32; the verdict above says why."
        )


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; a second one interrupts at once."""
    asked = threading.Event()
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.SIG_IGN:  # as in the background of a shell script
        yield asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and callable(interrupt):
            interrupt(number, frame)
        asked.set()
        # the tools that make a model are silenced by pointing sys.stderr elsewhere
        click.echo("ending with what was found; Ctrl-C again to leave at once", sys.__stderr__)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, interrupt)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def keygen(file: Path) -> None:
    """Make a key pair for signing bundles: FILE stays secret, FILE.pub goes into apps."""
    from exporters.errors import ExportError
    from exporters.package.signing import generate_key

    try:
        click.echo(generate_key(file))
    except ExportError as exc:
        raise PipelineError(str(exc)) from exc


@cli.command()
@_BUNDLE
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The private key, as keygen wrote it.",
)
def sign(bundle: str, key: Path) -> None:
    """Write a signature into a bundle; its id stays the same."""
    from exporters.errors import ExportError
    from exporters.package.signing import sign_bundle

    try:
        public = sign_bundle(Path(bundle), key)
    except ExportError as exc:
        raise PipelineError(str(exc)) from exc
    click.echo(f"{escaped(bundle)}: signed by {public}")


for _command in COMMANDS:
    cli.add_command(_command)
