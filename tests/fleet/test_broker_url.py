# SPDX-License-Identifier: Apache-2.0
"""Settings of a broker by URL: what is read, what is refused, and where secrets may stand."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract.errors import StropError, UsageError
from fleet.adapters.broker_files import emqx_rules
from fleet.adapters.broker_login import PASSWORD, USER, LinkFiles, read_secret
from fleet.adapters.external_broker import ExternalBroker, login
from fleet.config import FleetConfig, load_config
from fleet.core.broker_url import read_address, read_urls


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no broker"),
        ("http://a", "is no broker's URL; write mqtts://HOST:PORT"),
        ("mqtt://a,mqtts://b", "mixes mqtt:// and mqtts://"),
        ("mqtts://user:secret@a", "holds no secrets"),
        ("mqtts://a:0", "0 is not a port"),
        ("mqtts://a:99999", "99999 is not a port"),
        ("mqtts://a/topic", "is no broker's URL"),
        ("mqtts://", "is no broker's URL"),
    ],
)
def test_a_url_that_is_none_is_one_line_without_secrets(text, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_urls(text)
    assert "secret@" not in str(caught.value)


def test_a_list_of_nodes_keeps_its_order_and_names_each_once():
    found = read_urls("mqtts://b:1, mqtts://a mqtts://b:1,mqtts://[fe80::1]:2")
    assert found.addresses == (("b", 1), ("a", 8883), ("fe80::1", 2))
    assert read_urls(str(found)) == found
    with pytest.raises(UsageError, match="is not HOST:PORT"):
        read_address("nowhere", "x")


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(StropError):
        assert read_urls(text).addresses


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("broker_user = 'x'", "broker_user is for a broker by URL, and none is named"),
        ("broker = 'mqtt://127.0.0.1'", "broker is without TLS, and device_broker is missing"),
        ("broker = 'mqtt://far.example'\ndevice_broker = 'far.example:8883'", "would leave this machine in the clear"),
        ("broker = 'mqtts://a'\nplain_mqtt_port = 5", "plain_mqtt_port is for an own mosquitto"),
        ("broker = 'mqtts://a'\nbroker_key = 'x'", "broker_certificate and broker_key go together"),
        ("broker = 'mqtts://a'\nbroker_ca = '/no/such'", "no such file: /no/such"),
        ("broker = 'mqtts://a'\ndevice_broker = 'b'", "'b' is not HOST:PORT"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, lines, words):
    (tmp_path / "fleet.toml").write_text(lines)
    with pytest.raises(UsageError, match=words):
        load_config(tmp_path)


def test_secrets_come_from_a_file_or_the_environment(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    secret.chmod(0o600)
    config = FleetConfig(broker="mqtts://a,mqtts://b", broker_user="ann", broker_password_file=str(secret))
    files = login(config, tmp_path, {})
    assert (files.user, files.password, files.others) == ("ann", "from a file", (("b", 8883),))
    assert "from a file" not in repr(files)
    files = login(config, tmp_path, {USER: "bob", PASSWORD: "from the environment"})
    assert (files.user, files.password) == ("bob", "from the environment")
    secret.chmod(0o644)
    with pytest.raises(UsageError, match="everybody on this machine can read it; chmod 600"):
        read_secret(str(secret))
    secret.chmod(0o600)
    secret.write_text("two\nlines\n")
    with pytest.raises(UsageError, match="does not hold one line"):
        read_secret(str(secret))
    with pytest.raises(UsageError, match="cannot be read"):
        read_secret(str(tmp_path / "none"))


def test_whose_authority_is_asked(tmp_path):
    own = login(FleetConfig(broker="mqtts://a"), tmp_path, {})
    assert own.ca == tmp_path / "ca.crt"
    assert login(FleetConfig(broker="mqtts://a", broker_ca="system"), tmp_path, {}).ca is None
    with pytest.raises(StropError, match="cannot be used for TLS"):
        own.context()
    assert LinkFiles(None, tmp_path, tmp_path, is_tls=False).context() is None


def test_where_devices_are_sent():
    config = FleetConfig(broker="mqtts://a:1,mqtts://b:2")
    files = LinkFiles(None, "x", "y")
    assert ExternalBroker(config, files).told == ("a", 1)
    told = FleetConfig(broker="mqtt://127.0.0.1", device_broker="mqtt.example.org:8883")
    assert ExternalBroker(told, files).told == ("mqtt.example.org", 8883)


def test_the_rules_for_another_kind_of_broker_never_grant_the_acknowledgement():
    lines = emqx_rules("acme").splitlines()
    publish = [line for line in lines if ", publish, " in line]
    assert not any("tm/ack" in line or "tm/+" in line or "#" in line for line in publish)
    assert lines[-1] == "{deny, all}."
    assert all("/acme/${username}/" in line for line in lines[1:-1])
