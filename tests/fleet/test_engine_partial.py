# SPDX-License-Identifier: Apache-2.0
"""A step that looks at what moved and counts the rest ends where a step ends that looks at everything.

The partial server keeps the marks as the database does: a report, a change of what runs, and a newer rollout mark an
execution; a step loads the marked and the due ones, and the counts of the others.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract.jobs import JobStatus
from edge_contract.states import Phase, Status
from fleet.core.engine import World, advance
from fleet.core.execution import hear_status
from fleet.core.limits import NO_LIMIT, Limits
from fleet.core.rollout import new_rollout
from fleet.core.tally import Tally, bucket_of, due_of

NAMES = ("a", "b", "c", "d", "e", "f")
NEW, OLD = "1" * 64, "0" * 64
ENDS = {Status.SUCCEEDED: Phase.DONE, Status.FAILED: Phase.FAILED, Status.REJECTED: Phase.REJECTED}
LIMITS = Limits(
    soak_s=5.0,
    timeout_s=100.0,
    grace_s=10.0,
    max_failures=NO_LIMIT,
    max_failed_share=0.5,
    min_finished=3,
    retries=1,
    retry_wait_s=20.0,
)


class Engine:
    """One rollout under one way of loading."""

    def __init__(self, *, is_partial):
        self.is_partial = is_partial
        self.rollout = new_rollout(1, ("digits", "2", NEW), [NAMES[:2], NAMES[2:]], LIMITS, now=1000.0)
        self.executions, self.marked, self.last_job = {}, set(), 0
        self.running, self.said = dict.fromkeys(NAMES, OLD), []

    def world(self, now):
        loaded = {
            name: e
            for name, e in self.executions.items()
            if not self.is_partial or name in self.marked or due_of(e) <= now or (e.is_open and not e.issued_at)
        }
        rest, ordered = {}, {0: set(), 1: set()}
        for name, e in self.executions.items():
            if name not in loaded:
                rest[e.wave] = rest.get(e.wave, Tally()).add(bucket_of(e))
                ordered[e.wave].add(name)
        return World(self.rollout, loaded, self.running, {}, last_job=self.last_job, rest=rest, ordered=ordered)

    def step(self, now):
        for _ in range(5):  # as the order book does: another state looks at everything that has not ended
            state = self.rollout.state
            outcome = advance(self.world(now), now)
            self.marked.clear()
            self.rollout, self.last_job = outcome.rollout, outcome.last_job
            self.executions |= {e.device: e for e in outcome.changed if not e.past}
            self.said += [(type(a).__name__, a.execution.device, a.execution.attempt) for a in outcome.actions]
            if self.rollout.state is state:
                return
            self.marked |= {name for name, e in self.executions.items() if bucket_of(e) in ("open", "retry")}

    def report(self, name, status, seq, now):
        order = self.executions.get(name)
        if order is None:
            return
        phase = ENDS.get(status, Phase.DOWNLOADING)
        self.executions[name] = hear_status(order, JobStatus(order.job_id, name, status, phase, seq, "", {}, now), now)
        self.marked.add(name)

    def runs(self, name, bundle):
        if self.running[name] != bundle:
            self.running[name] = bundle
            self.marked.add(name)

    def seen(self):
        return {name: (e.status, e.attempt, bucket_of(e), e.closed) for name, e in self.executions.items()}


NAME, STATUS = st.sampled_from(NAMES), st.sampled_from([Status.IN_PROGRESS, *ENDS])
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("time"), st.sampled_from([1.0, 6.0, 25.0, 120.0])),
        st.tuples(st.just("says"), NAME, STATUS, st.integers(1, 4)),
        st.tuples(st.just("runs"), NAME, st.sampled_from([NEW, OLD, ""])),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(events=EVENTS)
def test_looking_at_what_moved_is_as_good_as_looking_at_everything(events):
    whole, partial, now = Engine(is_partial=False), Engine(is_partial=True), 1000.0
    for engine in (whole, partial):
        engine.step(now)
    for kind, *words in events:
        now += words[0] if kind == "time" else 0.0
        for engine in (whole, partial):
            if kind == "says":
                engine.report(*words, now)
            if kind == "runs":
                engine.runs(*words)
            engine.step(now)
        assert (partial.rollout.state, [w.state for w in partial.rollout.waves], partial.seen()) == (
            whole.rollout.state,
            [w.state for w in whole.rollout.waves],
            whole.seen(),
        )
    assert sorted(partial.said) == sorted(whole.said)
