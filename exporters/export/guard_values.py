"""Differences between an exported file and its network, as values; ``export_guards.py`` measures
them. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportGuard:
    """Largest differences of probabilities at one batch size."""

    batch_size: int
    file_to_eager: float
    file_to_program: float
    program_to_eager: float
