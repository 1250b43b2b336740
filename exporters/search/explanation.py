"""The layers in which an INT8 variant departs from FP32, in figures; measured by
``sensitivity.py``. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.options import Strict


@dataclass(frozen=True)
class LayerNoise(Strict):
    """One operator with weights, in the order of the graph."""

    node: str
    operator: str
    # signal to quantization noise of its output in decibels, everything before it quantized too;
    # the signal is the part that varies over the inputs
    sqnr_db: float
    weight_sqnr_db: float  # of its weights alone; infinite for float weights


@dataclass(frozen=True)
class LayerDamage(Strict):
    """The gain when one layer alone stays float."""

    node: str
    loss_regained: float  # nats of cross entropy; negative: float made it worse by chance
    sqnr_gained_db: float  # of the probabilities


@dataclass(frozen=True)
class Clipping(Strict):
    """The fit of an activation tensor into 8 bits."""

    tensor: str
    low: float  # the range that 8 bits reach
    high: float
    lowest: float  # the values that occurred
    highest: float
    clipped: float  # share of the values outside the range
    used_levels: float  # share of the 255 steps that holds 99.9 % of the values
    counts: tuple[int, ...]  # histogram from lowest to highest, in equal bins


@dataclass(frozen=True)
class Explanation(Strict):
    """The reasons why a variant differs from FP32, as far as its inner tensors show them."""

    variant: str
    noise: tuple[LayerNoise, ...]  # in the order of the graph
    damage: tuple[LayerDamage, ...]  # worst first; only the noisiest layers were tried
    clippings: tuple[Clipping, ...]  # the activation that uses its levels worst first
