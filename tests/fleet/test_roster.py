# SPDX-License-Identifier: Apache-2.0
"""The list of devices: the roster says what the records say, the search finds what the query finds, in pages."""

import time
from dataclasses import replace

import pytest

from benchmarks.fleet.filled import fill
from edge_contract.messages import DesiredState
from fleet.adapters import fleet_query, labels, tables
from fleet.adapters.audit_book import AuditBook
from fleet.adapters.roster import Roster
from fleet.adapters.search import PAGE, SORTS, search
from fleet.adapters.sqlite import SqliteStore
from fleet.core.accounts import Person, Role
from fleet.core.inventory import is_online, sync_of
from tests.fleet.test_access import House
from tests.fleet.test_login import HTML, login

COUNT = 230
NOW = 1_800_000_000.0

QUERIES = [
    "all",
    "board:rpi5",
    "board in (zero2, coral-devboard) and not online",
    "online and in_sync",
    "drift:ALARM or drift>0.2",
    "model:vision=1.1.0",
    "model:vision>=1.1 and not model:vision:1.2.0",
    "model:other=1",
    "runtime:litert and runtime_version>=2.0",
    "device:cam-0001*",
    "last_seen>0.5",
    "last_seen<2h and enrolled>7",
    "site:hall and not tag:lab",
    "site in (hall,yard) or tag:lab",
    "errors:0 or errors>3",
    "quarantined",
    "machine:aarch64 and agent>=0.1",
    "inferences>100000",
    "temperature>50",
    "rss_mb<25 and cores:4",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = SqliteStore(tmp_path_factory.mktemp("roster") / "fleet.db")
    fill(made, COUNT, NOW)

    def label(db):
        for i in range(0, COUNT, 7):
            labels.change_labels(
                db, f"cam-{i:05}", {"site": "hall" if i % 2 else "yard", **({"lab": ""} if i % 3 else {})}
            )

    made.write(label)
    yield made
    made.close()


@pytest.fixture
def roster(store):
    ticks = iter(range(10**6))
    return Roster(store, monotonic=lambda: 10.0 * next(ticks))


def test_a_line_says_what_the_record_says(store, roster):
    lines = roster.lines()
    records = store.read(tables.devices)
    assert [line.device for line in lines] == [record.device for record in records]
    for line, record in zip(lines, records, strict=True):
        assert line.is_online(NOW) == is_online(record, NOW)
        assert (line.in_sync, line.why) == (sync_of(record).ok, sync_of(record).why)
        assert {slot.model: slot.running for slot in line.slots} == record.running


@pytest.mark.parametrize("query", QUERIES)
def test_the_search_finds_what_the_query_finds(store, roster, query):
    found, names = [], store.read(lambda db: fleet_query.matching(db, query, NOW))
    lines, page = roster.lines(), 1
    while True:
        part = search(store, lines, query, NOW, page=page)
        assert part.fault == ""
        found += [line.device for line in part.lines]
        if page == part.pages:
            break
        page += 1
    assert found == names
    assert part.total == len(names)


def test_a_word_is_a_part_of_a_name_and_nonsense_is_told(store, roster):
    lines = roster.lines()
    assert search(store, lines, "CAM-0000", NOW).total == 10
    assert search(store, lines, "nothing-like-this", NOW).total == 0
    assert "column" in search(store, lines, "board:rpi5 and (", NOW).fault
    assert search(store, lines, "x" * 3000, NOW).total == 0


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{name}" for name in SORTS), "nonsense"])
def test_every_order_has_everybody_once(store, roster, sort):
    lines = roster.lines()
    found = [one.device for page in range(1, 6) for one in search(store, lines, "", NOW, sort=sort, page=page).lines]
    assert len(found) == len(set(found)) == COUNT
    assert len(search(store, lines, "", NOW, sort=sort).lines) == PAGE
    assert search(store, lines, "", NOW, page=10**9).page == 5
    assert search(store, lines, "", NOW, page=-3).page == 1


def test_the_roster_follows_what_changes(store, roster):
    before = {line.device: line for line in roster.lines()}
    one = store.read(lambda db: tables.device(db, "cam-00007"))

    def change(db):
        tables.put_device(db, replace(one, last_seen=NOW + 5.0, desired=DesiredState(9, {"vision": "f" * 64}, {})))
        row = ("cam-00008", "b", NOW, "WARN", b"", b'{"reference_accuracy": 0.9, "estimated_accuracy": 0.7}')
        db.execute("INSERT INTO windows (device, bundle, time, level, summary, verdict) VALUES (?,?,?,?,?,?)", row)
        db.execute("DELETE FROM devices WHERE device = 'cam-00009'")

    store.write(change)
    after = {line.device: line for line in roster.lines()}
    assert before.keys() - after.keys() == {"cam-00009"}
    assert (before["cam-00007"].in_sync, after["cam-00007"].in_sync) == (True, False)
    assert (after["cam-00008"].level, round(after["cam-00008"].loss, 3)) == ("WARN", 0.2)
    same = [name for name in after if after[name] is before[name]]
    assert len(same) == COUNT - 3  # nothing else was read again


def test_the_audit_log_is_followed_on_and_a_changed_entry_shows(tmp_path):
    store = SqliteStore(tmp_path / "fleet.db")
    add = lambda n: store.write(  # noqa: E731
        lambda db: tables.add_audit(db, time=1.5 * n, actor="ada", action="a.b", subject=f"s{n}%", detail={"x": 0.1})
    )
    now = [0.0]
    book = AuditBook(store, monotonic=lambda: now[0])
    for number in range(5):
        add(number)
    assert (book.chain().broken_at, book.chain().entries) == (None, 5)
    add(5)
    assert book.chain().entries == 6
    assert [entry.subject for entry in book.page(text="s4%")] == ["s4%"]
    assert [entry.number for entry in book.page(limit=2, before=4)] == [3, 2]
    store.write(lambda db: db.execute("UPDATE audit SET actor = 'eve' WHERE number = 2").rowcount)
    now[0] = 601.0
    assert book.chain().broken_at == 2
    store.write(lambda db: db.execute("UPDATE audit SET actor = 'ada' WHERE number = 2").rowcount)
    assert book.chain().broken_at is None
    store.write(lambda db: db.execute("DELETE FROM audit WHERE number = 3").rowcount)
    assert book.chain(whole=True).broken_at == 3
    store.close()


def test_pages_accounts_and_alerts_work_on_both_databases(open_store, tmp_path):
    """The same words of SQL: every page of a filled fleet, a login, an alert, the audit log."""
    store = open_store(tmp_path)
    house = House(tmp_path / "house", store)
    fill(store, 60, house.office.now)
    store.write(lambda db: labels.change_labels(db, "cam-00003", {"site": "hall"}))
    (house.operations.trust.ca.parent / "alerts.toml").write_text("[rules]\nhold_s = 0\n[[webhook]]\nurl = 'http://x'")
    assert {key.partition(":")[0] for _, key in _fired(house)} >= {"offline", "drift"}
    accounts = house.operations.accounts
    accounts.accept(accounts.first_link(), "ada", "three grey herons")
    cookies = dict(login(house).cookies)
    for query in QUERIES:
        page = house.ask("GET", "/devices", params={"q": query}, cookies=cookies, headers=HTML)
        total = len(store.read(lambda db, q=query: fleet_query.matching(db, q, house.office.now)))
        assert f"{total} of 60" in page.text
    for path in (
        "/",
        "/devices/cam-00003",
        "/drift",
        "/models",
        "/alerts",
        "/audit?q=LOGIN%25",
        "/rollouts",
        "/accounts",
    ):
        assert house.ask("GET", path, cookies=cookies, headers=HTML).status_code == 200, path
    token = accounts.new_token("ci", Role.VIEWER, 60.0, Person("ada", Role.ADMIN))
    assert "strop_devices 60" in house.ask("GET", "/metrics", token=token).text
    accounts.revoke_token("ci", "ada")
    mute = house.operations.alerts.mute("offline:*", 60.0, "", "ada")
    house.operations.alerts.unmute(mute.id, "ada")
    assert AuditBook(store).chain(whole=True).broken_at is None
    store.close()


def _fired(house):
    return [(event, alert.key) for event, alert in house.operations.alerts.step()]


def test_a_fleet_of_a_thousand_is_read_once(tmp_path):
    """The second look opens no report: it must be far cheaper than the first."""
    store = SqliteStore(tmp_path / "fleet.db")
    fill(store, 1000, NOW)
    ticks = iter(range(10**6))
    roster = Roster(store, monotonic=lambda: 10.0 * next(ticks))
    first, second = (_cpu(roster.lines) for _ in range(2))
    assert second < first
    store.close()


def _cpu(act):
    start = time.thread_time()
    act()
    return time.thread_time() - start
