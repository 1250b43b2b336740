"""Quantization-aware fine-tuning: a few epochs from the trained network, with the rounding of its
INT8 file in the forward pass. What comes back is a float network like the one that came in, only
that it loses less when it is quantized. Knows nothing of stages, variants or ONNX files.

The network learns from the answers of the one that it started as, not from labels: what
quantization changed is what is to be undone, and whoever compares the two finds them alike.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporters.options import FineTuneOptions
from pipeline.datasets.arrays import Dataset
from pipeline.errors import TrainError
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.quantization_aware.equalization import equalize
from pipeline.learning.quantization_aware.fake_quantization import fake_quantized, observing
from pipeline.learning.training.augment import augment
from pipeline.learning.training.batches import batch_of
from pipeline.learning.training.device import resolve_device, torch_settings
from pipeline.learning.training.evaluate import BATCH_SIZE, judge
from pipeline.learning.training.memory import freed_memory_is_kept
from pipeline.learning.training.optimize import build_optimizer, learning_rate, training_loss
from pipeline.learning.training.results import StepProgress
from pipeline.recipe import TrainOptions
from runtime.cpu import usable_threads


@dataclass(frozen=True)
class Judged:
    """The validation split, seen by a network that rounds as its INT8 file will."""

    epoch: int  # 0: not yet trained
    equalized: bool  # its channels were scaled to the same reach
    val_loss: float  # cross-entropy, mean over labels for multi-label
    val_accuracy_percent: float


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning came to."""

    network: PixelNetwork  # float, on the CPU, in evaluation mode
    best: Judged  # what ``network`` is
    judged: tuple[Judged, ...]  # all that were tried: untouched, equalized, and then each epoch
    cpu_seconds: float


def fine_tune(
    network: PixelNetwork,
    dataset: Dataset,
    train: TrainOptions,
    options: FineTuneOptions,
    weight_range: int,
    seed: int,
    on_step: Callable[[StepProgress], None] | None = None,
) -> FineTuned:
    """Fine-tune a copy of ``network`` for weights -``weight_range``..``weight_range`` (64 with
    reduce_range, 127 without), per channel, and uint8 activations with min-max ranges.

    First its channels are equalized, which trains nothing and is undone if it does not help. Batch
    size, optimizer, augmentation and device are those of ``train``. Of all that was tried, the
    untouched network among them, the one with the least validation loss is returned. The same
    seed gives the same bits at the same thread count. Raises TrainError when the options make no
    sense, the network cannot be traced, or the loss is no number any more.
    """
    _check(dataset, options, weight_range)
    start = time.process_time()
    device = resolve_device(train.device)
    threads = train.threads or usable_threads()
    with freed_memory_is_kept(), torch_settings(device, threads):
        torch.manual_seed(seed)
        tuning = _Tuning(network, dataset, train, options, weight_range, seed, device)
        tuning.judge()
        tuning.equalize()
        while tuning.epoch < options.epochs:
            tuning.run_epoch(on_step)
            tuning.judge()
        return tuning.finish(time.process_time() - start)


def _check(dataset: Dataset, options: FineTuneOptions, weight_range: int) -> None:
    if not 1 <= weight_range <= 127:
        raise TrainError(f"weight_range is {weight_range}; expected 1 to 127, the largest int8.")
    if options.epochs < 1:  # 0 is what turns fine-tuning off
        raise TrainError(f"{options} trains nothing; expected epochs >= 1.")
    if len(dataset.train) < 2 or not len(dataset.val):
        raise TrainError(
            f"there are {len(dataset.train)} images to train with and {len(dataset.val)} for "
            "validation; expected at least 2 and 1. Give the data stage more images."
        )


