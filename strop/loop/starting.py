# SPDX-License-Identifier: Apache-2.0
"""Which runs there are to do: begin one for a signal, go on with those that were interrupted, wait for the next."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from edge_contract.errors import RegistryError, StropError, UsageError
from strop.loop.config import GATES, LoopConfig
from strop.loop.engine import go_on
from strop.loop.journal import ENDED, Run, runs_in
from strop.loop.server import Server
from strop.loop.work import Work

__all__ = ["asking", "begin", "outcome", "resumed", "watched", "worked"]

Say = Callable[[str], None]


def asking(config: LoopConfig, words: str) -> LoopConfig:
    """Return the settings with gates of the command line beside those of the file.

    Raises:
        UsageError: Not a gate.
    """
    names = tuple(name.strip() for name in words.split(",") if name.strip())
    for name in names:
        if name not in GATES:
            raise UsageError(f"unknown gate '{name}'", where="--ask", fix=f"use {', '.join(GATES)}")
    return replace(config, ask=tuple(dict.fromkeys((*config.ask, *names))))


def begin(config: LoopConfig, server: Server, number: int) -> Run:
    """Make the folder of a run for a signal that is free.

    Raises:
        UsageError: No such signal, no recipe for its model, or a run for it waits to be resumed.
        RegistryError: The signal is closed, or another loop works on it.
    """
    for run in runs_in(config.runs):
        if run.number == number and run.state not in ENDED:
            fix = f"strop loop run --resume --signal {number}"
            raise UsageError(f"a run for signal {number} is {run.state}", where=str(run.folder), fix=fix)
    shown = server.call("GET", f"/drift/signals/{number}")
    if shown["state"] != "open":
        raise RegistryError(f"it is {shown['state']}: {shown['reason']}", where=f"signal {number}")
    if shown["held"]:
        fix = "wait, or end that loop"
        raise RegistryError(f"{shown['holder']} works on it", where=f"signal {number}", fix=fix)
    config.model(shown["signal"]["model"])
    return Run.create(config.runs, shown, config.path.read_text(encoding="utf-8"))


def worked(config: LoopConfig, server: Server, run: Run, say: Say) -> Run:
    """Take a run to its end; what is said stands in its ``log.txt``, too."""

    def told(text: str) -> None:
        say(text)
        with (run.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")

    return go_on(Work(run, config, server, told))


def resumed(config: LoopConfig, number: int) -> list[Run]:
    """Return the runs that were interrupted, of one signal or of all.

    Raises:
        UsageError: There is none.
    """
    found = [run for run in runs_in(config.runs) if run.state not in ENDED and number in (0, run.number)]
    if not found:
        raise UsageError("no run was interrupted", where=str(config.runs), fix="strop loop status lists the runs")
    return found


def watched(config: LoopConfig, server: Server, say: Say) -> Iterator[Run]:
    """Give a run for each signal that comes, one after the other, for ever; first those that were interrupted.

    A signal whose run failed is not tried again by itself: somebody has to look (``strop loop run --signal N``).
    """
    yield from (run for run in runs_in(config.runs) if run.state not in ENDED)
    say(f"waiting for a signal of {', '.join(config.models)}")
    while True:
        tried = {run.number for run in runs_in(config.runs)}
        for one in reversed(server.call("GET", "/drift/signals")):
            if one["number"] in tried or one["held"] or one["signal"]["model"] not in config.models:
                continue
            try:
                yield begin(config, server, int(one["number"]))
            except RegistryError as error:  # another loop was faster
                say(str(error))
        server.sleep(config.limits.poll_s)


def outcome(run: Run) -> dict[str, Any]:
    """Return a run's end as one object.

    Raises:
        StropError: It failed; says at which step, where its folder is, and how to go on.
    """
    if run.state == "failed":
        failed = next((one["name"] for one in run.document["steps"] if one["state"] in ("failed", "asking")), "")
        where = f"{run.folder}{f', step {failed}' if failed else ''}"
        fix = f"signal {run.number} stays open; after the cause is away: strop loop run --signal {run.number}"
        raise StropError(str(run.document["reason"]), where=where, fix=fix)
    return {"run": str(run.folder), **run.document}
