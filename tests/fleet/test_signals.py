# SPDX-License-Identifier: Apache-2.0
"""Signals to train again: when one is made, who may work on it, how it ends, and who is told."""

import json
from dataclasses import replace

import pytest

from edge_contract.errors import MessageError, RegistryError, UsageError
from edge_contract.findings import ChannelVerdict, Level, Verdict
from edge_contract.manifest import Manifest
from edge_contract.messages import CAPTURES, DesiredState, ModelState, ReportedState
from edge_contract.retrain import SCHEMA, RetrainSignal
from edge_contract.states import RolloutState
from fleet.adapters import tables, version_evidence
from fleet.adapters.signals import open_signals
from fleet.core.inventory import DeviceRecord
from fleet.core.limits import Limits
from fleet.core.registry import ModelVersion
from fleet.core.retrain import Cohort, RetrainRules, Suspect, is_due, needed, persists, read_rules, signal_of
from fleet.core.rollout import new_rollout
from tests.fleet.test_access import FILE_TOKEN, House
from tests.support.fleet_bundle import write_bundle


def verdict(level, n=200, estimate=0.7, window=1, since=1000, **more):
    channels = (ChannelVerdict("energy", 1e-9, 0.3, 12.0, "energy rose"), ChannelVerdict("class", 0.4, 0.0, 1.0, ""))
    told = {"valid": True, "moved": ("energy rose",), **more}
    low, high = (None, None) if estimate is None else (estimate - 0.1, estimate + 0.1)
    return Verdict(
        Level(level), "because", window, n, n, 1e-9, channels, 0.96, estimate, low, high, since_ms=since, **told
    )


ALARMS = [verdict("ALARM")] * 3


def test_a_device_persists_by_its_newest_judged_windows():
    rules = RetrainRules(windows=3)
    ok, alarm, warn, small = (verdict(level) for level in ("OK", "ALARM", "WARN", "INSUFFICIENT"))
    assert persists(rules, [ok, alarm, alarm, alarm])
    assert persists(rules, [alarm, small, alarm, small, alarm])
    assert not persists(rules, [alarm, alarm])
    assert not persists(rules, [alarm, ok, alarm, alarm])
    assert not persists(rules, [alarm, alarm, warn])
    assert persists(RetrainRules(level=Level.WARN, windows=3), [alarm, warn, alarm])


@pytest.mark.parametrize(
    ("devices", "share", "cohort", "asked"),
    [(3, 0.25, 1, 1), (3, 0.25, 8, 2), (3, 0.25, 1000, 3), (0, 0.5, 10, 5), (5, 0.0, 3, 4), (0, 1.0, 7, 7)],
)
def test_the_fewer_of_count_and_share_of_the_cohort_is_needed(devices, share, cohort, asked):
    found = needed(RetrainRules(devices=devices, share=share), cohort)
    assert found == asked or (found > cohort and asked > cohort)  # a count above a small cohort is never met


def test_a_cooling_model_makes_no_signal_also_when_the_clock_went_back():
    cohort = Cohort("digits", "ab" * 32, 1, (Suspect("pi", ALARMS),))
    rules = RetrainRules(cool_down_s=100.0)
    assert is_due(rules, cohort, 0.0, 50.0)
    assert is_due(rules, cohort, 900.0, 1000.0)
    assert not is_due(rules, cohort, 950.0, 1000.0)
    assert not is_due(rules, cohort, 2000.0, 1000.0)
    assert not is_due(RetrainRules(enabled=False), cohort, 0.0, 50.0)


