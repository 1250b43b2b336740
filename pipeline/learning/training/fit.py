"""Training, from decoded images to ``checkpoint.pt``. A run that was killed continues from its last
checkpoint and ends with the same bits, as long as the numbers of processes and of threads are the
same. Several processes run this side by side; the first of them writes. Independent of stages and
of the terminal.

One epoch is one pass through a random order of the train split, followed by a validation of the
averaged weights; the weights that validate best are saved in the end. The test split is never read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.datasets.arrays import Dataset
from pipeline.errors import TrainError
from pipeline.learning.distributed.world import ALONE, World, statistics_of
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training import checkpoint
from pipeline.learning.training.augment import augment, blend
from pipeline.learning.training.batches import batch_of
from pipeline.learning.training.clock import Clock
from pipeline.learning.training.data_check import check_data, check_shares
from pipeline.learning.training.device import (
    bfloat16_instructions,
    mixed_precision,
    resolve_device,
    torch_settings,
)
from pipeline.learning.training.distillation import TeacherScores
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
from pipeline.learning.training.results import EpochMetrics, StepProgress, TrainResult
from pipeline.recipe import NetworkOptions, TrainOptions
from runtime.cpu import usable_threads
from runtime.spec import ModelSpec

# Steps between two checks of the loss on a GPU, each of which waits for the GPU to finish.
STEPS_PER_LOSS_CHECK = 20
SEED_STEP = 1_000_003  # between the seeds of two processes: no seed that people choose
# Steps between two times that several processes agree on the time; an epoch may have fewer.
STEPS_PER_AGREEMENT = 16
TRIM_FROM = 0.2  # of all steps: mislabeled images stand out once the rest is learned


def fit(
    dataset: Dataset,
    spec: ModelSpec,
    network: NetworkOptions,
    train: TrainOptions,
    seed: int,
    folder: Path,
    on_step: Callable[[StepProgress], None] | None = None,
    teacher: TeacherScores | None = None,
    world: World = ALONE,
) -> TrainResult:
    """Train a network, leave ``checkpoint.pt`` and ``metrics.jsonl`` in ``folder``.

    Continues from a ``resume.pt`` of the same run, and leaves one: called again it has nothing to
    do. All processes of a ``world`` call this with the same arguments; the first one reads and
    writes ``folder``. Torch's thread count, random state and cuDNN settings are restored
    afterwards. Raises TrainError when data and spec contradict each other, the device does not
    exist, the loss is not finite, or nothing can be written; RecipeError when the network's layers
    do not fit together or a batch cannot be divided among the processes.
    """
    check_data(dataset, spec)
    check_shares(len(dataset.train), train.batch_size, world.size)
    device = resolve_device(train.device)
    threads = train.threads or max(1, usable_threads() // world.process.local_size)
    if world.first:
        folder.mkdir(parents=True, exist_ok=True)
    with freed_memory_is_kept(), torch_settings(device, threads):
        torch.manual_seed(seed)
        built = build_network(network, spec)
        run = _Run(dataset, built, train, seed, folder, device, threads, teacher, world)
        run.resume()
        run.run(on_step)
        return run.finish()


class _Run:
    """One training run: its state, and the step that changes it."""

    def __init__(
        self,
        dataset: Dataset,
        network: PixelNetwork,
        train: TrainOptions,
        seed: int,
        folder: Path,
        device: torch.device,
        threads: int,
        teacher: TeacherScores | None,
        world: World,
    ) -> None:
        self.dataset, self.options, self.folder = dataset, train, folder
        self.device, self.threads, self.teacher = device, threads, teacher
        self.world, self.seed = world, seed
        self.identity = checkpoint.identity_of(dataset, network, train, seed, teacher)
        # channels_last: the layout of pixels in memory, and 0.6 to 0.8 of the time on a CPU
        self.network: PixelNetwork = world.normalizing_together(network, device).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.logits = world.logits_of(self.network)
        self.averaged = averaged_copy(self.network, train.ema) if train.ema else None
        self.optimizer = build_optimizer(self.network, train)
        self._compute_in(world.agree(mixed_precision(device, train.precision)))
        self.answer_weights = _answer_weights(dataset, network.spec, train.rare, device)
        # Each process draws for its own share: augmentation from this, dropout from torch's own.
        own_seed = seed + SEED_STEP * world.process.rank
        self.generator = torch.Generator().manual_seed(own_seed)
        if not world.first:
            torch.manual_seed(own_seed)
        self.batch = min(train.batch_size, len(dataset.train) // world.size * world.size)
        # The images of an epoch beyond its last whole batch are left out: the order differs in
        # each epoch, and a tiny batch would spoil the statistics of batch norm.
        self.steps_per_epoch = len(dataset.train) // self.batch
        self.steps = self.steps_per_epoch * train.epochs
        self._begin()

    def _begin(self) -> None:
        self.epoch = 0  # finished epochs
        self.position = 0  # finished steps of this epoch
        self.steps_done = 0  # of all finished epochs
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.last_loss = self.last_lr = math.nan
        self.metrics: list[EpochMetrics] = []
        self.best: EpochMetrics | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.resumed = False
        self.notes: list[str] = []
        self.clock = Clock(self.options, self.world)

    def _compute_in(self, precision: torch.dtype | None) -> None:
        self.precision = precision
        # float16 alone needs its gradients scaled; else this passes everything through
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == torch.float16)

    # --- the loop

    def run(self, on_step: Callable[[StepProgress], None] | None) -> None:
        """Train until all epochs are done or the time limit is reached."""
        self.clock.check_limit()
        while self.epoch < self.options.epochs and (self.clock.limit_used < 1 or self._pending()):
            self._run_epoch(on_step)

    def _pending(self) -> bool:
        """Whether the last steps were not validated, or there were none: a run may be resumed
        after its time limit."""
        return self.position > 0 or self.best is None

    def _run_epoch(self, on_step: Callable[[StepProgress], None] | None) -> None:
        order = self._order()
        start, first = time.perf_counter(), self.position
        while self.position < self.steps_per_epoch and (
            self.position == 0 or self.clock.limit_used < 1
        ):
            lr = self.step(order)
            self.position += 1
            if self._may_agree():
                self.clock.check_limit()
            if self._save_is_due():
                self.save()
            if on_step is not None and self.world.first:
                on_step(self._progress(lr, self._rate(first, start)))
        self.finish_epoch(self._rate(first, start))

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
        loss = self._loss(pixels, targets, number)
        self._check_loss(loss.detach(), number, lr)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        return lr

    def _loss(self, pixels: Tensor, targets: Tensor, number: int) -> Tensor:
        share_done = max(number / self.steps, self.clock.limit_used)
        with torch.autocast(
            self.device.type,
            dtype=self.precision or torch.bfloat16,
            enabled=self.precision is not None,
        ):
            return training_loss(
                self.logits(pixels),
                targets,
                self.network.spec.task,
                self.answer_weights,
                self.options.focal,
                self.options.trim if share_done >= TRIM_FROM else 0.0,
            )

    def _order(self) -> EpochOrder:
        """The order of the train images in this epoch, the same for all processes."""
        images = self.dataset.train.images
        sizes = sizes_of(math.prod(images.shape[1:]))
        return EpochOrder(len(images), self.seed, self.epoch, *sizes)

    def _batch(self, order: EpochOrder) -> tuple[Tensor, Tensor]:
        """This process's share of a batch: pixels [N, H, W, C] and targets [N, labels]."""
        start, spec = self.position * self.batch, self.network.spec
        indices = self.world.share(order.part(start, start + self.batch))
        pixels, labels = batch_of(self.dataset.train, indices, self.device)
        smoothing = self.options.label_smoothing
        targets = targets_of(labels, spec.task, len(spec.labels), smoothing)
        if self.teacher is not None:
            targets = self.teacher.blended(targets, indices, spec.task)
        return pixels, targets

    def _learning_rate(self, number: float) -> float:
        """The rate of step ``number``. With a time limit the steps are counted by the time used, so
        that the rate has fallen when the limit is reached."""
        by_time = self.clock.limit_used * (self.steps - 1)
        return learning_rate(max(number, min(by_time, self.steps - 1)), self.steps, self.options)

    def _check_loss(self, loss: Tensor, number: int, lr: float) -> None:
        """Add up the loss; raise TrainError when it is not finite."""
        self.loss_sum += loss
        last_of_epoch = self.position == self.steps_per_epoch - 1
        if self.device.type == "cuda" and number % STEPS_PER_LOSS_CHECK and not last_of_epoch:
            return
        self.last_loss = float(loss)
        if not math.isfinite(float(self.loss_sum)):
            raise TrainError(
                f"the loss is {self.last_loss} at step {number + 1} of {self.steps} (epoch "
                f"{self.epoch + 1}, learning rate {lr:.3g}). Lower train.lr, at present "
                f"{self.options.lr:g}, or lengthen train.warmup, then start again."
            )

    def finish_epoch(self, rate: float) -> None:
        """Validate, keep the best weights, write the metrics."""
        network = self._validated_network()
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
            cpu_seconds=round(self.clock.cpu_seconds(), 3),
            wall_seconds=round(self.clock.wall_seconds, 3),
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
        """Write the best weights, and a last ``resume.pt``: if the caller fails afterwards, the
        training is not lost."""
        self.save()
        best = self.best
        assert best is not None  # epochs >= 1
        if self.steps_done < self.steps:
            self.notes.append(
                f"INCOMPLETE: train.max_minutes = {self.options.max_minutes:g} left time for "
                f"{self.steps_done / self.steps_per_epoch:.1f} of {self.options.epochs} epochs"
            )
        cpu_seconds = self.clock.cpu_seconds()
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
            wall_seconds=self.clock.wall_seconds,
            device=self.device.type,
            threads=self.threads,
            resumed=self.resumed,
            processes=self.world.size,
            precision=self._precision_name,
            complete=self.steps_done == self.steps,
            notes=tuple(self.notes),
        )

    # --- saving and resuming

    def save(self) -> None:
        """Write ``resume.pt`` between two steps."""
        state = self._state()
        if self.world.first:
            checkpoint.save_resume(self.folder, self.identity, state)
        self.clock.saved()

    def _save_is_due(self) -> bool:
        """Whether to write a checkpoint now, the same for all processes."""
        if self.options.checkpoint_seconds == 0:
            return True
        return self._may_agree() and self.clock.save_is_due()

    def _may_agree(self) -> bool:
        """Whether it is time for an exchange that is not needed at every step."""
        return self.world.size == 1 or self._done() % STEPS_PER_AGREEMENT == 0

    def resume(self) -> None:
        """Continue from the ``resume.pt`` of an earlier process, if it is of the same run."""
        loaded: tuple[dict[str, Any] | None, str] = (None, "")
        if self.world.first:
            loaded = checkpoint.load_resume(self.folder, self.identity)
        state, remark = self.world.agree(loaded)
        if remark:
            self.notes.append(remark)
        if state is not None:
            self._restore(state)
            self.resumed = True
            self._write_metrics()

    def _own_state(self) -> dict[str, Any]:
        """The state that differs between processes."""
        on_gpu = self.device.type == "cuda"
        return {
            "loss_sum": self.loss_sum.cpu(),
            "random": torch.get_rng_state(),  # of dropout
            "random_cuda": torch.cuda.get_rng_state() if on_gpu else None,
            "generator": self.generator.get_state(),
            "statistics": [tensor.cpu() for tensor in statistics_of(self._networks())],
        }

    def _restore_own(self, states: list[dict[str, Any]]) -> None:
        if len(states) != self.world.size:  # with a note; random states stay as seeded
            self.loss_sum.fill_(sum(float(own["loss_sum"]) for own in states) / len(states))
            return
        own = states[self.world.process.rank]
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
            "cpu_seconds": self.clock.cpu_seconds(),
            "wall_seconds": self.clock.wall_seconds,
            "where": self._where(),
            "notes": list(self.notes),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.options.precision == "auto" and state["where"]["device"] == self.device.type:
            self._keep_precision(state["where"]["precision"])
        if state["scaler"]:  # empty: the first part needed none
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.position = state["epoch"], state["position"]
        self.steps_done, self.last_lr = state["steps_done"], state["lr"]
        self._restore_own(state["processes"])
        self.metrics = [EpochMetrics(**line) for line in state["metrics"]]
        self.best = None if state["best"] is None else EpochMetrics(**state["best"])
        self.best_weights = state["best_weights"]
        self.clock.resume(state["cpu_seconds"], state["wall_seconds"])
        self.notes += state["notes"]
        for name, now in self._where().items():
            if (before := state["where"][name]) != now:
                self.notes.append(
                    f"resumed at step {self._done()} with {name} {now} after {before}: the result "
                    "is as good, but not bit-equal to an unbroken run"
                )

    def _keep_precision(self, precision: str) -> None:
        """Compute in the precision of the first part, whatever a measurement says this time, so
        that the bits are the same; unless this device has no instructions for it."""
        if precision != "bfloat16" or self.device.type == "cuda" or bfloat16_instructions():
            self._compute_in(None if precision == "float32" else getattr(torch, precision))

    def _where(self) -> dict[str, str]:
        """Conditions under which a resumed run ends with the same bits as an unbroken one."""
        return {
            "processes": str(self.world.size),
            "threads": str(self.threads),
            "device": self.device.type,
            "torch": str(torch.__version__),
            "precision": self._precision_name,
        }

    @property
    def _precision_name(self) -> str:
        return str(self.precision or torch.float32).removeprefix("torch.")

    # --- figures

    def _validated_network(self) -> PixelNetwork:
        """The averaged network, if weights are averaged."""
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
    """A key: accuracy first, then the smaller loss."""
    return line.val_accuracy_percent, -line.val_loss


def _copied(network: PixelNetwork) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
