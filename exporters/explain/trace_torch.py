"""The layer inputs of a PyTorch network, named after the nodes of its exported program."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import GraphModule, Interpreter, Node

from exporters.errors import GraphError
from exporters.explain.trace import Norm, Parameters, Point, Values
from exporters.graph.silenced import quiet
from runtime.spec import OUTPUT_NAME

_aten = torch.ops.aten
# an exported program's operators with weights, and their names in ONNX
_LAYERS: dict[Any, str] = {
    _aten.conv2d.default: "Conv",
    _aten.conv2d.padding: "Conv",
    _aten.convolution.default: "Conv",
    _aten.conv_transpose2d.input: "ConvTranspose",
    _aten.linear.default: "Gemm",
}


def trace_torch(network: nn.Module, images: NDArray[np.uint8]) -> tuple[Point, ...]:
    """Run ``images`` [n, h, w, c] through the exported program of a network from pixels to
    probabilities; raises GraphError when it cannot be exported."""
    batch = torch.from_numpy(np.array(images))
    network = copy.deepcopy(network).cpu().eval()
    try:
        with quiet(), torch.no_grad():
            module = torch.export.export(network, (batch,)).module()
    except Exception as exc:  # whatever the network's own code raises
        raise GraphError(f"{type(network).__name__} cannot be exported: {exc}") from exc
    assert isinstance(module, GraphModule)
    recorder = _Recorder(module)
    with torch.no_grad():
        recorder.run(batch)
    return tuple(recorder.points)


class _Recorder(Interpreter):
    """An interpreter that keeps the inputs of a program's layers."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.points: list[Point] = []

    def run_node(self, n: Node) -> Any:
        """Run one node; the inputs of a layer and the final output are kept."""
        if n.op == "output":
            (source,) = n.all_input_nodes
            values = self.env[source]
            self.points.append(Point(OUTPUT_NAME, "", _numpy(values), None, _behind(source)))
        elif n.op == "call_function" and n.target in _LAYERS:
            given = n.args[0]
            assert isinstance(given, Node)
            values, parameters = _numpy(self.env[given]), self._parameters(n)
            self.points.append(Point(n.name, _LAYERS[n.target], values, parameters, _behind(given)))
        return super().run_node(n)

    def _parameters(self, layer: Node) -> Parameters | None:
        weight = self._value(layer, 1, "weight")
        if weight is None:
            return None
        if _LAYERS[layer.target] == "ConvTranspose":
            weight = weight.transpose(0, 1)
        bias = self._value(layer, 2, "bias")
        users = list(layer.users)
        if len(users) == 1 and users[0].target is _aten.batch_norm.default:
            return self._folded(weight, bias, users[0])
        return Parameters(_numpy(weight), None if bias is None else _numpy(bias))

    def _folded(self, weight: torch.Tensor, bias: torch.Tensor | None, norm: Node) -> Parameters:
        """Fold the BatchNorm behind a layer into it: y = (Wx + b - mean) * gamma / sqrt(var + eps)
        + beta, Ioffe and Szegedy 2015, with fixed statistics."""
        gamma, beta = self._value(norm, 1, "weight"), self._value(norm, 2, "bias")
        mean, variance = self._value(norm, 3, "mean"), self._value(norm, 4, "var")
        assert mean is not None and variance is not None
        epsilon = float(norm.args[7])  # type: ignore[arg-type]  # a constant of the graph
        factor = torch.rsqrt(variance + epsilon)
        factor = factor if gamma is None else factor * gamma
        shift = ((0 if bias is None else bias) - mean) * factor
        shift = shift if beta is None else shift + beta
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        folded = Norm(_numpy(factor), _numpy(variance), epsilon)
        return Parameters(_numpy(scaled), _numpy(shift), norm=folded)

    def _value(self, node: Node, position: int, name: str) -> torch.Tensor | None:
        """Return an argument that is a parameter of the module, or None."""
        source = node.args[position] if len(node.args) > position else node.kwargs.get(name)
        if not isinstance(source, Node) or source.op != "get_attr":
            return None
        value: Any = self.module
        for part in str(source.target).split("."):
            value = getattr(value, part)
        return value.detach() if isinstance(value, torch.Tensor) else None


def _behind(node: Node) -> tuple[str, ...]:
    """Return the nodes that ``node`` depends on and itself, in graph order."""
    seen: set[Node] = set()
    queue = [node]
    while queue:
        current = queue.pop()
        if current not in seen:
            seen.add(current)
            queue += current.all_input_nodes
    return tuple(n.name for n in node.graph.nodes if n in seen and n.op == "call_function")


def _numpy(values: torch.Tensor) -> Values:
    array: Values = values.detach().to(torch.float32).contiguous().numpy()
    return array
