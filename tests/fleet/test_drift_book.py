# SPDX-License-Identifier: Apache-2.0
"""Cohorts of a fleet that add up window by window: who moved, who differs, since when; over both databases."""

import base64
import zlib
from dataclasses import replace
from functools import cache

import pytest

from edge_contract import canonical
from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.errors import UsageError
from edge_contract.messages import DesiredState
from edge_contract.software import read
from edge_contract.summary import short_hash
from fleet.adapters import labels, tables, telemetry
from fleet.adapters.blobs import BlobStore
from fleet.adapters.drift_book import DriftBook, checked_grouping
from fleet.adapters.judging import WindowJudge
from fleet.adapters.roster import Roster
from fleet.adapters.sqlite import SqliteStore
from fleet.core.drift_board import Board
from fleet.core.drift_groups import SMALL, Seen
from fleet.core.inventory import DeviceRecord
from fleet.core.registry import ModelVersion
from tests.support.fleet_bundle import window, write_bundle

START = 1.79e9


class Town:
    """A server's database with devices at two sites, and the board of their drift."""

    def __init__(self, folder, store, matcher, profile):
        self.store, self.matcher, self.profile, self.now, self.seq = store, matcher, profile, START, 0
        self.ticks = []
        self.blobs = BlobStore(folder / "blobs")
        self.bundle = self.register(folder, "1.0.0")
        self.judge = WindowJudge(self.blobs)
        self.book = self.opened()

    def opened(self):
        """A book that has read nothing yet, as after a start."""
        return DriftBook(
            self.store,
            self.blobs,
            Roster(self.store, lambda: self.ticks.append(1) or 10.0 * len(self.ticks)),
            lambda: self.now,
        )

    def register(self, folder, version):
        path = folder / version
        bundle = write_bundle(path, version, self.profile)
        for file in path.iterdir():
            data = file.read_bytes()
            self.blobs.put(canonical.digest(data), [data])
        manifest = read((path / "manifest.json").read_bytes())
        made = ModelVersion("digits", version, bundle, manifest, self.now)
        self.store.write(lambda db: tables.put_model(db, made))
        return bundle

    def enrol(self, name, site):
        record = DeviceRecord(name, 1.0, desired=DesiredState(0, {}, {}), board={"model": "Raspberry Pi 5 Model B"})

        def job(db):
            tables.put_device(db, record)
            labels.change_labels(db, name, {"site": site})

        self.store.write(job)

    def send(self, name, number, *, shift=0.0, bundle=None, at=None):
        self.seq += 1
        at = START + 600 * number if at is None else at
        bundle, seed = bundle or self.bundle, zlib.crc32(f"{name}{number}".encode()) % 8
        made = drawn(self.matcher, self.profile, seed, shift)
        summary = replace(made, device=short_hash(name, 8), bundle=bundle[:32], window=number, start_ms=int(1000 * at))
        body = {"bundle": bundle, "summary": base64.b64encode(summary.encode()).decode()}
        batch = TelemetryBatch(name, "b1", "drift", self.seq - 1, (TelemetryRow(self.seq, at, body),))
        self.now = max(self.now, at)
        self.store.write(lambda db: telemetry.keep_batch(db, batch, self.now, self.judge))


@cache
def drawn(matcher, profile, seed, shift):
    """Return a window of 200 answers; drawn once, for drawing takes longer than all the rest."""
    return window(matcher, profile, "d", "ab" * 32, 1, seed=seed + 50, shift=shift, duration_ms=600_000)[0]


@pytest.fixture
def town(tmp_path, matcher, profile):
    made = Town(tmp_path, SqliteStore(tmp_path / "fleet.db"), matcher, profile)
    yield made
    made.store.close()


@pytest.fixture
def any_town(tmp_path, open_store, matcher, profile):
    return Town(tmp_path, open_store(tmp_path), matcher, profile)


NAMES = ("a1", "a2", "a3", "b1", "b2", "b3")


