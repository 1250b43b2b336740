"""The effect of 16-bit sums on a file in figures, measured by ``saturation.py``. Standard library
only."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.options import Strict


@dataclass(frozen=True)
class LayerSaturation(Strict):
    """The effect of 16-bit sums on one operator, simulated."""

    node: str
    saturated: float  # share of the sampled outputs with at least one saturated sum
    worst_steps: float  # largest error of an output, in steps of its quantized tensor


@dataclass(frozen=True)
class Confirmation(Strict):
    """The same images through three kinds of kernels on this CPU; differences of probabilities."""

    target: str  # runtime.cpu.cpu_target()
    visible: bool  # False: this CPU sums exactly and shows nothing
    exact_difference: float  # default kernels against session.x64quantprecision=1
    unfused_difference: float  # default kernels against no graph optimization
