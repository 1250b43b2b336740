"""What ``pipeline init`` found and decided -> the text of a commented recipe. Decides nothing and
writes no file."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.options import QuantizeOptions
from pipeline.recipe import DataOptions

if TYPE_CHECKING:
    from pipeline.new_recipe.survey import Survey

_LISTED = 30  # classes whose counts are listed


@dataclass(frozen=True)
class Proposal:
    """What was decided, each with the reason that stands next to it in the file."""

    height: int  # pixels
    width: int
    size_reason: str
    color: str  # "gray" or "rgb"
    color_reason: str
    train_images: int  # nearly; images may be copies only once they are as small as the model's
    test_images: int  # likewise
    epochs: int
    batch_size: int
    edge_width: int  # the knob of the network's family, pipeline/learning/networks/edge.py
    margin_points: float  # that a variant may lose
    margin_reason: str
    white_level: int | None  # of 16-bit pixels; None: there are none, or they use all 16
    remarks: tuple[str, ...]  # what the user had better look at


def recipe_text(
    name: str, data: Path, options: DataOptions, survey: Survey, proposal: Proposal
) -> str:
    """The recipe as TOML with comments, ending in a newline."""
    parts = (
        _head(name, data, survey, proposal),
        _data_section(options, survey),
        _preprocess_section(proposal),
        _network_section(proposal),
        _train_section(survey, proposal),
        _quantize_section(proposal) + _gate_section(proposal),
    )
    return "\n".join(parts)


def _head(name: str, data: Path, survey: Survey, proposal: Proposal) -> str:
    listed, counts = survey.listed, survey.counts
    heights = sorted(look.height for look in survey.good)
    widths = sorted(look.width for look in survey.good)
    middle = len(heights) // 2
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in survey.kinds.most_common(6))
    turned = sum(look.facts.turned for look in survey.good)
    lines = [
        f"Written by `pipeline init {name}` after looking at every image. Change what you",
        "know better; `pipeline plan` shows what a change runs again.",
        f"    pipeline run all --recipe {name}.toml",
        "",
        f"{len(survey.good):,} images, {listed.task.name}, {len(listed.names)} labels:",
        *(
            f"    {_one_line(label)}  {count:,}"
            for label, count in list(zip(listed.names, counts, strict=True))[:_LISTED]
        ),
        *([f"    and {len(listed.names) - _LISTED} more"] if len(listed.names) > _LISTED else []),
        f"height {heights[0]} to {heights[-1]}, half of them up to {heights[middle]}; "
        f"width {widths[0]} to {widths[-1]}, half of them up to {widths[middle]}",
        kinds + (f"; {turned:,} are turned upright by their EXIF orientation" if turned else ""),
    ]
    for remark in proposal.remarks:
        lines += ["", *_wrapped("- " + _one_line_text(remark))]
    head = "\n".join(f"# {line}".rstrip() for line in lines)
    what = listed.task.label_nouns.capitalize()
    size = f"{proposal.height}x{proposal.width} {proposal.color}"
    description = f"{what} of {data.resolve().name}, {size}"
    return f"{head}\n\nname = {_quoted(name)}\ndescription = {_quoted(description)}\n"


def _data_section(options: DataOptions, survey: Survey) -> str:
    lines = [
        "[data]",
        'kind = "images"',
        "# On another machine: --set data.root=FOLDER",
        f"root = {_quoted(str(options.root))}",
    ]
    if options.label_file is not None:
        lines.append(f"label_file = {_quoted(options.label_file)}")
    if options.label_column is not None:
        lines.append(f"label_column = {_quoted(options.label_column)}")
    if options.attributes is not None:
        lines.append(f"attributes = [{', '.join(map(_quoted, options.attributes))}]")
    if options.one_hot:
        lines.append("one_hot = true # each row has exactly one 1: classes. false: attributes")
    if options.tags_separator is not None:
        lines.append(
            f"tags_separator = {_quoted(options.tags_separator)} # each tag is an attribute"
        )
    lines += _group_lines(options, survey)
    lines += [
        "# Of each class, where the source has no such split; drawn by content, so that copies",
        "# stay together and another run draws the same.",
        f"val_share = {options.val_share}",
        f"test_share = {options.test_share}",
        f"split_seed = {options.split_seed}",
    ]
    bad = len(survey.bad)
    if bad:
        lines += [
            f'# {bad:,} were found; left_out.csv will list them. "refuse" stops at the first run.',
            'bad_images = "skip"',
        ]
    else:
        lines.append(
            'bad_images = "refuse" # none was found; "skip" leaves them out and lists them'
        )
    lines += [
        '# "drop": train gives way to val, both to test; or "refuse"',
        'duplicates_across_splits = "note"',
        'license = "unknown" # of the images; the model carries it',
        "redistributable = false # true: bundle and report may show images",
    ]
    return "\n".join(lines) + "\n"


def _group_lines(options: DataOptions, survey: Survey) -> list[str]:
    groups = survey.listed.groups
    if groups is None:
        return []
    lines = [
        f"# {len(set(groups)):,} groups, whose images resemble each other: none is parted between",
        "# splits. To test with one of them, whole: test_group = NAME",
    ]
    if options.group_column is not None:
        return [*lines, f"group_column = {_quoted(options.group_column)}"]
    return [*lines, f"group_pattern = {_quoted(options.group_pattern or '')}"]


def _preprocess_section(proposal: Proposal) -> str:
    return "\n".join(
        (
            "[preprocess]",
            'kind = "resize"',
            *(f"# {line}" for line in _wrapped(proposal.size_reason)),
            f"height = {proposal.height}",
            f"width = {proposal.width}",
            f"color = {_quoted(proposal.color)} # {proposal.color_reason}",
            *_white_lines(proposal.white_level),
            "",
        )
    )


def _white_lines(white_level: int | None) -> list[str]:
    if white_level is None:
        return []
    return [
        "# The largest value of the images of 16 bits is below this one, of "
        f"{white_level.bit_length()} bits; it is",
        "# scaled to white, here and, kept in the bundle, on the device.",
        f"white_level = {white_level}",
    ]


def _network_section(proposal: Proposal) -> str:
    weights = round(1.6 * proposal.edge_width**2, -1)  # thousands, by the family's own figure
    return "\n".join(
        (
            "# Plain 3x3 convolutions, which run and quantize well on CPUs. The width is the one",
            "# knob: more learns more and takes longer; from few images, it learns them by heart.",
            "[network.edge]",
            f"width = {proposal.edge_width} # some {weights:.0f} thousand parameters",
            "",
        )
    )


def _train_section(survey: Survey, proposal: Proposal) -> str:
    smoothing = survey.listed.task.label_smoothing
    colored = proposal.color == "rgb"
    shift = max(1, min(proposal.height, proposal.width) // 16)
    lines = [
        "[train]",
        f"epochs = {proposal.epochs} # about {proposal.train_images:,} images to train with",
        f"batch_size = {proposal.batch_size}",
        'optimizer = "adamw"',
        "lr = 4e-3",
        "weight_decay = 0.02",
        *([f"label_smoothing = {smoothing}"] if smoothing else []),
        "ema = 0.99",
        "",
        "# Changes that leave the label true. Take out what doesn't: flip, for one, where left and",
        "# right mean something (letters, arrows).",
        "[train.augment]",
        f"flip = {str(colored).lower()}",
        f"shift = {shift}",
        "scale = 0.1",
        "rotate = 8",
        *(["brightness = 0.15", "contrast = 0.15"] if colored else []),
        "",
    ]
    return "\n".join(lines)


def _quantize_section(proposal: Proposal) -> str:
    """Nothing, where the defaults do; else fewer than there will be, even if a few more images turn
    out to be copies."""
    enough = QuantizeOptions().calibration_images
    few = proposal.train_images * 9 // 10
    if few >= enough:
        return ""
    return (
        f"# Of the images to train with, which are fewer than the usual {enough}.\n"
        f"[quantize]\ncalibration_images = {max(few, 1)}\n\n"
    )


def _gate_section(proposal: Proposal) -> str:
    lines = _wrapped(
        "A smaller form of the network ships only if, with 95 % confidence, it loses less than so "
        f"many points of accuracy. {proposal.margin_reason}"
    )
    head = "\n".join(f"# {line}" for line in lines)
    return f"{head}\n[gate]\nmargin_points = {proposal.margin_points:g}\n"


def _quoted(text: str) -> str:
    """A basic string of TOML: one line, whatever the text holds."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'


def _one_line(text: str) -> str:
    return _quoted(text)


def _one_line_text(text: str) -> str:
    """For a comment, which a line break in a file's name must not end."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _wrapped(text: str, width: int = 96) -> Sequence[str]:
    return textwrap.wrap(text, width, subsequent_indent="  " if text.startswith("- ") else "")
