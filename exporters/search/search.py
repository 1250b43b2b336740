"""The search for the INT8 variant of a model that pays. It tries candidates from coarse to fine
within a time box, on validation data, and always has a best one so far.

    schemes          types of activations and weights, one scale per output channel
    granularity      the best of them with one scale per tensor
    calibration      the best of them with other ranges for its activations
    bias correction  the best of these with its biases corrected
    transfer         the best ranges and biases, applied to every scheme that runs faster
    float layers     depthwise convolutions in float; fully connected ones in dynamic INT8
    mixed precision  when nothing passes: the fewest layers in float that make it pass
    fine-tuning      when nothing passes yet: quantization-aware, from the checkpoint

Independent of clocks, data sets and training: accuracy, speed and a fine-tuned model come from the
callables of a ``Subject``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx

from exporters.errors import QuantizeError
from exporters.graph import onnx_file
from exporters.graph.walk import Graph, attribute
from exporters.options import DynamicOptions, Int8Options, Scheme, SearchOptions
from exporters.quantize.dynamic_int8 import dynamic_int8, head_share
from exporters.quantize.unquantizable import failing_nodes
from exporters.search.explanation import Explanation, LayerDamage
from exporters.search.ranking import best, chosen, int8_options, noise, passed_int8, with_float
from exporters.search.result import SearchResult
from exporters.search.search_log import SearchLog
from exporters.search.sensitivity import clippings, layer_noise
from exporters.search.subject import Subject
from exporters.search.trial import SAME_SPEED, Trial, pareto_front
from exporters.search.trial_runner import OnStep, TimeIsOverError, TrialRunner

_HEADS = 0.5  # share of the weights in fully connected layers from which dynamic INT8 is tried
_MOST_LAYERS = 16  # that are put back into float one at a time; the noisiest ones

_SCHEMES: dict[Scheme, dict[str, Any]] = {
    "u8s8-rr": {"activations": "uint8", "weights": "int8", "reduce_range": True},
    "u8s8": {"activations": "uint8", "weights": "int8", "reduce_range": False},
    "u8u8": {"activations": "uint8", "weights": "uint8", "reduce_range": False},
    "s8s8": {"activations": "int8", "weights": "int8", "reduce_range": False},
}


def search(
    subject: Subject,
    listed: Sequence[Int8Options],
    options: SearchOptions,
    log: SearchLog,
    *,
    fp16: Callable[[], onnx.ModelProto] | None = None,
    on_step: OnStep = lambda activity, done, total: None,
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Try variants, the ``listed`` ones first, and choose those for the test split.

    Trials that ``log`` has already are taken from it, with the time that they took. When
    ``stopped`` returns True, the search ends as it does at the end of its time: the result so far
    is marked incomplete.

    ``fp16`` makes that variant. Raises ExportError when a listed INT8 variant cannot be made as
    requested; a failure of the search's own ones is recorded in their trial. Raises it as well
    where the log or temporary files cannot be written.
    """
    runner = TrialRunner(subject, log, options.minutes, on_step, stopped, clock)
    return _Search(runner, options).run(listed, fp16)


@dataclass(frozen=True)
class _Step:
    name: str
    run: Callable[[], None]
    trials: int = 0  # that it makes as a rule


