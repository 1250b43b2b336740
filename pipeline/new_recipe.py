"""Images that nobody has written a recipe for -> a commented recipe file: looks at them, proposes
size, colour, split, network and training, and gives a reason with each. Prints nothing."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.options import QuantizeOptions

from .errors import DataError, RecipeError
from .recipe import DataOptions, load, shipped_names
from .store import SWEEPS

if TYPE_CHECKING:
    from pipeline.datasets.survey import Survey

Progress = Callable[[int, int], None]  # (images done, images in all)

_SIZES = (16, 24, 32, 48, 64)  # pixels a side. Beyond 64, time grows with the area and accuracy of
# small networks hardly does; whoever has small things in large images raises it
_STRETCHED = 1.25  # from this ratio of the sides on, an image is not made square
_UNEQUAL = 4  # times the images of the smallest class: worth a remark
_FEW_TO_JUDGE = 20  # test images of a class or attribute: one error is 5 points
_IMAGE_PASSES = 200_000  # image presentations that a small network needs to settle, some minutes
_Z_95 = 1.645  # of the normal distribution, one-sided
_USUAL_MARGIN = 0.5  # points
_SLACK = 1.5  # over what no changed answer gives, so that one or two may change
_TOLD = 30  # classes whose counts are listed


@dataclass(frozen=True)
class Request:
    """What ``pipeline init`` was told."""

    name: str
    data: Path  # a folder
    label_file: Path | None = None
    columns: tuple[str, ...] = ()  # of label_file: one of classes, or several of 0 and 1
    folder: Path = Path()  # where NAME.toml goes

    @property
    def file(self) -> Path:
        """The recipe."""
        return self.folder / f"{self.name}.toml"

    @property
    def options(self) -> DataOptions:
        """The ``[data]`` section, as far as it was told; paths from here become absolute, so that
        the recipe runs from anywhere."""
        label_file = self.label_file
        if label_file is not None and label_file.expanduser().is_file():  # else it is below data
            label_file = label_file.expanduser().absolute()
        return DataOptions(
            kind="images",
            root=str(self.data.expanduser().absolute()),
            label_file=None if label_file is None else str(label_file),
            label_column=self.columns[0] if len(self.columns) == 1 else None,
            attributes=self.columns if len(self.columns) > 1 else None,
        )


@dataclass(frozen=True)
class Proposal:
    """What was decided, each with the reason that stands beside it in the file."""

    height: int  # pixels
    width: int
    size_reason: str
    color: str  # "gray" or "rgb"
    color_reason: str
    train_images: int  # nearly; images may be copies only once they are as small as the model's
    test_images: int  # likewise
    epochs: int
    batch_size: int
    edge_width: int  # the knob of the network's family, pipeline/learning/edge.py
    margin_points: float  # that a variant may lose
    margin_reason: str
    remarks: tuple[str, ...]  # what the user had better look at


@dataclass(frozen=True)
class Written:
    """The recipe file, what was found and what was decided."""

    file: Path
    survey: Survey
    proposal: Proposal


def write_recipe(request: Request, progress: Progress) -> Written:
    """Look at all images and write the recipe file, which must not exist.

    Raises RecipeError for a name that is none and for a file that is there, DataError when the
    images or labels can't be learned from.
    """
    from pipeline.datasets.arrays_from_images import read_list
    from pipeline.datasets.survey import look_at_all

    _check(request)
    options = request.options
    survey = look_at_all(read_list(options), options.smallest_side, progress)
    if not survey.good:
        raise DataError(
            f"{request.data}: none of {len(survey.looks):,} images can be used; the first is "
            f"{survey.bad[0].file}: {survey.bad[0].reason}. Give other images."
        )
    proposal = propose(survey, options)
    text = recipe_text(request, survey, proposal)
    try:
        with request.file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _refuse_to_overwrite(request.file)
    except OSError as exc:
        raise RecipeError(f"{request.file} cannot be written: {exc.strerror or exc}.") from exc
    load(str(request.file))
    return Written(request.file, survey, proposal)


def _check(request: Request) -> None:
    """Refuse, before the work, what can't become a recipe."""
    from pipeline.datasets import locate

    if not re.fullmatch(r"[a-z][a-z0-9-]*", request.name):
        near = re.sub(r"[^a-z0-9]+", "-", request.name.lower()).strip("-0123456789") or "my-images"
        raise RecipeError(
            f"{request.name!r} can't be a recipe's name; expected small letters, digits and -, a "
            f"letter first, such as {near!r}."
        )
    taken = None
    if request.name in shipped_names():
        taken = "a recipe that comes with the package"
    elif request.name == SWEEPS:
        taken = "the folder of all sweeps"
    if taken:
        raise RecipeError(
            f"{request.name!r} is the name of {taken}, and both would share "
            f"artifacts/{request.name}. Give another name, such as 'my-{request.name}'."
        )
    if request.file.exists():
        _refuse_to_overwrite(request.file)
    locate.folder_of(str(request.data))  # named as it was given
    folder = locate.folder_of(str(request.options.root))
    for find, recipe in ((locate.find_celeba, "celeba"), (locate.find_idx, "fashion-mnist")):
        try:
            find(folder)
        except DataError:
            continue
        raise DataError(
            f"{request.data} is a copy of {'CelebA' if recipe == 'celeba' else 'IDX files'}, for "
            f"which there is a recipe: pipeline run all --recipe {recipe} --set "
            f"data.root={request.data}"
        )


