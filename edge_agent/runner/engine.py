# SPDX-License-Identifier: Apache-2.0
"""What the runner process does between two lines: holds an active model, a shadow and a source, and infers.

No pipe and no thread here: commands come in by ``obey``, time as a value, events leave through ``emit``. Whatever a
bundle, a source or an input does, short of ending the process, becomes an event; what was loaded before stays.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from edge_agent.runner.answering import Answering, Emit
from edge_agent.runner.answers import facts
from edge_agent.runner.commands import Command, Load, Pause, Resume, Stop, Unload, UseSource
from edge_agent.runner.proving import Settings, load_failed, loaded, proved, words
from edge_agent.runner.sinks import Sink, open_sinks
from edge_agent.runner.sources import Source, open_source
from edge_agent.runner.watchdog import Watchdog
from edge_contract.errors import DeviceError, UsageError

__all__ = ["Engine", "Settings"]

_VIDEO_HZ: Final = 1.0
_MAX_HZ: Final = 1e6


class Engine:
    """The runner's state.

    Args:
        settings: How the runner was started.
        emit: Takes events.
        clock: Gives seconds of a monotonic clock.
        wake: Makes the caller ask ``wait_s`` anew; sources call it from their threads.
        dog: Ends the process when an inference hangs.
    """

    def __init__(
        self,
        settings: Settings,
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
        wake: Callable[[], None] = lambda: None,
        dog: Watchdog | None = None,
    ) -> None:
        self._settings, self._emit, self._clock, self._wake = settings, emit, clock, wake
        self._dog = dog
        self._answering = Answering(settings, emit, clock)
        self._source: Source | None = None
        self._sinks: list[Sink] = []
        self._is_paused = False

    def obey(self, command: Command) -> bool:
        """Carry out a command; return False when it was the last one.

        Raises:
            DeviceError: The accelerator is not there, so nothing can be said of the model.
        """
        match command:
            case Load():
                self._load(command)
            case Unload():
                self._answering.unload()
            case UseSource():
                self._use_source(command)
            case Pause():
                self._is_paused = True
                self.flush()
            case Resume():
                self._is_paused = False
                if self._source is not None:
                    self._source.restart(self._clock())
            case Stop():
                return False
        return True

    def wait_s(self) -> float | None:
        """Return seconds until there is something to do, 0 when there is already, None when only a command helps."""
        answering = self._answering
        dues = (answering.results.due, answering.shadow_due, self._input_due())
        moments = [due for due in dues if due is not None]
        return max(0.0, min(moments) - self._clock()) if moments else None

    def work(self) -> None:
        """Do what is due: at most one inference, then the reports."""
        due = self._input_due()
        if due is not None and due <= self._clock():
            self._infer()
        now, answering = self._clock(), self._answering
        if answering.results.due is not None and answering.results.due <= now:
            self.flush()
        if answering.shadow_due is not None and answering.shadow_due <= now:
            answering.report_shadow()

    def flush(self) -> None:
        """Publish counters and results that wait."""
        if self._source is not None:
            self._answering.drop(self._source.lost())
        self._answering.flush()

    def close(self) -> None:
        """Publish everything, and let go of the source and the counter file."""
        self._leave_source()
        self._answering.close()

    def _input_due(self) -> float | None:
        if self._is_paused or self._answering.active is None or self._source is None:
            return None
        return self._source.due

    def _infer(self) -> None:
        if self._source is None:
            return
        taken = self._source.take()
        if taken is None:
            self.flush()
            self._emit({"event": "source_ended", "name": self._source.name})
            self._leave_source()
            return
        self._source.taken(self._clock())
        ref, raw, taken_at, reply = taken
        active = self._answering.active
        model = active.model if active is not None else None
        try:
            answer = self._answering.answer(ref, raw, taken_at)
        except Exception as error:  # counted and told already
            if reply is not None:
                reply(error, model)
            return
        if reply is not None:
            reply(answer, model)
        for sink in self._sinks:
            sink.write({"ref": ref, **facts(answer, model.labels if model is not None else ())})
        self._answering.compare(raw, answer)

    def _load(self, command: Load) -> None:
        start = self._clock()
        try:
            model, tested = proved(command, self._settings, self._dog)
            self._answering.take(command.role, model)
            if command.role == "active" and self._source is not None:
                self._source.holds(model)
        except DeviceError:
            raise
        except Exception as error:  # a bad bundle is an answer, not an end: what was loaded before stays
            self._emit(load_failed(command, error))
            return
        self._emit(loaded(command.role, model, tested.how, self._clock() - start))

    def _use_source(self, command: UseSource) -> None:
        try:
            spec = dict(command.spec)
            rate_hz = _rate_hz(spec, command.name)
            sinks = open_sinks(spec.pop("sinks", ()), f"source '{command.name}'")
            try:
                source = open_source(command.name, spec, now=self._clock(), wake=self._wake)
            except Exception:
                _close(sinks)
                raise
        except Exception as error:  # the source before goes on
            self._emit({"event": "source_failed", "name": command.name, "reason": words(error)})
            return
        self.flush()
        self._leave_source()
        self._source, self._sinks = source, sinks
        self._answering.sample(rate_hz)
        if self._answering.active is not None:
            source.holds(self._answering.active.model)
        self._emit({"event": "source", "name": command.name})

    def _leave_source(self) -> None:
        source, self._source = self._source, None
        _close(self._sinks)
        self._sinks = []
        if source is not None:
            self._answering.drop(source.lost())
            source.close()


def _rate_hz(spec: dict[str, Any], name: str) -> float | None:
    """Take ``sample_hz`` out of a source's words: inferences a second that drift counts; 0 for all.

    Frames of a camera are alike, so of those one a second is counted unless a person says otherwise; every other source
    brings events, or what was recorded, and all of it is counted.
    """
    if "sample_hz" not in spec:
        return _VIDEO_HZ if spec.get("kind") == "camera" else None
    found = spec.pop("sample_hz")
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found <= _MAX_HZ:
        fix = "give inferences a second, 0 for all"
        raise UsageError(f"sample_hz = {found!r:.40}", where=f"source '{name}'", fix=fix)
    return float(found)


def _close(sinks: list[Sink]) -> None:
    for sink in sinks:
        sink.close()
