# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.edge_agent.runner import bundles, tiny
from tests.support.agent_process import AgentProcess, Broker, Peer, configure, install


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle with a reference profile; do not change it."""
    return bundles.build(tmp_path_factory.mktemp("agent") / "v1", profile=True)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay file."""
    path = tmp_path_factory.mktemp("agent") / "images.npy"
    np.save(path, tiny.images(100, seed=3))
    return path


class Bench:
    """Everything that one test starts; all of it ends with the test."""

    def __init__(self, folder: Path, bundle: Path, images: Path) -> None:
        self.broker = Broker(folder)
        self.data = folder / "data"
        self.images = images
        self.bundle = install(self.data, bundle)
        self._agents: list[AgentProcess] = []
        self._peers: list[Peer] = []

    def configure(self, **settings: object) -> None:
        configure(self.data, self.broker.port, self.images, **settings)

    def agent(self, *options: str) -> AgentProcess:
        self._agents.append(AgentProcess(self.data, *options))
        return self._agents[-1]

    def peer(self) -> Peer:
        self._peers.append(Peer(self.broker.port))
        return self._peers[-1]

    def close(self) -> None:
        for peer in self._peers:
            peer.close()
        for agent in self._agents:
            if agent.child.poll() is None:
                agent.kill()
        self.broker.kill()


@pytest.fixture
def bench(tmp_path: Path, built: Path, images: Path) -> Iterator[Bench]:
    found = Bench(tmp_path, built, images)
    found.configure()
    yield found
    found.close()
