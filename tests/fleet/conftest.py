# SPDX-License-Identifier: Apache-2.0
"""One real fleet server for the tests that only add to it; others start their own."""

import shutil

import pytest

from benchmarks.fleet import postgres as pg
from fleet.adapters.stores import open_store as open_any
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


@pytest.fixture(scope="session")
def postgres():
    """One PostgreSQL server for all tests; ``url()`` makes a new database."""
    if pg.find("initdb") is None:
        pytest.skip(f"no PostgreSQL: {pg.INSTALL}")
    pytest.importorskip("psycopg", reason="pip install 'strop[postgres]'")
    made = pg.Postgres()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    """A function from a folder to the URL of its database: empty for SQLite in the folder."""
    urls = {}

    server = request.getfixturevalue("postgres") if request.param == "postgres" else None

    def url_of(folder):
        if server is not None and folder not in urls:
            urls[folder] = server.url()
        return urls.get(folder, "")

    yield url_of
    for url in urls.values():
        server.give_back(url)


@pytest.fixture
def open_store(database):
    """A function that opens the store of a folder, the same one again; all are closed afterwards."""
    made = []

    def opened(folder, **more):
        made.append(open_any(folder, database(folder), **more))
        return made[-1]

    yield opened
    for store in made:
        store.close()
