"""Which INT8 form of a model pays? Tries variants from coarse to fine within a time box, on
validation data, and always has a best so far.

    schemes          types of activations and weights, one scale per output channel
    granularity      the best of them with one scale per tensor
    calibration      the best of them with other ranges for its activations
    bias correction  the best of these with its biases corrected
    transfer         what was found, applied to whatever scheme runs faster
    float layers     depthwise convolutions in float; fully connected ones in dynamic INT8
    mixed precision  when nothing passes: the fewest layers in float that make it pass
    fine-tuning      when nothing passes yet: quantization-aware, from the checkpoint

Knows neither clocks nor data sets nor training: how good and how fast a model is, and a fine-tuned
one, come from the callables of a ``Subject``."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.errors import ExportError, QuantizeError
from exporters.evaluate.parity_values import Assessment
from exporters.graph import onnx_file
from exporters.graph.walk import Graph, attribute
from exporters.options import DynamicOptions, Int8Options, QuantizeOptions, Scheme
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.dynamic_int8 import dynamic_int8, head_share
from exporters.quantize.int8_from_fp32 import impossible, quantize, verify_int8
from exporters.quantize.portability import portability
from exporters.quantize.saturation import confirm, simulate
from exporters.quantize.saturation_values import Confirmation, LayerSaturation
from exporters.search.explanation import Explanation, LayerDamage
from exporters.search.result import SearchResult
from exporters.search.search_log import SearchLog
from exporters.search.sensitivity import clippings, layer_noise
from exporters.search.trial import SAME_SPEED, Speed, Trial, pareto_front

_HEADS = 0.5  # dynamic INT8 is tried where fully connected layers hold so much of the weights
_MOST_LAYERS = 16  # that are put back into float one at a time; the noisiest ones

_SCHEMES: dict[Scheme, dict[str, Any]] = {
    "u8s8-rr": {"activations": "uint8", "weights": "int8", "reduce_range": True},
    "u8s8": {"activations": "uint8", "weights": "int8", "reduce_range": False},
    "u8u8": {"activations": "uint8", "weights": "uint8", "reduce_range": False},
    "s8s8": {"activations": "int8", "weights": "int8", "reduce_range": False},
}


@dataclass(frozen=True)
class Subject:
    """The model that is searched, and how its forms are judged."""

    model: onnx.ModelProto  # FP32
    statistics: ActivationStatistics  # of this very model, on images of the train split
    samples: dict[str, NDArray[Any]]  # a few real inputs by name, to look into layers
    extremes: dict[str, NDArray[Any]]  # real and extreme inputs, to look for saturation
    finish: Callable[[onnx.ModelProto, str], onnx.ModelProto]  # a quantized model as it ships
    assess: Callable[[bytes, str, bool], Assessment]  # file, id, portable -> on validation data
    # file -> (loss, SQNR in dB) on fewer validation data; for layers one at a time
    assess_quickly: Callable[[bytes], tuple[float, float]]
    time: Callable[[bytes, str, bool], Speed]  # file, id, portable
    # scheme -> the FP32 model after quantization-aware fine-tuning, with its statistics
    fine_tune: Callable[[Int8Options], tuple[onnx.ModelProto, ActivationStatistics]] | None = None
    float_nodes: tuple[str, ...] = ()  # that cannot be quantized, and stay float in every variant


OnStep = Callable[[str, int, int], None]  # what is tried, trials done, trials expected


class _TimeIsOverError(Exception):
    """The time box is spent; carries nothing."""


def search(
    subject: Subject,
    options: QuantizeOptions,
    log: SearchLog,
    *,
    fp16: Callable[[], onnx.ModelProto] | None = None,
    on_step: OnStep = lambda what, done, total: None,
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Try variants, the listed ones of ``options`` first, and choose which go on.

    Trials that ``log`` has already are taken from there, with the time that they took. Where
    ``stopped`` says so, the search ends as it does at the end of its time: what was found is the
    result, marked incomplete.

    ``fp16`` makes that variant. Raises ExportError when a listed INT8 variant cannot be made as it
    was asked for; one that the search itself thought of is then noted as such and passed over.
    Raises it, too, where the log or temporary files cannot be written.
    """
    return _Search(subject, options, log, on_step, stopped, clock).run(fp16)


