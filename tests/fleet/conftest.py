# SPDX-License-Identifier: Apache-2.0
"""One real fleet server for the tests that only add to it; others start their own."""

import shutil

import pytest

from tests.support.fleet_bundle import Matcher, profile_of, write_bundle
from tests.support.fleet_server import FleetProcess


@pytest.fixture(scope="session")
def matcher():
    return Matcher()


@pytest.fixture(scope="session")
def profile(matcher):
    return profile_of(matcher)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory, profile):
    """Version → (folder, bundle id)."""
    root = tmp_path_factory.mktemp("bundles")
    return {v: (root / v, write_bundle(root / v, v, profile)) for v in ("1.0.0", "1.1.0", "1.2.0")}


@pytest.fixture
def new_server(tmp_path):
    """A function that starts a server; all of them are stopped afterwards."""
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    made = []

    def start(name="server", *words):
        made.append(FleetProcess(tmp_path / name, tmp_path / f"{name}-keys"))
        return made[-1].start(*words)

    yield start
    for server in made:
        server.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, bundles):
    """A server with a trust root and three registered versions."""
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("fleet")
    made = FleetProcess(folder / "server", folder / "keys").start()
    try:
        made.trust()
        for bundle, _ in bundles.values():
            made.register(bundle)
        yield made
    finally:
        made.close()


@pytest.fixture
def devices(server, tmp_path):
    """A function that enrols and connects devices with names of their own."""
    made = []

    def enrol(*names):
        made.extend(server.device(tmp_path / name, name).connect() for name in names)
        return made[-len(names) :]

    yield enrol
    for device in made:
        device.close()
        server.send("DELETE", f"/api/v1/devices/{device.name}")
