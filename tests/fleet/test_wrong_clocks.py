# SPDX-License-Identifier: Apache-2.0
"""A device whose clock is wrong loses no result on the server: what is old is judged by a time that can be believed."""

import pytest

from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.messages import DesiredState
from fleet.adapters import retention, tables, telemetry
from fleet.core.inventory import DeviceRecord

DAY, NOW = 86_400.0, 1_800_000_000.0


@pytest.mark.parametrize(
    ("measured", "stays"),
    [
        (0.0, True),  # a board without a battery
        (NOW - 3650 * DAY, True),  # a jump back by ten years
        (NOW + 3650 * DAY, True),
        (NOW - DAY, True),
        (NOW - 60 * DAY, False),  # offline for two months: as old as it says
    ],
)
def test_results_go_when_they_are_old_and_not_when_a_clock_says_so(open_store, tmp_path, measured, stays):
    store = open_store(tmp_path)
    record = DeviceRecord("pi", 1.0, desired=DesiredState(0, {}, {}))
    store.write(lambda db: tables.put_device(db, record))
    row = TelemetryRow(1, measured, {"bundle": "ab", "first": 0, "rows": [["cam:1", 3, 0.5]]})
    batch = TelemetryBatch("pi", "boot", "result", 0, (row,))
    store.write(lambda db: telemetry.keep_batch(db, batch, NOW, lambda *_: ("ok", {})))
    store.write(lambda db: retention.sweep(db, NOW - 30 * DAY))
    assert store.read(lambda db: telemetry.result_count(db, "pi")) == stays
    assert store.read(lambda db: telemetry.rows(db, "pi", "result", 0, 9))[0]["time"] == measured, "its own word stays"