class _Search:
    def __init__(self, runner: TrialRunner, options: SearchOptions) -> None:
        self.runner, self.options = runner, options
        self.subject, self.log, self.trials = runner.subject, runner.log, runner.trials
        self.explanation: Explanation | None = None
        self.impossible: set[str] = set()  # nodes that the tools cannot do, besides the subject's

    def run(
        self, listed: Sequence[Int8Options], fp16: Callable[[], onnx.ModelProto] | None
    ) -> SearchResult:
        steps = self._steps()
        first = len(listed) + (1 if fp16 is None else 2)
        self.runner.expected = first + sum(step.trials for step in steps)
        fp32 = Trial("fp32", "fp32", "as exported", {}, 0.0)
        self.runner.run(fp32, lambda: self.subject.model)
        if fp16 is not None:
            self.runner.run(Trial("fp16", "fp16", "as listed", {}, 0.0), fp16)
        for options in listed:
            self.runner.int8(options, "as listed", forced=True)
        untried = self._within_time(steps)
        trials = tuple(self.trials.values())
        return SearchResult(
            trials=trials,
            front=pareto_front(trials),
            chosen=chosen(trials),
            explanation=self.explanation,
            seconds=round(self.runner.seconds, 1),
            incomplete=bool(untried),
            untried=untried,
        )

    def _steps(self) -> tuple[_Step, ...]:
        explanation = _Step("explanation", self._explain)
        if not self.options.minutes:
            return (explanation,)
        return (
            _Step("schemes", self._schemes, len(self.options.schemes)),
            _Step("granularity", self._granularity, 1),
            _Step("calibration", self._calibrations, len(self.options.calibrations)),
            _Step("bias correction", self._bias, 1),
            _Step("transfer", self._transfer, 1),
            _Step("float layers", self._float_layers, 1),
            explanation,
            _Step("mixed precision", self._mixed),
            _Step("fine-tuning", self._fine_tuned),
        )

    def _within_time(self, steps: Sequence[_Step]) -> tuple[str, ...]:
        """Run the steps; returns the names of those that were cut short or not begun."""
        for number, step in enumerate(steps):
            try:
                step.run()
            except TimeIsOverError:
                return tuple(step.name for step in steps[number:])
        return ()

    # --- the steps -------------------------------------------------------------------------

    def _schemes(self) -> None:
        for scheme in self.options.schemes:
            kept = self.subject.float_nodes
            options = Int8Options(id=f"int8-{scheme}", exclude_nodes=kept, **_SCHEMES[scheme])
            if self.runner.int8(options, "schemes").error is not None:
                self._without_impossible(options)

    def _without_impossible(self, options: Int8Options) -> None:
        """Try the same scheme with the nodes that the tools cannot do in float: one layer must not
        cost all."""
        name = f"{options.id}-float"
        logged = self.log.find(name)
        if logged is not None:
            self.impossible.update(logged.options["exclude_nodes"])
            self.trials[name] = logged
            return
        self.runner.check_time()
        self.runner.report(f"{options.id}: which layer cannot be made")
        subject = self.subject
        try:
            reasons = failing_nodes(subject.model, options, subject.statistics, subject.finish)
        except QuantizeError:  # all of it fails, as the trial's own error says
            return
        layers = {node.name for node in Graph(subject.model).layers()}
        if not reasons or layers <= {*options.exclude_nodes, *reasons}:
            return
        self.impossible.update(reasons)
        rows = tuple(f"{node}: {reason}" for node, reason in reasons.items())
        self.runner.int8(with_float(options, tuple(reasons), name), "schemes", impossible=rows)

    def _granularity(self) -> None:
        base = self._base()
        if self.options.per_tensor and base is not None:
            options = replace(int8_options(base), id=f"{base.id}-tensor", per_channel=False)
            self.runner.int8(options, "granularity")

    def _calibrations(self) -> None:
        base = self._base()
        if base is None:
            return
        for method in self.options.calibrations:
            options = replace(int8_options(base), id=f"{base.id}-{method}", calibration=method)
            self.runner.int8(options, "calibration", timed_as=base.id)

    def _bias(self) -> None:
        base = self._finest()
        if self.options.bias_correction and base is not None:
            options = replace(int8_options(base), id=f"{base.id}-bc", bias_correction=True)
            self.runner.int8(options, "bias correction", timed_as=base.timed_as or base.id)

    def _transfer(self) -> None:
        """Apply the best ranges and biases to every scheme that is faster than theirs; to all
        schemes when theirs does not pass."""
        finest = self._finest()
        if finest is None:
            return
        source = int8_options(finest)
        for trial in self._static():
            if trial.step not in ("schemes", "granularity") or finest.timed_as == trial.id:
                continue
            if finest.passed and trial.speedup < SAME_SPEED * finest.speedup:
                continue
            options = replace(
                int8_options(trial),
                calibration=source.calibration,
                bias_correction=source.bias_correction,
            )
            if options != int8_options(trial):
                options = replace(options, id=trial.id + _suffix(options))
                self.runner.int8(options, "transfer", timed_as=trial.id)

    def _float_layers(self) -> None:
        base, model = self._finest(), self.subject.model
        depthwise = _depthwise(model)
        if self.options.float_depthwise and depthwise and base is not None:
            options = with_float(int8_options(base), depthwise, f"{base.id}-fdw")
            self.runner.int8(options, "float depthwise")
        if self.options.dynamic and head_share(model) >= _HEADS:
            dynamic = DynamicOptions()
            self.runner.run(
                Trial(dynamic.id, "int8", "dynamic heads", asdict(dynamic), 0.0),
                lambda: self.subject.finish(dynamic_int8(model, dynamic), dynamic.id),
            )

    def _explain(self) -> None:
        """Look into the static variant that will be chosen, or that came nearest to it."""
        base = best([t for t in self._static() if t.passed]) or self._finest()
        if base is None:
            return
        quantized = self.log.model(base.id)
        layers = layer_noise(self.subject.model, quantized, self.subject.samples)
        self.explanation = Explanation(
            base.id, layers, (), clippings(quantized, self.subject.statistics)
        )
        loss, sqnr = self.subject.assess_quickly(onnx_file.to_bytes(quantized))
        for row in sorted(layers, key=lambda row: row.sqnr_db)[:_MOST_LAYERS]:
            self.runner.check_time()
            self.runner.report(f"{row.node} back in float")
            without = self._without(int8_options(base), row.node)
            if without is None:
                continue
            gain = LayerDamage(row.node, loss - without[0], without[1] - sqnr)
            damage = sorted((*self.explanation.damage, gain), key=lambda d: -d.sqnr_gained_db)
            self.explanation = replace(self.explanation, damage=tuple(damage))

    def _without(self, options: Int8Options, node: str) -> tuple[float, float] | None:
        """Return (loss, SQNR in dB) with that layer in float; None where that cannot be made, as
        when it is the only one."""
        options = with_float(options, [node], options.id)
        try:
            model = self.runner.finished(options, self.subject.model, self.subject.statistics)
        except QuantizeError:
            return None
        return self.subject.assess_quickly(onnx_file.to_bytes(model))

    def _mixed(self) -> None:
        """Put the fewest of the layers that do most damage into float that make it pass: their
        number is found by doubling, then by halving back."""
        base = self._finest()
        if not self.options.mixed or base is None or self._int8_passed():
            return
        assert self.explanation is not None  # the step before this one
        # one layer has to stay quantized
        order = [row.node for row in self.explanation.damage][: len(self.explanation.noise) - 1]
        failing, count = 0, min(1, len(order))
        while count and not self._mixed_trial(base, order[:count]).passed:
            failing, count = count, min(2 * count, len(order))
            if failing == count:
                return  # not even with all of them
        while count - failing > 1:
            middle = (failing + count) // 2
            if self._mixed_trial(base, order[:middle]).passed:
                count = middle
            else:
                failing = middle

    def _mixed_trial(self, base: Trial, layers: Sequence[str]) -> Trial:
        options = with_float(int8_options(base), layers, f"{base.id}-mixed{len(layers)}")
        return self.runner.int8(options, "mixed precision")

    def _fine_tuned(self) -> None:
        base, tune = self._finest(), self.subject.fine_tune
        if base is None or tune is None or self._int8_passed():
            return
        if not self.options.fine_tune.epochs:
            return
        scheme = self.trials.get(base.timed_as or base.id, base)
        # fine-tuning adapts the network to plain ranges and biases
        options = replace(
            int8_options(scheme),
            id=f"{scheme.id}-qat",
            calibration="minmax",
            bias_correction=False,
        )
        self.runner.run(
            Trial(options.id, "int8", "fine-tuning", asdict(options), 0.0),
            lambda: self.runner.finished(options, *tune(options)),
            timed_as=base.id,
        )

    # --- where finer steps begin -----------------------------------------------------------

    def _static(self) -> list[Trial]:
        """Return the static INT8 trials that could be made and have no layer in float on
        purpose."""
        return [
            trial
            for trial in self.trials.values()
            if trial.precision == "int8"
            and trial.error is None
            and "exclude_nodes" in trial.options
            and set(trial.options["exclude_nodes"]) <= {*self.subject.float_nodes, *self.impossible}
        ]

    def _base(self) -> Trial | None:
        """Return the scheme where finer steps begin: safe everywhere, then fastest. It need not
        pass yet, since finer steps make it more accurate and no slower."""
        return best([t for t in self._static() if t.step in ("schemes", "as listed")])

    def _finest(self) -> Trial | None:
        """Return the best trial made from the base, itself included."""
        base = self._base()
        if base is None:
            return None
        same = [t for t in self._static() if base.id in (t.id, t.timed_as)]
        return min(same, key=lambda trial: (not trial.passed, noise(trial)))

    def _int8_passed(self) -> bool:
        return bool(passed_int8(tuple(self.trials.values())))


def _suffix(options: Int8Options) -> str:
    method = "" if options.calibration == "minmax" else f"-{options.calibration}"
    return method + ("-bc" if options.bias_correction else "")


def _depthwise(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name the convolutions with as many groups as input channels, and more than one."""
    graph = Graph(model)
    return tuple(
        node.name
        for node in graph.constant_layers()
        if node.op_type == "Conv"
        and int(attribute(node, "group", 1)) > 1
        and graph.constants[node.input[1]].dims[1] == 1
    )
