"""Training, from decoded images to ``checkpoint.pt``. A run that is killed goes on where its last
checkpoint stands and ends with the same bits, as long as the numbers of processes and of threads
are the same. Several processes run this side by side; the first of them writes. Knows nothing of
stages, recipes' names or the terminal.

One epoch is one pass through a random order of the train split, then one look at the validation
split with the averaged weights; the best of these looks is what is saved in the end. The test
split is never read.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import user_code
from pipeline.datasets.arrays import Dataset, Split
from pipeline.errors import TrainError
from pipeline.learning.distributed.parallel import ALONE, World, statistics_of
from pipeline.learning.networks.networks import PixelNetwork, build_network
from pipeline.learning.training import checkpoint
from pipeline.learning.training.augment import augment, blend
from pipeline.learning.training.batches import batch_of
from pipeline.learning.training.device import (
    bfloat16_instructions,
    mixed_precision,
    resolve_device,
    torch_settings,
)
from pipeline.learning.training.distillation import TeacherAnswers
from pipeline.learning.training.evaluate import judge
from pipeline.learning.training.memory import freed_memory_is_kept
from pipeline.learning.training.optimize import (
    answer_weights,
    averaged_copy,
    build_optimizer,
    learning_rate,
    targets_of,
    training_loss,
)
from pipeline.learning.training.order import EpochOrder, sizes_of
from pipeline.learning.training.result import EpochMetrics, TrainResult
from pipeline.processes import check_batch
from pipeline.recipe import HOW_FAST, NetworkOptions, TrainOptions
from runtime.cpu import usable_threads
from runtime.spec import ModelSpec

# Steps between two looks at the loss on a GPU, where each look waits for it to finish.
STEPS_PER_LOOK = 20
SEED_STEP = 1_000_003  # between the random numbers of two processes: no seed that people choose
# Steps between two times that several processes agree what time it is; an epoch may have fewer.
STEPS_PER_AGREEMENT = 16
TRIM_FROM = 0.2  # of all steps: what is mislabelled shows once the rest is learned


@dataclass(frozen=True)
class StepProgress:
    """Where training stands after one step."""

    epoch: int  # from 1
    epochs: int
    step: int  # finished ones, over all epochs
    steps: int
    loss: float  # of the last step that was looked at
    lr: float
    images_per_second: float  # of all processes, in this epoch
    val_accuracy_percent: float | None  # of the last finished epoch


def fit(
    dataset: Dataset,
    spec: ModelSpec,
    network: NetworkOptions,
    train: TrainOptions,
    seed: int,
    folder: Path,
    on_step: Callable[[StepProgress], None] | None = None,
    teacher: TeacherAnswers | None = None,
    world: World = ALONE,
) -> TrainResult:
    """Train a network, leave ``checkpoint.pt`` and ``metrics.jsonl`` in ``folder``.

    Goes on from ``resume.pt`` if one of the same run is there, and leaves one: called again it has
    nothing to do. In a ``world`` of several processes
    all call this with the same arguments; the first one reads and writes ``folder``. Torch's
    thread count, random state and cuDNN settings are the caller's again afterwards. Raises
    TrainError when data and spec contradict each other, the device is not there, the loss is no
    number any more, or nothing can be written; RecipeError when the network's layers do not fit
    together or a batch cannot be divided among the processes.
    """
    _check(dataset, spec)
    device = resolve_device(train.device)
    threads = train.threads or max(1, usable_threads() // world.place.local_size)
    check_batch(train.batch_size, world.size)
    if len(dataset.train) < 2 * world.size:
        raise TrainError(
            f"there are {len(dataset.train)} images to train with, and {world.size} processes; "
            "expected two for each process. Start fewer."
        )
    if world.first:
        folder.mkdir(parents=True, exist_ok=True)
    with freed_memory_is_kept(), torch_settings(device, threads):
        torch.manual_seed(seed)
        built = build_network(network, spec)
        run = _Run(dataset, built, train, seed, folder, device, threads, teacher, world)
        run.resume()
        run.to_the_end(on_step)
        return run.finish()


# --- before training ------------------------------------------------------------------------


def _check(dataset: Dataset, spec: ModelSpec) -> None:
    for name, split, least in (("train", dataset.train, 2), ("val", dataset.val, 1)):
        if len(split) < least:
            raise TrainError(
                f"the {name} split has {len(split)} images; expected at least {least}. "
                "Give the data stage more images or other splits."
            )
        _check_split(name, split, spec)


def _check_split(name: str, split: Split, spec: ModelSpec) -> None:
    count, labels = len(spec.labels), split.labels
    if split.images.shape[1:] != spec.shape or split.images.dtype != np.uint8:
        raise TrainError(
            f"the {name} images are {split.images.dtype} {split.images.shape[1:]}; expected uint8 "
            f"{spec.shape}, (height, width, channels). Run the data stage again."
        )
    shape = (len(split),) if spec.task == "multi-class" else (len(split), count)
    if labels.shape != shape or not np.issubdtype(labels.dtype, np.integer):
        raise TrainError(
            f"the {name} labels are {labels.dtype} {labels.shape}; expected integers {shape} for a "
            f"{spec.task} model of {count} labels."
        )
    most = count - 1 if spec.task == "multi-class" else 1
    if labels.min() < 0 or labels.max() > most:
        raise TrainError(
            f"the {name} labels go from {labels.min()} to {labels.max()}; expected 0 to {most}."
        )


def _identity(
    dataset: Dataset,
    network: PixelNetwork,
    train: TrainOptions,
    seed: int,
    teacher: TeacherAnswers | None,
) -> dict[str, str]:
    """All that decides the result, by the names that a message can use."""
    values: dict[str, Any] = {
        "data": {"sha256": dataset.info.sha256, "counts": dataset.info.counts},
        "spec": network.spec.to_dict(),
        "network": network.options.model_dump(mode="json"),
        "seed": seed,
        "distill": None if teacher is None else teacher.options.model_dump(mode="json"),
    }
    if network.options.callable is not None:
        files = user_code.source_files(network.options.callable, network.options.folder)
        values["source files"] = user_code.digests(files)
    for key, value in train.model_dump(mode="json", exclude=set(HOW_FAST)).items():
        values[f"train.{key}"] = value
    return {key: json.dumps(value, sort_keys=True) for key, value in values.items()}


# --- training -------------------------------------------------------------------------------


class _Run:
    """One training run: everything that changes from step to step, and the step itself."""

    def __init__(
        self,
        dataset: Dataset,
        network: PixelNetwork,
        train: TrainOptions,
        seed: int,
        folder: Path,
        device: torch.device,
        threads: int,
        teacher: TeacherAnswers | None,
        world: World,
    ) -> None:
        self.dataset, self.options, self.folder = dataset, train, folder
        self.device, self.threads, self.teacher = device, threads, teacher
        self.world, self.seed = world, seed
        self.identity = _identity(dataset, network, train, seed, teacher)
        # channels_last: what pixels are in memory anyway, and 0.6 to 0.8 of the time on a CPU
        self.network: PixelNetwork = world.normalising_together(network, device).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.logits = world.logits_of(self.network)
        self.averaged = averaged_copy(self.network, train.ema) if train.ema else None
        self.optimizer = build_optimizer(self.network, train)
        self._compute_in(world.agree(mixed_precision(device, train.precision)))
        self.answer_weights = _answer_weights(dataset, network.spec, train.rare, device)
        # Each process draws for its own share: augmentation from this, dropout from torch's own.
        own_seed = seed + SEED_STEP * world.place.rank
        self.generator = torch.Generator().manual_seed(own_seed)
        if not world.first:
            torch.manual_seed(own_seed)

        self.batch = min(train.batch_size, len(dataset.train) // world.size * world.size)
        # What is left of an epoch below a whole batch is left out: the order is another one in
        # each epoch, and a tiny batch would spoil the statistics of batch norm.
        self.steps_per_epoch = len(dataset.train) // self.batch
        self.steps = self.steps_per_epoch * train.epochs
        self.epoch = 0  # finished epochs
        self.position = 0  # finished steps of this epoch
        self.steps_done = 0  # of all finished epochs
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.metrics: list[EpochMetrics] = []
        self.best: EpochMetrics | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.resumed = False
        self.notes: list[str] = []

        self.last_loss = self.last_lr = math.nan
        self.cpu_before = self.wall_before = 0.0  # of the processes that came before this one
        self.cpu_start, self.wall_start = time.process_time(), time.perf_counter()
        self.saved_at = self.wall_start
        self.time_used = 0.0  # the share of ``max_minutes`` that is over

    def _compute_in(self, precision: torch.dtype | None) -> None:
        self.precision = precision
        # float16 alone needs its gradients scaled; else this passes everything through
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)

    # --- the loop

    def to_the_end(self, on_step: Callable[[StepProgress], None] | None) -> None:
        """Train until all epochs, or the minutes that they may take, are over."""
        self._look_at_clock(always=True)
        while self.epoch < self.options.epochs and (self.time_used < 1 or self._unjudged()):
            order = self._order()
            epoch_start, first = time.perf_counter(), self.position
            while self.position < self.steps_per_epoch and (
                self.position == 0 or self.time_used < 1
            ):
                lr = self.step(order)
                self.position += 1
                self._look_at_clock()
                if self._save_is_due():
                    self.save()
                if on_step is not None and self.world.first:
                    rate = self._rate(first, epoch_start)
                    on_step(self._progress(lr, rate))
            self.finish_epoch(self._rate(first, epoch_start))

    def _unjudged(self) -> bool:
        """Whether steps were done, or nothing at all, that no look at the validation split
        followed: a run that is resumed after its time was over."""
        return self.position > 0 or self.best is None

    def step(self, order: EpochOrder) -> float:
        """One batch forward and back; returns its learning rate."""
        number = self.epoch * self.steps_per_epoch + self.position
        lr = self.last_lr = self._learning_rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        pixels, targets = self._batch(order)
        pixels = augment(pixels, self.options.augment, self.generator)
        if self.options.augment.mixup:
            pixels, targets = blend(pixels, targets, self.options.augment.mixup, self.generator)
        with torch.autocast(
            self.device.type,
            dtype=self.precision or torch.bfloat16,
            enabled=self.precision is not None,
        ):
            logits = self.logits(pixels)
            loss = training_loss(
                logits,
                targets,
                self.network.spec.task,
                self.answer_weights,
                self.options.focal,
                self.options.trim if self._share_used(number) >= TRIM_FROM else 0.0,
            )
        self._look_at(loss.detach(), number, lr)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        return lr

    def _order(self) -> EpochOrder:
        """In which order this epoch visits the train images, the same for all processes."""
        images = self.dataset.train.images
        sizes = sizes_of(math.prod(images.shape[1:]))
        return EpochOrder(len(images), self.seed, self.epoch, *sizes)

    def _batch(self, order: EpochOrder) -> tuple[Tensor, Tensor]:
        """This process's share of a batch: pixels [N, H, W, C], and what the network should make
        of them, [N, labels]."""
        start, spec = self.position * self.batch, self.network.spec
        chosen = self.world.share(order.part(start, start + self.batch))
        pixels, labels = batch_of(self.dataset.train, chosen, self.device)
        smoothing = self.options.label_smoothing
        targets = targets_of(labels, spec.task, len(spec.labels), smoothing)
        if self.teacher is not None:
            targets = self.teacher.blended(targets, chosen, spec.task)
        return pixels, targets

    def _learning_rate(self, number: float) -> float:
        """Of step ``number``; a time limit makes the steps to come seem fewer, so that the rate
        has come down when it is over."""
        by_time = self.time_used * (self.steps - 1)
        return learning_rate(max(number, min(by_time, self.steps - 1)), self.steps, self.options)

    def _share_used(self, number: int) -> float:
        """Of all steps, or of the time limit."""
        return max(number / self.steps, self.time_used)

    def _look_at_clock(self, always: bool = False) -> None:
        """See how much of ``max_minutes`` is over, by the first process's clock: the same for all
        processes, which therefore look less often when there are others."""
        limit = self.options.max_minutes
        if limit is None or not (always or self._may_agree()):
            return
        self.time_used = self.world.agree_number(self.wall_seconds / (60 * limit))

    def _look_at(self, loss: Tensor, number: int, lr: float) -> None:
        """Add up the loss; stop as soon as it is seen to be no number."""
        self.loss_sum += loss
        last_of_epoch = self.position == self.steps_per_epoch - 1
        if self.device.type == "cuda" and number % STEPS_PER_LOOK and not last_of_epoch:
            return
        self.last_loss = float(loss)
        if not math.isfinite(float(self.loss_sum)):
            raise TrainError(
                f"the loss is {self.last_loss} at step {number + 1} of {self.steps} (epoch "
                f"{self.epoch + 1}, learning rate {lr:.3g}). Lower train.lr, at present "
                f"{self.options.lr:g}, or lengthen train.warmup, then start again."
            )

    def finish_epoch(self, rate: float) -> None:
        """Look at the validation split, remember the best weights, write the metrics."""
        network = self._judged()
        self.world.average(self._networks())
        part = self.world.part(self.dataset.val)
        loss, accuracy = judge(network, part, str(self.device), self.world.total)
        train_loss = self.world.total(float(self.loss_sum)) / self.world.size
        line = EpochMetrics(
            epoch=self.epoch + 1,
            lr=self.last_lr,
            train_loss=train_loss / self.position,
            val_loss=loss,
            val_accuracy_percent=accuracy,
            cpu_seconds=round(self._cpu_seconds(), 3),
            seconds=round(self.wall_seconds, 3),
            images_per_second=round(rate, 1),
        )
        self.metrics.append(line)
        if self.best is None or _rank(line) >= _rank(self.best):
            self.best, self.best_weights = line, _copied(network)
        self.steps_done += self.position
        self.epoch, self.position = self.epoch + 1, 0
        self.loss_sum.zero_()
        self._write_metrics()

    def finish(self) -> TrainResult:
        """Write the best weights, and a last ``resume.pt``: whatever goes wrong with what the
        caller does next, the training is not lost."""
        self.save()
        best = self.best
        assert best is not None  # epochs >= 1
        if self.steps_done < self.steps:
            self.notes.append(
                f"INCOMPLETE: train.max_minutes = {self.options.max_minutes:g} left time for "
                f"{self.steps_done / self.steps_per_epoch:.1f} of {self.options.epochs} epochs"
            )
        cpu_seconds = self._cpu_seconds()
        self.network.load_state_dict(self.best_weights)
        network = self.network.cpu().deployed
        if self.world.first:
            checkpoint.save_checkpoint(self.folder / checkpoint.CHECKPOINT_NAME, network)
            self._write_metrics()
        return TrainResult(
            epochs=self.epoch,
            best_epoch=best.epoch,
            val_accuracy_percent=best.val_accuracy_percent,
            parameters=network.parameter_count,
            cpu_seconds=cpu_seconds,
            wall_seconds=self.wall_seconds,
            device=self.device.type,
            threads=self.threads,
            resumed=self.resumed,
            processes=self.world.size,
            precision=str(self.precision or torch.float32).removeprefix("torch."),
            complete=self.steps_done == self.steps,
            notes=tuple(self.notes),
        )

    # --- saving and resuming

    def save(self) -> None:
        """Write ``resume.pt`` as things stand between two steps."""
        state = self._state()
        if self.world.first:
            checkpoint.save_resume(self.folder, self.identity, state)
        self.saved_at = time.perf_counter()

    def _save_is_due(self) -> bool:
        """Whether to write a checkpoint now, the same for all processes."""
        if self.options.checkpoint_seconds == 0:
            return True
        if not self._may_agree():
            return False
        due = time.perf_counter() - self.saved_at >= self.options.checkpoint_seconds
        return bool(self.world.agree_number(due))

    def _may_agree(self) -> bool:
        """Whether it is time for an exchange that is not needed at every step."""
        return self.world.size == 1 or self._done() % STEPS_PER_AGREEMENT == 0

    def resume(self) -> None:
        """Take over what an earlier process left, if it left anything that fits."""
        left: tuple[dict[str, Any] | None, str] = (None, "")
        if self.world.first:
            left = checkpoint.load_resume(self.folder, self.identity)
        state, remark = self.world.agree(left)
        if remark:
            self.notes.append(remark)
        if state is not None:
            self._take_over(state)
            self.resumed = True
            self._write_metrics()

    def _own_state(self) -> dict[str, Any]:
        """What is not the same in all processes."""
        on_gpu = self.device.type == "cuda"
        return {
            "loss_sum": self.loss_sum.cpu(),
            "random": torch.get_rng_state(),  # of dropout
            "random_cuda": torch.cuda.get_rng_state() if on_gpu else None,
            "generator": self.generator.get_state(),
            "statistics": [tensor.cpu() for tensor in statistics_of(self._networks())],
        }

    def _take_over_own(self, states: list[dict[str, Any]]) -> None:
        if len(states) != self.world.size:  # a note says so; random states stay as seeded
            self.loss_sum.fill_(sum(float(own["loss_sum"]) for own in states) / len(states))
            return
        own = states[self.world.place.rank]
        self.loss_sum = own["loss_sum"].to(self.device)
        torch.set_rng_state(own["random"])
        if self.device.type == "cuda" and own["random_cuda"] is not None:
            torch.cuda.set_rng_state(own["random_cuda"])
        self.generator.set_state(own["generator"])
        pairs = zip(statistics_of(self._networks()), own["statistics"], strict=True)
        for tensor, saved in pairs:
            tensor.copy_(saved)

    def _networks(self) -> list[nn.Module]:
        return [self.network, *([] if self.averaged is None else [self.averaged.module])]

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "position": self.position,
            "steps_done": self.steps_done,
            "lr": self.last_lr,
            "processes": self.world.gather(self._own_state()),
            "metrics": [asdict(line) for line in self.metrics],
            "best": None if self.best is None else asdict(self.best),
            "best_weights": self.best_weights,
            "cpu_seconds": self._cpu_seconds(),
            "wall_seconds": self.wall_seconds,
            "where": self._where(),
            "notes": list(self.notes),
        }

    def _take_over(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.options.precision == "auto" and state["where"]["device"] == self.device.type:
            self._go_on_in(state["where"]["precision"])
        if state["scaler"]:  # empty: the first part needed none
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.position = state["epoch"], state["position"]
        self.steps_done, self.last_lr = state["steps_done"], state["lr"]
        self._take_over_own(state["processes"])
        self.metrics = [EpochMetrics(**line) for line in state["metrics"]]
        self.best = None if state["best"] is None else EpochMetrics(**state["best"])
        self.best_weights = state["best_weights"]
        self.cpu_before, self.wall_before = state["cpu_seconds"], state["wall_seconds"]
        self.notes += state["notes"]
        for what, now in self._where().items():
            if (then := state["where"][what]) != now:
                self.notes.append(
                    f"resumed at step {self._done()} with {what} {now} after {then}: the result "
                    "is as good, but not bit-equal to an unbroken run"
                )

    def _go_on_in(self, precision: str) -> None:
        """In that of the first part, whatever a measurement says this time, so that the bits are
        the same; unless this device has no instructions for it."""
        if precision != "bfloat16" or self.device.type == "cuda" or bfloat16_instructions():
            self._compute_in(None if precision == "float32" else getattr(torch, precision))

    def _where(self) -> dict[str, str]:
        """What a resumed run must share with the first part to end with the same bits."""
        return {
            "processes": str(self.world.size),
            "threads": str(self.threads),
            "device": self.device.type,
            "torch": str(torch.__version__),
            "precision": str(self.precision or torch.float32).removeprefix("torch."),
        }

    # --- figures

    def _cpu_seconds(self) -> float:
        """CPU time of all threads of all processes, summed over resumes; an exchange."""
        return self.cpu_before + self.world.total(time.process_time() - self.cpu_start)

    @property
    def wall_seconds(self) -> float:
        """Time on the clock, summed over resumes."""
        return self.wall_before + time.perf_counter() - self.wall_start

    def _judged(self) -> PixelNetwork:
        """The network whose accuracy counts: the averaged one, if weights are averaged."""
        if self.averaged is None:
            return self.network
        return cast("PixelNetwork", self.averaged.module)

    def _done(self) -> int:
        return self.epoch * self.steps_per_epoch + self.position

    def _rate(self, first: int, since: float) -> float:
        seconds = max(time.perf_counter() - since, 1e-9)
        return (self.position - first) * self.batch / seconds

    def _progress(self, lr: float, rate: float) -> StepProgress:
        last = self.metrics[-1].val_accuracy_percent if self.metrics else None
        return StepProgress(
            epoch=self.epoch + 1,
            epochs=self.options.epochs,
            step=self._done(),
            steps=self.steps,
            loss=self.last_loss,
            lr=lr,
            images_per_second=rate,
            val_accuracy_percent=last,
        )

    def _write_metrics(self) -> None:
        if self.world.first:
            checkpoint.write_metrics(self.folder, [asdict(line) for line in self.metrics])


def _answer_weights(
    dataset: Dataset, spec: ModelSpec, rare: float, device: torch.device
) -> Tensor | None:
    if not rare:
        return None
    labels = torch.from_numpy(np.array(dataset.train.labels))  # a copy: they are mapped read-only
    weights = answer_weights(labels, spec.task, len(spec.labels), rare)
    return None if weights is None else weights.to(device)


def _rank(line: EpochMetrics) -> tuple[float, float]:
    """Accuracy first; of equally accurate epochs the surer one, and then the later one."""
    return line.val_accuracy_percent, -line.val_loss


def _copied(network: PixelNetwork) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
