"""A network of the user's, or of torchvision, tried before it is trained: all that would otherwise
come to light after hours. It answers batches of several sizes, learns for one step, is saved and
loaded, and is exported. Networks put together from a recipe's layers need none of this.

Costs one export and a few small batches, on fresh weights; changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from exporters.errors import ExportError
from exporters.export.export_guards import guard_export
from exporters.export.onnx_from_torch import onnx_from_torch
from exporters.export.proof import plain_reason, proof_images
from exporters.options import ExportOptions
from pipeline import user_code
from pipeline.errors import PipelineError, RecipeError
from pipeline.learning.networks.build import build_network
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training.checkpoint import packed_network, unpacked_network
from pipeline.learning.training.device import mixed_precision, resolve_device
from pipeline.learning.training.optimize import averaged_copy, build_optimizer, training_loss
from pipeline.recipe import NetworkOptions, TrainOptions
from runtime.spec import ModelSpec

_IMAGES = 4  # a black one, a white one and noise of two strengths
_TRAINED_ON = 2  # the least that a process ever trains on at a time
_BATCHES = (1, 2, 3)  # of the trial export: the recipe's own follow after training
_SAME = 1e-4  # of the largest logit: float32 sums in another order
_SQUEEZE = "squeeze() takes away a batch of 1 as well, flatten(1) does not"
_NAMED = 3  # parameters in a message


def check_network(options: NetworkOptions, spec: ModelSpec, train: TrainOptions) -> tuple[str, ...]:
    """Try a network as training, validation and export will use it; returns what a reader should
    know. Raises RecipeError with the user's line where one of them would fail."""
    if options.callable is None and options.torchvision is None:
        return ()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(options, spec).eval()
        trial = _Trial(network)
        trial.check_parameters()
        notes = trial.check_answers()
        notes += trial.check_training(train)
        trial.check_reloading()
        trial.check_export()
    return tuple(f"{_name(options)}: {note}" for note in notes)


def _name(options: NetworkOptions) -> str:
    if options.callable is not None:
        return f"network.callable = {options.callable!r}"
    return f"network.torchvision = {options.torchvision!r}"