def test_a_signal_tells_what_moved_on_most_devices_and_the_mean_estimate():
    first, second = verdict("ALARM", 100, 0.6, since=7000), verdict("ALARM", 300, 0.8, since=5000, valid=False)
    made = signal_of(
        RetrainRules(), Cohort("digits", "ab" * 32, 4, (Suspect("pi-2", [first]), Suspect("pi-1", [second]))), 9.0
    )
    assert (made.devices, made.since_ms, made.until_ms) == (("pi-1", "pi-2"), 5000, 9000)
    assert made.channels == ("energy",)
    assert made.moved == ("energy rose",)
    assert made.estimated_accuracy == pytest.approx(0.75)
    assert (made.low, made.high) == (pytest.approx(0.65), pytest.approx(0.85))
    assert not made.valid
    assert made.evidence["cohort"] == 4
    assert [row["device"] for row in made.evidence["windows"]] == ["pi-1", "pi-2"]
    assert RetrainSignal.from_json(json.loads(json.dumps(made.to_json()))) == made
    none = signal_of(
        RetrainRules(), Cohort("digits", "ab" * 32, 1, (Suspect("a", [verdict("ALARM", estimate=None)]),)), 9.0
    )
    assert (none.estimated_accuracy, none.low, none.valid) == (None, None, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "strop.retrain/2"}, "schema"),
        ({"devices": []}, "no device"),
        ({"bundle": "x"}, "SHA-256"),
        ({"model": ""}, "no model"),
        ({"low": "half"}, "expected a number"),
    ],
)
def test_a_malformed_signal_is_refused(change, words):
    good = RetrainSignal("digits", "ab" * 32, ("pi",), 1, 2).to_json()
    with pytest.raises(MessageError, match=words):
        RetrainSignal.from_json({**good, **change})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("windows = 0", "below 1"),
        ("level = 'OK'", "unknown value"),
        ("share = 1.5", "out of its range"),
        ("devices = 0\nshare = 0.0", "both 0"),
        ("window = 3", "unknown key 'window'"),
        ("[model.digits]\nlevels = 1", r"\[model.digits\]: unknown key"),
        ("model = 3", "expected tables"),
        ("= 3", "no TOML"),
    ],
)
def test_a_slip_in_the_settings_names_file_and_key(text, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_rules(text, "retrain.toml")
    assert "retrain.toml" in str(caught.value)


@pytest.fixture(scope="module")
def only_house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("signals"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, profile):
    folder = tmp_path_factory.mktemp("bundles") / "one"
    return Manifest.from_bytes((write_bundle(folder, "1.0.0", profile), (folder / "manifest.json").read_bytes())[1])


class Fleet:
    """A house with devices that run one bundle and send windows of a wanted level."""

    def __init__(self, house, manifest):
        self.house, self.manifest, self.bundle = house, manifest, manifest.bundle_id
        self.store, self.signals = house.office.store, house.operations.signals
        version = ModelVersion("digits", "1.0.0", manifest.bundle_id, manifest, 0.0)
        self.store.write(lambda db: tables.put_model(db, version))

    def device(self, name, features=(), bundle=""):
        slots = ModelState(bundle or self.bundle, "", "", "", "1.0.0")
        now = self.house.office.now
        said = ReportedState(name, "b", 0, {"digits": slots}, {}, {}, {}, now, features=features)
        record = DeviceRecord(
            name, 1.0, boot="b", session=1, last_seen=now, reported=said, desired=DesiredState(0, {}, {})
        )
        self.store.write(lambda db: tables.put_device(db, record))

    def windows(self, name, *levels, bundle=""):
        def job(db):
            for level in levels:
                values = (name, bundle or self.bundle, 0.0, level, b"", json.dumps(verdict(level).to_json()))
                db.execute(
                    "INSERT INTO windows (device, bundle, time, level, summary, verdict) VALUES (?,?,?,?,?,?)", values
                )

        self.store.write(job)

    def rules(self, text):
        (self.house.operations.trust.ca.parent / "retrain.toml").write_text(text)

    def step(self, seconds=0.0):
        self.house.office.now += seconds
        return self.signals.step()

    def audit(self):
        entries = self.store.read(tables.all_audit)
        return [e.action for e in sorted(entries, key=lambda e: e.number) if e.action.startswith("signal.")]


@pytest.fixture
def fleet(only_house, bundle):
    def clear(db):
        for table in ("retrain_signals", "windows", "devices", "models", "rollouts", "alert_outbox", "audit"):
            db.execute(f"DELETE FROM {table}")

    only_house.office.store.write(clear)
    only_house.fresh()
    operations = only_house.operations
    operations.roster._fresh_s = -1.0
    operations.roster._newest, operations.roster._levels = -1, {}
    operations.signals._suspects = frozenset()
    for name in ("alerts.toml", "retrain.toml"):
        (operations.trust.ca.parent / name).unlink(missing_ok=True)
    return Fleet(only_house, bundle)


def test_alarms_that_persist_on_a_quarter_of_the_cohort_make_one_signal(fleet):
    for name in ("pi-1", "pi-2", "pi-3", "pi-4"):
        fleet.device(name)
        fleet.windows(name, "OK", "OK")
    assert fleet.step() == []
    fleet.windows("pi-3", "ALARM", "ALARM")
    assert fleet.step() == []
    fleet.windows("pi-3", "ALARM")
    (made,) = fleet.step()
    assert (made.number, made.model, made.bundle, made.devices) == (1, "digits", fleet.bundle, ("pi-3",))
    assert fleet.step() == []
    assert fleet.store.read(open_signals) == [made]
    assert fleet.audit() == ["signal.make"]


def test_devices_of_another_bundle_are_another_cohort(fleet):
    fleet.device("pi-1")
    for name in ("pi-2", "pi-3", "pi-4", "pi-5"):
        fleet.device(name, bundle="cd" * 32)
        fleet.windows(name, *["ALARM"] * 3, bundle="cd" * 32)  # not registered here: nobody could heal it
    fleet.windows("pi-1", *["ALARM"] * 3, bundle="cd" * 32)  # what it ran before
    assert fleet.step() == []
    fleet.windows("pi-1", *["ALARM"] * 3)
    assert [made.devices for made in fleet.step()] == [("pi-1",)]


def test_no_signal_while_one_is_open_cools_down_or_a_rollout_runs(fleet):
    fleet.rules("cool_down_s = 100")
    fleet.device("pi-1")
    fleet.windows("pi-1", *["ALARM"] * 3)
    going = new_rollout(1, ("digits", "1.0.0", fleet.bundle), [["pi-1"]], Limits(), now=1.0)
    fleet.store.write(lambda db: tables.put_rollout(db, going))
    assert fleet.step() == []
    fleet.store.write(lambda db: tables.put_rollout(db, replace(going, state=RolloutState.ABORTED)))
    (first,) = fleet.step()
    fleet.signals.close(first.number, "dismissed", "a dirty lens", "ada")
    assert fleet.step(50.0) == []
    (second,) = fleet.step(51.0)
    assert second.number == 2
    assert fleet.audit() == ["signal.make", "signal.dismissed", "signal.make"]


def test_a_second_loop_is_refused_until_the_first_lets_go_or_dies(fleet):
    fleet.device("pi-1", features=(CAPTURES,))
    fleet.windows("pi-1", *["ALARM"] * 3)
    (made,) = fleet.step()
    signals, number = fleet.signals, made.number
    assert signals.show(number)["consenting"] == ["pi-1"]
    assert signals.take(number, "loop-a", 600.0, "op")["held"]
    assert signals.take(number, "loop-a", 600.0, "op")["holder"] == "loop-a"  # longer
    for act in (
        lambda: signals.take(number, "loop-b", 600.0, "op"),
        lambda: signals.leave(number, "loop-b", "no", "op"),
        lambda: signals.close(number, "handled", "healed", "op", holder="loop-b"),
    ):
        with pytest.raises(RegistryError, match="loop-a works on it for 600 s more"):
            act()
    fleet.house.office.now += 601.0
    assert signals.take(number, "loop-b", 600.0, "op")["holder"] == "loop-b"
    left = signals.leave(number, "loop-b", "too few inputs", "op")
    assert (left["state"], left["held"], left["reason"]) == ("open", False, "too few inputs")
    signals.take(number, "loop-c", 600.0, "op")
    assert signals.close(number, "dismissed", "the camera was replaced", "ada")["state"] == "dismissed"
    for act in (
        lambda: signals.take(number, "loop-c", 600.0, "op"),
        lambda: signals.close(number, "handled", "x", "op"),
    ):
        with pytest.raises(RegistryError, match="it is dismissed: the camera was replaced"):
            act()
    assert fleet.audit() == [
        "signal.make", "signal.take", "signal.take", "signal.leave", "signal.take", "signal.dismissed",
    ]  # fmt: skip


def test_wrong_words_are_refused(fleet):
    signals = fleet.signals
    for act in (
        lambda: signals.show(9),
        lambda: signals.take(9, "", 600.0, "op"),
        lambda: signals.take(9, "a", 1e6, "op"),
        lambda: signals.close(9, "healed", "x", "op"),
        lambda: signals.close(9, "handled", " ", "op"),
        lambda: signals.profile(9),
    ):
        with pytest.raises(UsageError):
            act()


def test_receivers_are_told_and_a_mute_keeps_it_quiet(fleet):
    operations = fleet.house.operations
    rules = operations.trust.ca.parent / "alerts.toml"
    rules.write_text('[[webhook]]\nurl = "http://127.0.0.1:9/"')
    fleet.rules("cool_down_s = 0")
    fleet.device("pi-1")
    fleet.windows("pi-1", *["ALARM"] * 3)
    (made,) = fleet.step()

    def told():
        rows = fleet.store.read(lambda db: db.execute("SELECT body FROM alert_outbox ORDER BY created_at").fetchall())
        return [json.loads(row["body"]) for row in rows]

    (body,) = told()
    assert (body["event"], body["alert"]["key"], body["signal"]["schema"]) == ("signal", "retrain:digits", SCHEMA)
    assert RetrainSignal.from_json(body["signal"]) == made
    operations.alerts.mute("retrain:*", 3600.0, "", "ada")
    fleet.signals.close(made.number, "handled", "lens cleaned", "ada")
    assert len(told()) == 1
    rules.write_text("not TOML")  # a broken file of receivers loses no signal
    assert len(fleet.step(1.0)) == 1


def test_over_http_and_only_operators_may_work_on_one(fleet):
    house = fleet.house
    fleet.device("pi-1")
    fleet.windows("pi-1", *["ALARM"] * 3)
    fleet.step()
    ask = lambda *words, **more: house.ask(*words, token=FILE_TOKEN, **more)  # noqa: E731
    (one,) = ask("GET", "/api/v1/drift/signals").json()
    assert one["signal"]["evidence"]["reference_accuracy"] == 0.96
    shown = ask("GET", "/api/v1/drift/signals/1").json()
    assert (shown["running"], shown["consenting"]) == (["pi-1"], [])
    assert shown["now"][0]["level"] == "ALARM"
    assert house.ask("POST", "/api/v1/drift/signals/1/take", json={"holder": "x"}).status_code == 401
    assert ask("POST", "/api/v1/drift/signals/1/take", json={"holder": "x", "seconds": 60}).json()["held"]
    assert ask("POST", "/api/v1/drift/signals/1/take", json={"holder": "y"}).status_code == 409
    assert ask("POST", "/api/v1/drift/signals/1/leave", json={"holder": "x", "reason": "later"}).status_code == 200
    done = ask("POST", "/api/v1/drift/signals/1/close", json={"outcome": "handled", "reason": "by hand"})
    assert done.json()["state"] == "handled"
    assert ask("GET", "/api/v1/drift/signals").json() == []
    assert len(ask("GET", "/api/v1/drift/signals?every=true").json()) == 1
    assert ask("GET", "/api/v1/drift/signals/7").status_code == 400
    assert ask("GET", "/api/v1/drift/signals/0").status_code == 400


def test_devices_that_a_bundle_was_healed_for_make_no_new_signal(fleet):
    fleet.rules("cool_down_s = 0\nshare = 0.5\ndevices = 0")
    fleet.device("pi-1")
    fleet.device("pi-2")
    fleet.windows("pi-1", *["ALARM"] * 3)
    (made,) = fleet.step()
    fleet.signals.close(made.number, "handled", "healed", "op")
    healed = replace(fleet.manifest, version="1.0.1", lineage={"loop": {"signal": made.number}})
    version = ModelVersion("digits", "1.0.1", healed.bundle_id, healed, 0.0)
    fleet.store.write(lambda db: tables.put_model(db, version))
    fleet.house.office.now += 1.0
    for name in ("pi-1", "pi-2"):
        fleet.device(name, bundle=healed.bundle_id)
    fleet.windows("pi-1", *["ALARM"] * 3, bundle=healed.bundle_id)  # its inputs are unlike the old data as ever
    assert fleet.step(1.0) == []
    assert fleet.store.read(lambda db: version_evidence._troubles(db, version, 0.0)) == []  # nor do they hold it up
    fleet.windows("pi-2", *["ALARM"] * 3, bundle=healed.bundle_id)
    assert [one.devices for one in fleet.step(1.0)] == [("pi-2",)]
    troubles = fleet.store.read(lambda db: version_evidence._troubles(db, version, 0.0))
    assert [words for _, words in troubles] == ["drift on device pi-2"] * 3


def test_devices_that_follow_join_an_open_signal_until_somebody_works_on_it(fleet):
    for name in ("pi-1", "pi-2", "pi-3"):
        fleet.device(name)
    fleet.windows("pi-1", *["ALARM"] * 3)
    (made,) = fleet.step()
    fleet.windows("pi-2", *["ALARM"] * 3)
    assert fleet.step(1.0) == []
    assert [one.devices for one in fleet.store.read(open_signals)] == [("pi-1", "pi-2")]
    fleet.signals.take(made.number, "loop-a", 600.0, "op")
    fleet.windows("pi-3", *["ALARM"] * 3)
    fleet.step(1.0)
    assert [one.devices for one in fleet.store.read(open_signals)] == [("pi-1", "pi-2")]
    assert fleet.audit() == ["signal.make", "signal.grow", "signal.take"]


def test_a_signals_life_is_the_same_on_both_databases(tmp_path, open_store, bundle):
    (tmp_path / "house").mkdir()
    house = House(tmp_path / "house", open_store(tmp_path / "house"))
    fleet = Fleet(house, bundle)
    house.operations.roster._fresh_s = -1.0
    for name in ("pi-1", "pi-2"):
        fleet.device(name)
    fleet.windows("pi-1", *["ALARM"] * 3)
    (made,) = fleet.step()
    fleet.windows("pi-2", *["ALARM"] * 3)
    fleet.step(1.0)
    assert [one.devices for one in fleet.store.read(open_signals)] == [("pi-1", "pi-2")]
    fleet.signals.take(made.number, "loop-a", 60.0, "op")
    fleet.signals.leave(made.number, "loop-a", "too few", "op")
    assert fleet.signals.show(made.number)["reason"] == "too few"
    fleet.signals.close(made.number, "handled", "by hand", "op")
    assert fleet.signals.listed() == []
    assert [one["state"] for one in fleet.signals.listed(every=True)] == ["handled"]
