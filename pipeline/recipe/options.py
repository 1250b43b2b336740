"""The sections of a recipe as frozen values, with the meaning, range and default of every key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from exporters.options import ExportOptions, GateOptions, PackageOptions, QuantizeOptions

SWEEPS = "sweeps"  # the folder of sweeps is next to those of recipes, so no recipe has this name


class Section(BaseModel):
    """A part of a recipe: frozen, and closed against unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- where the images come from -------------------------------------------------------------


AcrossSplits = Literal["note", "refuse", "drop"]
_GROUP_KEYS = ("group_column", "group_pattern", "test_group")


class DataOptions(Section):
    """The images, their labels and their splits."""

    # images: a folder with a sub-folder for each class, or one with a CSV file of labels
    kind: Literal["mnist", "idx", "celeba", "images"]
    root: str | None = None  # a local copy; None: the repository's own, or a generated one
    download: bool = False  # let torchvision fetch what is missing
    labels: tuple[str, ...] | None = None  # idx, images: a name for each class; None: as found
    attributes: tuple[str, ...] | None = None  # celeba, images: a subset; None: all that there are
    label_file: str | None = None  # images: CSV with a header; None: sub-folders are classes
    label_column: str | None = None  # images: of label_file; None: found
    # images: columns of 0 and 1 of which each row has exactly one 1 are classes
    one_hot: bool = False
    # images: what stands between several tags in one cell of label_column; each tag becomes an
    # attribute. None: a cell is a class
    tags_separator: str | None = Field(None, min_length=1)
    # images: what must not be parted between splits, because its images resemble each other: all of
    # a person, a patient, a writer, a recording session. By a column of label_file, or by a regular
    # expression, searched in the path relative to root, whose one pair of parentheses is the group
    group_column: str | None = None
    group_pattern: str | None = None
    # images: the group that is the test split, whole (leave one group out); a sweep over this key
    # tests with each
    test_group: str | None = Field(None, coerce_numbers_to_str=True)  # 7 is "7"
    # images: shares of each class, where the source has no such split; drawn by content, so copies
    # of an image stay together, and apart from the recipe's seed, so that another training is
    # judged by the same images
    val_share: float = Field(0.15, gt=0, lt=1)
    test_share: float = Field(0.15, gt=0, lt=1)
    split_seed: int = Field(0, ge=0, lt=2**63)
    # celeba, images: what can't be decoded. Refused, because figures on fewer images than one
    # believes to have are wrong figures; "skip" leaves them out and lists them with the reason.
    bad_images: Literal["refuse", "skip"] = "refuse"
    smallest_side: int = Field(8, ge=1)  # images: below this an image counts as bad
    # celeba, images: copies of one image, and images of one group (celeba: one person), in splits
    # that the source gives. "drop" takes them out of train for val, and out of both for test.
    duplicates_across_splits: AcrossSplits = "note"
    groups_across_splits: AcrossSplits = "note"
    validation_images: int = Field(5_000, ge=1)  # mnist and idx: the end of the train split
    # celeba without a local copy: so many faces are drawn; fewer would leave a split empty
    synthetic_images: int = Field(8_000, ge=30)
    train_images: int | None = Field(None, ge=1)  # use only the first so many of the train split
    license: str = "unknown"  # "unknown": what is known of the source
    # False: no image into bundle, wheel or report; None: what is known of the source, else False
    redistributable: bool | None = None

    @model_validator(mode="after")
    def _something_is_left_to_train_with(self) -> DataOptions:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share leave nothing to train with")
        return self

    @model_validator(mode="after")
    def _keys_of_images(self) -> DataOptions:
        keys = ("label_file", "label_column", "one_hot", "tags_separator", *_GROUP_KEYS)
        given = [key for key in keys if getattr(self, key)]
        if self.kind != "images" and given:
            raise ValueError(
                f"{' and '.join(given)} belong{'s' * (len(given) == 1)} to kind = 'images'"
            )
        if self.one_hot and (self.label_column or self.tags_separator):
            raise ValueError(
                "one_hot is of several columns of 0 and 1: leave out label_column and "
                "tags_separator, and name the columns with attributes"
            )
        return self

    @model_validator(mode="after")
    def _groups_are_named_once(self) -> DataOptions:
        if self.group_column is not None and self.group_pattern is not None:
            raise ValueError("group_column and group_pattern both name groups: give one of them")
        if self.test_group is not None and not (self.group_column or self.group_pattern):
            raise ValueError("test_group is one of the groups of group_column or group_pattern")
        if self.group_pattern is not None:
            try:
                groups = re.compile(self.group_pattern).groups
            except re.error as exc:
                raise ValueError(f"group_pattern is not a regular expression: {exc}") from exc
            if groups != 1:
                raise ValueError(
                    f"group_pattern has {groups} pairs of capturing parentheses; expected one, "
                    "around the group, as in '(P[0-9]+)_'. (?:...) does not capture"
                )
        return self


