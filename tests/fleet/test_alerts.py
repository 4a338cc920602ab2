# SPDX-License-Identifier: Apache-2.0
"""Alerts: when they fire and end, mutes, and delivery to a real HTTP server and a real SMTP server on this machine."""

import hashlib
import hmac
import http.server
import json
import socketserver
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.errors import UsageError
from edge_contract.messages import DesiredState
from fleet.adapters import tables
from fleet.adapters.notify import Notifier
from fleet.core.alerts import AlertRules, Finding, State, gathered, judge, read_rules
from fleet.core.inventory import DeviceRecord
from tests.fleet.test_access import FILE_TOKEN, House

RULES = AlertRules(hold_s=60.0, clear_s=60.0)


@pytest.fixture(scope="module")
def only_house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("alerts"))
    yield made
    made.close()


@pytest.fixture
def house(only_house):
    def clear(db):
        for table in ("alerts", "alert_mutes", "alert_outbox", "devices"):
            db.execute(f"DELETE FROM {table}")

    only_house.office.store.write(clear)
    only_house.operations.roster._fresh_s = -1.0
    (only_house.operations.trust.ca.parent / "alerts.toml").unlink(missing_ok=True)
    return only_house.fresh()


def silent(house, name="pi-1", for_s=7200.0):
    record = DeviceRecord(
        name, 1.0, boot="b", session=1, last_seen=house.office.now - for_s, desired=DesiredState(0, {}, {})
    )
    house.office.store.write(lambda db: tables.put_device(db, record))


def told(house, text):
    (house.operations.trust.ca.parent / "alerts.toml").write_text(f"[rules]\ndisk_free_mb = 0\nhold_s = 60\n{text}")


def after(house, seconds):
    house.office.now += seconds
    return [(event, alert.key) for event, alert in house.operations.alerts.step()]


def walk(looks, rules=RULES):
    """Follow a finding that is there or not at each look, 30 s apart; return the events with their times."""
    alerts, events = {}, []
    for i, is_there in enumerate(looks):
        found = gathered([Finding("disk", "", "90 MB")]) if is_there else {}
        alerts, new = judge(alerts, found, rules, 30.0 * i)
        events += [(30 * i, event) for event, _ in new]
    return events


@pytest.mark.parametrize(
    ("looks", "events"),
    [
        ("1", []),
        ("111", [(60, "fired")]),
        ("10101010", []),  # never for a whole minute
        ("1111000", [(60, "fired"), (180, "ended")]),
        ("11110101010111", [(60, "fired")]),  # flickers: one message
        ("111000111", [(60, "fired"), (150, "ended"), (240, "fired")]),
    ],
)
def test_an_alert_fires_after_it_lasted_and_ends_after_it_stayed_away(looks, events):
    assert walk([look == "1" for look in looks]) == events


