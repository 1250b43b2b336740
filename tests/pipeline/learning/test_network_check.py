"""Networks of users, each wrong in one way: refused before training, by the line that is wrong."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from new_process import forget_session, restored

from pipeline.errors import RecipeError, TrainError
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.network_check import check_network
from pipeline.learning.training.checkpoint import load_checkpoint, save_checkpoint
from pipeline.recipe import NetworkOptions, TrainOptions
from runtime.spec import ModelSpec

SPEC = ModelSpec("own", "multi-class", 12, 12, 3, ("a", "b"))
TRAIN = TrainOptions(epochs=1, lr=0.1, ema=0.9, device="cpu", precision="float32")
MODULE = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)
        {init}

    def forward(self, x):
        x = self.stem(x)
        {forward}
        x = F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1)
        {last}

{more}
def make(classes, channels):
    {make}
"""


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    with restored("net"):
        yield


def options(folder: Path, **parts: str) -> NetworkOptions:
    """A module with a correct network, of which ``parts`` change something."""
    lines = {
        "init": "pass",
        "forward": "x = self.norm(x)",
        "last": "return self.fc(x)",
        "more": "",
        "make": "return Net(channels, classes)",
        **parts,
    }
    indented = {
        name: textwrap.indent(text, " " * (4 if name == "make" else 8 * (name != "more"))).lstrip()
        for name, text in lines.items()
    }
    (folder / "net.py").write_text(MODULE.format(**indented))
    return NetworkOptions(callable="net:make").with_folder(folder)


def test_an_unusual_network_passes(tmp_path: Path) -> None:
    """A pre-activation block, whose norm cannot be folded; a lazy layer; a second name of a layer;
    dropout in training mode only."""
    made = options(
        tmp_path,
        init="self.fc = nn.LazyLinear(classes)\nself.again = [self.stem, self.fc]",
        forward="x = x + F.dropout(self.norm(x), 0.1, self.training)",
    )
    state = torch.get_rng_state()
    assert check_network(made, SPEC, TRAIN) == ()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"forward": "x = self.norm(x) if x.mean() > 0 else self.norm(-x)"},
            r"branch .* values of a tensor.* torch\.where.*net\.py:\d+: x = self\.norm",
        ),
        (
            {"last": "return self.fc(x)[:, None].squeeze().log_softmax(1)"},
            r"batch of 1: IndexError.*net\.py:\d+: return self\.fc",
        ),
        (
            {"last": "return self.fc(x).squeeze(0)"},
            r"batch of 1.* \(2,\) \(at .*net\.py:\d+: def forward.*flatten\(1\)",
        ),
        (
            {"last": "return (self.fc(x), x) if self.training else self.fc(x)"},
            r"training mode .*batch of 2 .*tuple of 2.* auxiliary heads",
        ),
        ({"last": "return {'out': self.fc(x)}"}, "dict"),
        ({"make": "return Net(channels, classes).double()"}, r"stem\.weight .* is float64"),
        (
            {"init": "self.fc = self.fc.double()", "last": "return self.fc(x.double())"},
            r"fc\.weight .* is float64",
        ),
        ({"last": "return self.fc(x).double()"}, "float64"),
        ({"forward": "x = F.dropout(self.norm(x))"}, r"self\.training"),
        (
            {"init": "self.norm = nn.BatchNorm2d(4, track_running_stats=False)"},
            "batch of 1 against 4",
        ),
        ({"last": "x = self.fc(x)\nreturn x - x.mean(0)"}, "batch of 1 against 4"),
        ({"last": "x = self.fc(x)\nreturn x / x.std(0)"}, "batch of 1 .*finite"),
        (
            {"init": "self.more = [nn.Conv2d(4, 4, 1)]", "forward": "x = self.more[0](x)"},
            r"more .*ModuleList",
        ),
        (
            {
                "init": "self.gain = torch.ones(1, requires_grad=True)",
                "forward": "x = x * self.gain",
            },
            r"gain .*nn\.Parameter",
        ),
        ({"init": "for p in self.parameters(): p.requires_grad = False"}, "no parameter"),
        ({"last": "return self.fc(x).detach()"}, r"gradient"),
        ({"forward": "x = self.norm(x)\nx = torch.sigmoid(x)\nx.mul_(x)"}, r"step of training"),
        (
            {"init": "self.mix = torch.randn(4, 4)", "last": "return self.fc(x @ self.mix)"},
            "checkpoint.*register_buffer",
        ),
        (
            {"more": "ONE = Net(3, 2)\n", "make": "return ONE"},
            "same network",
        ),
        (
            {"init": "self.lock = __import__('threading').Lock()"},
            r"pickle .*deepcopy",
        ),
        ({"forward": "x = self.norm(y)"}, r"12x12x3.*'y'.*net\.py:\d+: x = self\.norm"),
        ({"make": "return Net(classes)"}, r"missing 1 required.*net\.py:\d+: return Net"),
        ({"make": "return Net"}, r"the class Net.*torch\.nn\.Module"),
        ({"make": "raise SystemExit('usage')"}, r"SystemExit: usage.*net\.py"),
        ({"more": "raise OSError('no weights')\n"}, r"OSError: no weights.*net\.py"),
    ],
)
def test_faults_are_found_before_training(
    tmp_path: Path, parts: dict[str, str], message: str
) -> None:
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        check_network(options(tmp_path, **parts), SPEC, TRAIN)


@pytest.mark.parametrize(
    ("parts", "note"),
    [
        ({"init": "self.idle = nn.Linear(3, 3)"}, r"idle\.weight, idle\.bias"),
        ({"last": "return F.softmax(self.fc(x), 1)"}, "probabilities"),
    ],
)
def test_doubts_are_noted(tmp_path: Path, parts: dict[str, str], note: str) -> None:
    (message,) = check_network(options(tmp_path, **parts), SPEC, TRAIN)
    assert "network.callable = 'net:make'" in message
    assert re.search(note, message)


def test_networks_of_layers_are_not_tried() -> None:
    made = NetworkOptions.model_validate({"layers": [{"op": "linear"}]})
    assert check_network(made, SPEC, TRAIN) == ()


def test_a_checkpoint_is_opened_with_the_code_that_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = options(tmp_path)
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, build_network(made, SPEC))
    monkeypatch.chdir(tmp_path.parent)
    del sys.modules["net"]
    forget_session()
    assert load_checkpoint(file).options.folder == tmp_path  # the checkpoint names it
    options(tmp_path, forward="x = torch.tanh(self.norm(x))")
    with pytest.raises(TrainError, match=r"net\.py .*network\.callable = 'net:make'"):
        load_checkpoint(file)
    (tmp_path / "net.py").unlink()
    with pytest.raises(RecipeError, match=r"checkpoint .*ModuleNotFoundError"):
        load_checkpoint(file)