class PreprocessOptions(Section):
    """Any decoded image -> the model's pixels; becomes ``preprocess.onnx``."""

    kind: Literal["digit", "resize"]
    height: int = Field(28, ge=8, le=1024)  # pixels
    width: int = Field(28, ge=8, le=1024)  # pixels
    color: Literal["gray", "rgb"] = "gray"
    crop: tuple[int, int] | None = None  # (height, width) of the center crop ...
    reference: tuple[int, int] | None = None  # ... in an image of this (height, width)
    # the value of 16-bit pixels that is white, 4095 for 12 bits in files of 16; the bundle keeps
    # it, so that a device scales alike. None: 65535, and pictures that use little of it are refused
    white_level: int | None = Field(None, ge=1, le=65535)

    @model_validator(mode="after")
    def _digit_is_square_and_gray(self) -> PreprocessOptions:
        if self.kind == "digit" and (self.height != self.width or self.color != "gray"):
            raise ValueError("kind='digit' makes square gray images: set height=width, color=gray")
        if (self.crop is None) != (self.reference is None):
            raise ValueError("crop and reference go together: give both or none")
        return self

    @property
    def channels(self) -> int:
        """1 for gray, 3 for rgb."""
        return 1 if self.color == "gray" else 3


# --- the network ----------------------------------------------------------------------------


Activation = Literal["relu", "relu6", "silu", "hardswish", "none"]


class Conv(Section):
    """Convolution, then batch norm, activation and nothing else; 'same' padding by default."""

    op: Literal["conv"]
    out: int = Field(ge=1)  # output channels
    kernel: int = Field(3, ge=1)
    stride: int = Field(1, ge=1)
    padding: int | None = Field(None, ge=0)  # None: kernel // 2, which keeps the size at stride 1
    groups: int = Field(1, ge=1)
    batch_norm: bool = False
    activation: Activation = "relu"


class Pool(Section):
    """Max or average pooling; ``size = "global"`` averages (or takes the maximum of) all."""

    op: Literal["pool"]
    kind: Literal["max", "average"] = "max"
    size: Annotated[int, Field(ge=1)] | Literal["global"] = 2
    stride: int | None = Field(None, ge=1)  # None: the size


class Linear(Section):
    """Fully connected layer on flattened features; without ``out`` it is the classifier."""

    op: Literal["linear"]
    out: int | None = Field(None, ge=1)  # None: one for each label
    activation: Activation = "none"


class Dropout(Section):
    """Zeroes features with probability ``p`` while training."""

    op: Literal["dropout"]
    p: float = Field(0.5, ge=0, lt=1)


Layer = Annotated[Conv | Pool | Linear | Dropout, Field(discriminator="op")]


