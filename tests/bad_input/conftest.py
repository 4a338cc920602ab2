# SPDX-License-Identifier: Apache-2.0
"""Bad input as a person gives it: the real command line, and one real fleet server that all these tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.adapters.enrol import enrol
from tests.bad_input.refusals import Strop, Within, changed_files, database
from tests.edge_agent.runner import bundles
from tests.support.fleet_server import FleetProcess


class Shared(FleetProcess):
    """The server, with its keys, one registered bundle and two enrolled devices; ``state`` is all that it keeps."""

    bundle: Path
    devices: Path

    @property
    def targets(self) -> Path:
        return self.keys / "targets.json"

    def state(self) -> dict[str, object]:
        """Return every row of the database, and every file below the data folder but the database's own and logs.

        That somebody was turned away stands in the audit log: those entries are no change.
        """
        files = changed_files(
            self.data, without=("fleet.db", "fleet.db-wal", "fleet.db-shm", "server.log", "broker.log")
        )
        rows = [row for row in database(self.data / "fleet.db") if "token.denied" not in row]
        return {"rows": rows, "files": files}

    def words(self) -> tuple[str, str]:
        return "--data", str(self.data)


@pytest.fixture
def strop(tmp_path: Path) -> Strop:
    """Runs ``strop`` in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Strop(folder)


@pytest.fixture
def within(strop: Strop) -> Within:
    """The same, in this process: a start of Python for each row of a table would cost a minute."""
    return Within(strop.folder)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A running server: change nothing in it that another test could see."""
    folder = tmp_path_factory.mktemp("bad-input")
    server = Shared(folder / "server", folder / "keys").start()
    try:
        server.trust()
        server.bundle = bundles.build(folder / "bundle-1")
        server.register(server.bundle)
        server.devices = folder / "devices"
        for name in ("pi-01", "pi-02"):
            enrol(server.devices / name, server.endpoints["enrol"], server.call("POST", "/tokens")["token"], name)
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def foreign_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys and the CA of somebody else's fleet: ``keys/``, ``ca/`` and an enrolled device's ``identity/``."""
    from tests.trust.conftest import Fleet

    folder = tmp_path_factory.mktemp("foreign")
    other = Fleet(folder / "server", folder / "keys")
    try:
        enrol(folder / "device", other.enrol_url, other.new_token(), "pi-01")
    finally:
        other.close()
    return folder
