# SPDX-License-Identifier: Apache-2.0
"""Judging on the server: hours of the day that outlive a restart and a new version, and a rate of false alarms."""

from dataclasses import replace

import pytest

from edge_agent.core.twin import Settings, merge
from edge_contract import canonical
from edge_contract.alarm_rate import DEFAULT
from edge_contract.alarm_setting import RATE_SETTING, limits_of
from edge_contract.daytime import place_of
from edge_contract.errors import UsageError
from edge_contract.messages import DesiredState
from edge_contract.software import read
from edge_contract.summary import Flag
from fleet.adapters import drift_hours, erasure, retention, tables
from fleet.adapters.blobs import BlobStore
from fleet.adapters.judging import WindowJudge
from fleet.adapters.sqlite import SqliteStore
from fleet.config import load_config
from fleet.core.inventory import DeviceRecord
from fleet.core.registry import ModelVersion
from tests.support.day_night import HOUR_MS, look, scene
from tests.support.fleet_bundle import write_bundle


class Bench:
    """A database with a registered bundle and its judge."""

    def __init__(self, folder, store):
        self.store, self.folder, self.blobs = store, folder, BlobStore(folder / "blobs")
        self.bundles = [self.register(version) for version in ("1.0.0", "1.1.0")]
        self.judge = WindowJudge(self.blobs)
        record = DeviceRecord("cam", 1.0, desired=DesiredState(0, {}, {}))
        store.write(lambda db: tables.put_device(db, record))

    def register(self, version):
        path = self.folder / version
        bundle = write_bundle(path, version, scene()[0])
        for file in path.iterdir():
            self.blobs.put(canonical.digest(file.read_bytes()), [file.read_bytes()])
        made = ModelVersion("digits", version, bundle, read((path / "manifest.json").read_bytes()), 1.0)
        self.store.write(lambda db: tables.put_model(db, made))
        return bundle

    def hear(self, day, hour, bundle=0, **more):
        summary = replace(look(day, hour), bundle=self.bundles[bundle][:32], **more)
        return self.store.write(lambda db: self.judge(db, "cam", self.bundles[bundle], summary.encode(), None))[1]

    def hours(self):
        rows = self.store.read(lambda db: db.execute("SELECT hour, days, began FROM drift_hours").fetchall())
        return sorted(tuple(row)[:2] for row in rows)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path, SqliteStore(tmp_path / "fleet.db"))
    yield made
    made.store.close()


def test_hours_are_learned_kept_and_used_and_go_with_the_device(tmp_path, open_store):
    bench = Bench(tmp_path, open_store(tmp_path))
    told = [bench.hear(day, hour) for day in (0, 1) for hour in (0, 12)]
    assert {one["inputs"]["against"] for one in told} == {"learning"}
    assert "are being learned" in told[0]["inputs"]["words"]
    bench.judge = WindowJudge(bench.blobs)  # a restart
    third = bench.hear(3, 0)  # as cloudy as the first day
    assert third["inputs"] == {
        "against": "hours",
        "words": "inputs compared with 2 earlier days around 00:00 UTC",
    }
    assert third["level"] == "OK"
    assert bench.hear(3, 12, bundle=1)["inputs"]["against"] == "hours"  # another version with the same edges
    assert bench.hours() == [(0, 2), (12, 2)]
    day, _ = place_of(look(3, 0).start_ms, HOUR_MS)
    assert bench.store.write(lambda db: drift_hours.forget_before(db, day)) == 0
    assert "drift_hours" in bench.store.write(lambda db: erasure.erase(db, "cam"))["rows"]
    assert bench.hours() == []


def test_windows_without_an_hour_are_judged_by_the_reference_alone(bench):
    unsynced = bench.hear(0, 0, flags=Flag.CLOCK_UNSYNCED)
    assert "inputs" not in unsynced
    assert unsynced["p_family"] < 1e-6
    assert "inputs" not in bench.hear(0, 0, duration_ms=3 * HOUR_MS)
    assert bench.hours() == []


def test_damaged_hours_are_learned_anew_and_old_ones_swept(bench):
    bench.hear(0, 0)
    bench.store.write(lambda db: db.execute("UPDATE drift_hours SET counts = ?", (b"\xff",)) and None)
    assert bench.hear(1, 0)["inputs"]["against"] == "learning"
    assert bench.hours() == [(0, 0)]
    gone = bench.store.write(lambda db: retention.sweep(db, 4e9))
    assert gone["drift_hours"] == 1


def test_a_rate_of_false_alarms_becomes_limits_by_the_windows_length():
    assert limits_of(0.0, HOUR_MS) is DEFAULT
    hourly, minutely = limits_of(1.0, HOUR_MS), limits_of(1.0, 60_000)
    assert hourly.cusum < DEFAULT.cusum < minutely.cusum
    assert limits_of(1.0, 5_000) == minutely
    assert limits_of(0.01, HOUR_MS).cusum > hourly.cusum
    assert limits_of(1e-9, 60_000).cusum == 20.0  # more than can be promised


def test_a_device_may_have_a_rate_of_its_own(bench):
    def windows(rate):
        wanted = DesiredState(1, {}, {RATE_SETTING: rate} if rate is not None else {})
        bench.store.write(lambda db: tables.put_desired(db, "cam", wanted))
        bench.store.write(lambda db: db.execute("DELETE FROM drift_states") and None)
        levels = [bench.hear(0, 0, flags=Flag.CLOCK_UNSYNCED)["level"] for _ in range(3)]
        return levels.index("ALARM") if "ALARM" in levels else None

    bench.judge = WindowJudge(bench.blobs, 1.0)
    assert windows(None) == windows(1.0) == 1
    assert windows("much") == 1  # not understood: the server's own
    state = bench.store.read(lambda db: db.execute("SELECT state FROM drift_states").fetchone())
    assert state is not None


def test_the_device_takes_the_same_setting_and_tells_it():
    found, ignored = merge(Settings(), {RATE_SETTING: 0.5}, frozenset())
    assert (found.to_json()[RATE_SETTING], ignored) == (0.5, {})
    assert RATE_SETTING not in Settings().to_json()
    assert RATE_SETTING in merge(Settings(), {RATE_SETTING: -1}, frozenset())[1]


def test_the_setting_is_checked(tmp_path):
    assert load_config(tmp_path).false_alarms_per_device_year == 1.0
    (tmp_path / "fleet.toml").write_text("false_alarms_per_device_year = 0.1\ndevice_metrics = false\n")
    assert load_config(tmp_path).false_alarms_per_device_year == 0.1
    assert not load_config(tmp_path).device_metrics
    (tmp_path / "fleet.toml").write_text("false_alarms_per_device_year = -1\n")
    with pytest.raises(UsageError, match="not between 0 and 1000"):
        load_config(tmp_path)