class _Tuning:
    """One fine-tuning: the float network, its rounding form on the same parameters, and the
    network that both came from."""

    def __init__(
        self,
        network: PixelNetwork,
        dataset: Dataset,
        train: TrainOptions,
        options: FineTuneOptions,
        weight_range: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.dataset, self.device = dataset, device
        self.teacher = _copy(network, device)
        self.network = _copy(network, device)
        self.rounding = fake_quantized(self.network, weight_range)
        self.options = train.model_copy(
            update={
                "epochs": options.epochs,
                "lr": train.lr * options.lr_factor,
                "schedule": "one-cycle",  # the last steps are small, so that weights come to rest
            }
        )
        self.optimizer = build_optimizer(self.rounding, self.options)
        self.generator = torch.Generator().manual_seed(seed)
        count = min(options.calibration_images, len(dataset.train))
        chosen = torch.randperm(len(dataset.train), generator=self.generator)[:count]
        self.calibration = np.sort(chosen.numpy())
        self.batch = min(train.batch_size, len(dataset.train))
        self.steps_per_epoch = len(dataset.train) // self.batch
        self.epoch = 0  # finished ones
        self.equalized = False
        self.judged: list[Judged] = []
        self.best_weights: dict[str, Tensor] = {}

    def run_epoch(self, on_step: Callable[[StepProgress], None] | None) -> None:
        """Every training image once, in a random order. Ranges stay as they are: weights move so
        little that it is enough to take them anew when the epoch is judged."""
        order = torch.randperm(len(self.dataset.train), generator=self.generator).numpy()
        start = time.perf_counter()
        for position in range(self.steps_per_epoch):
            number = self.epoch * self.steps_per_epoch + position
            chosen = order[position * self.batch : (position + 1) * self.batch]
            lr = learning_rate(number, self._steps, self.options)
            loss = self._step(chosen, number, lr)
            if on_step is not None:
                rate = (position + 1) * self.batch / max(time.perf_counter() - start, 1e-9)
                on_step(self._progress(number + 1, loss, lr, rate))
        self.epoch += 1

    def judge(self) -> None:
        """Take ranges as the quantizer will, look at the validation split, keep the best."""
        self._calibrate()
        loss, accuracy = judge(self.rounding, self.dataset.val, str(self.device))
        line = Judged(self.epoch, self.equalized, loss, accuracy)
        self.judged.append(line)
        if self.best is line:
            self.best_weights = {
                name: value.detach().clone() for name, value in self.network.state_dict().items()
            }

    def equalize(self) -> None:
        """Scale channels to the same reach, if that helps."""
        self.equalized = equalize(self.network, self._calibration_batches()) > 0
        if not self.equalized:
            return
        self.judge()
        if not self.best.equalized:
            self.network.load_state_dict(self.best_weights)
            self.equalized = False
            self._calibrate()

    @property
    def best(self) -> Judged:
        """The least validation loss; of equal ones the first."""
        return min(self.judged, key=lambda line: line.val_loss)

    def finish(self, cpu_seconds: float) -> FineTuned:
        """The best network, on the CPU."""
        self.network.load_state_dict(self.best_weights)
        network = self.network.to("cpu").to(memory_format=torch.contiguous_format).eval()
        return FineTuned(network, self.best, tuple(self.judged), cpu_seconds)

    def _step(self, chosen: NDArray[np.int64], number: int, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        pixels, _ = batch_of(self.dataset.train, chosen, self.device)
        pixels = augment(pixels, self.options.augment, self.generator)
        loss = self._loss(pixels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainError(
                f"the loss is {value} at step {number + 1} of quantization-aware fine-tuning "
                f"(learning rate {lr:.3g}). Lower its lr_factor."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        self.optimizer.step()
        return value

    def _loss(self, pixels: Tensor) -> Tensor:
        """Cross-entropy with the answers of the network before."""
        task = self.network.spec.task
        with torch.no_grad():
            logits = self.teacher.logits(pixels)  # (N, labels)
            answers = torch.sigmoid(logits) if task == "multi-label" else logits.softmax(1)
        return training_loss(self.rounding.logits(pixels), answers, task)

    def _calibrate(self) -> None:
        with observing(self.rounding), torch.no_grad():
            for batch in self._calibration_batches():
                self.rounding(batch)

    def _calibration_batches(self) -> Iterator[Tensor]:
        for start in range(0, len(self.calibration), BATCH_SIZE):
            chosen = self.calibration[start : start + BATCH_SIZE]
            yield batch_of(self.dataset.train, chosen, self.device)[0]

    @property
    def _steps(self) -> int:
        return self.steps_per_epoch * self.options.epochs

    def _progress(self, step: int, loss: float, lr: float, rate: float) -> StepProgress:
        return StepProgress(
            epoch=self.epoch + 1,
            epochs=self.options.epochs,
            step=step,
            steps=self._steps,
            loss=loss,
            lr=lr,
            images_per_second=rate,
            val_accuracy_percent=self.judged[-1].val_accuracy_percent,
        )


def _copy(network: PixelNetwork, device: torch.device) -> PixelNetwork:
    """In evaluation mode: batch norm keeps its statistics, as they are folded into the file."""
    copied = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last)
    return copied.eval()
