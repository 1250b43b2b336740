"""The text of a commented recipe, rendered from ``recipe.toml.j2``."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from exporters.options import QuantizeOptions
from pipeline.recipe import DataOptions

if TYPE_CHECKING:
    from pipeline.new_recipe.proposal import Proposal
    from pipeline.new_recipe.survey import Survey


def render_recipe(
    name: str, data: Path, options: DataOptions, survey: Survey, proposal: Proposal
) -> str:
    """Return the recipe as TOML with comments, ending in a newline."""
    listed = survey.listed
    what = "Classes" if listed.task == "multi-class" else "Attributes"
    size = f"{proposal.height}x{proposal.width} {proposal.color}"
    return (
        _environment()
        .get_template("recipe.toml.j2")
        .render(
            name=name,
            options=options,
            survey=survey,
            proposal=proposal,
            listed=listed,
            labels=list(zip(listed.names, survey.counts, strict=True)),
            heights=sorted(look.height for look in survey.good),
            widths=sorted(look.width for look in survey.good),
            kinds=", ".join(f"{count:,} {kind}" for kind, count in survey.kinds.most_common(6)),
            turned=sum(look.facts.turned for look in survey.good),
            description=f"{what} of {data.resolve().name}, {size}",
            rgb=proposal.color == "rgb",
            # by the formula of the edge family, pipeline/learning/networks/edge.py
            thousand_parameters=round(1.6 * proposal.edge_width**2 / 10) * 10,
            calibration_images=_calibration_images(proposal.train_images),
            gate_reason="A smaller variant of the network ships only if, with 95 % confidence, it "
            f"loses less accuracy than this, in points. {proposal.margin_reason}",
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # the filters quote
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["toml"] = toml_string
    environment.filters["comment"] = comment
    return environment


def _calibration_images(train_images: int) -> int | None:
    """Return None where the default is possible, else fewer images than there will be, even if
    some more turn out to be copies."""
    few = train_images * 9 // 10
    return None if few >= QuantizeOptions().calibration_images else max(few, 1)


def toml_string(text: str) -> str:
    """Return a basic string of TOML, on one line whatever the text contains."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'


def comment(text: str) -> str:
    """Return the text as comment lines. Characters that are not printable, such as a line break in
    the name of a file, become ``?``."""
    visible = "".join(c if c.isprintable() else "?" for c in text)
    indent = "  " if visible.startswith("- ") else ""
    return "\n".join(f"# {line}" for line in textwrap.wrap(visible, 96, subsequent_indent=indent))
