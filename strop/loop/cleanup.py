# SPDX-License-Identifier: Apache-2.0
"""After a failure nothing stays half done on the server: captures end, devices go back, the signal stays open."""

from collections.abc import Callable
from typing import Final

from edge_contract.errors import RegistryError, StropError, UsageError
from fleet.client import FleetClient
from strop.loop.capture_steps import close_campaign
from strop.loop.journal import LaterError
from strop.loop.model_steps import retire
from strop.loop.release_steps import started
from strop.loop.work import Work

__all__ = ["clean_up"]

_BACK: Final = frozenset({"RUNNING", "PAUSED", "ABORTING", "COMPLETED"})
_NEVER_BEGAN: Final = frozenset({"DRAFT", "PENDING_APPROVAL", "APPROVED", "SCHEDULED"})
_LONGEST_S: Final = 1800.0


def clean_up(work: Work, reason: str) -> list[str]:
    """Undo what a failed run has begun on the server; return what could not be undone, in words.

    Each part is tried, whatever becomes of the others, and each may be repeated after a restart.

    Raises:
        LaterError: The server is away: ``--resume`` goes on here.
    """
    left: list[str] = []
    parts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("the campaign", lambda: close_campaign(work)),
        ("the rollout to everybody", lambda: _take_back(work, "rollout", reason)),
        ("the canaries", lambda: _take_back(work, "canary", reason)),
        ("the version", lambda: retire(work, reason)),
        ("the signal", lambda: _leave(work, reason)),
    )
    for name, part in parts:
        try:
            part()
        except LaterError:
            raise
        except StropError as error:
            left.append(f"{name}: {error}")
    return left


def _take_back(work: Work, step: str, reason: str) -> None:
    """Bring the bundle before back to whoever a rollout of ours has changed."""
    name = work.server.do(lambda client: started(work, client, step))
    if not name:
        return

    def job(client: FleetClient) -> None:
        state = client.call("GET", f"/rollouts/{name}?limit=1")["state"]
        verb = "rollback" if state in _BACK else "abort" if state in _NEVER_BEGAN else ""
        if verb:
            work.say(f"{verb} of rollout {name}")
            client.call("POST", f"/rollouts/{name}/{verb}", {"reason": f"the loop failed: {reason}"[:250]})

    work.server.do(job)
    deadline = work.wall() + _LONGEST_S
    while work.server.call("GET", f"/rollouts/{name}?limit=1")["state"] == "ROLLING_BACK":
        if work.wall() >= deadline:
            raise StropError(f"still rolls back after {_LONGEST_S:g} s", where=f"rollout {name}")
        work.server.sleep(work.config.limits.poll_s)


def _leave(work: Work, reason: str) -> None:
    """Let go of the signal; it stays open with the reason. One that is closed or another loop's is left alone."""
    try:
        work.server.call("POST", work.signal_path("leave"), {"holder": work.run.id, "reason": reason})
    except (RegistryError, UsageError) as error:
        work.say(f"the signal is left as it is: {error}")
