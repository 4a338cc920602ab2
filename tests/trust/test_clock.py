# SPDX-License-Identifier: Apache-2.0
"""Boards without a clock, clocks that jump, and the time that the server tells over the pinned CA."""

import os
import shutil
import ssl
import time
from types import SimpleNamespace

import pytest

from edge_agent.adapters import jobs, time_floor, time_hint, tls, tuf_client
from edge_agent.adapters.time_floor import Uptime
from edge_contract.errors import DownloadError, SignatureError
from fleet.adapters import ca

DAY = 86_400.0
YEAR = 365 * DAY
NOW = 1_800_000_000.0


def refresh(fleet, data, *wanted, now=None):
    return tuf_client.refresh(data, fleet.device_url, wanted, time.time() if now is None else now)


def later(seconds, boot="boot"):
    return Uptime(boot, 1000.0 + seconds)


# The floor.


def test_the_floor_rises_with_signed_times_and_never_falls(tmp_path):
    for signed_at, floor in [(NOW, NOW), (NOW - 5, NOW), (NOW + 5, NOW + 5)]:
        time_floor.remember(tmp_path, signed_at, NOW, later(0))
        assert time_floor.newest_signed(tmp_path) == floor
    assert time_floor.trusted_now(tmp_path, NOW, later(0)) == NOW + 5


def test_the_floor_goes_on_with_the_uptime_and_is_saved_for_the_next_boot(tmp_path):
    time_floor.remember(tmp_path, NOW, NOW, later(0))
    assert time_floor.floor(tmp_path, later(3 * DAY)) == NOW + 3 * DAY
    assert time_floor.floor(tmp_path, later(3 * DAY, "another boot")) == NOW
    time_floor.save(tmp_path, later(3 * DAY))
    assert time_floor.floor(tmp_path, later(0, "another boot")) == NOW + 3 * DAY
    time_floor.remember(tmp_path, NOW + DAY, NOW + DAY, later(4 * DAY))  # lower than what passed: only saved
    assert time_floor.newest_signed(tmp_path) == NOW + 4 * DAY


def test_saving_the_floor_every_minute_writes_once_an_hour(tmp_path):
    time_floor.remember(tmp_path, NOW, NOW, later(0))
    seen = set()
    for minute in range(180):
        time_floor.save(tmp_path, later(60.0 * minute))
        seen.add((tmp_path / "time_floor.json").stat().st_mtime_ns)
    assert len(seen) == 3


def test_a_system_clock_that_jumps_ten_years_ahead_does_not_lift_the_floor(tmp_path):
    time_floor.remember(tmp_path, NOW, NOW, later(0))
    assert time_floor.trusted_now(tmp_path, NOW + 10 * YEAR, later(0)) == NOW + 10 * YEAR
    assert time_floor.trusted_now(tmp_path, NOW + 60, later(0)) == NOW + 60


def test_a_server_clock_ten_years_ahead_lifts_the_floor_by_a_year_at_most(tmp_path):
    for _ in range(5):
        time_floor.remember(tmp_path, NOW + 10 * YEAR, NOW, later(0))
    assert time_floor.newest_signed(tmp_path) == NOW + 366 * DAY


DAMAGE = [b"", b"{", b"[]", b'{"newest_signed":"x"}', b'{"newest_signed":null}', b"\xff"]


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_floor_is_no_floor_and_a_damaged_hint_is_no_hint(tmp_path, content):
    for name in ("time_floor.json", "time_hint.json"):
        (tmp_path / name).write_bytes(content)
    assert time_floor.newest_signed(tmp_path) == 0.0
    with pytest.raises(DownloadError, match="clock not set"):
        time_floor.trusted_now(tmp_path, 0.0)


# The hint.


def test_a_hint_counts_on_with_the_uptime_and_dies_with_the_boot(tmp_path):
    time_floor.keep_hint(tmp_path, NOW, later(0))
    assert time_floor.trusted_now(tmp_path, 12.0, later(50)) == NOW + 50
    with pytest.raises(DownloadError, match="clock not set: it says 1970"):
        time_floor.trusted_now(tmp_path, 12.0, later(50, "another boot"))
    assert time_floor.newest_signed(tmp_path) == 0.0