def told(town, story):
    """Enrol six devices at two sites, and send what the story says: device → shift of each window."""
    for name in NAMES:
        town.enrol(name, "hall" if name.startswith("a") else "yard")
    for number in range(1, 1 + len(next(iter(story.values())))):
        for name in NAMES:
            town.send(name, number, shift=story.get(name, story.get("", ()))[number - 1])
    return town.book


def test_a_healthy_fleet_is_calm_by_version_site_and_board(town):
    book = told(town, {"": (0, 0)})
    (all_,) = book.cohorts()
    assert (all_.kind, all_.devices, all_.odd, all_.since_ms, all_.n) == ("calm", 6, (), 0, 2400)
    assert (all_.model, all_.version, all_.key) == ("digits", "1.0.0", town.bundle[:16])
    assert all_.valid
    assert abs(all_.estimated - all_.reference) < 0.05
    assert {(one.value, one.devices, one.kind) for one in book.cohorts("site")} == {
        ("hall", 3, "calm"), ("yard", 3, "calm")
    }  # fmt: skip
    assert [one.value for one in book.cohorts("board")] == ["rpi5"]
    assert book.counts() == {("digits", "1.0.0", "OK"): 6}
    assert all_.inputs == {"learning": 6}


def test_one_dirty_lens_is_named_with_its_words_and_its_site(any_town):
    book = told(any_town, {"": (0, 0, 0), "a2": (0, 0.33, 0.33)})
    (all_,) = book.cohorts()
    assert (all_.kind, [one.device for one in all_.odd]) == ("differ", ["a2"])
    assert all_.headline == "a2 differs from the cohort; the others agree"
    assert all_.odd[0].words
    assert all_.since_ms == all_.odd[0].since_ms == int(1000 * (START + 1200))
    by_site = {one.value: one.kind for one in book.cohorts("site")}
    assert by_site == {"hall": "differ", "yard": "calm"}
    assert [one.value for one in book.cohorts("site")] == ["hall", "yard"]  # the worst first
    assert {one.by for one in book.places_of("a2")} == {"bundle", "site", "board"}


def test_when_the_whole_fleet_moves_nobody_is_odd_and_the_hours_say_since_when(town):
    book = told(town, {"": (0, 0, 0, 0, 0, 0, 0.33, 0.33, 0.33)})
    (all_,) = book.cohorts()
    assert (all_.kind, all_.odd, all_.headline) == ("moved", (), "the whole cohort moved")
    assert all_.moved
    assert all_.estimated < all_.reference - 0.1
    detail = book.detail(town.bundle[:16], "bundle", "")
    assert [one.has_moved for one in detail.hours] == [False, True]
    assert detail.hours[1].effects["energy"] > detail.hours[0].effects["energy"]
    assert START + 3600 <= all_.since_ms / 1000 <= START + 4200
    assert book.detail("feed", "bundle", "") is None


def test_after_a_start_the_same_is_read_again_and_in_pieces(town):
    book = told(town, {"": (0, 0, 0), "b1": (0, 0.33, 0.33)})
    fresh = town.opened()
    assert fresh.step(rows=5) == 5
    assert fresh.left == 13
    while fresh.step(rows=5):
        pass
    assert fresh.left == 0
    assert fresh.cohorts() == book.cohorts()


def test_a_device_goes_with_its_version_its_label_and_its_leaving(town, tmp_path):
    book = told(town, {"": (0, 0)})
    assert len(book.cohorts()) == 1
    second = town.register(tmp_path, "1.1.0")
    for number in (3, 4):
        town.send("a1", number, bundle=second)
    assert {(one.version, one.devices) for one in book.cohorts()} == {("1.0.0", 5), ("1.1.0", 1)}
    town.store.write(lambda db: labels.change_labels(db, "b1", {"site": "hall"}))
    town.store.write(lambda db: db.execute("DELETE FROM devices WHERE device = ?", ("b2",)) and None)
    town.send("b1", 3)
    sites = {(one.version, one.value): one.devices for one in book.cohorts("site")}
    assert sites == {("1.0.0", "hall"): 3, ("1.0.0", "yard"): 1, ("1.1.0", "hall"): 1}
    assert {one.n for one in book.cohorts("site") if one.value == "yard"} == {400}


