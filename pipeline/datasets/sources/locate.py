"""The files of a data set, by their names. No content is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.sources.image_files import escaped
from pipeline.errors import DataError

# The four names of MNIST, which Fashion-MNIST, KMNIST and EMNIST's digits share. They may end in
# ".gz" or have the dotted form "train-images.idx3-ubyte" of some mirrors.
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
    """The paths of one CelebA copy."""

    images: Path  # a folder
    attributes: Path
    partition: Path
    identities: Path | None  # the authors send it on request
    marker: Path | None  # of a generated set

    @property
    def lists(self) -> tuple[Path, ...]:
        """The present label files, in a fixed order."""
        every = (self.attributes, self.partition, self.identities, self.marker)
        return tuple(path for path in every if path is not None)


def folder_of(root: str, key: str = "data.root") -> Path:
    """Return the folder that ``data.root``, or another ``key``, names; raises DataError for
    none."""
    _check_utf8(key, root)
    path = Path(root).expanduser()
    if path.is_dir():
        return path
    problem = "is a file" if path.exists() else "does not exist"
    advice = f"Correct {key}."
    if path.parent == DEBIAN_DATASETS:
        advice = (
            f"On Debian and Ubuntu, apt-get install dataset-{path.name} creates it. Elsewhere, "
            "download the files from their authors and set data.root: --set data.root=FOLDER."
        )
    raise DataError(f"{key} = {root!r} {problem}; expected a folder. {advice}")


def find_label_file(root: Path, name: str) -> Path:
    """Return the file that ``data.label_file`` names, relative to the current folder or to
    ``root``.
    Raises DataError."""
    _check_utf8("data.label_file", name)
    for path in (Path(name).expanduser(), root / name):
        if path.is_file():
            return path
    raise DataError(
        f"data.label_file = {name!r} does not exist or is not a regular file; expected a CSV file, "
        f"by its path from the current folder or from {root}. Correct it (init: --labels)."
    )


def _check_utf8(key: str, path: str) -> None:
    """Raise DataError for other names: recipe and manifest, which follows training, are UTF-8."""
    if escaped(path) != path:
        raise DataError(f"{key} = '{escaped(path)}' is not UTF-8. Rename the file or folder.")


def find_idx(folder: Path) -> tuple[Path, ...]:
    """Return the four files in the order of IDX_NAMES; raises DataError naming missing ones."""
    for subfolder in (folder / name for name in _IDX_SUBFOLDERS):
        paths = [_first(subfolder / spelled for spelled in _spellings(name)) for name in IDX_NAMES]
        if any(paths):
            break
    missing = [name for name, path in zip(IDX_NAMES, paths, strict=True) if path is None]
    if missing:
        raise DataError(
            f"{folder} has no {', '.join(missing)}; expected the four files {', '.join(IDX_NAMES)}"
            ", each plain or with .gz. Set data.root to their folder."
        )
    return tuple(path for path in paths if path is not None)


def find_celeba(folder: Path) -> CelebaFiles:
    """Return the paths of a CelebA copy in ``folder`` or in its sub-folder "celeba".

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
        hint = f"{IMAGES_NAME}.zip is present: unpack it next to the label files."
    elif _part(bases, ATTRIBUTES_NAME.replace(".txt", ".csv")):
        hint = f"The .csv files are a mirror's; use the .txt files of {CELEBA_URL}."
    return (
        f"{folder} has no {', '.join(missing)}; expected a CelebA copy: {IMAGES_NAME}/, "
        f"{ATTRIBUTES_NAME}, {PARTITION_NAME} and, if available, {IDENTITIES_NAME}. {hint}"
    )