@given(st.lists(st.booleans(), max_size=60))
def test_events_alternate_and_nothing_fires_twice(looks):
    kinds = [event for _, event in walk(looks)]
    assert kinds == ["fired", "ended"] * (len(kinds) // 2) + ["fired"] * (len(kinds) % 2)


def test_a_silent_device_is_told_once_and_a_mute_keeps_it_quiet(house):
    told(house, '[[webhook]]\nurl = "http://127.0.0.1:9/"')
    silent(house)
    silent(house, "pi-2")
    alerts = house.operations.alerts
    mute = alerts.mute("offline:pi-2", 3600.0, "moved\nhouse", "ada")
    assert mute.reason == "moved house"
    assert after(house, 0.0) == []
    assert {one["state"] for one in alerts.shown()["alerts"]} == {State.PENDING.value}
    assert sorted(after(house, 61.0)) == [("fired", "offline:pi-1"), ("fired", "offline:pi-2")]
    shown = alerts.shown()
    assert {one["key"]: one["muted"] for one in shown["alerts"]} == {"offline:pi-1": False, "offline:pi-2": True}
    assert len(shown["outbox"]) == 1
    assert after(house, 61.0) == []
    silent(house, for_s=0.0)
    assert after(house, 10.0) == []
    assert after(house, 301.0) == [("ended", "offline:pi-1")]
    alerts.unmute(mute.id, "ada")
    with pytest.raises(UsageError, match="is not known"):
        alerts.unmute(mute.id, "ada")


def test_many_devices_are_one_alert(house):
    told(house, "")
    for i in range(30):
        silent(house, f"pi-{i:02}")
    after(house, 0.0)
    assert after(house, 61.0) == [("fired", "offline:")]
    assert house.operations.alerts.shown()["alerts"][0]["words"].startswith("30 devices: pi-00, ")


def test_a_stopped_rollout_and_a_full_disk_and_dead_letters_are_found(house):
    (house.operations.trust.ca.parent / "alerts.toml").write_text(
        "[rules]\nhold_s = 0\ndisk_free_mb = 1e12\ndead_letters = 2"
    )

    def job(db):
        for _ in range(2):
            values = (house.office.now, "t", "no JSON", b"x")
            db.execute("INSERT INTO dead_letters (time, topic, reason, payload) VALUES (?,?,?,?)", values)

    house.office.store.write(job)
    assert sorted(after(house, 0.0)) == [("fired", "dead_letters:"), ("fired", "disk:")]
    house.office.store.write(lambda db: db.execute("DELETE FROM dead_letters").rowcount)


class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.heard.append((dict(self.headers), body))
        self.send_response(self.server.numbers.pop(0) if self.server.numbers else 204)
        self.send_header("location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def sink():
    server = http.server.HTTPServer(("127.0.0.1", 0), Sink)
    server.heard, server.numbers = [], []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def notifier(house):
    return Notifier(house.operations.alerts, house.office.store, lambda: house.office.now)


def test_a_webhook_is_signed_and_tried_again_with_the_same_id(house, sink, tmp_path):
    (tmp_path / "secret").write_text("very secret\n")
    url = f"http://127.0.0.1:{sink.server_port}/hook"
    told(house, f'[[webhook]]\nurl = "{url}"\nsecret_file = "{tmp_path / "secret"}"')
    sink.numbers[:] = [500, 302]
    assert house.operations.alerts.test("ada") == 1
    sender = notifier(house)
    waits = []
    for seconds in (0.0, 0.0, 5.0, 9.0, 1.0, 1000.0):
        house.office.now += seconds
        waits.append(sender.deliver())
    assert waits == [0, 0, 0, 0, 1, 0]  # 5 s after the first, 10 s after the second; a redirect is not followed
    assert len(sink.heard) == 3
    assert len({json.loads(body)["id"] for _, body in sink.heard}) == 1
    for headers, body in sink.heard:
        given = {key.lower(): value for key, value in headers.items()}
        signed = f"{given['strop-timestamp']}.".encode() + body
        assert given["strop-signature"] == "v1=" + hmac.new(b"very secret", signed, hashlib.sha256).hexdigest()
    (shown,) = house.operations.alerts.shown()["outbox"]
    assert (shown["tries"], bool(shown["sent_at"]), shown["error"]) == (3, True, "")


def test_a_receiver_that_is_away_holds_no_other_up_and_is_given_up_after_a_day(house, sink):
    told(house, f'[[webhook]]\nurl = "http://127.0.0.1:9/"\n[[webhook]]\nurl = "http://127.0.0.1:{sink.server_port}/"')
    house.operations.alerts.test("ada")
    house.operations.alerts.test("ada")
    assert notifier(house).deliver() == 2
    states = {(one["receiver"], bool(one["sent_at"])) for one in house.operations.alerts.shown()["outbox"]}
    assert states == {("webhook:0", False), ("webhook:1", True)}
    house.office.now += 90_000.0
    assert notifier(house).deliver() == 0
    assert len(sink.heard) == 2


class Mail(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as takes one message."""

    def handle(self):
        self.wfile.write(b"220 sink\r\n")
        data = None
        for line in self.rfile:
            if data is not None:
                if line == b".\r\n":
                    self.server.heard.append(b"".join(data).decode())
                    data = None
                    self.wfile.write(b"250 taken\r\n")
                else:
                    data.append(line)
                continue
            word = line[:4].upper()
            if word == b"DATA":
                data = []
            self.wfile.write({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 ok\r\n"))
            if word == b"QUIT":
                return


def test_a_mail_says_what_is_wrong_and_cannot_be_given_headers(house):
    with socketserver.TCPServer(("127.0.0.1", 0), Mail) as server:
        server.heard = []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        port = server.server_address[1]
        told(house, f'[[email]]\nhost = "127.0.0.1"\nport = {port}\nfrom = "strop@a.example"\nto = ["ada@a.example"]')
        silent(house, "pi-1")
        after(house, 0.0)
        after(house, 61.0)
        assert notifier(house).deliver() == 1
        server.shutdown()
    (message,) = server.heard
    assert "Subject: [strop] fired: offline pi-1" in message
    assert "pi-1 has said nothing for 121 min" in message
    assert message.count("\nTo: ") + message.startswith("To: ") == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("= 1", "not TOML"),
        ("[rules]\nofline_s = 1", "unknown key 'ofline_s'"),
        ("[rule]\nx = 1", "unknown key 'rule'"),
        ("[rules]\noffline_s = -1", "not a number from 0 on"),
        ("[rules]\noffline_s = true", "not a number from 0 on"),
        ("webhook = 'x'", "not a list of tables"),
    ],
)
def test_a_slip_in_alerts_toml_is_named(text, line):
    with pytest.raises(UsageError, match=line):
        read_rules(text, "alerts.toml")


def test_the_page_and_the_api_show_and_mute(house):
    told(house, "")
    silent(house)
    after(house, 0.0)
    after(house, 61.0)
    page = house.ask("GET", "/alerts", headers={"accept": "text/html"}).text
    assert "1 firing" in page
    assert "pi-1 has said nothing" in page
    assert "has said nothing" in house.ask("GET", "/", headers={"accept": "text/html"}).text
    made = house.ask("POST", "/api/v1/alerts/mutes", token=FILE_TOKEN, json={"pattern": "offline:*", "seconds": 60})
    assert made.status_code == 201
    found = house.ask("GET", "/api/v1/alerts", token=FILE_TOKEN).json()
    assert found["alerts"][0]["muted"]
    gone = house.ask("DELETE", f"/api/v1/alerts/mutes/{made.json()['id']}", token=FILE_TOKEN)
    assert gone.status_code == 200
    for wrong in ({"pattern": ""}, {"pattern": "x", "seconds": -1}, {"pattern": "x", "seconds": 1e9}):
        assert house.ask("POST", "/api/v1/alerts/mutes", token=FILE_TOKEN, json=wrong).status_code == 400
