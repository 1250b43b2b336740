"""The command line: its verbs in groups, and errors as exit codes.

A verb's module is imported only when that verb is named, so that ``--help`` is quick; torch, onnx
and numpy are imported only by what needs them. ``pipeline`` and ``edgeproof`` are the same program.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from pipeline.errors import Interrupted, PipelineError

# Verb -> (module in this folder, summary), in the order of the help.
Verbs = dict[str, tuple[str, str]]
GROUPS: Final[dict[str, Verbs]] = {
    "Build": {
        "run": ("build", "Bring a stage, or all of them, up to date."),
        "plan": ("build", "Show what `run` would do, and why."),
        "sweep": ("build", "Train or quantize a family of models to choose from."),
        "recipes": ("build", "List the recipes that come with the package."),
        "init": ("build", "Write a recipe for your own images."),
        "quantize-onnx": ("quantize_onnx", "Quantize someone else's ONNX file to INT8."),
    },
    "Results": {
        "show": ("results", "Show the last results as a table."),
        "inspect": ("results", "Show a bundle's model, variants, origin and signature."),
        "predict": ("results", "Answer images with a bundle, by the shipped predictor."),
        "selftest": ("results", "Run a bundle's golden samples on this device."),
    },
    "Prove": {
        "compare": ("prove", "Compare two models and name the layer where they differ."),
        "verify": ("prove", "Compare a bundle's answers on every target with this CPU."),
        "targets": ("prove", "List, install or remove the targets of `verify`."),
    },
    "Ship": {
        "kit": ("ship", "Write an offline installation kit for a device."),
        "web": ("ship", "Write a web page that runs a bundle in the browser."),
        "sign": ("ship", "Sign a bundle; its id stays the same."),
        "keygen": ("ship", "Generate a key pair for signing bundles."),
        "demo": ("ship", "Serve a bundle's web page on this machine."),
    },
    "Set up": {
        "fetch": ("setup", "Download what the web page needs."),
    },
}
VERBS: Final[Verbs] = {verb: row for verbs in GROUPS.values() for verb, row in verbs.items()}
RENAMED: Final = ("quantize", "package")  # old names that still work


class VerbGroup(click.Group):
    """Lists verbs in their groups, runs renamed ones with a note, and turns the product's own
    errors into one message on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of a verb, also by its old name."""
        module = "renamed" if cmd_name in RENAMED else VERBS.get(cmd_name, ("", ""))[0]
        if not module:
            return None
        command = getattr(import_module(f"pipeline.cli.{module}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, the summaries in full and in one column."""
        width = max(map(len, VERBS))
        for title, verbs in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(verb.ljust(width), text) for verb, (_, text) in verbs.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; leave with the exit code of the error that it raises."""
        try:
            return super().invoke(ctx)
        except PipelineError as exc:
            _print_error("[red]error:[/red] ", str(exc))
            ctx.exit(exc.exit_code)
        except KeyboardInterrupt:
            _print_error("[red]interrupted[/red]")
            ctx.exit(Interrupted.exit_code)


def _print_error(heading: str, text: str = "") -> None:
    from rich.markup import escape

    from pipeline.cli.terminal import console

    console(stderr=True).print(heading + escape(text), soft_wrap=True)


@click.group("pipeline", cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeproof")
def cli() -> None:
    """From images to a bundle that a device can trust: train, export to ONNX, quantize, validate,
    benchmark, package. The model that was measured is the model that ships."""
