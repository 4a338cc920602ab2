# SPDX-License-Identifier: Apache-2.0
"""A model that follows its slots while an application uses it.

Theory of operation: one lock, one thread beside the application's own. Whoever infers holds the lock. The thread
watches the pointer and the control process's commands; it opens a new model and runs its golden self-test without the
lock, and takes the lock only to exchange the two: so a swap happens between two calls, and costs the application no
more than a new counter file. Twice a second it publishes counters and results. A shadow is asked by the thread alone,
on a copy of as many inputs as it gets through: it never delays an answer.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from numpy.typing import NDArray

from edge_agent.embedding import counters_path, lock_path, run_folder, socket_path
from edge_agent.runner.answering import Answering
from edge_agent.runner.answers import Answer
from edge_agent.runner.commands import Load, Unload, parse
from edge_agent.runner.embedded.link import Link
from edge_agent.runner.embedded.place import Place
from edge_agent.runner.model import Model
from edge_agent.runner.proving import Settings, load_failed, loaded, proved
from edge_agent.runner.runtimes import runtime_version
from edge_contract.errors import MessageError, SlotError

__all__ = ["Live"]

Array = NDArray[Any]
FLUSH_S: Final = 0.5
_IDLE_S: Final = 0.1
_COMPARING_S: Final = 0.002


class Live:
    """The active model of a place, exchanged when its pointer moves.

    Args:
        place: Where the slots are.
        target: Of several artefacts, the one for this target is taken.
        cache: Most answers in the result cache.
        watch_s: Pause between two looks at the pointer.
        sample_hz: Inferences a second that drift counts; 0 for all.
        hear: Called with each event, from any thread; for an application's log.

    Raises:
        SlotError: No slot, or none whose model passes its self-test; the last one's reason is in it.
    """

    def __init__(
        self,
        place: Place,
        *,
        target: str = "",
        cache: int = 0,
        watch_s: float = 0.5,
        sample_hz: float = 0.0,
        hear: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._place, self._watch_s, self._hear = place, watch_s, hear
        self._lock, self._loading = threading.Lock(), threading.Lock()
        candidates = place.candidates()
        self._owned = _own(place)
        counters = counters_path(place.data, place.model) if self._owned is not None else None
        how = (place.threads, target, cache, place.delegate, sample_hz)
        self._settings = Settings(place.runtime, counters, *how)
        self._link = Link(socket_path(place.data, place.model))
        self._answering = Answering(self._settings, self._emit, time.monotonic)
        self._refused: Path | None = None
        self._pair: tuple[Array, Answer] | None = None
        self._how: dict[str, str] = {}  # role → how its model proved itself
        self._count = self.swaps = 0
        self._flush_at, self._look_at = 0.0, time.monotonic() + watch_s
        self._closing = threading.Event()
        self._open(candidates)
        self._thread = threading.Thread(target=self._run, name=f"strop {place.model}", daemon=True)
        self._thread.start()

    @property
    def model(self) -> Model:
        """The model that answers now."""
        active = self._answering.active
        assert active is not None  # opened in the constructor, and only ever exchanged
        return active.model

    @property
    def is_counted(self) -> bool:
        """Whether the answers count in telemetry: false for a second application with the same model."""
        return self._owned is not None

    def answer(self, raw: Array, taken_at: float | None = None) -> Answer:
        """Answer one input; see ``Answering.answer``. May be called from any thread: one call at a time is answered."""
        answering = self._answering
        with self._lock:
            self._count += 1
            answer = answering.answer(f"app:{self._count}", raw, taken_at)
        if answering.shadow is not None and self._pair is None:
            self._pair = (raw.copy(), answer)  # the application may use its buffer again
        return answer

    def exclusively(self) -> threading.Lock:
        """Return the lock that stands between two calls."""
        return self._lock

    def _emit(self, event: dict[str, Any]) -> None:
        if self._owned is not None:
            self._link.tell(event)
        if self._hear is not None:
            self._hear(event)

    def _open(self, candidates: list[Path]) -> None:
        """Take the first slot whose model proves itself: the active one, else what there is to fall back to."""
        last: Exception | None = None
        for slot in candidates:
            last = self._load("active", slot)
            if last is None:
                return
            self._refused = self._refused or slot
        self._release()
        where = f"model '{self._place.model}' in {self._place.data}"
        raise SlotError(f"no slot holds a model that answers: {last}", where=where) from last

    def refresh(self) -> bool:
        """Follow the pointer now; return whether another model answers since. The thread does it by itself."""
        slot, bundle = self._place.slot("active"), self.model.bundle
        if slot is None or slot.name == bundle:
            self._refused = None
        elif slot != self._refused:
            self._refused = slot if self._load("active", slot) is not None else None
        return self.model.bundle != bundle

    def _load(self, role: str, slot: Path) -> Exception | None:
        """Open, prove and take a model; return why not. What answered before goes on."""
        command, start = Load(role, slot), time.monotonic()
        with self._loading:
            held = self._answering.active if role == "active" else self._answering.shadow
            try:
                if held is not None and held.model.bundle == command.expected != "":
                    self._emit(loaded(role, held.model, self._how[role], 0.0))  # asked for what is there
                    return None
                model, tested = proved(command, self._settings)
                with self._lock:
                    self.swaps += role == "active" and self._answering.active is not None
                    self._answering.take(role, model)
            except Exception as error:  # a bad bundle is an answer, not an end
                self._emit(load_failed(command, error))
                return error
            self._how[role] = tested.how
            self._emit(loaded(role, model, tested.how, time.monotonic() - start))
            return None

    def _run(self) -> None:
        while not self._closing.is_set():
            now = time.monotonic()
            if self._owned is not None and self._link.connect(now):
                self._introduce()
            is_comparing = self._answering.shadow is not None
            wait_s = _COMPARING_S if is_comparing else _IDLE_S
            lines = self._link.lines(wait_s)
            for line in lines:
                self._obey(line)
            if not self._link.is_up:
                self._closing.wait(wait_s)
            self._compare()
            self._tend(time.monotonic())

    def _tend(self, now: float) -> None:
        """Publish and look at the pointer when it is time."""
        if now >= self._flush_at:
            self._flush_at = now + FLUSH_S
            with self._lock:
                self._answering.flush()
                if self._answering.shadow_due is not None and now >= self._answering.shadow_due:
                    self._answering.report_shadow()
        if now >= self._look_at:
            self._look_at = now + self._watch_s
            self.refresh()

    def _introduce(self) -> None:
        """Say to a control process what a runner process says at its start, and what is loaded."""
        runtime = self._settings.runtime
        facts = {"runtime": runtime, "runtime_version": runtime_version(runtime), "pid": os.getpid()}
        self._link.tell({"event": "ready", **facts})
        self._link.tell(loaded("active", self.model, self._how["active"], 0.0))
        if self._answering.shadow is not None:
            self._link.tell(loaded("shadow", self._answering.shadow.model, self._how["shadow"], 0.0))

    def _obey(self, line: bytes) -> None:
        try:
            command = parse(line)
        except MessageError as error:
            self._emit({"event": "command_failed", "reason": str(error)})
            return
        match command:
            case Load():
                self._load(command.role, command.folder)
            case Unload():
                with self._lock:
                    self._answering.unload()
            case _:  # sources, pauses and ends are the application's own affair
                return

    def _compare(self) -> None:
        pair, self._pair = self._pair, None
        if pair is not None:
            self._answering.compare(*pair)

    def _release(self) -> None:
        if self._owned is not None:
            self._owned.close()
            self._owned = None

    def close(self) -> None:
        """Publish what is left, say good-bye, and let go of the counters. Safe to call twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        with self._lock:
            self._answering.close()
        self._link.close()
        self._release()


def _own(place: Place) -> IO[str] | None:
    """Hold the right to count for a model; None where another application has it, or the folder is not ours."""
    try:
        run_folder(place.data)
        handle = lock_path(place.data, place.model).open("a")
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle
