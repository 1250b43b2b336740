"""Which files are the data set? Names and places only, standard library only, so that a plan can
ask what changed without loading numpy. Reads no content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.sources.image_files import escaped
from pipeline.errors import DataError

# The four names of MNIST, which Fashion-MNIST, KMNIST and EMNIST's digits keep. Also found: ".gz"
# behind them, and the dotted form "train-images.idx3-ubyte" that some mirrors serve.
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
SHIPPED_MNIST = Path(__file__).parents[1] / "mnist"  # in the repository, not in the wheels

DEBIAN_DATASETS = Path("/usr/share/datasets")  # a sub-folder for each package "dataset-NAME"

IMAGES_NAME = "img_align_celeba"
ATTRIBUTES_NAME = "list_attr_celeba.txt"
PARTITION_NAME = "list_eval_partition.txt"
IDENTITIES_NAME = "identity_CelebA.txt"
MARKER_NAME = "SYNTHETIC.json"
CELEBA_URL = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
# ".": all in one folder, as torchvision keeps them; the others as in the authors' cloud folder
_CELEBA_SUBFOLDERS = (".", "Anno", "Eval", "Img")
_IDX_SUBFOLDERS = (".", "raw", "MNIST/raw", "FashionMNIST/raw")  # the latter three: torchvision's


@dataclass(frozen=True)
class CelebaFiles:
    """Where the parts of one CelebA copy lie."""

    images: Path  # a folder
    attributes: Path
    partition: Path
    identities: Path | None  # the authors give it on request only
    marker: Path | None  # there when the set was generated

    @property
    def lists(self) -> tuple[Path, ...]:
        """The label files that are there, in a fixed order."""
        every = (self.attributes, self.partition, self.identities, self.marker)
        return tuple(path for path in every if path is not None)


def folder_of(root: str, key: str = "data.root") -> Path:
    """The folder that ``data.root``, or another ``key``, names; raises DataError when there is
    none."""
    _check_utf8(key, root)
    path = Path(root).expanduser()
    if path.is_dir():
        return path
    found = "is a file" if path.exists() else "does not exist"
    advice = f"Correct {key}."
    if path.parent == DEBIAN_DATASETS:
        advice = (
            f"Debian and Ubuntu put it there with: apt-get install dataset-{path.name}. Elsewhere, "
            "fetch the files from their authors and say where they are: --set data.root=FOLDER."
        )
    raise DataError(f"{key} = {root!r} {found}; expected a folder. {advice}")


def find_label_file(root: Path, name: str) -> Path:
    """The file that ``data.label_file`` names, from here or from ``root``; raises DataError."""
    _check_utf8("data.label_file", name)
    for path in (Path(name).expanduser(), root / name):
        if path.is_file():
            return path
    raise DataError(
        f"data.label_file = {name!r} is not there, or not a regular file; expected a CSV file, by "
        f"its path from here or from {root}. Correct it (init: --labels)."
    )


def _check_utf8(key: str, path: str) -> None:
    """Here, for recipe and manifest are UTF-8, and the latter is written after the training."""
    if escaped(path) != path:
        raise DataError(f"{key} = '{escaped(path)}' is not UTF-8. Rename the file or folder.")


def find_idx(folder: Path) -> tuple[Path, ...]:
    """The four files in the order of IDX_NAMES; raises DataError naming those that are missing."""
    for place in (folder / name for name in _IDX_SUBFOLDERS):
        found = [_first(place / spelled for spelled in _spellings(name)) for name in IDX_NAMES]
        if any(found):
            break
    missing = [name for name, path in zip(IDX_NAMES, found, strict=True) if path is None]
    if missing:
        raise DataError(
            f"{folder} has no {', '.join(missing)}; expected the four files {', '.join(IDX_NAMES)}"
            ", each plain or with .gz behind it. Point data.root at their folder."
        )
    return tuple(path for path in found if path is not None)


def find_celeba(folder: Path) -> CelebaFiles:
    """The parts of a CelebA copy in ``folder`` or in its sub-folder "celeba".

    Raises DataError naming what is missing.
    """
    bases = (folder, folder / "celeba")
    images = _part(bases, IMAGES_NAME)
    attributes, partition = _part(bases, ATTRIBUTES_NAME), _part(bases, PARTITION_NAME)
    if images is None or not images.is_dir() or attributes is None or partition is None:
        raise DataError(_what_celeba_lacks(folder, bases))
    nested = images / IMAGES_NAME  # Kaggle's archive unpacks to img_align_celeba/img_align_celeba
    return CelebaFiles(
        nested if nested.is_dir() else images,
        attributes,
        partition,
        _part(bases, IDENTITIES_NAME),
        _part(bases, MARKER_NAME),
    )


def _spellings(name: str) -> tuple[str, ...]:
    dotted = name.replace("-idx", ".idx")
    return (name, f"{name}.gz", dotted, f"{dotted}.gz")


def _part(bases: Iterable[Path], name: str) -> Path | None:
    return _first(base / sub / name for base in bases for sub in _CELEBA_SUBFOLDERS)


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _what_celeba_lacks(folder: Path, bases: tuple[Path, ...]) -> str:
    names = (ATTRIBUTES_NAME, PARTITION_NAME)
    missing = [name for name in names if _part(bases, name) is None]
    images = _part(bases, IMAGES_NAME)
    if images is None or not images.is_dir():
        missing.append(f"{IMAGES_NAME}/")
    hint = f"{CELEBA_URL} has the official files."
    if _part(bases, f"{IMAGES_NAME}.zip") and f"{IMAGES_NAME}/" in missing:
        hint = f"{IMAGES_NAME}.zip is there: unpack it beside the label files."
    elif _part(bases, ATTRIBUTES_NAME.replace(".txt", ".csv")):
        hint = f"The .csv files there are a mirror's; take the .txt files from {CELEBA_URL}."
    return (
        f"{folder} has no {', '.join(missing)}; expected a CelebA copy: {IMAGES_NAME}/, "
        f"{ATTRIBUTES_NAME}, {PARTITION_NAME} and, if at hand, {IDENTITIES_NAME}. {hint}"
    )
