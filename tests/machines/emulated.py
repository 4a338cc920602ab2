# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest for emulated processors: ``pytest -p tests.machines.emulated --hypothesis-profile=emulated``.

Property tests draw fewer examples, for each takes thirty times as long, and none is called too slow; a test that names
its own number keeps it. What runs this computer's own second environment is left out. A program that cannot be started
is noticed: the emulator makes vfork a fork, so what ``posix_spawn`` writes into the memory of its parent is lost, and
Python's own way to start a program tells it through a pipe.
"""

import subprocess

import hypothesis
import pytest

subprocess._USE_POSIX_SPAWN = False  # type: ignore[misc]  # documented in "Disabling use of posix_spawn()"
hypothesis.settings.register_profile(
    "emulated", deadline=None, max_examples=5, derandomize=True, suppress_health_check=[*hypothesis.HealthCheck]
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs ``.venv-tflite``: it is of this computer."""
    left_out = [
        item for item in items if "legacy" in getattr(item, "fixturenames", ()) or "[tflite-runtime]" in item.name
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
