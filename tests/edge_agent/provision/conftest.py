# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fleet.flash import payload
from tests.edge_agent.provision import card
from tests.edge_agent.runner import bundles, tiny


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return card.house(tmp_path_factory.mktemp("wheelhouse"))


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle; do not change it."""
    return bundles.build(tmp_path_factory.mktemp("factory") / "v1")


@pytest.fixture
def boards(tmp_path: Path, wheelhouse: Path, factory: Path) -> Iterator[Callable[..., card.Board]]:
    """Make boards with cards; their agents end with the test."""
    made: list[card.Board] = []

    def board(name: str = "board", **wishes: object) -> card.Board:
        found = card.Board(tmp_path / name)
        settings = {"device": "pi-01", "wheelhouse": wheelhouse, "factory": factory, **wishes}
        card.write(found.boot, payload.build(payload.Settings(**settings)))  # type: ignore[arg-type]
        made.append(found)
        return found

    yield board
    for one in made:
        one.stop_agent()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay file."""
    path = tmp_path_factory.mktemp("frames") / "images.npy"
    np.save(path, tiny.images(100, seed=3))
    return path
