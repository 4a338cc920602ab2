# SPDX-License-Identifier: Apache-2.0
"""What the runner process does between two lines: holds an active model, a shadow and a source, and infers.

No pipe and no thread here: commands come in by ``obey``, time as a value, events leave through ``emit``. Whatever a
bundle, a source or an input does, short of ending the process, becomes an event; what was loaded before stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_agent.counters import CounterFile
from edge_agent.runner import golden
from edge_agent.runner.answers import Answer, Inference
from edge_agent.runner.commands import Command, Load, Pause, Resume, Stop, Unload, UseSource
from edge_agent.runner.model import Model
from edge_agent.runner.observe import Observer
from edge_agent.runner.results import Results
from edge_agent.runner.shadow import Shadow
from edge_agent.runner.sources import Pace, Replay, open_source
from edge_contract.errors import BundleError, ProfileError, StropError
from edge_contract.profile import ReferenceProfile

__all__ = ["Engine", "Settings"]

_SHADOW_EVERY_S: Final = 0.5
_NO_LOGITS: Final = np.zeros(1)
Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Settings:
    """How a runner process was started: runtime, counter file, threads for one inference, the board's target."""

    runtime: str
    counters: Path
    threads: int = 1
    target: str = ""


@dataclass
class _Active:
    """The model that answers, and what counts its answers."""

    model: Model
    observer: Observer
    file: CounterFile


class Engine:
    """The runner's state. ``clock`` gives seconds of a monotonic clock."""

    def __init__(self, settings: Settings, emit: Emit, clock: Callable[[], float]) -> None:
        self._settings, self._emit, self._clock = settings, emit, clock
        self._results = Results(emit)
        self._active: _Active | None = None
        self._shadow: Shadow | None = None
        self._shadow_due: float | None = None
        self._source: Replay | None = None
        self._pace = Pace(0.0, clock())
        self._is_paused = False

    def obey(self, command: Command) -> bool:
        """Carry out a command; return False when it was the last one."""
        match command:
            case Load():
                self._load(command)
            case Unload():
                self._unload()
            case UseSource():
                self._use_source(command)
            case Pause():
                self._is_paused = True
                self.flush()
            case Resume():
                self._is_paused = False
                self._pace.restart(self._clock())
            case Stop():
                return False
        return True

    def wait_s(self) -> float | None:
        """Return seconds until there is something to do, 0 when there is already, None when only a command helps."""
        moments = [due for due in (self._results.due, self._shadow_due, self._input_due()) if due is not None]
        return max(0.0, min(moments) - self._clock()) if moments else None

    def work(self) -> None:
        """Do what is due: at most one inference, then the reports."""
        due = self._input_due()
        if due is not None and due <= self._clock():
            self._infer()
        now = self._clock()
        if self._results.due is not None and self._results.due <= now:
            self.flush()
        if self._shadow_due is not None and self._shadow_due <= now:
            self._report_shadow()

    def flush(self) -> None:
        """Publish counters and results that wait: counters first, so that whoever sees results finds them counted."""
        if self._active is not None:
            self._active.file.write(self._active.observer.counters())
        self._results.flush()

    def close(self) -> None:
        """Publish everything and let go of the counter file."""
        self.flush()
        self._report_shadow()
        if self._active is not None:
            self._active.file.close()

    def _input_due(self) -> float | None:
        if self._is_paused or self._active is None or self._source is None:
            return None
        return self._pace.due

    def _infer(self) -> None:
        if self._active is None or self._source is None:
            return
        taken = self._source.take()
        if taken is None:
            self.flush()
            self._emit({"event": "source_ended", "name": self._source.name})
            self._source = None
            return
        self._pace.taken(self._clock())
        self._answer(self._active, *taken)

    def _answer(self, active: _Active, ref: str, raw: Any) -> None:
        try:
            answer = active.model.predict(raw)
            _observe(active.observer, answer, raw)
        except Exception as error:  # one bad input, or one bad answer, must not end the stream
            active.observer.error()
            self._emit({"event": "error", "bundle": active.model.bundle, "ref": ref, "reason": _words(error)})
            return
        self._results.add(active.model.bundle, ref, answer.cls, answer.confidence, now=self._clock())
        if self._shadow is not None:
            self._shadow.compare(raw, answer)
            if self._shadow_due is None:
                self._shadow_due = self._clock() + _SHADOW_EVERY_S

    def _report_shadow(self) -> None:
        if self._shadow is not None and self._shadow_due is not None:
            self._emit({"event": "shadow", **self._shadow.totals()})
        self._shadow_due = None

    def _load(self, command: Load) -> None:
        start = self._clock()
        try:
            model = _open(command, self._settings)
            tested = golden.check(model)
            if not tested.is_ok:
                raise BundleError(f"golden self-test failed: {tested.detail}", where=str(command.folder))
            self._take(command.role, model)
        except Exception as error:  # a bad bundle is an answer, not an end: what was loaded before stays
            failed = {"event": "load_failed", "role": command.role, "bundle": command.name}
            self._emit({**failed, "reason": _words(error)})
            return
        facts = {"role": command.role, "bundle": model.bundle, "version": model.version, "golden": tested.how}
        spent = {"delegate": model.session.delegate, "load_ms": round((self._clock() - start) * 1000, 1)}
        self._emit({"event": "loaded", **facts, **spent})

    def _take(self, role: str, model: Model) -> None:
        """Put a proven model into its role."""
        if role == "shadow":
            self._unload()
            self._shadow = Shadow(model)
            return
        profile = _profile(model)
        self.flush()  # the old model's answers, before its counters give way
        file = CounterFile.create(self._settings.counters, len(profile.labels), model.bundle)
        if self._active is not None:
            self._active.file.close()
        self._active = _Active(model, Observer(profile), file)
        if self._shadow is not None:
            self._report_shadow()
            self._shadow.restart()

    def _unload(self) -> None:
        if self._shadow is not None:
            self._report_shadow()
            self._emit({"event": "unloaded", "role": "shadow", "bundle": self._shadow.model.bundle})
        self._shadow = None

    def _use_source(self, command: UseSource) -> None:
        try:
            source = open_source(command.name, command.spec)
        except Exception as error:  # the source before goes on
            self._emit({"event": "source_failed", "name": command.name, "reason": _words(error)})
            return
        self.flush()
        self._source, self._pace = source, Pace(source.spec.rate_hz, self._clock())
        self._emit({"event": "source", "name": command.name})


