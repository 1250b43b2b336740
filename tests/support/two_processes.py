"""One of several processes in the tests of parallel training; torchrun starts this file.

torchrun ... two_processes.py FOLDER
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from bars import BARS, dataset, train

from pipeline.learning.distributed.world import World, connected, meet
from pipeline.learning.networks.build import build_network
from pipeline.learning.training.batches import batch_of
from pipeline.learning.training.order import EpochOrder
from pipeline.learning.training.results import StepProgress
from pipeline.processes import launched_process
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
    """The gradients of the first batch of 64."""
    torch.manual_seed(0)
    network = build_network(PLAIN, BARS).train()
    logits = world.logits_of(network)
    order = EpochOrder(200, seed=0, epoch=0, window=1000, chunk=1)
    indices = world.share(order.part(0, 64))
    pixels, labels = batch_of(dataset().train, indices, torch.device("cpu"))
    F.cross_entropy(logits(pixels), labels).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def main(folder: Path) -> None:
    """Each process leaves gradients, and what training writes, in a folder of its own."""
    world = meet(launched_process())
    folder /= str(world.process.rank)
    with connected(world):
        first_gradients = gradients(world)
        train(folder / "unbroken", world=world)
        train(folder / "killed", on_step=killed_once, world=world)
        folder.mkdir(exist_ok=True)
        torch.save(first_gradients, folder / "gradients.pt")


def killed_once(progress: StepProgress) -> None:
    """Kill the first process, unless torchrun has restarted it."""
    if progress.step == 17 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # All that is looked at is on the disk. An interpreter that takes down gloo's threads at its end
    # aborts now and then (torch 2.14); what training does about that is tested elsewhere.
    os._exit(0)