class _Trial:
    """One network on trial."""

    def __init__(self, network: PixelNetwork) -> None:
        self.network, self.spec = network, network.spec
        self.images = torch.from_numpy(proof_images(_IMAGES, network.spec))
        self.trained = network  # a copy after one step of training

    def refuse(self, what: str, advice: str, cause: BaseException | None = None) -> RecipeError:
        """The error to raise."""
        forward = type(self.network.body).forward
        line = user_code.line_of_function(forward) if cause is None else user_code.line_of(cause)
        at = "" if line is None else f" (at {line})"
        return RecipeError(f"{_name(self.network.options)}: {what}{at}. {advice}")

    @contextmanager
    def trying(self, what: str, advice: str) -> Iterator[None]:
        """Whatever the user's code raises in this block is a refusal."""
        try:
            yield
        except PipelineError:
            raise
        except Exception as exc:
            raise self.refuse(f"{what}: {plain_reason(exc)}", advice, exc) from exc

    # --- what it consists of

    def check_parameters(self) -> None:
        """All of them registered, and something to train."""
        body = self.network.body
        if lost := _unregistered(body):
            raise self.refuse(
                f"{_some(lost)} neither trained nor saved",
                "Keep modules in nn.ModuleList or nn.ModuleDict, tensors in nn.Parameter or "
                "register_buffer.",
            )
        if not any(p.requires_grad for p in body.parameters()):
            raise self.refuse("no parameter of it can be trained", "Give it layers with weights.")

    # --- what it answers

    def check_answers(self) -> list[str]:
        """Logits [N, labels] that do not depend on the other images of the batch, nor on chance."""
        together = self._logits(self.network, self.images)
        again = self._logits(self.network, self.images)
        if _differs(together, again):
            raise self.refuse(
                "in evaluation mode it answers the same images differently each time",
                "Draw random numbers only while self.training is true: F.dropout takes "
                "training=self.training.",
            )
        for start, stop in ((0, 1), (2, 3), (1, 3)):
            part = self._logits(self.network, self.images[start:stop])
            if _differs(part, together[start:stop]):
                self.check_export()  # a branch on values is a cause that it names by its line
                raise self.refuse(
                    f"in evaluation mode an image answers differently alone or with others (batch "
                    f"of {stop - start} against {_IMAGES})",
                    "Compute nothing over the batch: batch norm with track_running_stats, and no "
                    "mean, max or softmax over dimension 0.",
                )
        rows = together.sum(1)
        if self.spec.task == "multi-class" and bool(
            (together >= 0).all() and ((rows - 1).abs() < 1e-4).all()
        ):
            return [
                "its answers look like probabilities; expected logits, since softmax follows. "
                "Take softmax out of the network"
            ]
        return []

    def _logits(self, network: PixelNetwork, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self._checked(network, images, "in evaluation mode")

    def _checked(self, network: PixelNetwork, images: Tensor, mode: str) -> Tensor:
        count, labels = len(images), len(self.spec.labels)
        where = f"{mode} at a batch of {count}"
        with self.trying(
            f"it fails {where}",
            f"Expected a network from float32 [N, {self.spec.channels}, {self.spec.height}, "
            f"{self.spec.width}] to logits [N, {labels}] for any N; {_SQUEEZE}.",
        ):
            scores: Any = network.logits(images)
        if not isinstance(scores, Tensor):
            size = f" of {len(scores)}" if isinstance(scores, tuple | list | dict) else ""
            raise self.refuse(
                f"{where} it returns a {type(scores).__name__}{size}",
                f"Expected one tensor of logits [N, {labels}], in training mode as well: take out "
                "auxiliary heads.",
            )
        if tuple(scores.shape) != (count, labels):
            raise self.refuse(
                f"{where} it returns the shape {tuple(scores.shape)}",
                f"Expected logits of shape {(count, labels)}, [N, labels]; {_SQUEEZE}.",
            )
        if network.training:
            return scores
        if scores.dtype != torch.float32:
            kind = str(scores.dtype).removeprefix("torch.")
            raise self.refuse(f"{where} it returns {kind}", "Expected float32 logits.")
        if not bool(scores.isfinite().all()):
            raise self.refuse(
                f"{where} it returns numbers that are not finite",
                "Divisions by a spread or a norm need a small constant: a black image has neither.",
            )
        return scores

    # --- what it learns

    def check_training(self, train: TrainOptions) -> list[str]:
        """One step of training, with the recipe's optimizer, precision and averaging."""
        with self.trying(
            "it cannot be copied",
            "Averaging and export work on copies: copy.deepcopy(network) has to work.",
        ):
            trained = copy.deepcopy(self.network)
        device = resolve_device(train.device)
        trained.to(device).to(memory_format=torch.channels_last).train()
        precision = mixed_precision(device, train.precision)
        targets = torch.full((_TRAINED_ON, len(self.spec.labels)), 1 / len(self.spec.labels))
        advice = "Every operation needs a gradient, and none may change its inputs in place."
        with self.trying("a step of training fails", advice):
            averaged = averaged_copy(trained, train.ema) if train.ema else None
            optimizer = build_optimizer(trained, train)
            with torch.autocast(
                device.type, dtype=precision or torch.bfloat16, enabled=precision is not None
            ):
                images = self.images[-_TRAINED_ON:].to(device)
                logits = self._checked(trained, images, "in training mode")
                loss = training_loss(logits, targets.to(device), self.spec.task, None, train.focal)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            learning = [(n, p) for n, p in trained.body.named_parameters() if p.requires_grad]
            idle = [name for name, parameter in learning if parameter.grad is None]
            if len(idle) == len(learning):
                raise self.refuse(
                    "no parameter gets a gradient",
                    "Remove detach() and torch.no_grad() from forward().",
                )
            optimizer.step()
            if averaged is not None:
                averaged.update_parameters(trained)
        self.trained = trained.cpu().eval()
        return [f"{_some(idle)} never used in training mode, so not trained"] if idle else []

    # --- what it becomes

    def check_reloading(self) -> None:
        """A checkpoint holds the whole network: built again and loaded, it answers alike."""
        with self.trying(
            "its checkpoint cannot be saved and loaded",
            "Its state_dict() has to hold tensors alone, under the same names each time.",
        ):
            torch.manual_seed(1)
            again = unpacked_network(packed_network(self.trained))
        if again.body is self.network.body:
            raise self.refuse(
                "it returns the same network at each call",
                "Make a new one each time: two checkpoints would share their weights.",
            )
        expected = self._logits(self.trained, self.images)
        if _differs(self._logits(again, self.images), expected):
            raise self.refuse(
                "built again and loaded from its checkpoint it answers otherwise",
                "What it draws at random belongs into nn.Parameter or register_buffer.",
            )

    def check_export(self) -> None:
        """ONNX holds the same network, at any batch size."""
        network, spec = self.network.deployed, self.spec
        try:
            model = onnx_from_torch(network, spec, ExportOptions(batch_sizes=_BATCHES))
            guard_export(model, network, spec, _BATCHES)
        except ExportError as exc:
            advice = "Nothing was trained yet."
            raise self.refuse(str(exc).rstrip("."), advice, exc) from exc


def _differs(a: Tensor, b: Tensor) -> bool:
    limit = _SAME * max(1.0, float(b.abs().max()))
    return not float((a - b).abs().max()) <= limit


def _some(names: list[str]) -> str:
    """The first names, and how many more there are, with the verb."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} {'is' if len(names) == 1 else 'are'}"


def _unregistered(body: nn.Module) -> list[str]:
    """Modules and tensors with gradients that forward() may use but torch does not know of."""
    known = {id(part) for part in (*body.modules(), *body.parameters(), *body.buffers())}
    found = []
    for name, module in body.named_modules():
        for key, value in vars(module).items():
            if key.startswith("_") and key in nn.Module().__dict__:
                continue  # torch's own tables
            if any(id(part) not in known for part in _parts(value)):
                found.append(f"{name}.{key}".lstrip("."))
    return found


def _parts(value: Any) -> Iterable[nn.Module | Tensor]:
    if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.requires_grad):
        return [value]
    if isinstance(value, list | tuple | set):
        return [part for inner in value for part in _parts(inner)]
    if isinstance(value, dict):
        return [part for inner in value.values() for part in _parts(inner)]
    return []