def _refuse_to_overwrite(file: Path) -> None:
    raise RecipeError(f"{file} is there already. Take it away, or give another name.")


# --- decisions ------------------------------------------------------------------------------


def propose(survey: Survey, options: DataOptions) -> Proposal:
    """Size, colour, network and training for what was found."""
    height, width, size_reason = _size(survey)
    gray = sum(look.gray for look in survey.good)
    color = "gray" if gray == len(survey.good) else "rgb"
    train, test = _split_sizes(survey, options)
    margin, margin_reason = _margin(test, survey)
    return Proposal(
        height,
        width,
        size_reason,
        color,
        "no image has a colour" if color == "gray" else f"{_share(gray, survey)} have no colour",
        train,
        test,
        epochs=max(12, min(100, round(_IMAGE_PASSES / max(train, 1)))),
        # some 30 steps an epoch at least, and small enough to generalise
        batch_size=next(size for size in (128, 64, 32, 16, 8) if size == 8 or train >= 32 * size),
        edge_width=6 if train < 500 else 10 if train < 5_000 else 16,
        margin_points=margin,
        margin_reason=margin_reason,
        remarks=tuple(_remarks(survey, options)),
    )


def _size(survey: Survey) -> tuple[int, int, str]:
    """(height, width) and why: what most images have pixels for, square unless they all agree on
    another shape."""
    sides = [min(look.height, look.width) for look in survey.good]
    typical = int(statistics.median_low(sides))
    side = max((size for size in _SIZES if size <= typical), default=_SIZES[0])
    reason = f"the shorter side of half of the images has at least {typical} pixels"
    ratios = sorted(look.width / look.height for look in survey.good)
    low, high = ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]
    middle = ratios[len(ratios) // 2]
    if high / low < _STRETCHED and not 1 / _STRETCHED < middle < _STRETCHED:
        long = round(side * max(middle, 1 / middle) / 8) * 8
        shape = f"; nearly all have sides like {max(middle, 1 / middle):.2f} to 1"
        return (side, long, reason + shape) if middle > 1 else (long, side, reason + shape)
    return side, side, reason


def _split_sizes(survey: Survey, options: DataOptions) -> tuple[int, int]:
    """How many images there will be to train with, and to test with; raises DataError where the
    data stage would refuse the splits.

    Exact, unless images that differ here are the same to the model, which sees them smaller.
    """
    from pipeline.datasets.arrays_from_images import check_splits
    from pipeline.datasets.splitting import TEST, TRAIN, fill_splits

    listed = survey.listed
    rows = [row for row, look in enumerate(survey.looks) if look.failure is None]
    usable = replace(listed, labels=listed.labels[rows], splits=listed.splits[rows])
    splits = fill_splits(
        [look.pixels for look in survey.good],
        usable.labels,
        usable.splits,
        (options.val_share, options.test_share),
        options.split_seed,
    )
    check_splits(usable, splits)
    return int((splits == TRAIN).sum()), int((splits == TEST).sum())


def _margin(test: int, survey: Survey) -> tuple[float, str]:
    """The gate's margin in points, and why: half a point, or what so few images can show."""
    answers = test * (len(survey.listed.names) if survey.listed.task == "multi-label" else 1)
    # the score interval's upper bound of a loss when no answer changes, as in exporters/gates.py
    shown = 100 * _Z_95**2 / (max(answers, 1) + _Z_95**2)
    if shown * _SLACK <= _USUAL_MARGIN:
        return _USUAL_MARGIN, "Half a point is what few will notice."
    return round(shown * _SLACK, 1), (
        f"Some {test:,} test images can't show less than {shown:.1f} points, even if no answer "
        "changes: more images make this finer."
    )


def _remarks(survey: Survey, options: DataOptions) -> list[str]:
    listed, counts = survey.listed, survey.counts
    remarks = []
    largest, smallest = max(counts), min(counts)
    named = {count: name for name, count in zip(listed.names, counts, strict=True)}
    if listed.task == "multi-class" and largest > _UNEQUAL * max(smallest, 1):
        remarks.append(
            f"unequal classes: {named[largest]!r} has {largest:,} images, {named[smallest]!r} "
            f"{smallest:,}. Accuracy hides what becomes of the small ones; the report's table by "
            "class doesn't."
        )
    # of an attribute, images without it are needed as much
    others = len(survey.good) if listed.task == "multi-label" else 2 * len(survey.good)
    few = [
        f"{name!r} ({count:,})"
        for name, count in zip(listed.names, counts, strict=True)
        if min(count, others - count) * options.test_share < _FEW_TO_JUDGE
    ]
    if few:
        remarks.append(
            f"few images of {', '.join(few[:5])}{' ...' * (len(few) > 5)}: the test split will "
            f"have fewer than {_FEW_TO_JUDGE} of them, where one error is more than "
            f"{100 / _FEW_TO_JUDGE:.0f} points."
        )
    ratios = [look.width / look.height for look in survey.good]
    if max(ratios) / min(ratios) > _STRETCHED**2:
        remarks.append(
            f"the sides of the images have ratios (width to height) from {min(ratios):.2f} to "
            f"{max(ratios):.2f}, and all are stretched to one shape. Cut them to the thing that is "
            "to be seen, or set preprocess.crop and preprocess.reference."
        )
    if survey.copies:
        remarks.append(
            f"{survey.copies:,} images repeat another one, pixel for pixel. Drawn splits keep "
            "copies together; between given splits they are reported."
        )
    if survey.bad:
        remarks.append(
            f"{len(survey.bad):,} images can't be used and will be left out: "
            + "; ".join(f"{image.file}: {image.reason}" for image in survey.bad[:5])
            + " ..." * (len(survey.bad) > 5)
        )
    return [*remarks, *listed.notes]


def _share(count: int, survey: Survey) -> str:
    return f"{count:,} of {len(survey.good):,} images"


# --- the file -------------------------------------------------------------------------------


def recipe_text(request: Request, survey: Survey, proposal: Proposal) -> str:
    """The recipe as TOML with comments, ending in a newline."""
    parts = (
        _head(request, survey, proposal),
        _data_section(request, survey),
        _preprocess_section(proposal),
        _network_section(proposal),
        _train_section(survey, proposal),
        _quantize_section(proposal) + _gate_section(proposal),
    )
    return "\n".join(parts)


def _head(request: Request, survey: Survey, proposal: Proposal) -> str:
    listed, counts = survey.listed, survey.counts
    heights = sorted(look.height for look in survey.good)
    widths = sorted(look.width for look in survey.good)
    middle = len(heights) // 2
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in survey.kinds.most_common(6))
    turned = sum(look.turned for look in survey.good)
    lines = [
        f"Written by `pipeline init {request.name}` after looking at every image. Change what you",
        "know better; `pipeline plan` shows what a change runs again.",
        f"    pipeline run all --recipe {request.file.name}",
        "",
        f"{len(survey.good):,} images, {listed.task}, {len(listed.names)} labels:",
        *(
            f"    {_one_line(name)}  {count:,}"
            for name, count in list(zip(listed.names, counts, strict=True))[:_TOLD]
        ),
        *([f"    and {len(listed.names) - _TOLD} more"] if len(listed.names) > _TOLD else []),
        f"height {heights[0]} to {heights[-1]}, half of them up to {heights[middle]}; "
        f"width {widths[0]} to {widths[-1]}, half of them up to {widths[middle]}",
        kinds + (f"; {turned:,} are turned upright by their EXIF orientation" if turned else ""),
    ]
    for remark in proposal.remarks:
        lines += ["", *_wrapped("- " + _one_line_text(remark))]
    head = "\n".join(f"# {line}".rstrip() for line in lines)
    what = "Classes" if listed.task == "multi-class" else "Attributes"
    size = f"{proposal.height}x{proposal.width} {proposal.color}"
    description = f"{what} of {request.data.resolve().name}, {size}"
    return f"{head}\n\nname = {_quoted(request.name)}\ndescription = {_quoted(description)}\n"


def _data_section(request: Request, survey: Survey) -> str:
    options = request.options
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
        'licence = "unknown" # of the images; the model carries it',
        "redistributable = false # true: bundle and report may show images",
    ]
    return "\n".join(lines) + "\n"


def _preprocess_section(proposal: Proposal) -> str:
    return "\n".join(
        (
            "[preprocess]",
            'kind = "resize"',
            *(f"# {line}" for line in _wrapped(proposal.size_reason)),
            f"height = {proposal.height}",
            f"width = {proposal.width}",
            f"color = {_quoted(proposal.color)} # {proposal.color_reason}",
            "",
        )
    )


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
    multi_class = survey.listed.task == "multi-class"
    colored = proposal.color == "rgb"
    shift = max(1, min(proposal.height, proposal.width) // 16)
    lines = [
        "[train]",
        f"epochs = {proposal.epochs} # about {proposal.train_images:,} images to train with",
        f"batch_size = {proposal.batch_size}",
        'optimizer = "adamw"',
        "lr = 4e-3",
        "weight_decay = 0.02",
        *(["label_smoothing = 0.05"] if multi_class else []),
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
    import textwrap

    return textwrap.wrap(text, width, subsequent_indent="  " if text.startswith("- ") else "")
