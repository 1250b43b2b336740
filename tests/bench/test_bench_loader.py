"""What feeding costs: batches from memory-mapped uint8 arrays, augmented as a whole, beside torch's
DataLoader with Pillow and torchvision's transforms on the same JPEGs; and how much of an epoch
waits for data. CPU time, so that neighbours disturb little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from pipeline.datasets.arrays import Dataset, Split
from pipeline.datasets.decoding.decode import open_preprocess
from pipeline.datasets.info import DatasetInfo
from pipeline.learning.networks.build import build_network
from pipeline.learning.training import fit as fit_module
from pipeline.learning.training.augment import augment
from pipeline.learning.training.batches import batch_of
from pipeline.learning.training.fit import fit
from pipeline.learning.training.memory import freed_memory_is_kept
from pipeline.learning.training.order import EpochOrder
from pipeline.recipe import Recipe, load
from pipeline.stages.data import preprocess_graph
from runtime.spec import ModelSpec

pytestmark = pytest.mark.bench

FILES, IMAGES, BATCH, ROUNDS = 256, 2048, 64, 5
TIMES = 10  # as many images per CPU-second as DataLoader, at least
WAITING = 0.05  # of an epoch, at most
ATTRIBUTES = 40


class Photos(TorchDataset[tuple[Tensor, Tensor]]):
    """JPEGs decoded by Pillow each time that they are asked for."""

    def __init__(self, files: list[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.transform = files, transform
        self.labels = torch.zeros(len(files), ATTRIBUTES)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB")), self.labels[index]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """178x218 and 7 KB, as CelebA's are on average: smooth colours with some grain."""
    folder, found = tmp_path_factory.mktemp("photos"), []
    random = np.random.default_rng(0)
    for number in range(FILES):
        small = Image.fromarray(random.integers(0, 256, (14, 11, 3), np.uint8))
        page = np.asarray(small.resize((178, 218), Image.Resampling.BICUBIC)).astype(int)
        page = np.clip(page + random.normal(0, 3, page.shape), 0, 255).astype(np.uint8)
        found.append(folder / f"{number}.jpg")
        Image.fromarray(page).save(found[-1], quality=80)
    return found


@pytest.fixture(scope="module")
def arrays(files: list[Path], tmp_path_factory: pytest.TempPathFactory, show: Any) -> Split:
    """The same JPEGs as the data stage leaves them, repeated to ``IMAGES``, memory-mapped."""
    preprocess = open_preprocess(preprocess_graph(load("celeba").preprocess))
    preprocess(np.zeros((218, 178, 3), np.uint8))
    start, decoded = time.process_time(), []
    for file in files:
        with Image.open(file) as image:
            decoded.append(preprocess(np.asarray(image.convert("RGB"))))
    seconds = time.process_time() - start
    show(
        "Decoding once, in the data stage: 178x218 JPEGs to 64x64, Pillow and preprocess.onnx",
        ("images per CPU-second", "JPEG bytes", "bytes in the array"),
        [(f"{FILES / seconds:,.0f}", f"{_mean_size(files):,.0f}", f"{decoded[0].nbytes:,}")],
    )
    path = tmp_path_factory.mktemp("arrays") / "train.images.npy"
    np.save(path, np.stack(decoded)[np.arange(IMAGES) % FILES])
    labels = np.random.default_rng(0).integers(0, 2, (IMAGES, ATTRIBUTES), np.uint8)
    images = np.load(path, mmap_mode="r")
    return Split(images, labels, np.arange(IMAGES).astype(np.str_))


def _mean_size(files: list[Path]) -> float:
    return sum(file.stat().st_size for file in files) / len(files)


def ours(split: Split, recipe: Recipe, augmented: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised batches in an epoch's order, as training makes them."""
    generator = torch.Generator().manual_seed(0)
    network = build_network(recipe.network, spec(recipe))
    order = EpochOrder(len(split), 0, 0, len(split), 1)
    for start in range(0, len(split), BATCH):
        pixels, labels = batch_of(split, order.part(start, start + BATCH), torch.device("cpu"))
        if augmented:
            pixels = augment(pixels, recipe.train.augment, generator)
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)
        yield (x - network.mean) * network.scale, labels


