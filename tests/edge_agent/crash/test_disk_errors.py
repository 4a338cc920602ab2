# SPDX-License-Identifier: Apache-2.0
"""The disk refuses one durable operation, or all from one on: EIO and ENOSPC at each of them in turn.

The device keeps its old model or takes the new one whole, says what it could not do, and goes on when the disk is well
again. No row whose commit returned is lost, whatever the disk says afterwards.
"""

import errno
import random
from pathlib import Path

import pytest

from edge_agent.adapters.slots import POINTERS, SlotStore
from edge_agent.adapters.store import OutboxStore
from edge_contract.errors import StoreError
from tests.edge_agent.crash import shim
from tests.edge_agent.crash.conftest import Ground
from tests.edge_agent.crash.lives import Claims, Story, check_rows_and_journal
from tests.edge_agent.crash.outside import MODEL, is_whole, order_id
from tests.edge_agent.crash.test_kills import count

AGAIN = Story("1", ("2", "2"))
"""The same bundle is ordered once more: an order that failed for the disk's sake is repeated by a person."""
FRESH = Story("", ("1", "1"))


def check_pointers(data: Path) -> str:
    """Every pointer leads to a whole slot; return what is active."""
    for pointer in POINTERS:
        link = data / "models" / MODEL / pointer
        assert not link.is_symlink() or is_whole(link.resolve()), pointer
    return SlotStore(data / "models").read(MODEL).active


def fail(ground: Ground, story: Story, first: int, last: int, error: int) -> Claims:
    """Let operations fail in the first life; in the lives after it the disk is well."""
    data, claims = ground.begin(story), Claims()
    old, new = story.installed, ground.manifests[story.orders[-1]].bundle_id
    code, _ = ground.lives.live(data, story, claims, how=(shim.FAIL, first, last, error))
    assert code in (0, 1)
    # It ended for its supervisor to start it again, or its order waits for the disk.
    assert code == 0 or any(word in claims.error for word in ("StoreError", "no end: ")), claims.error
    assert check_pointers(data) in (new, ground.manifests[old].bundle_id if old else "")
    check_rows_and_journal(data, claims)
    if code:
        code, _ = ground.lives.live(data, story, claims, boot=2)
        assert code == 0, claims.error
    assert check_pointers(data) == new
    assert claims.ended[order_id(2)] == "SUCCEEDED", claims.reasons
    assert claims.ended[order_id(1)] == "SUCCEEDED" or all(claims.reasons[:1]), "it failed and did not say why"
    check_rows_and_journal(data, claims)
    return claims


@pytest.mark.parametrize("story", [AGAIN, FRESH], ids=["an update", "a first install"])
def test_one_refused_operation_costs_at_most_one_order(ground: Ground, story: Story) -> None:
    steps = count(ground, Story(story.installed, story.orders[:1]))
    for at in range(1, steps + 1, 5):
        fail(ground, story, at, at, (errno.EIO, errno.ENOSPC)[at % 2])


def test_a_disk_that_refuses_everything_from_one_moment_on_is_lived_through(ground: Ground) -> None:
    steps, rng = count(ground, Story("1", ("2",))), random.Random(3)
    for at in sorted(rng.sample(range(1, steps), 10)):
        fail(ground, AGAIN, at, shim.NEVER, errno.ENOSPC)


def test_a_disk_that_refuses_for_a_while_is_waited_for(ground: Ground) -> None:
    steps, rng = count(ground, Story("1", ("2",))), random.Random(4)
    for at in sorted(rng.sample(range(1, steps), 10)):
        fail(ground, AGAIN, at, at + 12, errno.EIO)


def test_a_database_that_is_damaged_behind_its_first_page_is_put_aside(tmp_path: Path) -> None:
    """It opens, and only its rows cannot be read: the agent starts all the same."""
    path = tmp_path / "outbox.db"
    outbox = OutboxStore(path)
    for seq in range(1, 400):
        outbox.keep("b", "event", (seq, 1.0, b"x" * 200), 0.0)
    outbox.close(0.0)
    pages = bytearray(path.read_bytes())
    pages[4 * 4096 :] = b"\xa5" * (len(pages) - 4 * 4096)
    path.write_bytes(pages)
    anew = OutboxStore(path)
    assert anew.held() == ()
    assert (tmp_path / "outbox.damaged").exists()
    anew.close(0.0)


def test_a_disk_that_refuses_to_open_the_outbox_does_not_cost_its_rows(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").mkdir()  # SQLite: unable to open database file
    with pytest.raises(StoreError, match="cannot open the outbox: unable to open database file"):
        OutboxStore(tmp_path / "outbox.db")
    assert (tmp_path / "outbox.db").is_dir()


def test_a_pointer_that_cannot_be_read_costs_no_slot(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk looks like an empty pointer; nothing may be deleted for that."""
    store = SlotStore(ground.begin(Story("1", ())) / "models")
    active = store.read(MODEL).active

    def refuse(path: Path) -> Path:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "readlink", refuse)
        assert store.read(MODEL).active == ""
        with pytest.raises(OSError, match="Input/output error"):
            store.forget(MODEL)
    assert is_whole(store.folder(MODEL, active))


@pytest.mark.crash_long
def test_every_operation_refused_for_a_while(ground: Ground) -> None:
    for story in (AGAIN, FRESH):
        steps = count(ground, Story(story.installed, story.orders[:1]))
        for at in range(1, steps + 1):
            for length in (0, 1, 5, 80):
                fail(ground, story, at, at + length, (errno.EIO, errno.ENOSPC)[(at + length) % 2])
