# SPDX-License-Identifier: Apache-2.0
"""``edge_agent.Model``: what an application calls.

::

    with edge_agent.Model.open("digits") as model:      # the agent's model of this name, whichever is active
        answer = model.predict(image)                   # from any thread
        answer = await model.apredict(image)            # in asyncio
        answers = model.predict_batch(images)

By name it follows the agent's slots; of a bundle's folder (a ``Path``) it is that bundle and stays so. The calls are
the same, so a program that was written beside a bundle runs on a device by one changed word.
"""

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol, Self

from numpy.typing import NDArray

from edge_agent.runner import model as files
from edge_agent.runner.answering import Answering
from edge_agent.runner.answers import Answer, Inference
from edge_agent.runner.contents import Contents
from edge_agent.runner.embedded.live import Live
from edge_agent.runner.embedded.place import Place, is_model_name
from edge_agent.runner.model import Description
from edge_agent.runner.proving import Settings
from edge_agent.runner.runtimes import runtime_version
from edge_agent.runner.runtimes.lending import Lent
from edge_contract.errors import DataError, MissingDependencyError, RuntimeAdapterError, StropError, UsageError
from edge_contract.manifest import RUNTIMES

__all__ = ["Model"]

Array = NDArray[Any]
QUEUE: Final = 8


class Held(Protocol):
    """Whatever answers behind a ``Model``: a bundle that stays, or one that follows its slots."""

    swaps: int

    @property
    def model(self) -> files.Model: ...
    @property
    def is_counted(self) -> bool: ...
    def answer(self, raw: Array, taken_at: float | None = None) -> Answer: ...
    def exclusively(self) -> threading.Lock: ...
    def refresh(self) -> bool: ...
    def close(self) -> None: ...


class _Fixed:
    """A bundle's folder: nothing is exchanged and nothing is counted."""

    swaps = 0
    is_counted = False

    def __init__(self, model: files.Model, settings: Settings) -> None:
        self.model = model
        self._lock, self._count = threading.Lock(), 0
        self._answering = Answering(settings, lambda event: None, time.monotonic)
        self._answering.take("active", model)
        self._answering.results.stop()

    def answer(self, raw: Array, taken_at: float | None = None) -> Answer:
        with self._lock:
            return self._answering.answer("", raw, taken_at)

    def exclusively(self) -> threading.Lock:
        return self._lock

    def refresh(self) -> bool:
        return False

    def close(self) -> None:
        self._answering.close()


