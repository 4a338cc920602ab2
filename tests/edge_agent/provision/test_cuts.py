# SPDX-License-Identifier: Apache-2.0
"""SIGKILL in the middle of a first boot, at each step and at durable operations, then a start that ends it."""

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.provision import environment, plan
from edge_agent.provision.steps import STEPS
from edge_contract.manifest import MANIFEST_NAME, Manifest
from tests.edge_agent.crash import shim

LONG = int(os.environ.get("STROP_FIRST_BOOT_KILLS", "100"))


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    if shim.GCC is None:
        pytest.skip("apt-get install gcc")
    return shim.build(tmp_path_factory.mktemp("shim"))


def cut(board, *how: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tests.edge_agent.provision.cut", *how, "--", *board.words()[3:]]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env, timeout=200)


def check(board) -> None:
    """Hold what is on the disk against the plan."""
    found = plan.read(board.boot)
    assert set(board.journal["done"]) == set(STEPS)
    assert environment.is_made_of(board.root / "opt/strop", found.wheels)
    assert not list((board.root / "opt").glob(".strop*"))
    model = board.data / "models/compass"
    for pointer in ("active", "factory"):
        slot = model / pointer
        manifest = Manifest.from_bytes((slot / MANIFEST_NAME).read_bytes())
        assert manifest.bundle_id == found.factory == slot.resolve().name
        for entry in manifest.files:
            assert hashlib.sha256((slot / entry.path).read_bytes()).hexdigest() == entry.sha256
    assert (board.data / "agent.toml").read_text().startswith("# The Strop agent")
    wants = board.root / "etc/systemd/system/multi-user.target.wants/strop-agent.service"
    assert str(wants.readlink()) == "/etc/systemd/system/strop-agent.service"


@pytest.mark.parametrize(
    "steps",
    [("software", "services"), pytest.param(tuple(STEPS), marks=pytest.mark.crash_long)],
    ids=["some", "all"],
)
def test_a_kill_after_a_step_costs_that_step_alone(boards, steps):
    board = boards()
    for step in steps:
        assert cut(board, "step", step).returncode == -signal.SIGKILL, step
        assert step not in (board.journal["done"] if (board.memory / "journal.json").exists() else {})
    assert board.first_boot().returncode == 0
    check(board)


def kills(board, library, numbers) -> None:
    env = shim.environment(library)
    for number in numbers:
        assert cut(board, "operation", str(board.root), str(number), env=env).returncode in (0, -signal.SIGKILL)
    done = cut(board, "operation", str(board.root), "0", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    check(board)


@pytest.mark.crash_long
def test_kills_at_durable_operations_end_well(boards, library):
    kills(boards(), library, (7, 400, 60, 3, 5, 1))


@pytest.mark.crash_long
@pytest.mark.timeout(3600)
def test_many_kills_at_durable_operations_end_well(boards, library):
    draw = random.Random(1)
    for life in range(LONG // 4):
        kills(boards(f"board{life}"), library, [int(draw.expovariate(1 / 300)) + 1 for _ in range(4)])
