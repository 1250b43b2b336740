"""The progress and the results of a training, as values. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepProgress:
    """The state of a training after one step."""

    epoch: int  # from 1
    epochs: int
    step: int  # finished ones, over all epochs
    steps: int
    loss: float  # of the last step that was checked
    lr: float
    images_per_second: float  # of all processes, in this epoch
    val_accuracy_percent: float | None  # of the last finished epoch


@dataclass(frozen=True)
class EpochMetrics:
    """One line of ``metrics.jsonl``."""

    epoch: int
    lr: float  # of the last step
    train_loss: float  # mean over the steps, with augmentation and label smoothing
    val_loss: float  # without either
    val_accuracy_percent: float  # of the averaged weights; mean over labels for multi-label
    cpu_seconds: float  # of all processes, since training began
    wall_seconds: float
    images_per_second: float


@dataclass(frozen=True)
class TrainResult:
    """The result of a training. Times add up over resumes, less the steps that a kill lost."""

    epochs: int
    best_epoch: int
    val_accuracy_percent: float  # of the best epoch
    parameters: int
    cpu_seconds: float
    wall_seconds: float
    device: str  # "cpu" or "cuda"
    threads: int  # of each process
    resumed: bool
    processes: int = 1
    precision: str = "float32"  # of convolutions and products
    complete: bool = True  # False: train.max_minutes ended before all epochs were done
    notes: tuple[str, ...] = ()  # what a reader must know, such as a changed thread count
