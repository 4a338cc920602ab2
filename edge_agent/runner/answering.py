# SPDX-License-Identifier: Apache-2.0
"""What happens to one raw input: looked at, answered, counted, reported, compared; the same for every way to infer.

A runner process, an application that embeds the agent, and the local endpoint all answer through this. No pipe and no
thread here; who calls from several threads holds a lock.
"""

import os
from collections.abc import Callable
from typing import Any, Final

from numpy.typing import NDArray

from edge_agent.capture.keeper import keeper_beside
from edge_agent.counters import CounterFile
from edge_agent.runner.answers import Answer, Inference
from edge_agent.runner.cache import ResultCache
from edge_agent.runner.guard import FORM, Guard
from edge_agent.runner.model import Model
from edge_agent.runner.observe import Observer
from edge_agent.runner.proving import Settings, reference, words
from edge_agent.runner.results import Results
from edge_agent.runner.shadow import Shadow
from edge_agent.runner.task_counts import TaskObserver, Tell, telling
from edge_contract.errors import DataError, UsageError

__all__ = ["Active", "Answering", "Emit"]

Array = NDArray[Any]
Emit = Callable[[dict[str, Any]], None]
SHADOW_EVERY_S: Final = 0.5


class Active:
    """The model that answers, what looks at its inputs, and what counts its answers."""

    def __init__(self, model: Model, settings: Settings) -> None:
        manifest = model.contents.manifest if model.contents is not None else None
        contract = manifest.input_contract if manifest is not None else None
        self.model = model
        self.guard = Guard(contract, model.description.preprocess, model.artefact.input)
        self.cache = ResultCache(settings.cache) if settings.cache else None
        self.observer: Observer | None = None
        self.file: CounterFile | None = None
        self.keeper = keeper_beside(settings.counters, manifest.model) if manifest and settings.counters else None
        self.tell: Tell | None = None
        if settings.counters is not None:
            profile = reference(model)
            if model.has_logits:
                self.observer = Observer(profile, specs=model.keys, rate_hz=settings.sample_hz, seed=_seed())
            else:
                self.observer = TaskObserver(profile, rate_hz=settings.sample_hz, seed=_seed())
                self.tell = telling(model, profile)
            form = profile.counters.form
            self.file = CounterFile.create(settings.counters, len(profile.labels), model.bundle, form)

    def publish(self) -> None:
        """Write the counters."""
        if self.file is not None and self.observer is not None:
            cache = (self.cache.hits, self.cache.lookups) if self.cache is not None else (0, 0)
            self.file.write(self.observer.counters(), self.guard.tallies(cache), self.observer.times())

    def close(self) -> None:
        """Let go of the counter file."""
        if self.file is not None:
            self.file.close()

    def count(self, raw: Array, seen: Array, answer: Answer) -> None:
        """Count one answer.

        Args:
            raw: As it came from the source: what the input statistics are about.
            seen: As the model saw it.
            answer: To that.
        """
        observer = self.observer
        if observer is None:
            return
        if isinstance(answer, Inference):
            codes = answer.codes
            observer.observe(codes["logits"], codes.get("embedding"), raw, answer.latency_us)
        elif isinstance(observer, TaskObserver) and self.tell is not None:
            observer.take(self.tell(seen, answer), raw, answer.latency_us)

    def predict(self, raw: Array) -> Answer:
        """Answer a good input, from the cache where it is known."""
        if self.cache is None:
            return self.model.predict(raw)
        key = self.cache.key(raw)
        answer = self.cache.get(key)
        if answer is None:
            answer = self.model.predict(raw)
            self.cache.put(key, answer)
        return answer


