# SPDX-License-Identifier: Apache-2.0
"""An outage of the server's own is no failure of a device: deadlines wait until everybody could be heard again."""

from dataclasses import replace

from edge_contract.states import Phase, Status
from fleet.adapters import tables
from fleet.adapters.hearing import HEARING_S, give_time
from fleet.core.execution import Execution


def test_orders_whose_time_is_over_get_some_more(tmp_path, open_store):
    store = open_store(tmp_path)
    one = Execution(
        "j1", "r1", 1, 0, "a", "digits", "b" * 64, Status.IN_PROGRESS, Phase.DOWNLOADING, 50.0, issued_at=1.0
    )
    others = [
        replace(one, job_id="j2", device="b", deadline=50.0 + 2 * HEARING_S),  # has time enough
        replace(one, job_id="j3", device="c", status=Status.SUCCEEDED, closed=True),
        replace(one, job_id="j4", device="d", issued_at=0.0),  # nobody was asked yet
    ]
    store.write(lambda db: tables.put_executions(db, [one, *others]))
    assert store.write(lambda db: give_time(db, 60.0)) == 1
    found = store.read(lambda db: tables.executions(db, 1))
    assert found["a"].deadline == 60.0 + HEARING_S
    assert [found[name] for name in "bcd"] == others
    assert store.write(lambda db: give_time(db, 60.0)) == 0
