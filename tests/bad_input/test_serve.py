# SPDX-License-Identifier: Apache-2.0
"""``strop fleet serve`` that cannot start: a busy port, no mosquitto, a second server, a damaged folder."""

import shutil
import socket

import pytest

from tests.bad_input.refusals import changed_files, unchanged

PORTS = ("http", "device", "enrol", "mqtt")


def _serve(data, **ports):
    return ("fleet", "serve", "--data", data, *(f"--{name}-port={ports.get(name, 0)}" for name in PORTS))


@pytest.fixture
def busy():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


@pytest.fixture(scope="session")
def made(tmp_path_factory, fleet):
    """A data folder that has been served before: a copy of the keys of one that is."""
    data = tmp_path_factory.mktemp("made") / "server"
    data.mkdir()
    for name in ("ca", "tuf", "job"):
        shutil.copytree(fleet.data / name, data / name)
    shutil.copy(fleet.data / "operator.token", data)
    (data / "lock").touch()
    return data


@pytest.mark.parametrize("name", PORTS)
def test_a_busy_port_is_named_with_its_option(strop, made, busy, name):
    with unchanged(made):
        strop.refuses(1, f"port {busy} on 127.0.0.1", f"--{name}-port", words=_serve(made, **{name: busy}))


@pytest.mark.parametrize("name", ["enrol", "mqtt"])
def test_a_busy_port_makes_no_new_data_folder(strop, tmp_path, busy, name):
    strop.refuses(1, f"port {busy} on 127.0.0.1", words=_serve(tmp_path / "new", **{name: busy}))
    assert not (tmp_path / "new").exists()


def test_without_mosquitto_the_line_installs_it(strop, made):
    with unchanged(made):
        strop.refuses(
            1,
            "mosquitto, the MQTT broker, is not installed; ",
            "apt-get install mosquitto",
            words=_serve(made),
            PATH="",
        )


def test_without_mosquitto_no_new_data_folder_is_made(strop, tmp_path):
    strop.refuses(1, "mosquitto", words=_serve(tmp_path / "new"), PATH="")
    assert not (tmp_path / "new").exists()


def test_a_second_server_on_the_same_folder_leaves_the_first_one_alone(strop, fleet):
    with unchanged(fleet.state):
        strop.refuses(1, f"{fleet.data}: another fleet server runs on this data folder", words=_serve(fleet.data))
    assert fleet.send("GET", "/healthz").json() == {"ok": True, "broker": True, "database": True}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http_prot = 1", ("fleet.toml: unknown key 'http_prot'; use one of host, ",)),
        ('http_port = "many"', ("fleet.toml: http_port = 'many' is not a", "int")),
        ("http_port = 70000", ("fleet.toml: http_port = 70000 is not a port",)),
        ("http_port", ("fleet.toml: not TOML: ",)),
    ],
)
def test_a_slip_in_fleet_toml_names_file_key_and_value(within, tmp_path, text, parts):
    (tmp_path / "fleet.toml").write_text(text)
    with unchanged(tmp_path):
        within.refuses(2, *parts, words=("fleet", "serve", "--data", tmp_path))


@pytest.mark.parametrize("name", ["ca/ca.key", "tuf/online.key", "job/job.key"])
def test_a_damaged_key_is_named_and_never_replaced(strop, made, tmp_path, name):
    data = tmp_path / "damaged"
    shutil.copytree(made, data)
    (data / name).write_bytes(b"-----BEGIN NOTHING-----\n")
    before = changed_files(data)[name]
    strop.refuses(1, f"{name.split('/')[0]}", words=_serve(data))
    assert changed_files(data)[name] == before


def test_a_data_folder_that_cannot_be_made_is_named(strop, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with unchanged(tmp_path / "file"):
        strop.refuses(1, f"{tmp_path / 'file'}", words=_serve(tmp_path / "file"))
