# SPDX-License-Identifier: Apache-2.0
"""The operators' listener as a process: TLS, the first admin's link, the commands on accounts and the audit log."""

import contextlib
import io
import json
import re
import socket
import ssl

import httpx
import pytest

from edge_contract.errors import UsageError
from fleet.client import trust_of
from fleet.config import load_config
from fleet.core.audit import append
from strop import cli
from tests.support.fleet_server import FleetProcess, until

pytestmark = pytest.mark.broker

PASSWORD = "three grey herons"


def strop(*words, code=0):
    """Run the command line in this process: a new one for each command takes longer than all else here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        cli.main(["fleet", *map(str, words)])
    assert (end.value.code or 0) == code, err.getvalue()
    return out.getvalue(), err.getvalue().strip()


def first_link(server):
    """Return the address that the server prints, a moment after it is ready."""
    form = re.compile(r"^admin +(https?://\S+) \(once", re.MULTILINE)
    return until(lambda: form.search(server.log.read_text()), "the first admin's link")[1]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A server whose page speaks TLS by the fleet's own CA."""
    folder = tmp_path_factory.mktemp("tls")
    made = FleetProcess(folder / "server")
    made.start("--page-tls", "--log-format", "json")
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser(tls):
    context = ssl.create_default_context(cafile=str(tls.data / "ca" / "ca.crt"))
    with httpx.Client(base_url=tls.endpoints["http"], verify=context, trust_env=False, timeout=30) as client:
        yield client


def test_the_first_admin_comes_in_by_the_printed_link_over_tls(tls, browser):
    link = first_link(tls)
    assert link.startswith(tls.endpoints["http"])
    assert "invite" not in (tls.data / "endpoints.json").read_text()
    assert browser.get("/api/v1/devices").status_code == 200  # nobody has an account yet
    made = browser.post(link, data={"name": "ada", "password": PASSWORD, "again": PASSWORD})
    assert made.headers["set-cookie"].startswith("__Host-strop_session=")
    assert "max-age=31536000" in made.headers["strict-transport-security"]
    assert browser.get("/api/v1/me").json() == {"name": "ada", "role": "admin"}
    browser.cookies.clear()
    assert browser.get("/api/v1/devices").status_code == 401
    assert browser.get("/readyz").json() == {"ok": True, "broker": True, "database": True, "disk": True}


def test_the_commands_trust_the_one_certificate(tls, tmp_path):
    out, _ = strop("user", "add", "bob", "--role", "operator", "--data", tls.data)
    assert re.search(r"https://127.0.0.1:\d+/invite/[0-9a-f]{64}", out)
    assert "operator" in strop("user", "list", "--data", tls.data)[0]
    assert "bob is viewer" in strop("user", "role", "bob", "viewer", "--data", tls.data)[0]
    assert "invite" in strop("user", "passwd", "bob", "--data", tls.data)[0]
    assert "there are accounts already" in strop("user", "link", "--data", tls.data)[0]
    token = tmp_path / "token"
    token.write_text(strop("api-token", "new", "ci", "--role", "viewer", "--days", 1, "--data", tls.data)[0])
    server = ("--server", tls.endpoints["http"])
    _, line = strop("device", "list", *server, "--token-file", token, code=1)
    assert "CERTIFICATE_VERIFY_FAILED" in line  # another machine does not know this CA
    assert json.loads(strop("api-token", "list", "--json", "--data", tls.data)[0])[0]["name"] == "ci"
    assert "revoked ci" in strop("api-token", "revoke", "ci", "--data", tls.data)[0]
    assert "removed bob" in strop("user", "remove", "bob", "--data", tls.data)[0]
    assert strop("user", "role", "ada", "viewer", "--data", tls.data, code=2)[1].count("last admin") == 1


def test_another_machine_names_the_authority_and_shows_a_token(tls, monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text(strop("api-token", "new", "far", "--data", tls.data)[0])
    monkeypatch.setenv("STROP_FLEET_CA", str(tls.data / "ca" / "ca.crt"))
    server = ("--server", tls.endpoints["http"], "--token-file", token)
    assert strop("device", "list", "--json", *server)[0].strip() == "[]"
    assert "this needs the role operator; operator/far is viewer" in strop("enrol", "new", *server, code=1)[1]


def test_the_audit_log_is_verified_where_it_is_read(tls, tmp_path):
    kept = tmp_path / "audit.jsonl"
    out, _ = strop("audit", "--verify", "--export", kept, "--data", tls.data)
    assert re.match(r"\d+ entries, the chain holds; head [0-9a-f]{64}", out)
    strop("enrol", "new", "--data", tls.data)
    strop("audit", "--verify", "--against", kept, "--data", tls.data)
    lines = kept.read_text().splitlines()
    other = append(None, time=1.0, actor="eve", action="account.add", subject="eve", detail={})
    kept.write_text("\n".join([json.dumps(other.to_json()), *lines[1:]]))
    _, line = strop("audit", "--verify", "--against", kept, "--data", tls.data, code=1)
    assert "are not those that were kept" in line
    assert "account.add" in strop("audit", "--find", "account", "--data", tls.data)[0]


def test_the_chosen_certificate_is_the_only_one_that_is_trusted(tls, tmp_path):
    address = tls.endpoints["http"]
    assert trust_of("http://127.0.0.1", "x") == {}
    good = trust_of(address, tls.endpoints["page_certificate"])
    assert httpx.get(f"{address}/healthz", trust_env=False, **good).status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{address}/healthz", trust_env=False, **trust_of(address, str(tls.data / "ca" / "strop-server.crt")))
    (tmp_path / "no.crt").write_text("nothing")
    with pytest.raises(UsageError, match="no certificate"):
        trust_of(address, str(tmp_path / "no.crt"))


def test_nothing_was_logged_that_is_no_json(tls):
    lines = [line for line in tls.log.read_text().splitlines() if line.startswith("{")]
    assert all({"time", "level", "logger", "message"} <= json.loads(line).keys() for line in lines)
    assert "Traceback" not in tls.log.read_text()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('host = "0.0.0.0"\npublic_host = "x"', "plain HTTP and would leave"),
        ('host = "0.0.0.0"\npublic_host = "x"\npage_tls = true\nopen_viewing = true', "would let everybody look"),
        ('page_certificate = "a.pem"', "go together"),
        ('page_certificate = "/no/a.pem"\npage_key = "/no/b.pem"', "no such file"),
        ("session_idle_s = 0.0", "session_idle_s must be positive"),
    ],
)
def test_settings_that_would_open_the_page_are_refused(tmp_path, text, line):
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(UsageError, match=line):
        load_config(tmp_path)


def test_tls_lets_the_page_leave_this_machine(tmp_path):
    (tmp_path / "fleet.toml").write_text('host = "0.0.0.0"\npublic_host = "fleet.example"\npage_tls = true')
    assert load_config(tmp_path).has_page_tls


def test_listeners_send_small_answers_at_once():
    """asyncio sets TCP_NODELAY only on sockets that name their protocol."""
    from fleet.web.listening import bind

    with bind("127.0.0.1", 0, "--http-port") as bound:
        assert bound.proto == socket.IPPROTO_TCP