def _open(command: Load, settings: Settings) -> Model:
    model = Model.open(command.folder, runtime=settings.runtime, threads=settings.threads, target=settings.target)
    if command.expected not in ("", model.bundle):
        what = f"the folder holds bundle {model.bundle[:12]}…, not the one that it is named by"
        raise BundleError(what, where=str(command.folder))
    return model


def _observe(observer: Observer, answer: Answer, raw: Any) -> None:
    """Count an answer. Without logits only inferences, times and input statistics mean something."""
    if isinstance(answer, Inference):
        observer.observe(answer.logits, answer.embedding, raw, answer.latency_us)
    else:
        observer.observe(_NO_LOGITS, None, raw, answer.latency_us)


def _profile(model: Model) -> ReferenceProfile:
    """Return the model's reference profile, or a blank one; it must fit what the model gives."""
    if not model.has_logits:
        return ReferenceProfile.blank(("any",))  # one class for all answers: its channels stand still
    profile = model.contents.profile(model.artefact.path) if model.contents is not None else None
    if profile is None:
        return ReferenceProfile.blank(model.labels)
    if profile.labels != model.labels:
        raise ProfileError("the reference profile has other classes than the manifest", where=model.artefact.path)
    wanted, given = profile.projection, model.dimensions
    if wanted.source != "none" and wanted.dimension != given.get(wanted.source, 0):
        what = f"the reference profile wants {wanted.dimension} values of the {wanted.source}, the artefact has {given}"
        raise ProfileError(what, where=model.artefact.path)
    return profile


def _words(error: Exception) -> str:
    """Return one line: our own errors speak for themselves, foreign ones with their class."""
    text = str(error) if isinstance(error, StropError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]
