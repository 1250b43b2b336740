"""One trial after another within a time box: a candidate is made, judged, timed and logged."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import onnx

from exporters.errors import ExportError
from exporters.graph import onnx_file
from exporters.options import Int8Options
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.quantize.int8_from_fp32 import quantize
from exporters.quantize.portability import portability
from exporters.quantize.saturation import confirm, simulate
from exporters.quantize.verify_int8 import verify_int8
from exporters.search.ranking import best, passed_int8
from exporters.search.search_log import SearchLog
from exporters.search.subject import Subject
from exporters.search.trial import Trial

OnStep = Callable[[str, int, int], None]  # current trial, trials done, trials expected


class TimeIsOverError(Exception):
    """The time box is spent; carries nothing."""


class TrialRunner:
    """The trials of a search so far, and the means to run another one."""

    def __init__(
        self,
        subject: Subject,
        log: SearchLog,
        minutes: float,
        on_step: OnStep,
        stopped: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        """``minutes`` of 0 mean no limit: there is nothing to search."""
        self.subject, self.log = subject, log
        self.trials: dict[str, Trial] = {}
        self.expected = 0  # number of trials, for ``on_step``
        self._limit = 60 * minutes or math.inf  # seconds
        self._on_step, self._stopped, self._clock = on_step, stopped, clock
        # the time that earlier, killed runs spent counts as well
        spent = sum(trial.seconds for trial in log.trials if log.find(trial.id) is not None)
        self._began = clock() - spent

    @property
    def seconds(self) -> float:
        """Wall time of all runs of this search so far."""
        return self._clock() - self._began

    def check_time(self) -> None:
        """Raise TimeIsOverError when the time box is spent or the user stopped the search."""
        if self._stopped() or self.seconds > self._limit:
            raise TimeIsOverError

    def report(self, activity: str) -> None:
        """Report the current activity, the best variant so far, and the remaining time."""
        parts = [activity]
        winner = best(passed_int8(tuple(self.trials.values())))
        if winner is not None:
            parts.append(f"best so far {winner.id} {winner.speedup:.2f}x")
        if math.isfinite(self._limit):
            parts.append(f"at most {max(self._limit - self.seconds, 0):.0f} s left")
        done = len(self.trials)
        self._on_step("; ".join(parts), done, max(self.expected, done + 1))

    def int8(
        self,
        options: Int8Options,
        step: str,
        *,
        forced: bool = False,
        timed_as: str | None = None,
        impossible: tuple[str, ...] = (),
    ) -> Trial:
        """Make and judge one static variant."""
        make = partial(self.finished, options, self.subject.model, self.subject.statistics)
        return self.run(
            Trial(options.id, "int8", step, asdict(options), 0.0, impossible=impossible),
            make,
            forced=forced,
            timed_as=timed_as,
        )

    def finished(
        self, options: Int8Options, model: onnx.ModelProto, statistics: ActivationStatistics
    ) -> onnx.ModelProto:
        """Quantize a float model and return it as it ships; the finished file is verified."""
        finished = self.subject.finish(quantize(model, options, statistics), options.id)
        verify_int8(model, finished, options)
        return finished

    def run(
        self,
        trial: Trial,
        make: Callable[[], onnx.ModelProto],
        *,
        forced: bool = False,
        timed_as: str | None = None,
    ) -> Trial:
        """Make and judge a candidate, unless the log has it; returns the finished trial.

        A ``forced`` one disregards the time box, and its failure is raised. Without ``timed_as``
        (an equally fast trial) it is timed.
        """
        same = self.trials.get(trial.id)
        if same is not None and same.options == trial.options:  # the search's own, listed as well
            return same
        if same is not None:  # another one has its name
            trial = replace(trial, id=f"{trial.id}-search")
        logged = self.log.find(trial.id)
        if logged is not None:
            self.trials[trial.id] = logged
            return logged
        if not forced and trial.precision == "int8":
            self.check_time()
        self.report(trial.id)
        began = self._clock()
        model: onnx.ModelProto | None = None
        try:
            model = make()
            trial = self._judged(trial, model, timed_as)
        except ExportError as exc:
            if forced or trial.precision == "fp32":
                raise
            model, trial = None, replace(trial, error=str(exc))
        except OSError as exc:
            # a full disk is not this candidate's fault: the tools that make it need temporary files
            raise ExportError(
                f"{trial.id} cannot be made: {exc.filename or tempfile.gettempdir()}: "
                f"{exc.strerror or exc}. Free some space there, or set TMPDIR to another folder "
                "for temporary files; finished trials are kept, and the same command continues "
                "after them."
            ) from exc
        trial = replace(trial, seconds=round(self._clock() - began, 3))
        self.trials[trial.id] = trial
        self.log.add(trial, model)
        return trial

    def _judged(self, trial: Trial, model: onnx.ModelProto, timed_as: str | None) -> Trial:
        data = onnx_file.to_bytes(model)
        trial = self._with_portability(trial, model)
        timed = self.trials.get(timed_as or "")
        portable = trial.portable
        speed = timed.speed if timed else self.subject.time(data, trial.id, portable)
        return replace(
            trial,
            size_bytes=len(data),
            assessment=self.subject.assess(data, trial.id, portable),
            speed=speed,
            timed_as=timed.id if timed else None,
        )

    def _with_portability(self, trial: Trial, model: onnx.ModelProto) -> Trial:
        if trial.precision == "fp16":
            reason = "half precision is computed differently from target to target"
            return replace(trial, portability=reason)
        if trial.precision != "int8":
            return replace(trial, portability="float arithmetic differs in the last bits")
        verdict, extremes = portability(model), self.subject.extremes
        return replace(
            trial,
            portable=verdict.portable,
            portability=verdict.reason,
            can_saturate=verdict.can_saturate,
            confirmation=confirm(model, extremes, portable=verdict.portable),
            saturation=() if verdict.portable else simulate(model, extremes),
        )
