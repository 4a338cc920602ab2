# SPDX-License-Identifier: Apache-2.0
"""Says whether a state of the disk is good, with the code that runs when a device starts: ``Journal.read``,
``SlotStore.read``, ``OutboxStore`` and the core's ``Booted``.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.adapters.install import needed_files
from edge_agent.adapters.slots import POINTERS, SlotStore
from edge_agent.adapters.store import Journal
from edge_agent.core import agent
from edge_agent.core import events as ev
from edge_agent.core.execution import Update
from edge_agent.core.lane import Identity, Plan
from edge_contract import canonical
from edge_contract.manifest import MANIFEST_NAME, Manifest
from tests.edge_agent.crash.disk import Tree, write
from tests.edge_agent.crash.lives import Claims, Story, rows_on
from tests.edge_agent.crash.outside import MODEL, RUNTIME

NOW = ev.Instant(2e6, 100.0)
Rows = dict[tuple[str, str, int], int]


@dataclass(frozen=True)
class Found:
    """What a start finds: the pointers, and the update machine as it takes up its work."""

    slots: ev.Slots
    update: Update


@dataclass
class Judge:
    """Judges states of one story's disk; what it has seen before it does not look at again.

    Attributes:
        folder: Where a state is made real.
        claims: What the world was told until now.
        seen: States, each with the claims that it was judged by.
        found, rows: What a start made of the models and the journal, and of the outbox, by their files.
        digests: Bytes → their SHA-256.
    """

    folder: Path
    manifests: dict[str, Manifest]
    story: Story
    claims: Claims = field(default_factory=Claims)
    seen: set[int] = field(default_factory=set)
    found: dict[int, Found] = field(default_factory=dict)
    rows: dict[int, Rows] = field(default_factory=dict)
    digests: dict[bytes, str] = field(default_factory=dict)

    def judge(self, tree: Tree) -> bool:
        """Judge a state; False if it was judged already. A bad one raises AssertionError, or what the start raised."""
        told = (len(self.claims.ended), len(self.claims.rows), str(self.claims.acked))
        key = hash((frozenset(tree.items()), told))
        if key in self.seen:
            return False
        self.seen.add(key)
        outbox = {path: node for path, node in tree.items() if path.startswith("outbox")}
        self.claims.check_rows(self._rows(outbox))
        self._check(self._found({path: node for path, node in tree.items() if path not in outbox}))
        return True

    def _made(self, tree: Tree) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        write(tree, self.folder)
        return self.folder

    def _rows(self, outbox: Tree) -> Rows:
        key = hash(frozenset(outbox.items()))
        if key not in self.rows:
            self.rows[key] = rows_on(self._made(outbox))
            assert not (self.folder / "outbox.damaged").exists()
        return self.rows[key]

    def _found(self, tree: Tree) -> Found:
        key = hash(frozenset(tree.items()))
        if key not in self.found:
            self._check_pointers(tree)
            self.found[key] = start(self._made(tree))
        return self.found[key]

    def _check_pointers(self, tree: Tree) -> None:
        """Every pointer leads to a slot in which each file has the hash that the manifest gives it."""
        for pointer in POINTERS:
            kind, target = tree.get(f"models/{MODEL}/{pointer}", ("", ""))
            if kind:
                assert isinstance(target, str), pointer
                slot = f"models/{MODEL}/{target}"
                manifest = tree[f"{slot}/{MANIFEST_NAME}"][1]
                assert isinstance(manifest, bytes), pointer
                assert target == f"slots/{self._digest(manifest)}", pointer
                for entry in needed_files(Manifest.from_bytes(manifest), RUNTIME):
                    data = tree[f"{slot}/{entry.path}"][1]
                    assert isinstance(data, bytes), entry.path
                    assert self._digest(data) == entry.sha256, f"{pointer}: {entry.path}"

    def _digest(self, data: bytes) -> str:
        if data not in self.digests:
            self.digests[data] = canonical.digest(data)
        return self.digests[data]

    def _check(self, found: Found) -> None:
        """What was told is still true: an order that ended stays ended, and its model, or the one before, is active."""
        ended = len(self.claims.ended)
        execution, finished = found.update.execution, found.update.finished
        known = int(finished.job_id[1:]) if finished else 0
        assert known >= ended, f"order j{ended} was told to have ended; the journal knows j{known}"
        if finished is not None and known == ended:
            assert finished.report.status.value == self.claims.ended[finished.job_id]
        allowed = {self._good(known, found)}
        if execution is not None:
            assert int(execution.job.job_id[1:]) == known + 1
            allowed.add(execution.job.bundle)
        assert found.slots.active in allowed, f"active is {found.slots.active[:8] or 'nothing'} after {known} orders"
        if "SUCCEEDED" in self.claims.ended.values() or self.story.installed:
            assert found.slots.factory, "there is no factory model"

    def _good(self, ended: int, _found: Found) -> str:
        """Return the bundle that must be active after so many orders."""
        version = self.story.good(ended)
        return self.manifests[version].bundle_id if version else ""


def start(data: Path) -> Found:
    """Start as ``App.begin`` does, up to the core's first effects."""
    journal, slots = Journal(data / "journal.json").read(), SlotStore(data / "models").read(MODEL)
    me = Identity("pi", "f" * 16, RUNTIME, "0")
    state = agent.initial(me, plans=[Plan("", MODEL, RUNTIME)])
    state, effects = agent.handle(state, ev.Booted(NOW, MODEL, slots, journal, (), {}))
    assert "journal_unreadable" not in str(effects), "the journal cannot be read"
    return Found(slots, state.first.update)