class _Search:
    def __init__(
        self,
        subject: Subject,
        options: QuantizeOptions,
        log: SearchLog,
        on_step: OnStep,
        stopped: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self.subject, self.options, self.log = subject, options, log
        self.on_step, self.stopped, self.clock = on_step, stopped, clock
        self.trials: dict[str, Trial] = {}
        self.explanation: Explanation | None = None
        self.impossible: set[str] = set()  # nodes that the tools cannot do, beside the subject's
        self.began = clock()
        # what earlier, killed runs have spent counts, too
        self.spent_before = sum(t.seconds for t in log.trials if log.find(t.id) is not None)
        self.expected = 2 + len(options.int8) + len(options.search.schemes)
        self.expected += 4 + len(options.search.calibrations)

    def run(self, fp16: Callable[[], onnx.ModelProto] | None) -> SearchResult:
        self._try("fp32", "fp32", "as exported", {}, lambda: self.subject.model)
        if fp16 is not None:
            self._try("fp16", "fp16", "as listed", {}, fp16)
        for listed in self.options.int8:
            self._int8(listed, "as listed", forced=True)
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("schemes", self._schemes),
            ("granularity", self._granularity),
            ("calibration", self._calibrations),
            ("bias correction", self._bias),
            ("transfer", self._transfer),
            ("float layers", self._float_layers),
            ("explanation", self._explain),
            ("mixed precision", self._mixed),
            ("fine-tuning", self._fine_tuned),
        )
        if not self.options.search.minutes:
            steps = (("explanation", self._explain),)
        untried = self._within_time(steps)
        return SearchResult(
            trials=tuple(self.trials.values()),
            front=pareto_front(tuple(self.trials.values())),
            chosen=self._chosen(),
            explanation=self.explanation,
            seconds=round(self.spent_before + self.clock() - self.began, 1),
            incomplete=bool(untried),
            untried=tuple(untried),
        )

    def _within_time(self, steps: Sequence[tuple[str, Callable[[], None]]]) -> list[str]:
        """Run the steps; the names of those that were cut short or not begun."""
        for number, (_, step) in enumerate(steps):
            try:
                step()
            except _TimeIsOverError:
                return [name for name, _ in steps[number:]]
        return []

    # --- the steps -------------------------------------------------------------------------

    def _schemes(self) -> None:
        for scheme in self.options.search.schemes:
            kept = self.subject.float_nodes
            asked = Int8Options(id=f"int8-{scheme}", exclude_nodes=kept, **_SCHEMES[scheme])
            if self._int8(asked, "schemes").error is not None:
                self._without_impossible(asked)

    def _without_impossible(self, asked: Int8Options) -> None:
        """The same scheme with what the tools cannot do in float: one layer must not cost all."""
        name = f"{asked.id}-float"
        known = self.log.find(name)
        if known is not None:
            self.impossible.update(known.options["exclude_nodes"])
            self.trials[name] = known
            return
        self._check_time()
        self._tell(f"{asked.id}: which layer cannot be made")
        subject = self.subject
        try:
            found = impossible(subject.model, asked, subject.statistics, subject.finish)
        except QuantizeError:  # the whole of it, as the trial's own error says
            return
        weighted = {n.name for n in subject.model.graph.node if n.op_type in onnx_file.WEIGHTED}
        if not found or weighted <= {*asked.exclude_nodes, *found}:
            return
        self.impossible.update(found)
        reasons = tuple(f"{node}: {reason}" for node, reason in found.items())
        self._int8(_with_float(asked, tuple(found), name), "schemes", impossible=reasons)

    def _granularity(self) -> None:
        base = self._base()
        if self.options.search.per_tensor and base is not None:
            asked = replace(_int8_of(base), id=f"{base.id}-tensor", per_channel=False)
            self._int8(asked, "granularity")

    def _calibrations(self) -> None:
        base = self._base()
        if base is None:
            return
        for method in self.options.search.calibrations:
            asked = replace(_int8_of(base), id=f"{base.id}-{method}", calibration=method)
            self._int8(asked, "calibration", timed_as=base.id)

    def _bias(self) -> None:
        base = self._finest()
        if self.options.search.bias_correction and base is not None:
            asked = replace(_int8_of(base), id=f"{base.id}-bc", bias_correction=True)
            self._int8(asked, "bias correction", timed_as=base.timed_as or base.id)

    def _transfer(self) -> None:
        """The best ranges and biases for every scheme that is faster than the one they were
        found on; for all schemes when that one does not pass."""
        finest = self._finest()
        if finest is None:
            return
        found = _int8_of(finest)
        for trial in self._static():
            if trial.step not in ("schemes", "granularity") or finest.timed_as == trial.id:
                continue
            if finest.passed and trial.speedup < SAME_SPEED * finest.speedup:
                continue
            better = replace(
                _int8_of(trial),
                calibration=found.calibration,
                bias_correction=found.bias_correction,
            )
            if better != _int8_of(trial):
                better = replace(better, id=trial.id + _suffix(better))
                self._int8(better, "transfer", timed_as=trial.id)

    def _float_layers(self) -> None:
        base = self._finest()
        depthwise = _depthwise(self.subject.model)
        if self.options.search.float_depthwise and depthwise and base is not None:
            asked = _with_float(_int8_of(base), depthwise, f"{base.id}-fdw")
            self._int8(asked, "float depthwise")
        if self.options.search.dynamic and head_share(self.subject.model) >= _HEADS:
            dynamic = DynamicOptions()
            self._try(
                dynamic.id,
                "int8",
                "dynamic heads",
                asdict(dynamic),
                lambda: self.subject.finish(dynamic_int8(self.subject.model, dynamic), dynamic.id),
            )

    def _explain(self) -> None:
        """Look into the static variant that will be chosen, or that came nearest to it."""
        base = _best([t for t in self._static() if t.passed]) or self._finest()
        if base is None:
            return
        quantized = self.log.model(base.id)
        noise = layer_noise(self.subject.model, quantized, self.subject.samples)
        self.explanation = Explanation(
            base.id, noise, (), clippings(quantized, self.subject.statistics)
        )
        loss, sqnr = self.subject.assess_quickly(onnx_file.to_bytes(quantized))
        for row in sorted(noise, key=lambda row: row.sqnr_db)[:_MOST_LAYERS]:
            self._check_time()
            self._tell(f"{row.node} back in float")
            without = self._without(_int8_of(base), row.node)
            if without is None:
                continue
            found = LayerDamage(row.node, loss - without[0], without[1] - sqnr)
            damage = sorted((*self.explanation.damage, found), key=lambda d: -d.sqnr_gained_db)
            self.explanation = replace(self.explanation, damage=tuple(damage))

    def _without(self, options: Int8Options, node: str) -> tuple[float, float] | None:
        """(loss, SQNR in dB) with that layer in float; None where that cannot be made, as when it
        is the only one."""
        asked = _with_float(options, [node], options.id)
        try:
            model = self._finished(asked, self.subject.model, self.subject.statistics)
        except QuantizeError:
            return None
        return self.subject.assess_quickly(onnx_file.to_bytes(model))

    def _mixed(self) -> None:
        """The fewest of the layers that do most damage, in float, that make it pass: so many are
        found by doubling, then by halving back."""
        base = self._finest()
        if not self.options.search.mixed or base is None or self._int8_passed():
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
        asked = _with_float(_int8_of(base), layers, f"{base.id}-mixed{len(layers)}")
        return self._int8(asked, "mixed precision")

    def _fine_tuned(self) -> None:
        base = self._finest()
        tune = self.subject.fine_tune
        if base is None or tune is None or self._int8_passed():
            return
        if not self.options.search.fine_tune.epochs:
            return
        scheme = self.trials.get(base.timed_as or base.id, base)
        # fine-tuning learns to live with plain ranges and biases
        asked = replace(
            _int8_of(scheme), id=f"{scheme.id}-qat", calibration="minmax", bias_correction=False
        )

        def make() -> onnx.ModelProto:
            assert tune is not None
            return self._finished(asked, *tune(asked))

        self._try(asked.id, "int8", "fine-tuning", asdict(asked), make, timed_as=base.id)

    # --- one trial -------------------------------------------------------------------------

    def _int8(
        self,
        asked: Int8Options,
        step: str,
        *,
        forced: bool = False,
        timed_as: str | None = None,
        impossible: tuple[str, ...] = (),
    ) -> Trial:
        """Make and judge one static variant."""
        make = partial(self._finished, asked, self.subject.model, self.subject.statistics)
        options = asdict(asked)
        return self._try(asked.id, "int8", step, options, make, forced, timed_as, impossible)

    def _finished(
        self, asked: Int8Options, model: onnx.ModelProto, statistics: ActivationStatistics
    ) -> onnx.ModelProto:
        """A static variant of a float model as it ships; the finished file is verified."""
        finished = self.subject.finish(quantize(model, asked, statistics), asked.id)
        verify_int8(model, finished, asked)
        return finished

    def _try(
        self,
        trial_id: str,
        precision: str,
        step: str,
        options: dict[str, Any],
        make: Callable[[], onnx.ModelProto],
        forced: bool = False,
        timed_as: str | None = None,
        impossible: tuple[str, ...] = (),
    ) -> Trial:
        same = self.trials.get(trial_id)
        if same is not None and same.options == options:  # a listed one may be the search's own
            return same
        if same is not None:  # or have its name, and be another one
            trial_id = f"{trial_id}-search"
        known = self.log.find(trial_id)
        if known is not None:
            self.trials[trial_id] = known
            return known
        if not forced and precision == "int8":
            self._check_time()
        self._tell(trial_id)
        began = self.clock()
        model: onnx.ModelProto | None = None
        trial = Trial(trial_id, precision, step, options, 0.0, impossible=impossible)
        try:
            model = make()
            trial = self._judged(trial, model, timed_as)
        except ExportError as exc:
            if forced or precision == "fp32":
                raise
            model, trial = None, replace(trial, error=str(exc))
        except OSError as exc:
            # a full disk says nothing about this form: the tools that make it need temporary files
            raise ExportError(
                f"{trial_id} cannot be made: {exc.filename or tempfile.gettempdir()}: "
                f"{exc.strerror or exc}. Free some space there, or set TMPDIR to another folder "
                "for temporary files; finished trials are kept, and the same command goes on from "
                "there."
            ) from exc
        trial = replace(trial, seconds=round(self.clock() - began, 3))
        self.trials[trial_id] = trial
        self.log.add(trial, model)
        return trial

    def _judged(self, trial: Trial, model: onnx.ModelProto, timed_as: str | None) -> Trial:
        data = onnx_file.to_bytes(model)
        portable, reason = False, "float arithmetic differs in the last bits"
        can_saturate = False
        stopped: tuple[LayerSaturation, ...] = ()
        seen: Confirmation | None = None
        if trial.precision == "fp16":
            reason = "half precision is computed differently from target to target"
        elif trial.precision == "int8":
            verdict = portability(model)
            portable, reason = verdict.portable, verdict.reason
            can_saturate = verdict.can_saturate
            seen = confirm(model, self.subject.extremes, portable=portable)
            stopped = () if portable else simulate(model, self.subject.extremes)
        timer = self.trials.get(timed_as or "")
        speed = timer.speed if timer else self.subject.time(data, trial.id, portable)
        return replace(
            trial,
            portable=portable,
            portability=reason,
            can_saturate=can_saturate,
            saturation=stopped,
            confirmation=seen,
            size_bytes=len(data),
            assessment=self.subject.assess(data, trial.id, portable),
            speed=speed,
            timed_as=timer.id if timer else None,
        )

    def _check_time(self) -> None:
        if self.stopped() or self._seconds_left() < 0:
            raise _TimeIsOverError

    def _seconds_left(self) -> float:
        limit = 60 * self.options.search.minutes or math.inf  # 0: there is nothing to search
        return limit - (self.spent_before + self.clock() - self.began)

    def _tell(self, what: str) -> None:
        """What is tried, the best so far, and the time left at most."""
        left, parts = self._seconds_left(), [what]
        best = _best([t for t in self.trials.values() if t.precision == "int8" and t.passed])
        if best is not None:
            parts.append(f"best so far {best.id} {best.speedup:.2f}x")
        if math.isfinite(left):
            parts.append(f"at most {max(left, 0):.0f} s left")
        done = len(self.trials)
        self.on_step("; ".join(parts), done, max(self.expected, done + 1))

    # --- choosing --------------------------------------------------------------------------

    def _static(self) -> list[Trial]:
        """Static INT8 trials that could be made and have no layer in float on purpose."""
        return [
            trial
            for trial in self.trials.values()
            if trial.precision == "int8"
            and trial.error is None
            and "exclude_nodes" in trial.options
            and set(trial.options["exclude_nodes"]) <= {*self.subject.float_nodes, *self.impossible}
        ]

    def _base(self) -> Trial | None:
        """The scheme where finer steps begin: safe everywhere, then fastest. Whether it passes is
        not asked yet, since finer steps make it more accurate and no slower."""
        return _best([t for t in self._static() if t.step in ("schemes", "as listed")])

    def _finest(self) -> Trial | None:
        """The best of what was made of the base, itself included."""
        base = self._base()
        if base is None:
            return None
        same = [t for t in self._static() if base.id in (t.id, t.timed_as)]
        return min(same, key=lambda trial: (not trial.passed, _damage(trial)))

    def _int8_passed(self) -> bool:
        return any(t.passed for t in self.trials.values() if t.precision == "int8")

    def _chosen(self) -> tuple[str, ...]:
        """FP32, FP16 and what was listed; the best INT8 variant, portable if one is; and the
        fastest one when it is no other's equal: it may be safe on some CPUs only, or mixed."""
        trials = list(self.trials.values())
        chosen = [t.id for t in trials if t.precision != "int8" or t.step == "as listed"]
        passed = [t for t in trials if t.precision == "int8" and t.passed]
        if best := _best(passed):
            chosen.append(best.id)
            fastest = max(passed, key=lambda trial: (trial.speedup, -_damage(trial)))
            if fastest.speedup > SAME_SPEED * max(best.speedup, 1.0):
                chosen.append(fastest.id)
        return tuple(dict.fromkeys(chosen))


