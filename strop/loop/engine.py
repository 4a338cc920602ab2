# SPDX-License-Identifier: Apache-2.0
"""Runs the steps of one recorded run in their order, asks people at gates, and ends it healed or failed."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge_contract.errors import StropError
from strop.loop import capture_steps, model_steps, release_steps
from strop.loop.cleanup import clean_up
from strop.loop.journal import ENDED, STEPS, LaterError, Run
from strop.loop.work import Lease, Work

__all__ = ["GATE_WORDS", "go_on"]

_DO: Final[Mapping[str, Callable[[Work], str]]] = {
    "take": capture_steps.take,
    "capture": capture_steps.capture,
    "collect": capture_steps.collect,
    "examine": capture_steps.examine,
    "train": model_steps.train,
    "bundle": model_steps.bundle,
    "register": model_steps.register,
    "canary": release_steps.canary,
    "promote": release_steps.promote,
    "rollout": release_steps.rollout,
    "verify": release_steps.verify,
    "close": release_steps.close,
}
GATE_WORDS: Final[Mapping[str, str]] = {
    "capture": "may the devices that allow it be asked for raw inputs?",
    "train": "may the model be trained again with what was captured?",
    "bundle": "may the bundle be built and signed?",
    "canary": "may the bundle go to shadows and canaries?",
    "rollout": "may the bundle go to everybody?",
}


def go_on(work: Work) -> Run:
    """Take a run from where it stands to its end, and return it; what was done is not done again.

    Raises:
        LaterError: The server stayed away too long, or the disk is full: the run can be resumed.
    """
    run = work.run
    with run.held():
        if run.state in ENDED:
            return run
        if run.state == "failing":
            return _fail(work, str(run.document["reason"]))
        try:
            with Lease(work):
                for name in STEPS:
                    _step(work, name)
        except LaterError:
            raise
        except StropError as error:
            return _fail(work, str(error))
        run.save(state="healed", reason=str(run.step("close").get("words", "")))
        work.say(f"healed: {run.document['reason']}")
    return run


def _step(work: Work, name: str) -> None:
    run, record = work.run, work.run.step(name)
    if record["state"] == "done":
        if name == "take" and not work.is_delivered:  # the lease may have ended while nobody worked
            work.take()
        return
    work.check()
    if name in work.config.ask:
        _ask(work, name)
    begun = time.time()
    record.update(state="running", started_at=record.get("started_at", begun), attempts=record.get("attempts", 0) + 1)
    run.save(state="running")
    work.say(f"{name} …")
    try:
        words = _DO[name](work)
    except LaterError:
        raise
    except StropError as error:
        record.update(state="failed", ended_at=time.time(), words=str(error))
        run.save()
        raise
    record.update(state="done", ended_at=time.time(), words=words)
    run.save()
    work.say(f"{name}: {words}")


def _ask(work: Work, name: str) -> None:
    """Wait for a person at a gate.

    Raises:
        StropError: Denied, or nobody answered in time.
    """
    run = work.run
    if "answer" not in run.facts(name):
        answer = _answered(work, name)
        run.facts(name).pop("until", None)  # the step itself has all its time
        run.note(name, answer=answer)
    answer = run.facts(name)["answer"]
    said = ": ".join(part for part in (answer["by"], answer["note"]) if part)
    if answer["word"] != "approve":
        raise StropError(f"denied by {said}", where=f"gate {name}")
    work.say(f"{name}: approved by {said}")


def _answered(work: Work, name: str) -> dict[str, Any]:
    run = work.run
    if run.answer(name) is None:
        run.step(name).update(state="asking")
        run.save(state="asking")
        work.say(f"{name}: {GATE_WORDS[name]} strop loop approve {run.folder} {name}, or deny")
    until = work.until(name, work.config.limits.ask_s)
    return work.wait(f"an answer at the gate '{name}'", lambda: run.answer(name), until)


def _fail(work: Work, reason: str) -> Run:
    """Clean up and end the run as failed; a process that dies here goes on here."""
    run = work.run
    run.save(state="failing", reason=reason)
    work.say(f"failed: {reason}")
    left = clean_up(work, reason)
    run.save(state="failed", left=left)
    for words in left:
        work.say(f"left behind: {words}")
    return run