def theirs(files: list[Path], recipe: Recipe, augmented: bool) -> DataLoader[Any]:
    """The usual way, with the same crop, size and random changes."""
    a, size = recipe.train.augment, recipe.preprocess.width
    assert recipe.preprocess.crop is not None
    shift = a.shift / size
    steps: list[Any] = [transforms.CenterCrop(recipe.preprocess.crop), transforms.Resize(size)]
    if augmented:
        steps += [
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(
                a.rotate,
                (shift, shift),
                (1 - a.scale, 1 + a.scale),
                interpolation=transforms.InterpolationMode.BILINEAR,
            ),
            transforms.ColorJitter(a.brightness, a.contrast),
        ]
    steps += [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    # in this process: workers would spread the CPU time over cores, and add to it
    return DataLoader(Photos(files, transforms.Compose(steps)), BATCH, shuffle=True)


def spec(recipe: Recipe) -> ModelSpec:
    size = recipe.preprocess
    names = tuple(f"Attribute {i}" for i in range(ATTRIBUTES))
    return ModelSpec(recipe.name, "multi-label", size.height, size.width, size.channels, names)


def images_per_cpu_second(loader: Any) -> float:
    start, images = time.process_time(), 0
    for pixels, _ in loader:
        images += len(pixels)
    return images / (time.process_time() - start)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As training sets it up, for both."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with freed_memory_is_kept():
        yield
    torch.set_num_threads(before)


def test_the_loader_alone(files: list[Path], arrays: Split, one_thread: None, show: Any) -> None:
    recipe, rows, ratios = load("celeba"), [], []
    for augmented in (False, True):
        found = []
        for _ in range(ROUNDS):  # in turns, so that a busy neighbour disturbs both
            a = images_per_cpu_second(ours(arrays, recipe, augmented))
            b = images_per_cpu_second(theirs(files, recipe, augmented))
            found.append((a / b, a, b))
        ratio, a, b = (float(value) for value in np.median(found, axis=0))
        ratios.append(ratio)
        rows.append(("yes" if augmented else "no", f"{a:,.0f}", f"{b:,.0f}", f"{ratio:.1f}"))
    show(
        "Images per CPU-second, 178x218 JPEGs to normalised 64x64 batches of 64: from uint8 arrays "
        f"against DataLoader, Pillow and transforms (median of {ROUNDS} turns)",
        ("augmented", "arrays", "DataLoader", "times"),
        rows,
    )
    assert min(ratios) >= TIMES


@pytest.mark.parametrize("name", ["celeba", "mnist"])
def test_an_epoch_hardly_waits_for_data(
    name: str,
    files: list[Path],
    arrays: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    show: Any,
) -> None:
    recipe, wall, cpu = load(name), {"batch_of": 0.0, "augment": 0.0}, 0.0

    def timed(part: str) -> None:
        function = getattr(fit_module, part)

        def wrapper(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            wall[part] += time.perf_counter() - start
            return result

        monkeypatch.setattr(fit_module, part, wrapper)

    timed("batch_of")
    timed("augment")
    data, model = _dataset(name, arrays, tmp_path), spec(recipe)
    if name == "mnist":
        model = ModelSpec("mnist", "multi-class", 28, 28, 1, tuple("0123456789"))
    options = recipe.train.model_copy(
        update={"epochs": 1, "threads": 1, "device": "cpu", "checkpoint_seconds": 1e9}
    )
    start, cpu_start = time.perf_counter(), time.process_time()
    fit(data, model, recipe.network, options, 0, tmp_path / "out")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    share = wall["batch_of"] / seconds
    rows: list[tuple[object, ...]] = [
        (
            name,
            f"{100 * share:.2f} %",
            f"{100 * WAITING:.0f} %",
            f"{100 * wall['augment'] / seconds:.1f} %",
            f"{len(data.train) / cpu:,.0f}",
        )
    ]
    header = ["recipe", "waits for data", "bound", "augments", "images per CPU-second"]
    if name == "celeba":
        # what the same training would come to, fed by DataLoader
        load_alone = 1 / images_per_cpu_second(theirs(files, recipe, True))
        rest = (cpu - sum(wall.values()) * cpu / seconds) / len(data.train)
        fed = load_alone + rest  # CPU-seconds an image
        rows[0] += (f"{1 / fed:,.0f}", f"{fed * len(data.train) / cpu:.2f}")
        header += ["fed by DataLoader", "times"]
    show("One epoch of training with its validation, one thread", header, rows)
    assert share <= WAITING


def _dataset(name: str, arrays: Split, folder: Path) -> Dataset:
    """Train and validation images, ten to one."""
    split = arrays
    if name == "mnist":
        random = np.random.default_rng(0)
        path = folder / "images.npy"
        np.save(path, random.integers(0, 256, (16_384, 28, 28, 1), np.uint8))
        labels = random.integers(0, 10, 16_384)
        split = Split(np.load(path, mmap_mode="r"), labels, np.arange(16_384).astype(np.str_))
    tenth = len(split) // 10
    val = Split(split.images[:tenth], split.labels[:tenth], split.ids[:tenth])
    counts = {"train": len(split), "val": tenth, "test": tenth}
    task = "multi-class" if split.labels.ndim == 1 else "multi-label"
    info = DatasetInfo(name, task, (), counts, "0" * 64, True, True, "CC0")
    return Dataset(info, split, val, val)
