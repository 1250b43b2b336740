"""What training came to, as values. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochMetrics:
    """One line of ``metrics.jsonl``."""

    epoch: int
    lr: float  # of the last step
    train_loss: float  # mean over the steps, with augmentation and label smoothing
    val_loss: float  # without either
    val_accuracy_percent: float  # of the averaged weights; of attributes the mean over labels
    cpu_seconds: float  # of all processes, since training began
    wall_seconds: float
    images_per_second: float


@dataclass(frozen=True)
class TrainResult:
    """What training came to. Times add up over resumes, less what a kill threw away."""

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
    complete: bool = True  # False: train.max_minutes were over before all epochs were done
    notes: tuple[str, ...] = ()  # what a reader must know, such as a changed thread count
