# SPDX-License-Identifier: Apache-2.0
"""Lives and deaths of a device's process, from the test's side: start it over a folder, and hold it to its word."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.adapters.slots import POINTERS, SlotStore
from edge_agent.adapters.store import OutboxStore
from edge_contract.manifest import Manifest
from tests.edge_agent.crash import shim
from tests.edge_agent.crash.outside import MODEL, is_whole, order_id
from tests.edge_agent.crash.rig import rows_of

HOME = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Story:
    """What happens to a device: the version that is installed, and what is ordered; ``bad…`` is rolled back."""

    installed: str
    orders: tuple[str, ...]
    acks: bool = False

    def good(self, ended: int) -> str:
        """Return the version that must be active after so many orders came to their end."""
        return [v for v in ("", self.installed, *self.orders[:ended]) if not v.startswith("bad")][-1]


STORIES = {
    "a first install": Story("", ("1",)),
    "an update": Story("1", ("2",)),
    "a bad update": Story("1", ("bad",)),
    "a bad first install": Story("", ("bad",)),
    "three updates": Story("1", ("2", "3", "4"), acks=True),
    "a bad one between two": Story("1", ("2", "bad", "3"), acks=True),
}


@dataclass
class Claims:
    """What the world was told, over all lives of a device: it must stay true.

    Attributes:
        ended: Order → its last status.
        rows: (boot, class, number) → checksum of each row whose commit returned.
        acked: (boot, class) → the highest number that the server has.
        reasons: Why orders ended as they did, by the device's own word.
        error: What a life died of that was not killed.
    """

    ended: dict[str, str] = field(default_factory=dict)
    rows: dict[tuple[str, str, int], int] = field(default_factory=dict)
    acked: dict[tuple[str, str], int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    error: str = ""

    def hear(self, words: dict[str, Any]) -> None:
        """Take in one thing that was told; an order ends once, and never otherwise than it did."""
        if "ended" in words:
            known = self.ended.setdefault(words["ended"], words["status"])
            assert known == words["status"], f"{words['ended']} was {known}, and is now {words['status']}"
            self.reasons.append(words["reason"])
        for boot, cls, seq, checksum in words.get("committed", ()):
            self.rows[boot, cls, seq] = checksum
        if "acked" in words:
            boot, cls, seq = words["acked"]
            self.acked[boot, cls] = max(seq, self.acked.get((boot, cls), 0))
        self.error = words.get("error", self.error)

    def check_rows(self, found: dict[tuple[str, str, int], int]) -> None:
        """Every row whose commit returned is on the disk, or the server has it."""
        for key, checksum in self.rows.items():
            if key[2] > self.acked.get(key[:2], 0):
                assert found.get(key) == checksum, f"row {key} is lost"


def rows_on(data: Path) -> dict[tuple[str, str, int], int]:
    """Return the rows that a real start of the outbox finds."""
    outbox = OutboxStore(data / "outbox.db")
    with closing(outbox._db):
        return {(boot, cls, seq): checksum for boot, cls, seq, checksum in rows_of(outbox)}


class Lives:
    """The forking process behind the shim."""

    def __init__(self, library: Path, bundles: Path, url: str) -> None:
        self.bundles, self.url = bundles, url
        words = [sys.executable, "-m", "tests.edge_agent.crash.child"]
        environment = shim.environment(library)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._child = subprocess.Popen(words, cwd=HOME, env=environment, stderr=subprocess.DEVNULL, **pipes)

    def live(
        self,
        data: Path,
        story: Story,
        claims: Claims,
        *,
        boot: int = 1,
        how: Sequence[int] = (),
        log: Path | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Run one life to its end; return its exit code, negative for a signal, and its last words.

        ``how`` is: what to do, from which operation, to which, which error.
        """
        kind, first, last, error = (*how, *(shim.COUNT, 0, shim.NEVER, 0)[len(how) :])
        request = {"data": str(data), "bundles": str(self.bundles), "url": self.url, "boot": boot, "acks": story.acks}
        request |= {"orders": story.orders, "how": kind, "first": first, "last": last, "error": error}
        request["log"] = str(log or "")
        assert self._child.stdin and self._child.stdout
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        assert line, f"the forking process ended with {self._child.wait(30)}"
        reply = json.loads(line)
        for words in reply["said"]:
            claims.hear(words)
        return reply["code"], reply["said"][-1] if reply["said"] else {}

    def close(self) -> None:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        self._child.wait(30)
        self._child.stdout.close()


def check_disk(data: Path, manifests: dict[str, Manifest], story: Story, claims: Claims) -> None:
    """After the last life: the right model, whole, and a result that fits for each order."""
    ends = ["FAILED" if version.startswith("bad") else "SUCCEEDED" for version in story.orders]
    assert claims.ended == {order_id(i): end for i, end in enumerate(ends, 1)}, claims.reasons
    slots = SlotStore(data / "models").read(MODEL)
    good = story.good(len(story.orders))
    assert slots.active == (manifests[good].bundle_id if good else "")
    for pointer in POINTERS:
        link = data / "models" / MODEL / pointer
        assert not link.is_symlink() or is_whole(link.resolve()), pointer
    check_rows_and_journal(data, claims)
    assert not list(data.glob(".*.tmp")), "what a kill left was not swept"
    slots_left = {path.name for path in (data / "models" / MODEL / "slots").glob("*")}
    assert slots_left <= {slots.active, slots.standby, slots.factory}, "old slots and downloads were not deleted"


def check_rows_and_journal(data: Path, claims: Claims) -> None:
    """Nothing was put aside as damaged, and no row is lost."""
    assert not list(data.glob("*.damaged"))
    claims.check_rows(rows_on(data))