def test_a_hint_gives_way_as_soon_as_the_system_clock_agrees_with_it(tmp_path):
    time_floor.keep_hint(tmp_path, NOW, later(0))
    assert time_floor.hinted(tmp_path, 12.0, later(0)) == NOW
    assert time_floor.hinted(tmp_path, NOW + 10 * YEAR, later(0)) == NOW
    assert time_floor.hinted(tmp_path, NOW + 3600, later(0)) is None


@pytest.mark.parametrize(
    ("hint", "system", "said"),
    [(0.0, 12.0, "unset"), (NOW, 12.0, "server"), (NOW, NOW, "free"), (NOW, NOW + 10 * YEAR, "server")],
)
def test_telemetry_is_told_how_good_the_clock_is(tmp_path, hint, system, said):
    if hint:
        time_floor.keep_hint(tmp_path, hint, later(0))
    assert time_floor.quality(tmp_path, system, later(0)) == said


def test_a_time_service_is_believed(tmp_path, monkeypatch):
    (tmp_path / "synchronized").touch()
    monkeypatch.setattr(time_floor, "_SYNCED", tmp_path / "synchronized")
    time_floor.keep_hint(tmp_path, NOW, later(0))
    assert time_floor.quality(tmp_path, NOW + 10 * YEAR, later(0)) == "synced"
    assert time_floor.is_synchronised()


# Over the wire: the clock of the machine is right here, so the device is told another one.


@pytest.fixture
def clock(monkeypatch):
    """A function that sets the clock that the device's code reads; nobody vouches for it."""
    shift = [0.0]
    monkeypatch.setattr(time_floor, "is_synchronised", lambda: False)
    monkeypatch.setattr(tls, "time", SimpleNamespace(time=lambda: time.time() + shift[0]))  # not the server's

    def set_by(seconds):
        shift[0] = seconds
        return time.time() + seconds

    return set_by


def test_a_board_that_wakes_up_in_1970_asks_the_server_and_installs(fleet, device, bundle, clock):
    fleet.publish(bundle[0])
    found = refresh(fleet, device, bundle[1], now=clock(-time.time() + 12.0))
    assert bundle[1] in found
    assert abs(time_floor.trusted_now(device / "tuf", 12.0) - time.time()) < 60
    assert time_floor.quality(device / "tuf", 12.0) == "server"
    context = tls.device_context(device / "identity")  # the link to the broker uses the same time
    connection = tls.connect(fleet.device_url, context)
    assert tls.exchange(connection, "GET", "/tuf/timestamp.json")[0] == 200
    connection.close()


def test_a_clock_behind_what_was_signed_asks_the_server(fleet, device, bundle, clock):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    assert bundle[1] in refresh(fleet, device, bundle[1], now=clock(-3 * DAY))
    assert time_floor.quality(device / "tuf", time.time() - 3 * DAY) == "server"


def test_orders_are_verified_by_the_time_that_the_server_told(fleet, device, clock):
    envelope = fleet.jobs.sign(fleet.job("pi-01", issued_at=1e9, expires_at=time.time() + 600)).to_bytes()
    assert jobs.verify(envelope, device, "pi-01", clock(-time.time() + 12.0)).job_id == "01J"


def test_without_a_server_the_clock_stays_unset_and_it_is_said(fleet, device, bundle, clock):
    fleet.publish(bundle[0])
    fleet.close()
    with pytest.raises(DownloadError, match=r"clock not set: it says 1970-01-01.*installs wait, inference goes on"):
        refresh(fleet, device, bundle[1], now=clock(-time.time() + 12.0))


def test_the_time_of_a_foreign_server_is_not_taken(fleet, device, new_fleet, clock):
    foreign = new_fleet("foreign")
    with pytest.raises(DownloadError, match="clock not set"):
        time_hint.now(device, [foreign.device_url, foreign.enrol_url], clock(-time.time() + 12.0))
    assert not (device / "tuf" / "time_hint.json").exists()


def serve_with_certificate_of(fleet, now):
    """Give the fleet's listeners a server certificate that was issued at another time."""
    for name in ("server.crt", "server.key"):
        (fleet.data / "ca" / name).unlink()
    certificate, key = ca.issue_server(fleet.data / "ca", now=now)
    for server, _ in fleet._servers:
        server.socket.context.load_cert_chain(certificate, key)