class Model:
    """A model that answers raw inputs. May be used from any thread: calls are answered one after the other.

    Made by ``open``. After a fork only the process that opened it may use it.
    """

    def __init__(self, held: Held, queue: int) -> None:
        self._held, self._queue = held, queue
        self._worker: ThreadPoolExecutor | None = None
        self._rooms: weakref.WeakKeyDictionary[Any, asyncio.Semaphore] = weakref.WeakKeyDictionary()
        self.predict = held.answer
        if isinstance(held, Live):
            atexit.register(held.close)  # a program that just ends says good-bye, too

    @classmethod
    def open(
        cls,
        where: str | Path,
        *,
        runtime: str = "",
        data: str | Path | None = None,
        threads: int = 0,
        target: str = "",
        delegate: str = "",
        cache: int = 0,
        queue: int = QUEUE,
        watch_s: float = 0.5,
        sample_hz: float = 0.0,
        hear: Callable[[dict[str, Any]], None] | None = None,
    ) -> "Model":
        """Open a model.

        Args:
            where: The name of one of the agent's models; or a bundle's folder, as a ``Path`` or a text with a slash.
            runtime: Left out: agent.toml's; of a folder the first one that it claims and that is installed here.
            data: The agent's data folder; left out: $STROP_DATA, else /var/lib/strop.
            threads: Of the runtime; left out: agent.toml's, else 1.
            target: Of several artefacts, the one for this target is taken.
            delegate: Of onnxruntime the execution provider, such as ``openvino``; of edgetpu the delegate's library.
            cache: Keep so many answers for inputs that come again, byte by byte.
            queue: Most calls of ``apredict`` that wait at a time; further ones wait for room.
            watch_s: Pause between two looks at the agent's pointer.
            sample_hz: Inferences a second that drift counts, at random moments; 0: all. 1 is right for a video.
            hear: Called with each event (``loaded``, ``load_failed``, ``error``, ``input`` …), for a program's log.

        Raises:
            UsageError: No data folder.
            SlotError: The agent has no model of this name that answers.
            BundleError, ManifestError: The folder is no bundle, its artefact is missing or changed, or no artefact
                claims the runtime.
            MissingDependencyError: The runtime is not installed.
            RuntimeAdapterError: The runtime refuses the artefact.
        """
        if is_model_name(where):
            place = Place.find(str(where), data, runtime, threads, delegate)
            how = {"target": target, "cache": cache, "watch_s": watch_s, "sample_hz": sample_hz, "hear": hear}
            return cls(Live(place, **how), queue)  # type: ignore[arg-type]  # mixed on purpose
        folder = Path(where)
        settings = Settings(runtime or _installed(folder), None, threads or 1, target, cache, delegate)
        opened = {"threads": settings.threads, "target": target, "delegate": delegate}
        model = files.Model.open(folder, runtime=settings.runtime, **opened)  # type: ignore[arg-type]  # mixed on purpose
        return cls(_Fixed(model, settings), queue)

    predict: Callable[..., Answer]
    """``predict(raw, taken_at=None)``: answer one raw input by the model's task.

    Args:
        raw: An image [H, W] or [H, W, C], or what the preprocessing takes. Only read, and not kept.
        taken_at: When it was taken, seconds of ``time.monotonic()``: an old or repeated frame is then found out.

    Raises:
        DataError: The input cannot become one of this model, or breaks the input contract.
        RuntimeAdapterError: The runtime failed, or gave NaN or an infinity.
    """

    def infer(self, raw: Array, taken_at: float | None = None) -> Inference:
        """Answer one raw input of a classifier; raises as ``predict`` does.

        Raises:
            UsageError: The model is no classifier.
        """
        answer = self.predict(raw, taken_at)
        if not isinstance(answer, Inference):
            where = self._held.model.artefact.path
            raise UsageError(f"a model for {self.task} gives no class", where=where, fix="use predict")
        return answer

    def predict_batch(self, raws: Sequence[Array] | Array) -> list[Answer]:
        """Answer several raw inputs, [N, …] or a list; all by one model, even if a swap is due meanwhile or not.

        The files take one input at a time (a device sees one frame at a time, and a batch of one has the lowest
        latency); so this saves no time, only words.

        Raises:
            DataError: One of them breaks the contract; names its place. The ones before it are counted.
        """
        answers: list[Answer] = []
        for place, raw in enumerate(raws):
            try:
                answers.append(self.predict(raw))
            except DataError as error:
                raise DataError(error.what, where=f"input {place} of {len(raws)}", fix=error.fix) from error
        return answers

    async def apredict(self, raw: Array, taken_at: float | None = None) -> Answer:
        """Answer one raw input on a worker thread; waits for room when ``queue`` calls wait already.

        A call that is cancelled before its turn is never inferred. The input must not change until the answer came.
        """
        loop = asyncio.get_running_loop()
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="strop apredict")
        room = self._rooms.setdefault(loop, asyncio.Semaphore(self._queue))
        async with room:
            return await loop.run_in_executor(self._worker, self.predict, raw, taken_at)

    @contextmanager
    def borrow(self) -> Iterator[Lent]:
        """Lend the runtime's own input and output memory, without preprocessing and without a copy.

        ::

            with model.borrow() as lent:
                camera.read_into(lent.input)        # [1, …] in the file's own type and layout
                lent.run()
                best = lent.outputs["logits"].argmax()

        Other calls wait until the block ends. ``input`` and ``outputs`` are dead after it: LiteRT refuses to run while
        a view of its memory is held, ONNX Runtime writes the next answer into it. Nothing is counted here.

        Raises:
            RuntimeAdapterError: The runtime lends nothing, or a view was kept from an earlier block.
        """
        with self._held.exclusively():
            model = self._held.model
            lent = model.session.lend(model.names)
            try:
                yield lent
            finally:
                lent.release()

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of ``cls``, of the model that answers now."""
        return self._held.model.labels

    @property
    def bundle(self) -> str:
        """Id of the bundle that answers now."""
        return self._held.model.bundle

    @property
    def version(self) -> str:
        """Version of the bundle that answers now."""
        return self._held.model.version

    @property
    def task(self) -> str:
        """What the model is for: ``classification``, ``detection``, ``regression`` or ``other``."""
        return self._held.model.task

    @property
    def description(self) -> Description:
        """What is known of the model file that answers now."""
        return self._held.model.description

    @property
    def contents(self) -> Contents | None:
        """The bundle's folder of the model that answers now."""
        return self._held.model.contents

    @property
    def file(self) -> files.Model:
        """The model file that answers now, in its runtime; not thread-safe, and without checks and counters."""
        return self._held.model

    @property
    def swaps(self) -> int:
        """How often another model took over since ``open``."""
        return self._held.swaps

    @property
    def is_counted(self) -> bool:
        """Whether the answers count in telemetry and drift: by name, in the first application that opens it."""
        return self._held.is_counted

    def refresh(self) -> bool:
        """Look at the agent's pointer now instead of in ``watch_s``; return whether another model answers since."""
        return self._held.refresh()

    def close(self) -> None:
        """Publish what is left and let go; safe to call twice."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)
        self._held.close()
        atexit.unregister(self._held.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _installed(folder: Path) -> str:
    """Return the first runtime that a bundle claims and that is installed here.

    Raises:
        MissingDependencyError: None is; the first one's install line is in it.
    """
    claimed = {name for artefact in Contents.open(folder).manifest.artefacts for name in artefact.runtimes}
    first: StropError | None = None
    for runtime in (name for name in RUNTIMES if name in claimed):
        try:
            runtime_version(runtime)
        except (MissingDependencyError, RuntimeAdapterError) as error:
            first = first or error
        else:
            return runtime
    raise first or UsageError("no runtime that is known here", where=str(folder), fix="update Strop")