class EdgeOptions(Section):
    """A family of plain 3x3 convolutions, made for latency; see learning/networks/edge.py."""

    # channels of the first stage: 2 has 8 thousand weights, 16 420 thousand, 35 2 million
    width: int = Field(16, ge=2, le=512)
    depth: int = Field(2, ge=1)  # convolutions in each stage
    # train with 1x1 convolutions and shortcuts beside, which are folded into the one convolution
    # that is deployed; costs a third more time, and pays
    branches: bool = True
    # what becomes of the last features: their mean over all places, or none: where each was seen
    # counts as well, for images that are aligned, such as faces, at 16 times the linear weights
    pool: Literal["average", "none"] = "average"
    dropout: float = Field(0.0, ge=0, lt=1)  # of the features before the linear layer
    merged: bool = False  # without branches and norms, which is how a checkpoint holds it


class NetworkOptions(Section):
    """Exactly one of: ``layers`` put together here, one of the ``edge`` family, a ``torchvision``
    model by name, or a ``callable`` "module:function" called as function(classes=...,
    channels=...)."""

    layers: tuple[Layer, ...] = ()
    edge: EdgeOptions | None = None
    torchvision: str | None = None
    # torchvision: a file of weights to start from, as torchvision publishes them; nothing is
    # downloaded. The classifier starts afresh where its size differs.
    weights: str | None = None
    callable: str | None = None  # the recipe's folder is searched, too, after everything else
    # pixels are scaled to [0, 1], then normalised by these; None: 0.5 and 0.5 for each channel.
    # The mean is rounded to the nearest of the 256 values that a pixel can have.
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    _folder: Path | None = PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """Where the module of ``callable`` may be as well: the folder of the recipe's file."""
        return self._folder

    def with_folder(self, folder: Path | None) -> NetworkOptions:
        """The same, with the module of ``callable`` searched in ``folder``, too."""
        options = self.model_copy()
        options._folder = None if folder is None else folder.resolve()
        return options

    @model_validator(mode="after")
    def _one_source(self) -> NetworkOptions:
        sources = (self.layers or None, self.edge, self.torchvision, self.callable)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("give exactly one of layers, edge, torchvision, callable")
        if self.weights is not None and self.torchvision is None:
            raise ValueError("weights go with torchvision: name the network that they belong to")
        return self


# --- training -------------------------------------------------------------------------------

# Keys of [train] that decide how fast, not what: a training goes on with others.
HOW_FAST = ("device", "threads", "checkpoint_seconds", "max_minutes")


class AugmentOptions(Section):
    """Random changes of training batches, each image differently; 0 switches one off."""

    shift: float = Field(0.0, ge=0)  # pixels in each direction; alone, whole pixels are moved
    rotate: float = Field(0.0, ge=0, le=180)  # degrees to either side
    scale: float = Field(0.0, ge=0, lt=1)  # 0.1: each axis between 0.9 and 1.1
    shear: float = Field(0.0, ge=0, le=60)  # degrees to either side
    flip: bool = False  # left-right, half of the images
    brightness: float = Field(0.0, ge=0, lt=1)  # 0.1: pixels times 0.9 to 1.1
    contrast: float = Field(0.0, ge=0, lt=1)  # 0.1: distance to the mean times 0.9 to 1.1
    # share of images with thicker or thinner strokes (dilation, erosion); strokes are what is
    # bright, so this is for light digits on dark ground
    stroke: float = Field(0.0, ge=0, le=1)
    erase: float = Field(
        0.0, ge=0, le=1
    )  # share of images with a rectangle blanked: random erasing
    elastic: float = Field(0.0, ge=0)  # pixels that a smooth random field moves places by
    color: float = Field(0.0, ge=0, lt=1)  # 0.1: each channel, and saturation, times 0.9 to 1.1
    # blend pairs of images and their labels, the share drawn from Beta(mixup, mixup)
    mixup: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _whole_pixels(self) -> AugmentOptions:
        resampled = self.rotate or self.scale or self.shear or self.elastic
        if not resampled and not self.shift.is_integer():
            raise ValueError(
                f"shift = {self.shift:g}: without rotate, scale, shear or elastic, pixels move "
                "as they are: give a whole number of them"
            )
        return self


class TrainOptions(Section):
    """One-cycle training with averaged weights; the best checkpoint is chosen by validation."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(128, ge=2)  # of all processes that train together
    # sgd with Nesterov's momentum; adamw with weight_decay = 0 is Adam
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    lr: float = Field(gt=0)  # the peak of the one-cycle schedule
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd only
    weight_decay: float = Field(5e-4, ge=0)  # of kernels and matrices, not of biases and norms
    warmup: float = Field(0.2, ge=0, lt=1)  # one-cycle: share of the steps in which lr rises
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    # class weighting: an answer counts by how rare it is in the train split, of two answers
    # (1 / (2 * its share)) ** rare; 0: all alike, 1: rare and frequent ones have the same sum
    rare: float = Field(0.0, ge=0, le=1)
    focal: float = Field(0.0, ge=0)  # focal loss: weight (1 - probability of the truth) ** focal
    # trimmed loss (small-loss selection): share of labels, those with the largest loss, left out of
    # each batch after the first fifth of training: taken for mislabelled
    trim: float = Field(0.0, ge=0, lt=0.5)
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the averaged weights per step; 0: none
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # of convolutions and products; "auto": what is fast and safe where it trains, that is bfloat16
    # on a CPU that is measured to be faster with it, mixed precision on a GPU, else float32
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(None, ge=1)  # of each process; None: its share of usable cores
    # On the clock. The learning rate falls to its end within them, and the result is marked
    # incomplete if that left epochs out; None: all epochs
    max_minutes: float | None = Field(None, gt=0)
    checkpoint_seconds: float = Field(20.0, ge=0)  # at most so much is lost by a kill
    augment: AugmentOptions = AugmentOptions()


class DistillOptions(Section):
    """Learn from the answers of a larger network as well as from the labels."""

    teacher: str  # a recipe's name or file; trained first, on this recipe's [data]
    weight: float = Field(0.7, gt=0, le=1)  # of the teacher's answers; the rest are the labels
    temperature: float = Field(1.0, gt=0)  # the teacher's scores are divided by it


class BenchmarkOptions(Section):
    """How long each variant is timed."""

    seconds: float = Field(3.0, gt=0)  # for each variant and measurement
    threads: int = Field(1, ge=1)
    batch: int = Field(32, ge=2)  # for throughput


class Recipe(Section):
    """All that decides what comes out of a run."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")  # folder and wheel are named after it
    description: str = ""
    # another recipe (its name): where it has been validated on the same test images, among the
    # same artifacts, what this one gains over it is told
    baseline: str | None = Field(None, pattern=r"^[a-z][a-z0-9-]*$")
    seed: int = Field(0, ge=0, lt=2**63)
    data: DataOptions
    preprocess: PreprocessOptions
    network: NetworkOptions
    train: TrainOptions
    distill: DistillOptions | None = None
    export: ExportOptions = ExportOptions()
    quantize: QuantizeOptions = QuantizeOptions()
    gate: GateOptions = GateOptions()
    benchmark: BenchmarkOptions = BenchmarkOptions()
    package: PackageOptions = PackageOptions()

    @model_validator(mode="after")
    def _color_needs_rgb(self) -> Recipe:
        if self.train.augment.color and self.preprocess.color != "rgb":
            raise ValueError(
                "train.augment.color changes the colors of rgb images, but preprocess.color = "
                f"{self.preprocess.color!r}: leave it out, or set preprocess.color = 'rgb'"
            )
        return self

    @model_validator(mode="after")
    def _own_folder(self) -> Recipe:
        if self.name == SWEEPS:
            raise ValueError(f"name = {self.name!r} is the folder of all sweeps: choose another")
        return self

    @model_validator(mode="after")
    def _another_baseline(self) -> Recipe:
        if self.baseline == self.name:
            raise ValueError(f"baseline = {self.baseline!r} is this recipe itself: name another")
        return self

    @property
    def summary(self) -> str:
        """One line on the model: the description, or the name where there is none."""
        return self.description.strip() or f"The model {self.name}"

    def slice(self, sections: Sequence[str]) -> dict[str, Any]:
        """The named sections as JSON values, for fingerprints and reports."""
        return self.model_dump(mode="json", include=set(sections))