def _best(trials: Sequence[Trial]) -> Trial | None:
    """Portable ones before others, and those whose sums cannot saturate before those that may;
    then the fastest, and of equally fast ones the one that lost least."""
    peers = [t for t in trials if t.portable] or [t for t in trials if not t.can_saturate]
    peers = peers or list(trials)
    fastest = max((t.speedup for t in peers), default=0.0)
    equal = [t for t in peers if t.speedup * SAME_SPEED >= fastest]
    return min(equal, key=_damage, default=None)


def _damage(trial: Trial) -> float:
    """Noise of the probabilities: finer than the answers that changed, and hardly by chance."""
    return -trial.assessment.sqnr_db if trial.assessment else np.inf


def _int8_of(trial: Trial) -> Int8Options:
    options = dict(trial.options)
    options["exclude_nodes"] = tuple(options["exclude_nodes"])
    return Int8Options(**options)


def _with_float(options: Int8Options, layers: Sequence[str], name: str) -> Int8Options:
    """The same with these layers in float, too."""
    kept = tuple(sorted({*options.exclude_nodes, *layers}))
    return replace(options, id=name, exclude_nodes=kept)


def _suffix(options: Int8Options) -> str:
    method = "" if options.calibration == "minmax" else f"-{options.calibration}"
    return method + ("-bc" if options.bias_correction else "")


def _depthwise(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of convolutions with as many groups as input channels, and more than one."""
    graph = Graph(model)
    return tuple(
        node.name
        for node in graph.nodes
        if node.op_type == "Conv"
        and int(attribute(node, "group", 1)) > 1
        and node.input[1] in graph.constants
        and graph.constants[node.input[1]].dims[1] == 1
    )
