# SPDX-License-Identifier: Apache-2.0
"""The two ways to be measured: the bare runtime, and the path that an application takes through the agent.

Both are opened in the same order, so that the cold start has the same parts: packages, file, first answer.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.inputs import Described
from benchmarks.harness.marks import Marks, Step
from benchmarks.plan import BenchPlan
from benchmarks.record import RuntimeFacts

__all__ = ["Way", "bare_way", "realistic_way"]


@dataclass(frozen=True)
class Way:
    """A model that was opened, and how to time it.

    Attributes:
        stages: In their order.
        samples: How many different inputs it cycles.
        step: Makes the step that marks its stages.
        first: Runs once, untimed inside.
        facts: What runs it.
        batch: Inputs in one run.
        golden: ``same``, ``differs`` or ``none``.
        arena_kb: Memory of the runtime's tensors, 0 where nobody can tell.
        close: Lets go of it.
    """

    stages: tuple[str, ...]
    samples: int
    step: Callable[[Marks], Step]
    first: Callable[[], object]
    facts: RuntimeFacts
    batch: int
    golden: Callable[[], str]
    arena_kb: Callable[[], int]
    close: Callable[[], object]


def bare_way(plan: BenchPlan, about: Described | None) -> Callable[[], Way]:
    """Load the plan's file in its runtime; return what prepares the inputs and makes a way of it.

    The two are apart because loading is timed and the making of inputs is not.
    """
    from benchmarks.harness.opening import open_bare

    bare = open_bare(plan, about.dtype if about is not None else "")

    def prepared() -> Way:
        from benchmarks.harness import inputs
        from benchmarks.harness.marks import bare_step

        feeds = inputs.feeds(plan, bare.inputs, about)
        facts = RuntimeFacts(
            bare.name, bare.version, bare.providers, bare.delegated or 0.0, plan.threads, _affinity(), bare.flags
        )
        if plan.batch > bare.batch:  # the file has a fixed size: one after the other within a run
            groups = [tuple(feeds[(i + j) % len(feeds)] for j in range(plan.batch)) for i in range(len(feeds))]
            facts = RuntimeFacts(**{**vars(facts), "flags": {**bare.flags, "batching": "one by one"}})
            place, run, fetch = _one_by_one(bare.place, bare.invoke, bare.fetch, groups)
        else:
            place, run, fetch = (lambda which: bare.place(feeds[which])), bare.invoke, bare.fetch

        def once() -> None:
            place(0)
            run()
            fetch()

        return Way(
            ("preprocess", "invoke", "postprocess"),
            len(feeds),
            lambda marks: bare_step(marks, place, run, fetch),
            once,
            facts,
            plan.batch,
            lambda: _golden(plan, about),
            bare.arena_kb,
            lambda: None,
        )

    return prepared


def _one_by_one(
    place: Callable[[Any], object],
    invoke: Callable[[], object],
    fetch: Callable[[], list[Any]],
    groups: Sequence[Sequence[Any]],
) -> tuple[Callable[[int], object], Callable[[], object], Callable[[], object]]:
    """Return the three actions for a file that takes one input: the copies stand in ``invoke``, between the calls."""
    chosen = [groups[0]]

    def choose(which: int) -> None:
        chosen[0] = groups[which]

    def run() -> None:
        for feed in chosen[0]:
            place(feed)
            invoke()
            fetch()

    return choose, run, lambda: None


def _golden(plan: BenchPlan, about: Described | None) -> str:
    """Return whether the bundle's golden inputs give what they must, with these bytes in this runtime and process."""
    if about is None:
        return "none"
    from edge_agent.runner import golden
    from edge_agent.runner.model import Description, Model
    from edge_agent.runner.runtimes import open_session

    manifest, artefact = about.contents.manifest, about.artefact
    description = Description(
        artefact,
        manifest.preprocess,
        manifest.postprocess,
        manifest.labels,
        plan.sha256,
        about.contents.bundle,
        manifest.version,
        manifest.task,
    )
    session = open_session(Path(plan.artefact), artefact, plan.runtime, plan.threads, plan.delegate)
    return "same" if golden.check(Model(session, description, about.contents)).is_ok else "differs"


def realistic_way(plan: BenchPlan, about: Described) -> Callable[[], Way]:
    """Open the plan's bundle as an application does, by the agent's name, with counters and input statistics.

    Opening runs the golden self-test: a model that fails it never answers.
    """
    import edge_agent

    held = ExitStack()
    data = held.enter_context(tempfile.TemporaryDirectory(prefix="strop-bench-"))
    name = _installed(about, Path(data))
    options = {"runtime": plan.runtime, "threads": plan.threads, "delegate": plan.delegate}
    target = about.artefact.target
    model = edge_agent.Model.open(name, data=data, target=target, watch_s=60.0, **options)  # type: ignore[arg-type]
    held.callback(model.close)

    def prepared() -> Way:
        from benchmarks.harness.marks import Seam, path_step

        capture, samples = _capture(plan, about)
        seam = Seam(model.file.session.run)
        held.enter_context(model.file.running(seam, model.file.session.room))
        answer: Callable[[Any], object] = model.predict
        session = model.file.session
        facts = RuntimeFacts(
            session.runtime, session.version, (session.delegate,), 0.0, plan.threads, _affinity(), {"path": "agent"}
        )
        return Way(
            ("capture", "preprocess", "invoke", "postprocess"),
            samples,
            lambda marks: path_step(marks, capture, answer, seam),
            lambda: answer(capture(0)),
            facts,
            plan.batch,
            lambda: "same",
            lambda: 0,
            held.close,
        )

    return prepared


def _installed(about: Described, data: Path) -> str:
    """Lay a data folder around a bundle, as an agent keeps it; return the model's name."""
    model = about.contents.manifest.model
    slot = data / "models" / model / "slots" / about.contents.bundle
    shutil.copytree(about.contents.folder, slot)
    (slot.parent.parent / "active").symlink_to(f"slots/{about.contents.bundle}")
    return model


def _capture(plan: BenchPlan, about: Described) -> tuple[Callable[[int], Any], int]:
    """Return what gives a raw input in memory of its own, as a camera does, and how many there are.

    A folder of files is read and unpacked in each run: that is what the application would wait for.
    """
    import numpy as np

    from benchmarks.harness import inputs

    if plan.data and Path(plan.data).is_dir():
        files = inputs.files_of(Path(plan.data))
        return (lambda which: inputs.read_file(files[which])), len(files)
    raws = inputs.raws(plan, about)
    return (lambda which: np.array(raws[which])), len(raws)


def _affinity() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0)))