def test_any_label_groups_and_any_devices_can_be_asked_for(town):
    book = told(town, {"": (0, 0, 0), "a2": (0, 0.33, 0.33)})
    town.store.write(lambda db: labels.change_labels(db, "a2", {"lamp": "new"}))
    found = {one.value: (one.by, one.devices, one.kind) for one in book.cohorts("lamp")}
    assert found == {"new": ("lamp", 1, "moved"), "–": ("lamp", 5, "calm")}
    (some,) = book.cohorts("bundle", frozenset({"b1", "b2", "nobody"}))
    assert (some.devices, some.kind) == (2, "calm")
    assert book.cohorts("bundle", frozenset()) == []
    for bad in ("", "a b", "x" * 64, "'; --"):
        with pytest.raises(UsageError, match="no label to group by"):
            checked_grouping(bad)


@pytest.fixture(scope="module")
def samples(matcher, profile):
    """Counters of healthy windows and of shifted ones."""
    good = [drawn(matcher, profile, seed, 0.0).counters for seed in range(10)]
    return good, [drawn(matcher, profile, seed, 0.33).counters for seed in range(3)]


def filled(profile, samples, devices, windows, odd=(), at=START):
    board, (good, bad) = Board(), samples
    for number in range(windows):
        for i in range(devices):
            counters = bad[(i + number) % 3] if i in odd else good[(7 * i + 3 * number) % 10]
            seen = Seen(f"d{i:03}", "digits", "ab" * 32, profile.crc, at + 600 * number, counters)
            board.add(seen, {"site": str(i % 2), "board": "rpi5"}, profile)
    return board


def test_a_large_cohort_follows_its_windows_and_takes_outliers_out_of_the_rest(profile, samples):
    assert SMALL < 40
    board = filled(profile, samples, 40, 2, odd=(7, 21))
    assert board.judge(budget=30) >= 30
    while board.judge(budget=60):
        pass
    group = board.groups["ab" * 32, profile.crc, "bundle", ""]
    assert set(group.odd) == {"d007", "d021"}
    assert not group.cohort.has_moved
    assert group.cohort.n == 38 * 2 * 200
    assert board.judge() == 0


@pytest.mark.parametrize("inputs", ["learning", "hours", "reference"])
def test_dark_images_are_no_news_while_the_hours_say_so(profile, samples, inputs):
    """A device in a dark corner, and the first evening of a fleet: both are as ever, by the devices' own hours."""
    dark = (200, *(0,) * 15)
    for some in (1, 4):
        board = Board()
        for i in range(4):
            counters = replace(samples[0][i], brightness=dark, contrast=dark) if i < some else samples[0][i]
            seen = Seen(f"d{i}", "digits", "ab" * 32, profile.crc, START, counters, inputs=inputs)
            board.add(replace(seen, has_inputs_moved=inputs == "learning"), {}, profile)
        board.judge()
        group = board.groups["ab" * 32, profile.crc, "bundle", ""]
        assert set(group.odd) == ({"d0"} if inputs == "reference" and some == 1 else set())
        assert group.cohort.has_moved == (inputs == "reference" and some == 4)


def test_old_hours_go_and_what_comes_too_late_is_not_added(profile, samples):
    board = filled(profile, samples, 3, 1)
    key = ("ab" * 32, profile.crc, "bundle", "")
    assert board.groups[key].total.n_sampled == 600
    later = Seen("d000", "digits", "ab" * 32, profile.crc, START + 21_600, samples[0][0])
    board.add(later, {"site": "0", "board": "rpi5"}, profile)
    assert board.groups[key].total.n_sampled == 800
    board.add(replace(later, start_s=START + 2 * 21_600), {"site": "0", "board": "rpi5"}, profile)
    assert (list(board.groups[key].members), board.groups[key].total.n_sampled) == (["d000"], 400)
    board.add(replace(later, start_s=START), {"site": "0", "board": "rpi5"}, profile)
    assert board.groups[key].total.n_sampled == 400
