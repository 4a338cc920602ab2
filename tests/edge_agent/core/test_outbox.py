# SPDX-License-Identifier: Apache-2.0
"""The outbox's policy: bounded, unimportant rows first, nothing leaves before the server's word."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.effects import CountLost, DropRows, KeepRow, RemoveRows, SendBatch
from edge_agent.core.outbox import MAX_IN_FLIGHT, MAX_ROW_BYTES, ROW_COST, Held, Outbox, resend_s
from edge_contract.batches import CLASSES, TelemetryAck
from edge_contract.errors import ContractError

LIMIT = 6000


@dataclass
class Store:
    """A store that does what it is told, and counts."""

    rows: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(sum(queue.values()) for queue in self.rows.values())

    def carry_out(self, box: Outbox, effects: list) -> Outbox:
        for effect in effects:
            if isinstance(effect, KeepRow):
                self.rows.setdefault((effect.boot, effect.cls), {})[effect.seq] = len(effect.body) + ROW_COST
            elif isinstance(effect, CountLost):
                self.dropped[effect.cls] = self.dropped.get(effect.cls, 0) + 1
            elif isinstance(effect, DropRows):
                box = self._drop(box, effect)
            elif isinstance(effect, RemoveRows):
                queue = self.rows.get((effect.boot, effect.cls), {})
                gone = {seq: queue.pop(seq) for seq in list(queue) if seq <= effect.up_to_seq}
                facts = {"rows": len(gone), "size": sum(gone.values()), "up_to_seq": effect.up_to_seq}
                box = box.gone(effect.boot, effect.cls, dropped=False, **facts)
        return box

    def _drop(self, box: Outbox, effect: DropRows) -> Outbox:
        queue, gone = self.rows.get((effect.boot, effect.cls), {}), {}
        for seq in sorted(queue):
            if sum(gone.values()) >= effect.size:
                break
            gone[seq] = queue.pop(seq)
        self.dropped[effect.cls] = self.dropped.get(effect.cls, 0) + len(gone)
        facts = {"rows": len(gone), "size": sum(gone.values()), "up_to_seq": max(gone, default=0)}
        return box.gone(effect.boot, effect.cls, dropped=True, asked=effect.size, **facts)

    def held(self) -> list[Held]:
        return [Held(b, c, len(q), sum(q.values()), min(q), max(q)) for (b, c), q in self.rows.items() if q]


PUTS = st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(0, 900)), max_size=60)


@given(PUTS)
def test_it_never_holds_more_than_its_limit_and_never_drops_what_is_more_important(puts) -> None:
    box, store = Outbox(LIMIT, "b"), Store()
    for cls, length in puts:
        before = {name: sum(len(q) for (_, c), q in store.rows.items() if c == name) for name in CLASSES}
        box, effects = box.put(cls, 1.0, {"x": "y" * length})
        for effect in effects:
            if isinstance(effect, DropRows):
                assert CLASSES.index(effect.cls) <= CLASSES.index(cls)
                lower = CLASSES[: CLASSES.index(effect.cls)]
                named = {e.cls for e in effects if isinstance(e, DropRows)}
                assert all(name in named or not before[name] for name in lower), "the least important go first"
        box = store.carry_out(box, effects)
        assert store.size <= LIMIT
        assert (box.rows, box.size) == (sum(len(q) for q in store.rows.values()), store.size)
        assert dict(box.dropped) == {k: v for k, v in store.dropped.items() if v}


@given(PUTS, st.lists(st.sampled_from(["send", "ack", "early ack", "offline", "restart", "later"]), max_size=30))
def test_rows_leave_only_by_ack_or_drop_and_the_first_missing_number_is_always_known(puts, moves) -> None:
    box, store, mono, boots = Outbox(LIMIT, "b0"), Store(), 0.0, 0
    sent: dict[tuple[str, str], tuple[int, int]] = {}
    acked: dict[tuple[str, str], int] = {}
    moves = iter(moves)
    for cls, length in puts:
        box, effects = box.put(cls, 1.0, {"x": "y" * length})
        box = store.carry_out(box, effects)
        move = next(moves, "")
        if move == "send":
            box, effects = box.due(mono)
            for effect in effects:
                key = (effect.boot, effect.cls)
                queue = store.rows[key]
                assert effect.after_seq == min(queue) - 1, "everything before was acknowledged or dropped"
                sent[key] = (effect.after_seq, max(queue))
                box = box.sent(*key, max(queue))
        elif move in ("ack", "early ack") and sent:
            key, (_, last) = next(iter(sent.items()))
            beyond = 1000 if move == "early ack" else 0
            box, effects = box.acked(TelemetryAck(*key, last + beyond))
            assert all(e.up_to_seq <= last for e in effects if isinstance(e, RemoveRows)), "more than was sent"
            box = store.carry_out(box, effects)
            acked[key] = max(acked.get(key, 0), last)
            sent.pop(key)
        elif move == "offline":
            box = box.offline()
        elif move == "restart":
            boots += 1
            box, sent = Outbox.opened(LIMIT, f"b{boots}", store.held(), store.dropped), {}
        elif move == "later":
            mono += 400.0
    assert box.rows == sum(len(q) for q in store.rows.values())


def _filled() -> Outbox:
    box = Outbox(100_000, "b")
    for cls in CLASSES:
        box, _ = box.put(cls, 1.0, {"n": 1})
    return box


def test_alarms_are_sent_before_metrics_and_few_batches_fly_at_once() -> None:
    box, effects = _filled().due(10.0)
    assert [e.cls for e in effects if isinstance(e, SendBatch)] == ["alarm", "event", "result", "drift"]
    assert len(effects) == MAX_IN_FLIGHT
    assert box.due(11.0)[1] == []


def test_a_batch_without_ack_is_sent_again_ever_more_seldom() -> None:
    box, _ = Outbox(100_000, "b").put("alarm", 1.0, {})
    at, pauses = 0.0, []
    box, effects = box.due(at)
    for _ in range(4):
        box = box.sent("b", "alarm", 1)
        later = next(t for t in range(1, 500) if box.due(at + t)[1])
        pauses.append(later)
        at += later
        box, effects = box.due(at)
    assert effects == [SendBatch("b", "alarm", 0)]
    assert pauses == [resend_s(0), resend_s(1), resend_s(2), resend_s(3)]


def test_a_lost_link_frees_everything_for_the_next_one() -> None:
    box, _ = _filled().due(10.0)
    assert len(box.offline().due(10.5)[1]) == MAX_IN_FLIGHT


def test_an_ack_for_what_was_never_sent_is_not_believed() -> None:
    box, effects = _filled().acked(TelemetryAck("b", "alarm", 7))
    assert effects == []
    assert box.rows == len(CLASSES)


def test_rows_of_an_earlier_boot_are_sent_and_then_forgotten() -> None:
    box = Outbox.opened(1000, "new", [Held("old", "result", 3, 300, 5, 7)], {"metric": 2})
    box, effects = box.due(1.0)
    assert effects == [SendBatch("old", "result", 4)]
    box = box.sent("old", "result", 7)
    box, effects = box.acked(TelemetryAck("old", "result", 7))
    assert effects == [RemoveRows("old", "result", 7)]
    box = box.gone("old", "result", rows=3, size=300, up_to_seq=7, dropped=False)
    assert box.queues == {}
    assert box.report() == {"rows": 0, "bytes": 0, "dropped": {"metric": 2}}


def test_a_row_that_no_batch_could_carry_is_counted_as_lost() -> None:
    box, effects = Outbox(10_000_000, "b").put("result", 1.0, {"x": "y" * MAX_ROW_BYTES})
    assert effects == [CountLost("result")]
    assert (box.rows, box.dropped) == (0, {"result": 1})


def test_a_row_with_nan_is_refused() -> None:
    with pytest.raises(ContractError, match="nan has no canonical form"):
        Outbox(1000, "b").put("result", 1.0, {"x": float("nan")})