class Answering:
    """The active model, perhaps a shadow, and what is told of their answers. ``clock`` gives monotonic seconds."""

    def __init__(self, settings: Settings, emit: Emit, clock: Callable[[], float]) -> None:
        self._settings, self._emit, self._clock = settings, emit, clock
        self.results = Results(emit)
        self.active: Active | None = None
        self.shadow: Shadow | None = None
        self.shadow_due: float | None = None
        self._rate_hz: float | None = None

    def answer(self, ref: str, raw: Array, taken_at: float | None = None) -> Answer:
        """Answer one input with the active model, and count it.

        Args:
            ref: Which input it is, for the results.
            raw: As it came from the source.
            taken_at: When it was taken, monotonic seconds; None where nobody knows.

        Raises:
            UsageError: There is no active model.
            DataError: The input breaks the contract, and the policy refuses it.
            StropError: What the model raises; it is counted and told as an ``error`` event, too.
        """
        active = self.active
        if active is None:
            raise UsageError("no model is loaded", where="runner", fix="load one first")
        observer = active.observer
        try:
            seen = active.guard.look(raw, taken_at)
            if seen.fault:
                self._refuse(active, seen.fault, seen.reason)
            if observer is not None:
                observer.see(raw)
            answer = active.predict(seen.raw)
            active.count(raw, seen.raw, answer)
        except _RefusedError:
            raise
        except Exception as error:  # one bad input, or one bad answer, must not end the stream
            if observer is not None:
                observer.error()
            self._emit({"event": "error", "bundle": active.model.bundle, "ref": ref, "reason": words(error)})
            raise
        self.results.add(active.model.bundle, ref, answer.cls, answer.confidence, now=self._clock())
        if active.keeper is not None:
            active.keeper.offer(raw, confidence=answer.confidence, cls=answer.cls)
        return answer

    def _refuse(self, active: Active, fault: str, reason: str) -> None:
        """Raise for an input that the model must not see. A faulty sensor is not held against a model on trial."""
        if fault in FORM:
            raise DataError(reason, where="input")
        if active.observer is not None:
            active.observer.drop()
        raise _RefusedError(reason, where="input contract")

    def sample(self, rate_hz: float | None) -> None:
        """Count so many inferences a second from now on; 0 for all, None for what the runner was started with."""
        self._rate_hz = rate_hz
        if self.active is not None and self.active.observer is not None:
            self.active.observer.rate_hz = self._settings.sample_hz if rate_hz is None else rate_hz

    def drop(self, inputs: int) -> None:
        """Count inputs that were never inferred."""
        if inputs and self.active is not None and self.active.observer is not None:
            self.active.observer.drop(inputs)

    def compare(self, raw: Array, answer: Answer) -> None:
        """Let the shadow answer an input that the active model answered."""
        if self.shadow is not None:
            agrees = self.shadow.compare(raw, answer)
            if not agrees and self.active is not None and self.active.keeper is not None:
                self.active.keeper.offer(raw, confidence=answer.confidence, cls=answer.cls, disagrees=True)
            if self.shadow_due is None:
                self.shadow_due = self._clock() + SHADOW_EVERY_S

    def take(self, role: str, model: Model) -> None:
        """Put a proven model into its role.

        Raises:
            ProfileError, StoreError: Its profile does not fit, or its counters cannot be written; nothing changed.
        """
        if role == "shadow":
            self.unload()
            self.shadow = Shadow(model)
            return
        self.flush()  # the old model's answers, before its counters give way
        fresh = Active(model, self._settings)
        if self.active is not None:
            self.active.close()
        self.active = fresh
        self.sample(self._rate_hz)
        if self.shadow is not None:
            self.report_shadow()
            self.shadow.restart()

    def unload(self) -> None:
        """Let go of the shadow."""
        if self.shadow is not None:
            self.report_shadow()
            self._emit({"event": "unloaded", "role": "shadow", "bundle": self.shadow.model.bundle})
        self.shadow = None

    def report_shadow(self) -> None:
        """Tell the totals of the comparison, if there is something new."""
        if self.shadow is not None and self.shadow_due is not None:
            self._emit({"event": "shadow", **self.shadow.totals()})
        self.shadow_due = None

    def flush(self) -> None:
        """Publish counters and results that wait: counters first, so that whoever sees results finds them counted."""
        if self.active is not None:
            self.active.publish()
            news = self.active.guard.news(self._clock())
            if news is not None:
                self._emit(news)
        self.results.flush()

    def close(self) -> None:
        """Publish everything and let go of the counter file."""
        self.flush()
        self.report_shadow()
        if self.active is not None:
            self.active.close()


def _seed() -> int:
    """Return where the chance of thinning begins: another place at every start."""
    return int.from_bytes(os.urandom(8), "little")


class _RefusedError(DataError):
    """An input that broke the contract: counted as dropped, not as an error of the model."""