def test_a_time_outside_the_life_of_the_servers_certificate_is_not_taken(fleet, device, clock):
    serve_with_certificate_of(fleet, time.time() - 3 * YEAR)  # stolen, and ended a year ago
    with pytest.raises(DownloadError, match="outside its certificate's life"):
        time_hint.ask(device, [fleet.device_url], clock(-time.time() + 12.0))


def test_a_server_that_tells_a_time_before_the_floor_is_not_believed(fleet, device, clock):
    (device / "tuf").mkdir(exist_ok=True)
    time_floor.remember(device / "tuf", time.time() + 300 * DAY, time.time())
    with pytest.raises(DownloadError, match="metadata was signed on"):
        time_hint.ask(device, [fleet.device_url], clock(-time.time() + 12.0))


def test_not_yet_valid_and_expired_are_told_apart(fleet, device):
    for issued, said in [(time.time() + 10 * DAY, "clock not set"), (time.time() - 3 * YEAR, "has expired")]:
        serve_with_certificate_of(fleet, issued)
        connection = tls.connect(fleet.device_url, tls.device_context(device / "identity"))
        with pytest.raises(DownloadError, match=said) as caught:
            tls.exchange(connection, "GET", "/tuf/timestamp.json")
        assert tls.doubts_clock(caught.value)


def test_a_refresh_that_tls_refuses_for_its_dates_asks_the_server_and_goes_on(
    fleet, device, bundle, clock, monkeypatch
):
    fleet.publish(bundle[0])
    system, real = clock(10 * YEAR), tls.exchange
    refused = ssl.SSLCertVerificationError("expired")
    refused.verify_code, refused.verify_message = 10, "certificate has expired"

    def by_a_clock_ahead(*args, **words):
        """OpenSSL reads the machine's own clock, which no test moves: what it says of a clock ten years ahead."""
        if not (device / "tuf" / "time_hint.json").exists():
            raise tls.explain(refused, "https://h") from refused
        return real(*args, **words)

    monkeypatch.setattr(tls, "exchange", by_a_clock_ahead)
    assert bundle[1] in refresh(fleet, device, bundle[1], now=system)


def test_dates_are_still_judged_where_a_hint_is_in_force(fleet, device, clock):
    system = clock(-time.time() + 12.0)
    time_hint.ask(device, [fleet.device_url], system)
    serve_with_certificate_of(fleet, time.time() + 30 * DAY)
    connection = tls.connect(fleet.device_url, tls.device_context(device / "identity"))
    with pytest.raises(DownloadError, match="before the server's certificate begins"):
        tls.exchange(connection, "GET", "/tuf/timestamp.json")


def test_a_clock_ten_years_ahead_makes_expired_of_everything_until_the_server_was_asked(
    fleet, device, bundle, clock, monkeypatch
):
    fleet.publish(bundle[0])
    ahead = clock(10 * YEAR)
    with monkeypatch.context() as patch:
        patch.setattr(time_floor, "is_synchronised", lambda: True)
        with pytest.raises(SignatureError, match="expired"):
            refresh(fleet, device, bundle[1], now=ahead)
    assert bundle[1] in refresh(fleet, device, bundle[1], now=ahead)
    assert time_floor.quality(device / "tuf", ahead) == "server"
    assert bundle[1] in refresh(fleet, device, bundle[1], now=clock(0.0))  # and nothing is left of it afterwards


def test_a_clock_that_a_time_service_keeps_is_not_overruled(fleet, device, monkeypatch):
    monkeypatch.setattr(time_floor, "is_synchronised", lambda: True)
    with pytest.raises(DownloadError, match="kept by a time service"):
        time_hint.ask(device, [fleet.device_url], time.time() + 10 * YEAR)


def test_the_real_machine_tells_its_uptime_and_whether_its_clock_is_kept():
    first = time_floor.uptime()
    assert first.boot
    assert time_floor.uptime().seconds >= first.seconds
    assert time_floor.is_synchronised() in (True, False)


def test_metadata_that_ended_while_the_device_slept_is_fetched_anew(fleet, device, bundle):
    fleet.publish(bundle[0])
    refresh(fleet, device, bundle[1])
    for name in ("timestamp.json", "snapshot.json"):
        os.truncate(device / "tuf" / name, 0)
    shutil.copy(device / "identity" / "root.json", device / "tuf" / "targets.json")
    assert bundle[1] in refresh(fleet, device, bundle[1])
