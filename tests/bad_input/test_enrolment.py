# SPDX-License-Identifier: Apache-2.0
"""``strop agent enrol`` with a token that is used, expired, unknown, cut short or of another server."""

import pytest

from edge_agent.adapters.enrol import enrol
from tests.bad_input.refusals import unchanged, until
from tests.support.agent_process import free_port

NEW = "strop fleet enrol new"


def _used(fleet, folder):
    token = fleet.call("POST", "/tokens")["token"]
    if not (fleet.devices / "pi-used").exists():
        enrol(fleet.devices / "pi-used", fleet.endpoints["enrol"], token, "pi-used")
    return token


def _expired(fleet, folder):
    token = fleet.call("POST", "/tokens", {"ttl_s": 0.001})["token"]
    until(lambda: True, "an instant")
    return token


def _unknown(fleet, folder):
    prefix, number, secret, ca = fleet.call("POST", "/tokens")["token"].split(".")
    return ".".join((prefix, number, "0" * len(secret), ca))


def _other_ca(fleet, folder):
    return fleet.call("POST", "/tokens")["token"][:-64] + "0" * 64


def _cut(fleet, folder):
    return fleet.call("POST", "/tokens")["token"][:-10]


TOKENS = {
    "used": (_used, "already used by device 'pi-used'", NEW),
    "expired": (_expired, "expired", NEW),
    "unknown": (_unknown, "unknown token", NEW),
    "of another CA": (_other_ca, "/ca.pem: this server's CA is ", "the token names 0000", "use a token of this server"),
    "cut short": (_cut, "this is not an enrolment token", "copy the whole line"),
}


def _words(data, server, token_file, device="pi-new"):
    return ("agent", "enrol", "--data", data, "--server", server, "--token-file", token_file, "--device", device)


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_does_not_serve_leaves_device_and_server_as_they_were(strop, fleet, tmp_path, kind):
    make, *parts = TOKENS[kind]
    (tmp_path / "token").write_text(make(fleet, tmp_path))
    with unchanged(tmp_path, fleet.state):
        strop.refuses(1, *parts, words=_words(tmp_path / "data", fleet.endpoints["enrol"], tmp_path / "token"))


def test_an_enrolled_device_keeps_its_identity_when_a_new_token_is_refused(strop, fleet, tmp_path):
    (tmp_path / "token").write_text(_unknown(fleet, tmp_path))
    data = fleet.devices / "pi-01"
    words = (*_words(data, fleet.endpoints["enrol"], tmp_path / "token", "pi-01"),)
    with unchanged(data, fleet.state):
        strop.refuses(1, "enrolled already", "--replace", words=words)
        strop.refuses(1, "unknown token", words=(*words, "--replace"))


def test_a_name_that_is_taken_is_not_given_twice(strop, fleet, tmp_path):
    (tmp_path / "token").write_text(fleet.call("POST", "/tokens")["token"])
    with unchanged(tmp_path, fleet.state):
        words = _words(tmp_path / "data", fleet.endpoints["enrol"], tmp_path / "token", "pi-01")
        strop.refuses(1, "device 'pi-01' is enrolled already; ", "strop fleet device remove pi-01", words=words)


def test_a_server_that_is_not_there(strop, fleet, tmp_path):
    (tmp_path / "token").write_text(fleet.call("POST", "/tokens")["token"])
    with unchanged(tmp_path):
        words = _words(tmp_path / "data", f"https://127.0.0.1:{free_port()}", tmp_path / "token")
        strop.refuses(1, "https://127.0.0.1:", "no way to the server", words=words)


def test_an_address_that_is_none(strop, tmp_path):
    (tmp_path / "token").write_text("strop1.0a." + "c" * 40 + "." + "d" * 64)
    with unchanged(tmp_path):
        words = _words(tmp_path / "data", "127.0.0.1:8444", tmp_path / "token")
        strop.refuses(2, "'127.0.0.1:8444' is not an https address; write https://HOST:PORT", words=words)


def test_a_token_file_that_is_not_there(strop, tmp_path):
    with unchanged(tmp_path):
        words = _words(tmp_path / "data", "https://127.0.0.1:1", tmp_path / "token")
        strop.refuses(2, f"{tmp_path / 'token'}: the token cannot be read", words=words)


def test_a_runtime_that_nobody_knows_is_said_before_the_token_is_used_up(strop, fleet, tmp_path):
    (tmp_path / "token").write_text(fleet.call("POST", "/tokens")["token"])
    words = (*_words(tmp_path / "data", fleet.endpoints["enrol"], tmp_path / "token"), "--runtime", "tensorrt")
    with unchanged(tmp_path, fleet.state):
        strop.refuses(2, "'tensorrt'", "litert", words=words)
