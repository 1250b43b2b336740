"""What one of several processes does in the tests of parallel training: torchrun starts this file.

torchrun ... two_processes.py FOLDER
"""

# ruff: noqa: E402  # the paths come first
from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import torch
import torch.nn.functional as F  # noqa: N812
from bars import BARS, TRAIN, dataset

from pipeline.learning.distributed import parallel
from pipeline.learning.distributed.parallel import World, joined
from pipeline.learning.networks.networks import build_network
from pipeline.learning.training.batches import batch_of
from pipeline.learning.training.fit import fit
from pipeline.learning.training.order import EpochOrder
from pipeline.processes import launched_place
from pipeline.recipe import NetworkOptions

PLAIN = NetworkOptions.model_validate(
    {
        "layers": [
            {"op": "conv", "out": 8, "stride": 2},
            {"op": "conv", "out": 8},
            {"op": "pool", "kind": "max", "size": "global"},
            {"op": "linear"},
        ]
    }
)


def gradients(world: World) -> dict[str, torch.Tensor]:
    """Of the loss of the first batch of 64."""
    torch.manual_seed(0)
    network = build_network(PLAIN, BARS).train()
    logits = world.logits_of(network)
    order = EpochOrder(200, seed=0, epoch=0, window=1000, chunk=1)
    chosen = world.share(order.part(0, 64))
    pixels, labels = batch_of(dataset().train, chosen, torch.device("cpu"))
    F.cross_entropy(logits(pixels), labels).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def main(folder: Path) -> None:
    """Each process leaves gradients, and whatever training writes, in a folder of its own."""
    with joined(launched_place()) as world:
        one_way(folder / "memory" / str(launched_place().rank), world)
        parallel.can_share = lambda place, device: False
        one_way(folder / "sockets" / str(launched_place().rank), world)  # as on several machines


def one_way(mine: Path, world: World) -> None:
    """All that is exchanged in one way."""
    found = gradients(world)
    options = TRAIN.model_copy(update={"checkpoint_seconds": 1e9, "epochs": 1})
    fit(dataset(), BARS, PLAIN, options, 0, mine / "fit", world=world)
    mine.mkdir(exist_ok=True)
    torch.save(found, mine / "gradients.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # All that is looked at is on the disk. An interpreter that takes down gloo's threads at its end
    # aborts now and then (torch 2.14); what training does about that is tested elsewhere.
    os._exit(0)
